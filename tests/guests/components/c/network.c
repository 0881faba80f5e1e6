/* A component that speaks wasi:sockets: what it is told to do is on its command line.
 *
 * ADDRESS is tcp:HOST:PORT, udp:HOST:PORT, listen:tcp:HOST:PORT or name:NAME, HOST an address
 * (IPv6 in brackets, with hexadecimal groups and one ::).
 *
 *   try ADDRESS...            each in turn; a line each: what it was, and "ok" or an error code
 *   ask ADDRESS TEXT          connects or sends, prints the answer
 *   serve ADDRESS COUNT       listens, answers COUNT connections or datagrams in upper case
 *   flood ADDRESS COUNT       COUNT connections: sends a byte, waits for one
 *   pump ADDRESS BYTES        sends that many bytes over one connection
 *   drain ADDRESS             receives over one connection until its end
 *   time COMMAND...           one of the above, and how long it took: a last line "ns NUMBER"
 *   cgi                       a CGI program: its path is one of those in `pages`, its query an ADDRESS
 */
#include <time.h>

#include "sockets.h"

enum kind { TO_TCP, TO_UDP, LISTEN_TCP, LISTEN_UDP, NAME };

struct target {
  enum kind kind;
  const char *host; /* of a name */
  struct address address;
  int32_t flat[12];
};

static void fail(const char *what) {
  fprintf(stderr, "usage: %s\n", what);
  exit(64);
}

static void flatten(struct target *t) {
  const struct address *a = &t->address;
  memset(t->flat, 0, sizeof t->flat);
  t->flat[0] = a->is_v6;
  if (a->is_v6) {
    t->flat[1] = a->v6.port, t->flat[2] = (int32_t)a->v6.flow, t->flat[11] = (int32_t)a->v6.scope;
    for (int i = 0; i < 8; i++) t->flat[3 + i] = a->v6.groups[i];
  } else {
    t->flat[1] = a->v4.port;
    for (int i = 0; i < 4; i++) t->flat[2 + i] = a->v4.octets[i];
  }
}

static void parse_groups(const char *text, u16 groups[8]) {
  u16 after[8];
  int before = 0, behind = 0, gap = 0;
  while (*text != ']') {
    if (strncmp(text, "::", 2) == 0) {
      gap = 1, text += 2;
      continue;
    }
    if (*text == ':') text++;
    char *end;
    u16 group = (u16)strtoul(text, &end, 16);
    if (end == text || before + behind == 8) fail(text);
    text = end;
    if (gap)
      after[behind++] = group;
    else
      groups[before++] = group;
  }
  for (int i = before; i < 8; i++) groups[i] = 0;
  for (int i = 0; i < behind; i++) groups[8 - behind + i] = after[i];
}

static int starts(const char **text, const char *with) {
  size_t n = strlen(with);
  if (strncmp(*text, with, n)) return 0;
  *text += n;
  return 1;
}

static struct target parse(const char *text) {
  const char *whole = text;
  struct target t = {0};
  if (starts(&text, "name:")) {
    t.kind = NAME, t.host = text;
    return t;
  }
  int listens = starts(&text, "listen:");
  if (starts(&text, "tcp:"))
    t.kind = listens ? LISTEN_TCP : TO_TCP;
  else if (starts(&text, "udp:"))
    t.kind = listens ? LISTEN_UDP : TO_UDP;
  else
    fail(whole);
  const char *port = strrchr(text, ':');
  if (!port) fail(whole);
  if (*text == '[') {
    t.address.is_v6 = 1, t.address.v6.port = (u16)atoi(port + 1);
    parse_groups(text + 1, t.address.v6.groups);
  } else {
    t.address.v4.port = (u16)atoi(port + 1);
    u8 *o = t.address.v4.octets;
    if (sscanf(text, "%hhu.%hhu.%hhu.%hhu", &o[0], &o[1], &o[2], &o[3]) != 4) fail(whole);
  }
  flatten(&t);
  return t;
}

static void print_address(const struct address *a) {
  if (!a->is_v6) {
    const u8 *o = a->v4.octets;
    printf("%u.%u.%u.%u:%u", o[0], o[1], o[2], o[3], a->v4.port);
    return;
  }
  for (int i = 0; i < 8; i++) printf("%s%x", i ? ":" : "[", a->v6.groups[i]);
  printf("]:%u", a->v6.port);
}

/* --- TCP --- */

struct connection {
  handle socket, in, out;
};

static void hang_up(struct connection *c) {
  input_drop(c->in), output_drop(c->out), tcp_drop(c->socket);
}

