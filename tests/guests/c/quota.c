/* Runs into one quota, and says what it was told. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Grows the memory page by page up to `pages` more; then proves that what it got is real. */
static int memory(long pages) {
  long before = (long)__builtin_wasm_memory_size(0), got = 0;
  while (got < pages && __builtin_wasm_memory_grow(0, 1) != (size_t)-1) got++;
  char *start = (char *)(before * 65536);
  for (long i = 0; i < got; i++) start[i * 65536] = 1;
  printf("before %ld got %ld now %ld\n", before, got, (long)__builtin_wasm_memory_size(0));
  return 0;
}

/* Opens `name` until it is refused; then closes one and tries again. */
static int files(const char *name) {
  int opened = 0, fd, last = -1;
  while (opened < 5000 && (fd = open(name, O_RDONLY)) >= 0) opened++, last = fd;
  printf("opened %d last %d errno %s\n", opened, last, strerror(errno));
  close(last);
  printf("again %s\n", open(name, O_RDONLY) >= 0 ? "yes" : "no");
  return 0;
}

/* Writes `total` bytes into `name`. */
static int size(const char *name, long total) {
  static char buf[4096];
  int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0666);
  if (fd < 0) return 1;
  for (long done = 0; done < total;) {
    ssize_t n = write(fd, buf, sizeof buf);
    if (n < 0) {
      printf("after %ld errno %s\n", done, strerror(errno));
      return 1;
    }
    done += n;
  }
  puts("written");
  return 0;
}

/* Grows `name` without writing. */
static int extend(const char *name, long total) {
  int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0666);
  printf("%d %s\n", ftruncate(fd, total), strerror(errno));
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 3) return 64;
  if (!strcmp(argv[1], "memory")) return memory(atol(argv[2]));
  if (!strcmp(argv[1], "files")) return files(argv[2]);
  if (!strcmp(argv[1], "size")) return size(argv[2], atol(argv[3]));
  if (!strcmp(argv[1], "extend")) return extend(argv[2], atol(argv[3]));
  return 64;
}
