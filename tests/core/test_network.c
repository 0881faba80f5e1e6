/* The network's addresses and rules, the broker's answers to messages of every kind, and the names
 * that a worker knows.  Sockets stay on the loopback device.  */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "network/network.h"

static int failures;

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      failures++;                                                                    \
      fprintf(stderr, "%s:%d: FAILED: %s\n", __FILE__, __LINE__, #condition);        \
    }                                                                                \
  } while (0)

/* --- helpers --- */

static socklen_t make(struct sockaddr_storage *to, const char *host, uint16_t port) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  memset(to, 0, sizeof *to);
  if (inet_pton(AF_INET, host, &in.sin_addr) == 1) {
    memcpy(to, &in, sizeof in);
    return sizeof in;
  }
  if (inet_pton(AF_INET6, host, &in6.sin6_addr) != 1)
    abort();
  memcpy(to, &in6, sizeof in6);
  return sizeof in6;
}

static struct net_address address(const char *host, uint16_t port) {
  struct sockaddr_storage bytes;
  struct net_address made;
  socklen_t len = make(&bytes, host, port);
  CHECK(net_address_read(&made, (const uint8_t *)&bytes, len) == 0);
  return made;
}

static struct ws_rule rule(int allow, int actions, int protocol, const char *host, int prefix,
                           uint16_t low, uint16_t high) {
  struct net_address where = address(host, 0);
  struct ws_rule r = {.allow = (uint8_t)allow, .actions = (uint8_t)actions,
                      .protocol = (uint8_t)protocol, .family = where.family,
                      .prefix = (uint8_t)prefix, .low = low, .high = high};
  memcpy(r.address, where.bytes, sizeof r.address);
  return r;
}

static bool allows(struct net_rules rules, enum ws_action action, enum ws_protocol protocol,
                   const char *host, uint16_t port) {
  struct net_address where = address(host, port);
  return net_rules_allow(rules, action, protocol, &where);
}

#define TCP_TO(rules, host, port) allows(rules, WS_ACTION_CONNECT, WS_PROTOCOL_TCP, host, port)
#define RULES(list) ((struct net_rules){list, sizeof list / sizeof *list})

/* --- addresses --- */

static void test_reading(void) {
  struct sockaddr_storage bytes;
  struct net_address a;
  for (socklen_t len = 0; len < sizeof(struct sockaddr_in); len++) {
    make(&bytes, "127.0.0.1", 80);
    CHECK(net_address_read(&a, (const uint8_t *)&bytes, len) == -EINVAL);
  }
  for (socklen_t len = 0; len < sizeof(struct sockaddr_in6); len++) {
    make(&bytes, "::1", 80);
    CHECK(net_address_read(&a, (const uint8_t *)&bytes, len) == -EINVAL);
  }
  for (int family = 0; family < 64; family++) {
    bytes.ss_family = (sa_family_t)family;
    if (family != AF_INET && family != AF_INET6)
      CHECK(net_address_read(&a, (const uint8_t *)&bytes, sizeof bytes) == -EAFNOSUPPORT);
  }
  a = address("::ffff:192.0.2.7", 80);
  CHECK(a.family == 4 && a.mapped && a.port == 80 && memcmp(a.bytes, "\xc0\x00\x02\x07", 4) == 0);
  a = address("::192.0.2.7", 80); /* long given up (RFC 4291 2.5.5.1), and no IPv4 address here */
  CHECK(a.family == 6 && !a.mapped);
}

/* What is handed to the kernel is what was checked, for the socket that it is meant for. */
static void test_writing(void) {
  struct sockaddr_storage to;
  struct sockaddr_in6 in6;
  struct net_address four = address("192.0.2.7", 80), six = address("2001:db8::1", 80);
  struct net_address mapped = address("::ffff:192.0.2.7", 80);
  CHECK(net_address_write(&four, AF_INET, &to) == sizeof(struct sockaddr_in));
  CHECK(net_address_write(&four, AF_INET6, &to) == 0);
  CHECK(net_address_write(&six, AF_INET, &to) == 0);
  CHECK(net_address_write(&mapped, AF_INET, &to) == 0);
  CHECK(net_address_write(&mapped, AF_INET6, &to) == sizeof in6);
  memcpy(&in6, &to, sizeof in6);
  CHECK(IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) && in6.sin6_port == htons(80));
  CHECK(net_address_write(&four, AF_UNIX, &to) == 0);
}

