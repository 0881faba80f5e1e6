/* File calls, timed from inside: the same source runs natively and as a guest of either host.
 *
 * files COUNT works in the current directory and prints "name microseconds-per-call" lines.  The
 * file's pages are there before they are written or read, so that the call is measured and not the
 * page cache filling up. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static char block[BLOCK];

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void check(int good, const char *what) {
  if (good)
    return;
  perror(what);
  exit(1);
}

static void report(const char *name, double start, int count) {
  printf("%s %.5f\n", name, (now_us() - start) / count);
}

static void fill(int fd, int count) {
  for (int i = 0; i < count; i++)
    check(write(fd, block, BLOCK) == BLOCK, "fill");
}

static void rewind_to_start(int fd) { check(lseek(fd, 0, SEEK_SET) == 0, "lseek"); }

static void time_write_and_read(int count) {
  int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0644);
  check(fd >= 0, "open");
  fill(fd, count);

  rewind_to_start(fd);
  double start = now_us();
  for (int i = 0; i < count; i++)
    check(write(fd, block, BLOCK) == BLOCK, "write");
  report("write", start, count);

  rewind_to_start(fd);
  start = now_us();
  for (int i = 0; i < count; i++)
    check(read(fd, block, BLOCK) == BLOCK, "read");
  report("read", start, count);
  close(fd);
}

static void time_create(int count) {
  char name[32];
  double start = now_us();
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "new%d", i);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    check(fd >= 0, "create");
    check(write(fd, block, BLOCK) == BLOCK, "write");
    check(close(fd) == 0, "close");
  }
  report("create", start, count);
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "new%d", i);
    check(unlink(name) == 0, "unlink");
  }
}

static void time_stat(int count) {
  struct stat st;
  double start = now_us();
  for (int i = 0; i < count; i++)
    check(stat("data", &st) == 0 && st.st_size > 0, "stat");
  report("stat", start, count);
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1000;
  memset(block, 'x', BLOCK);
  time_write_and_read(count);
  time_create(count / 4 + 1);
  time_stat(count);
  unlink("data");
  return 0;
}
