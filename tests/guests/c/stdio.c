/* What a program does with its standard streams, one case a name. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
  fprintf(stderr, "%s: errno %d %s\n", what, errno, strerror(errno));
  return 1;
}

/* All of stdin to stdout. */
static int cat(void) {
  static char buf[65536];
  for (;;) {
    ssize_t n = read(0, buf, sizeof buf);
    if (n < 0) return fail("read");
    if (n == 0) return 0;
    for (ssize_t at = 0; at < n;) {
      ssize_t w = write(1, buf + at, n - at);
      if (w < 0) return fail("write");
      at += w;
    }
  }
}

/* Writes to stdout until it fails or `total` bytes are out. */
static int pour(long long total) {
  static char buf[4096];
  memset(buf, 'x', sizeof buf);
  while (total > 0) {
    size_t want = total < (long long)sizeof buf ? (size_t)total : sizeof buf;
    ssize_t n = write(1, buf, want);
    if (n < 0) return fail("write");
    total -= n;
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  long long n = argc > 2 ? atoll(argv[2]) : 0;
  if (!strcmp(what, "cat")) return cat();
  if (!strcmp(what, "pour")) return pour(n);
  if (!strcmp(what, "exit")) return (int)n;
  if (!strcmp(what, "isatty")) {
    printf("%d %d %d\n", isatty(0), isatty(1), isatty(2));
    return 0;
  }
  if (!strcmp(what, "both")) {
    write(1, "out\n", 4);
    write(2, "err\n", 4);
    return 0;
  }
  /* Says that it runs, then waits for stdin for ever. */
  if (!strcmp(what, "block")) {
    char c;
    write(1, "ready\n", 6);
    return read(0, &c, 1) == 1 ? c : 0;
  }
  if (!strcmp(what, "sleep")) {
    write(1, "ready\n", 6);
    usleep((useconds_t)n * 1000);
    return 0;
  }
  if (!strcmp(what, "spin")) {
    write(1, "ready\n", 6);
    for (volatile uint64_t i = 0;; i++) {
    }
  }
  if (!strcmp(what, "trap")) {
    write(1, "ready\n", 6);
    __builtin_trap();
  }
  return 64;
}