static void test_this_host(void) {
  static const char *const hosts[][2] = {
      {"0.0.0.0", "127.0.0.1"},        {"0.1.2.3", "127.0.0.1"}, {"::ffff:0.0.0.0", "127.0.0.1"},
      {"::", "::1"},                   {"::1", "::1"},           {"127.0.0.2", "127.0.0.2"},
      {"1.0.0.0", "1.0.0.0"},          {"::2", "::2"},
  };
  for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
    struct net_address is = address(hosts[i][0], 1), wanted = address(hosts[i][1], 1);
    net_address_as_destination(&is);
    CHECK(is.family == wanted.family && memcmp(is.bytes, wanted.bytes, sizeof is.bytes) == 0);
  }
}

/* --- rules --- */

static void test_matching(void) {
  struct ws_rule list[] = {
      rule(1, WS_ACTION_CONNECT, WS_PROTOCOL_TCP, "10.1.2.3", 32, 80, 80),
      rule(0, WS_ACTION_CONNECT, 3, "10.0.0.0", 8, 0, 65535),
      rule(1, WS_ACTION_CONNECT, WS_PROTOCOL_TCP, "0.0.0.0", 0, 80, 90),
      rule(1, WS_ACTION_CONNECT, WS_PROTOCOL_UDP, "2001:db8:8000::", 33, 53, 53),
  };
  struct net_rules rules = RULES(list);
  CHECK(TCP_TO(rules, "10.1.2.3", 80) && !TCP_TO(rules, "10.1.2.3", 81));
  CHECK(!TCP_TO(rules, "10.1.2.4", 80)); /* the first that matches counts */
  CHECK(TCP_TO(rules, "11.0.0.1", 80) && TCP_TO(rules, "11.0.0.1", 90));
  CHECK(!TCP_TO(rules, "11.0.0.1", 79) && !TCP_TO(rules, "11.0.0.1", 91));
  CHECK(TCP_TO(rules, "::ffff:10.1.2.3", 80) && !TCP_TO(rules, "::ffff:10.1.2.4", 80));
  CHECK(!TCP_TO(rules, "2001:db8::1", 80)); /* IPv4's "everything" is not IPv6's */
  CHECK(allows(rules, WS_ACTION_CONNECT, WS_PROTOCOL_UDP, "2001:db8:8000::1", 53));
  CHECK(allows(rules, WS_ACTION_CONNECT, WS_PROTOCOL_UDP, "2001:db8:ffff::1", 53));
  CHECK(!allows(rules, WS_ACTION_CONNECT, WS_PROTOCOL_UDP, "2001:db8:7fff::1", 53));
  CHECK(!allows(rules, WS_ACTION_CONNECT, WS_PROTOCOL_UDP, "11.0.0.1", 80));
  CHECK(!allows(rules, WS_ACTION_LISTEN, WS_PROTOCOL_TCP, "11.0.0.1", 80));
  CHECK(!TCP_TO(((struct net_rules){list, 0}), "10.1.2.3", 80));
  CHECK(net_rules_have(rules, WS_ACTION_CONNECT, WS_PROTOCOL_UDP));
  CHECK(!net_rules_have(rules, WS_ACTION_LISTEN, WS_PROTOCOL_TCP));
}

/* Port 0 becomes any port: only who may have every port may have that one. */
static void test_any_port(void) {
  struct ws_rule part[] = {rule(1, WS_ACTION_LISTEN, 1, "127.0.0.1", 32, 1024, 65535)};
  struct ws_rule all[] = {rule(1, WS_ACTION_LISTEN, 1, "127.0.0.1", 32, 1, 65535)};
  struct ws_rule but_one[] = {rule(0, WS_ACTION_LISTEN, 1, "127.0.0.1", 32, 22, 22), all[0]};
  CHECK(!allows(RULES(part), WS_ACTION_LISTEN, WS_PROTOCOL_TCP, "127.0.0.1", 0));
  CHECK(allows(RULES(all), WS_ACTION_LISTEN, WS_PROTOCOL_TCP, "127.0.0.1", 0));
  CHECK(!allows(RULES(but_one), WS_ACTION_LISTEN, WS_PROTOCOL_TCP, "127.0.0.1", 0));
}

