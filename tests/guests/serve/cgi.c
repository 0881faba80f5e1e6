/* A CGI program that does what the path asks for. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value == NULL ? "" : value;
}

static void put(const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(1, data, size);
    if (written < 0)
      exit(9);
    data += written;
    size -= (size_t)written;
  }
}

static void say(const char *text) { put(text, strlen(text)); }

static void doze(long milliseconds) {
  struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&wait, NULL);
}

/* Sends back what comes, piece by piece. */
static void echo(void) {
  static char piece[65536];
  ssize_t got;
  say("Content-Type: application/octet-stream\n\n");
  while ((got = read(0, piece, sizeof piece)) > 0)
    put(piece, (size_t)got);
}

static void environment(void) {
  say("Content-Type: text/plain\n\n");
  for (char **one = environ; *one != NULL; one++) {
    put(*one, strlen(*one));
    say("\n");
  }
}

/* Counts what comes, and its sum. */
static void count(void) {
  static unsigned char piece[65536];
  char text[64];
  ssize_t got;
  uint64_t total = 0, sum = 0;
  while ((got = read(0, piece, sizeof piece)) > 0) {
    total += (uint64_t)got;
    for (ssize_t at = 0; at < got; at++)
      sum += piece[at];
  }
  snprintf(text, sizeof text, "Content-Type: text/plain\n\n%llu %llu\n", (unsigned long long)total,
           (unsigned long long)sum);
  say(text);
}

/* QUERY_STRING bytes of body. */
static void large(int with_length) {
  static char piece[65536];
  char head[64];
  long left = atol(variable("QUERY_STRING"));
  memset(piece, 'x', sizeof piece);
  say("Content-Type: text/plain\n");
  snprintf(head, sizeof head, with_length ? "Content-Length: %ld\n\n" : "\n", left);
  say(head);
  while (left > 0) {
    size_t size = left < (long)sizeof piece ? (size_t)left : sizeof piece;
    put(piece, size);
    left -= (long)size;
  }
}

int main(int argc, char **argv) {
  const char *path = variable("PATH_INFO");
  const char *query = variable("QUERY_STRING");
  if (strcmp(path, "/echo") == 0)
    echo();
  else if (strcmp(path, "/env") == 0)
    environment();
  else if (strcmp(path, "/count") == 0)
    count();
  else if (strcmp(path, "/large") == 0)
    large(0);
  else if (strcmp(path, "/sized") == 0)
    large(1);
  else if (strcmp(path, "/raw") == 0) { /* stdin is the answer, head and all */
    static char piece[65536];
    ssize_t got;
    while ((got = read(0, piece, sizeof piece)) > 0)
      put(piece, (size_t)got);
  } else if (strcmp(path, "/args") == 0) {
    say("Content-Type: text/plain\n\n");
    for (int at = 1; at < argc; at++) {
      say(argv[at]);
      say("\n");
    }
  } else if (strcmp(path, "/ticks") == 0) { /* a line now, the rest much later */
    say("Content-Type: text/event-stream\n\ndata: 1\n\n");
    doze(atol(query));
    say("data: 2\n\n");
  } else if (strcmp(path, "/sleep") == 0) {
    doze(atol(query));
    say("Content-Type: text/plain\n\nslept\n");
  } else if (strcmp(path, "/spin") == 0) {
    for (volatile uint64_t at = 0;; at++)
      ;
  } else if (strcmp(path, "/trap") == 0)
    __builtin_trap();
  else if (strcmp(path, "/trap-late") == 0) {
    say("Content-Type: text/plain\n\nhalf of");
    __builtin_trap();
  } else if (strcmp(path, "/trap-sized") == 0) {
    say("Content-Type: text/plain\nContent-Length: 100\n\nhalf of");
    return 0;
  } else if (strcmp(path, "/stderr") == 0) {
    fprintf(stderr, "first line\nesc\033[31mape\n");
    for (int at = 0; at < 2000; at++)
      fprintf(stderr, "a line that is written many times, number %d\n", at);
    say("Content-Type: text/plain\n\nsaid\n");
  } else if (strcmp(path, "/write") == 0) {
    FILE *file = fopen("/data/file", "w");
    if (file == NULL)
      return 1;
    fputs("written\n", file);
    fclose(file);
    say("Content-Type: text/plain\n\nwritten\n");
  } else if (strcmp(path, "/grow") == 0) {
    size_t size = (size_t)atol(query);
    volatile char *memory = malloc(size);
    if (memory == NULL)
      abort();
    for (size_t at = 0; at < size; at += 4096)
      memory[at] = 1;
    say("Content-Type: text/plain\n\ngrown\n");
  } else if (strcmp(path, "/state") == 0) { /* a fresh worker starts from one each time */
    static int calls;
    char text[64];
    snprintf(text, sizeof text, "Content-Type: text/plain\n\n%d\n", ++calls);
    say(text);
  } else if (strcmp(path, "/exit") == 0) {
    say("Content-Type: text/plain\n\nwhole\n");
    return atoi(query);
  } else if (strcmp(path, "/silent") == 0)
    return 0;
  else
    say("Status: 404 Not Found\nContent-Type: text/plain\n\nno such page\n");
  return 0;
}