/* Connects: 0, or 1 + an error code. */
static int tcp_connect(const struct target *t, struct connection *c) {
  static handle net;
  struct handles made;
  struct done done;
  if (!net) net = network();
  tcp_create(t->address.is_v6, &made);
  if (made.failed) return 1 + made.code;
  c->socket = made.h[0];
  tcp_start_connect(c->socket, net, FLAT(t->flat), &done);
  if (done.failed) {
    tcp_drop(c->socket);
    return 1 + done.code;
  }
  for (;;) {
    tcp_finish_connect(c->socket, &made);
    if (!made.failed) break;
    if (made.code != WOULD_BLOCK) {
      tcp_drop(c->socket);
      return 1 + made.code;
    }
    wait_for(tcp_subscribe(c->socket));
  }
  c->in = made.h[0], c->out = made.h[1];
  return 0;
}

static int tcp_listen(const struct target *t, handle *socket) {
  struct handles made;
  struct done done;
  tcp_create(t->address.is_v6, &made);
  if (made.failed) return 1 + made.code;
  *socket = made.h[0];
  tcp_start_bind(*socket, network(), FLAT(t->flat), &done);
  if (!done.failed) tcp_finish_bind(*socket, &done);
  if (!done.failed) tcp_start_listen(*socket, &done);
  if (!done.failed) tcp_finish_listen(*socket, &done);
  if (done.failed) tcp_drop(*socket);
  return done.failed ? 1 + done.code : 0;
}

/* Receives something: 0 at the end. */
static uint32_t receive(const struct connection *c, u8 *buffer, uint32_t size) {
  struct listed got;
  stream_read(c->in, size, &got);
  if (got.failed) {
    if (!got.stream.closed) error_drop(got.stream.error);
    return 0;
  }
  memcpy(buffer, got.data, got.length);
  if (got.length) free(got.data);
  return got.length;
}

static int send_all(const struct connection *c, const u8 *data, uint32_t length) {
  struct listed sent;
  while (length) {
    uint32_t part = length < 4096 ? length : 4096; /* the interface's limit */
    stream_write_and_flush(c->out, data, part, &sent);
    if (sent.failed) {
      if (!sent.stream.closed) error_drop(sent.stream.error);
      return 0;
    }
    data += part, length -= part;
  }
  return 1;
}

/* --- UDP --- */

struct datagrams {
  handle socket, in, out;
};

/* A socket for datagrams: bound to `from`, then with no or one peer. */
static int udp_open(const struct target *from, const struct target *peer, struct datagrams *d) {
  static const int32_t nobody[12];
  struct handles made;
  struct done done;
  udp_create(from->address.is_v6, &made);
  if (made.failed) return 1 + made.code;
  d->socket = made.h[0];
  udp_start_bind(d->socket, network(), FLAT(from->flat), &done);
  if (!done.failed) udp_finish_bind(d->socket, &done);
  if (done.failed) {
    udp_drop(d->socket);
    return 1 + done.code;
  }
  const int32_t *flat = peer ? peer->flat : nobody;
  udp_stream(d->socket, peer != NULL, FLAT(flat), &made);
  if (made.failed) {
    udp_drop(d->socket);
    return 1 + made.code;
  }
  d->in = made.h[0], d->out = made.h[1];
  return 0;
}

static void udp_close(struct datagrams *d) {
  udp_in_drop(d->in), udp_out_drop(d->out), udp_drop(d->socket);
}

static int udp_say(const struct datagrams *d, const struct address *to, const void *data,
                   uint32_t length) {
  struct counted sent;
  struct outgoing one = {data, length, to != NULL, {0}};
  if (to) one.to = *to;
  udp_check(d->out, &sent);
  if (!sent.failed) udp_send(d->out, &one, 1, &sent);
  return sent.failed ? 1 + sent.code : 0;
}

/* Waits for one datagram, whose data the caller frees. */
static struct incoming udp_hear(const struct datagrams *d) {
  struct listed got;
  for (;;) {
    udp_receive(d->in, 1, &got);
    if (got.failed) {
      printf("receive: %s\n", ERROR_CODES[got.code]);
      exit(1);
    }
    if (got.length) break;
    wait_for(udp_in_subscribe(d->in));
  }
  struct incoming one = *(struct incoming *)got.data;
  free(got.data);
  return one;
}

/* The unspecified address of the peer's family. */
static struct target anywhere(const struct target *peer) {
  struct target t = {0};
  t.address.is_v6 = peer->address.is_v6;
  flatten(&t);
  return t;
}

/* --- names --- */