/* Every single bit of every prefix, against what subtraction on paper says. */
static void test_prefixes(void) {
  for (int prefix = 0; prefix <= 128; prefix++) {
    struct ws_rule one[] = {rule(1, WS_ACTION_CONNECT, 1, "2001:db8::", prefix, 1, 65535)};
    for (int bit = 0; bit < 128; bit++) {
      struct net_address a = address("2001:db8::", 80);
      a.bytes[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
      CHECK(net_rules_allow(RULES(one), WS_ACTION_CONNECT, WS_PROTOCOL_TCP, &a) == (bit >= prefix));
    }
  }
}

/* --- words --- */

static void check_text(enum ws_action action, enum ws_protocol protocol, const char *host,
                       uint16_t port, const char *wanted) {
  char text[NET_TEXT + 1];
  struct net_address a = address(host, port);
  text[net_rule_text(text, action, protocol, &a)] = 0;
  if (strcmp(text, wanted) != 0) {
    failures++;
    fprintf(stderr, "FAILED: %s is written %s, not %s\n", host, text, wanted);
  }
}

static void test_text(void) {
  check_text(WS_ACTION_CONNECT, WS_PROTOCOL_TCP, "192.0.2.1", 80, "tcp:192.0.2.1:80");
  check_text(WS_ACTION_CONNECT, WS_PROTOCOL_UDP, "2001:db8::1", 53, "udp:[2001:db8::1]:53");
  check_text(WS_ACTION_LISTEN, WS_PROTOCOL_TCP, "0.0.0.0", 8080, "listen:tcp:0.0.0.0:8080");
  check_text(WS_ACTION_LISTEN, WS_PROTOCOL_TCP, "::", 0, "listen:tcp:[::]:*");
  check_text(WS_ACTION_CONNECT, WS_PROTOCOL_TCP, "::ffff:10.0.0.1", 65535, "tcp:10.0.0.1:65535");
  check_text(WS_ACTION_CONNECT, WS_PROTOCOL_TCP, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535,
             "tcp:[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
}

/* As the C library writes them, for every pattern of zero groups.  Where that shows the last groups in
 * IPv4's form, the address is one of IPv4 in some way, and what is compared starts differently. */
static void test_text_is_the_library_s(void) {
  for (unsigned pattern = 0; pattern < 256; pattern++) {
    char host[INET6_ADDRSTRLEN], wanted[NET_TEXT + 1];
    uint8_t bytes[16] = {0};
    for (int group = 0; group < 8; group++)
      if (pattern & 1u << group)
        bytes[2 * group + 1] = (uint8_t)(group + 1);
    if (!inet_ntop(AF_INET6, bytes, host, sizeof host) || strchr(host, '.'))
      continue;
    snprintf(wanted, sizeof wanted, "tcp:[%s]:7", host);
    check_text(WS_ACTION_CONNECT, WS_PROTOCOL_TCP, host, 7, wanted);
  }
}

/* --- messages --- */

static struct ws_record record;

static size_t request(uint8_t *to, uint32_t call, const struct sockaddr_storage *where,
                      uint32_t len, const char *data) {
  struct net_request head = {.magic = NET_MAGIC, .version = NET_VERSION, .call = call,
                             .address_len = len, .domain = AF_INET, .type = SOCK_STREAM,
                             .backlog = 1};
  memcpy(to, &head, sizeof head);
  if (len)
    memcpy(to + sizeof head, where, len);
  memcpy(to + sizeof head + len, data, strlen(data));
  return sizeof head + len + strlen(data);
}

static void test_messages(void) {
  struct ws_rule none[1];
  struct broker broker = {.rules = {none, 0}, .record = &record};
  uint8_t message[1024];
  struct sockaddr_storage where;
  int made = 0;
  socklen_t len = make(&where, "127.0.0.1", 9);
  size_t size = request(message, NET_CONNECT, &where, len, "");
  for (size_t cut = 0; cut < size; cut++) {
    uint8_t *copy = malloc(cut ? cut : 1); /* a block of its own: reading too far is seen */
    memcpy(copy, message, cut);
    CHECK(broker_handle(&broker, copy, cut, -1, &made).result == -EBADMSG && made == -1);
    free(copy);
  }
  CHECK(broker_handle(&broker, message, size, -1, &made).result == -EBADF);
  CHECK(broker_handle(&broker, message, size, STDERR_FILENO, &made).result == -ENOTSOCK);
  message[0] ^= 1;
  CHECK(broker_handle(&broker, message, size, -1, &made).result == -EBADMSG);

  size = request(message, NET_SOCKET, NULL, 0, "");
  CHECK(broker_handle(&broker, message, size, -1, &made).result == 0 && made >= 0);
  int stream = made;
  size = request(message, NET_CONNECT, &where, len, "");
  CHECK(broker_handle(&broker, message, size, stream, &made).result == -EACCES && made == -1);
  for (uint32_t call = 6; call < 20; call++) {
    size = request(message, call, &where, len, "");
    CHECK(broker_handle(&broker, message, size, stream, &made).result == -ENOSYS);
  }
  size = request(message, NET_SENDTO, &where, len, "data");
  CHECK(broker_handle(&broker, message, size, stream, &made).result == -EOPNOTSUPP);
  where.ss_family = AF_UNSPEC; /* would give a stream back the choice of its address */
  size = request(message, NET_CONNECT, &where, len, "");
  CHECK(broker_handle(&broker, message, size, stream, &made).result == -EAFNOSUPPORT);
  close(stream);
  CHECK(record.denial_count == 1 && record.denials[0].kind == WS_DENIAL_NETWORK);
  CHECK(record.denials[0].path_len == 15 && !memcmp(record.denials[0].path, "tcp:127.0.0.1:9", 15));
}

/* --- names --- */

static void test_names(void) {
  static uint8_t addresses[2][WS_NAME_ADDRESS] = {{4, 0, 0, 0, 192, 0, 2, 1},
                                                  {6, 0, 0, 0, 0x20, 1, 0xd, 0xb8}};
  struct ws_name name = {{"Example.com", 11}, addresses[0], 2};
  struct ws_spec spec = {.broker = WS_SPEC_NO_FD, .resolver = WS_SPEC_NO_FD, .names = &name,
                         .name_count = 1};
  static struct ws_record noted;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
  network_prepare(&spec, &noted);
  static const char *const hosts[] = {"example.com", "EXAMPLE.COM", "example.com."};
  for (size_t i = 0; i < 3; i++) {
    CHECK(getaddrinfo(hosts[i], NULL, &hints, &list) == 0);
    CHECK(list && list->ai_family == AF_INET && list->ai_addrlen == sizeof(struct sockaddr_in));
    CHECK(list->ai_next && list->ai_next->ai_family == AF_INET6 && !list->ai_next->ai_next);
    freeaddrinfo(list);
  }
  hints.ai_family = AF_INET6;
  CHECK(getaddrinfo("example.com", "80", &hints, &list) == 0 && !list->ai_next);
  CHECK(((struct sockaddr_in6 *)list->ai_addr)->sin6_port == htons(80));
  freeaddrinfo(list);
  CHECK(getaddrinfo("192.0.2.9", NULL, NULL, &list) == 0 && list->ai_family == AF_INET);
  freeaddrinfo(list);
  CHECK(noted.denial_count == 0);
  CHECK(getaddrinfo("other.example", NULL, NULL, &list) == EAI_NONAME && !list);
  CHECK(getaddrinfo("xample.com", NULL, NULL, &list) == EAI_NONAME);
  CHECK(getaddrinfo("example.com", "http", NULL, &list) == EAI_SERVICE);
  CHECK(getaddrinfo("", NULL, NULL, &list) == EAI_NONAME);
  CHECK(noted.denial_count == 2 && noted.denials[0].kind == WS_DENIAL_NAME);
  CHECK(noted.denials[0].path_len == 13 && !memcmp(noted.denials[0].path, "other.example", 13));
}

int main(void) {
  test_reading();
  test_writing();
  test_this_host();
  test_matching();
  test_any_port();
  test_prefixes();
  test_text();
  test_text_is_the_library_s();
  test_messages();
  test_names();
  return failures ? 1 : 0;
}
