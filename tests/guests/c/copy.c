/* copy FROM TO, as a C programmer writes it. */
#include <stdio.h>

int main(int argc, char **argv) {
  char buf[4096];
  size_t n;
  if (argc != 3) {
    fprintf(stderr, "usage: %s FROM TO\n", argv[0]);
    return 2;
  }
  FILE *from = fopen(argv[1], "rb");
  if (!from) {
    perror(argv[1]);
    return 1;
  }
  FILE *to = fopen(argv[2], "wb");
  if (!to) {
    perror(argv[2]);
    return 1;
  }
  while ((n = fread(buf, 1, sizeof buf, from)) > 0)
    if (fwrite(buf, 1, n, to) != n) break;
  if (ferror(from) || ferror(to) | fclose(to)) {
    perror("copy");
    return 1;
  }
  return 0;
}