static int look_up(const char *name, int print) {
  struct handles made;
  struct looked_up next;
  resolve(network(), name, (uint32_t)strlen(name), &made);
  if (made.failed) return 1 + made.code;
  for (;;) {
    resolve_next(made.h[0], &next);
    if (next.failed && next.code == WOULD_BLOCK) {
      wait_for(resolve_subscribe(made.h[0]));
      continue;
    }
    if (next.failed || !next.some) break;
    struct address a = {.is_v6 = next.address.is_v6};
    if (a.is_v6)
      memcpy(a.v6.groups, next.address.groups, sizeof a.v6.groups);
    else
      memcpy(a.v4.octets, next.address.octets, sizeof a.v4.octets);
    if (print) {
      putchar(' ');
      print_address(&a);
    }
  }
  resolve_drop(made.h[0]);
  return next.failed ? 1 + next.code : 0;
}

/* --- commands --- */

static int attempt(const struct target *t) {
  struct connection c;
  struct datagrams d;
  handle listener;
  int error = 0;
  if (t->kind == NAME) return look_up(t->host, 1);
  if (t->kind == TO_TCP) {
    if ((error = tcp_connect(t, &c)) == 0) hang_up(&c);
  } else if (t->kind == LISTEN_TCP) {
    if ((error = tcp_listen(t, &listener)) == 0) tcp_drop(listener);
  } else if (t->kind == LISTEN_UDP) {
    if ((error = udp_open(t, NULL, &d)) == 0) udp_close(&d);
  } else {
    struct target from = anywhere(t);
    if ((error = udp_open(&from, NULL, &d)) == 0) {
      error = udp_say(&d, &t->address, "try", 3);
      udp_close(&d);
    }
  }
  return error;
}

static void cmd_try(int argc, char **argv) {
  for (int i = 2; i < argc; i++) {
    struct target t = parse(argv[i]);
    printf("%s", argv[i]);
    int error = attempt(&t);
    printf(" %s\n", error ? ERROR_CODES[error - 1] : "ok");
    fflush(stdout);
  }
}

static void stop_on(int error) {
  if (!error) return;
  printf("%s\n", ERROR_CODES[error - 1]);
  exit(1);
}

static void cmd_ask(int argc, char **argv) {
  struct target t = parse(argv[2]);
  const char *text = argv[3];
  if (t.kind == TO_UDP) {
    struct datagrams d;
    struct target from = anywhere(&t);
    stop_on(udp_open(&from, &t, &d));
    stop_on(udp_say(&d, NULL, text, (uint32_t)strlen(text)));
    struct incoming got = udp_hear(&d);
    printf("%.*s from ", (int)got.length, got.data);
    print_address(&got.from);
    putchar('\n');
    udp_close(&d);
    return;
  }
  struct connection c;
  struct done done;
  u8 buffer[4096];
  stop_on(tcp_connect(&t, &c));
  struct whereabouts at;
  tcp_remote(c.socket, &at);
  if (!at.failed) {
    printf("connected to ");
    print_address(&at.address);
    putchar('\n');
  }
  if (!send_all(&c, (const u8 *)text, (uint32_t)strlen(text))) puts("cannot send");
  tcp_shutdown(c.socket, 1, &done);
  for (uint32_t n; (n = receive(&c, buffer, sizeof buffer));) fwrite(buffer, 1, n, stdout);
  putchar('\n');
  hang_up(&c);
}

static void upper(u8 *data, uint32_t length) {
  for (uint32_t i = 0; i < length; i++)
    if (data[i] >= 'a' && data[i] <= 'z') data[i] -= 32;
}

static void announce(const struct whereabouts *at) {
  printf("listening ");
  print_address(&at->address);
  putchar('\n');
  fflush(stdout);
}

static void serve_datagrams(const struct target *t, int count) {
  struct datagrams d;
  struct whereabouts at;
  stop_on(udp_open(t, NULL, &d));
  udp_local(d.socket, &at);
  announce(&at);
  while (count--) {
    struct incoming got = udp_hear(&d);
    upper(got.data, got.length);
    int error = udp_say(&d, &got.from, got.data, got.length);
    printf("%.*s %s\n", (int)got.length, got.data, error ? ERROR_CODES[error - 1] : "ok");
    free(got.data);
  }
  udp_close(&d);
}

static void cmd_serve(int argc, char **argv) {
  struct target t = parse(argv[2]);
  int count = atoi(argv[3]);
  if (t.kind == LISTEN_UDP) {
    serve_datagrams(&t, count);
    return;
  }
  handle listener;
  struct whereabouts at;
  stop_on(tcp_listen(&t, &listener));
  tcp_local(listener, &at);
  announce(&at);
  while (count--) {
    struct handles made;
    u8 buffer[4096];
    for (;;) {
      tcp_accept(listener, &made);
      if (!made.failed) break;
      if (made.code != WOULD_BLOCK) stop_on(1 + made.code);
      wait_for(tcp_subscribe(listener));
    }
    struct connection c = {made.h[0], made.h[1], made.h[2]};
    for (uint32_t n; (n = receive(&c, buffer, sizeof buffer));) {
      upper(buffer, n);
      if (!send_all(&c, buffer, n)) break;
    }
    hang_up(&c);
  }
  tcp_drop(listener);
}

static void cmd_flood(int argc, char **argv) {
  struct target t = parse(argv[2]);
  struct connection c;
  u8 byte = 'x';
  for (int left = atoi(argv[3]); left > 0; left--) {
    stop_on(tcp_connect(&t, &c));
    if (!send_all(&c, &byte, 1) || receive(&c, &byte, 1) != 1) stop_on(16);
    hang_up(&c);
  }
  puts("done");
}

static void cmd_pump(int argc, char **argv) {
  static u8 data[65536];
  struct target t = parse(argv[2]);
  struct connection c;
  stop_on(tcp_connect(&t, &c));
  for (uint64_t left = strtoull(argv[3], NULL, 10); left;) {
    struct counted room;
    struct listed sent;
    stream_check(c.out, &room);
    if (room.failed) stop_on(1);
    if (!room.count) {
      wait_for(stream_subscribe(c.out));
      continue;
    }
    uint64_t part = left < sizeof data ? left : sizeof data;
    if (part > room.count) part = room.count;
    stream_write(c.out, data, (uint32_t)part, &sent);
    if (sent.failed) stop_on(1);
    left -= part;
  }
  struct done done;
  tcp_shutdown(c.socket, 1, &done);
  while (receive(&c, data, sizeof data)) {
  }
  hang_up(&c);
  puts("done");
}

static void cmd_drain(int argc, char **argv) {
  static u8 data[65536];
  struct target t = parse(argv[2]);
  struct connection c;
  uint64_t total = 0;
  stop_on(tcp_connect(&t, &c));
  for (uint32_t n; (n = receive(&c, data, sizeof data));) total += n;
  hang_up(&c);
  printf("%llu\n", (unsigned long long)total);
}

/* --- as a CGI program --- */

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static void begin_page(void) {
  puts("Content-Type: text/plain\n");
  fflush(stdout);
}

static void page_echo(const char *query) {
  u8 data[4096];
  begin_page();
  printf("%s %s %s %s\n", variable("REQUEST_METHOD"), query, variable("CONTENT_LENGTH"),
         variable("GREETING"));
  for (size_t n; (n = fread(data, 1, sizeof data, stdin)) > 0;) {
    upper(data, (uint32_t)n);
    fwrite(data, 1, n, stdout);
  }
}

static void page_ask(const char *query) {
  static char text[4096];
  char *words[] = {NULL, NULL, (char *)query, text};
  fread(text, 1, sizeof text - 1, stdin);
  begin_page();
  cmd_ask(4, words);
}

static void page_try(const char *query) {
  char *words[] = {NULL, NULL, (char *)query};
  begin_page();
  cmd_try(3, words);
}

static void page_drain(const char *query) {
  char *words[] = {NULL, NULL, (char *)query};
  begin_page();
  cmd_drain(3, words);
}

static void page_trap(const char *query) {
  fprintf(stderr, "trapping %s\n", query);
  if (strcmp(query, "late") == 0) {
    begin_page();
    puts("half of it");
    fflush(stdout);
  }
  __builtin_trap();
}

static void cmd_cgi(int argc, char **argv) {
  static const struct {
    const char *path;
    void (*write)(const char *query);
  } pages[] = {{"/echo", page_echo}, {"/ask", page_ask}, {"/try", page_try},
               {"/drain", page_drain}, {"/trap", page_trap}};
  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
    if (strcmp(variable("PATH_INFO"), pages[i].path) == 0) {
      pages[i].write(variable("QUERY_STRING"));
      return;
    }
  puts("Status: 404\n");
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv) {
  int timed = argc > 1 && strcmp(argv[1], "time") == 0;
  argc -= timed, argv += timed;
  static const struct {
    const char *name;
    int arguments;
    void (*run)(int, char **);
  } commands[] = {{"try", 1, cmd_try},     {"ask", 2, cmd_ask},   {"serve", 2, cmd_serve},
                  {"flood", 2, cmd_flood}, {"pump", 2, cmd_pump}, {"drain", 1, cmd_drain},
                  {"cgi", 0, cmd_cgi}};
  for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
    if (strcmp(argv[1], commands[i].name) == 0 && argc >= 2 + commands[i].arguments) {
      uint64_t start = now();
      commands[i].run(argc, argv);
      if (timed) printf("ns %llu\n", (unsigned long long)(now() - start));
      return 0;
    }
  fail("try, ask, serve, flood, pump, drain or cgi");
}
