/* Tells what it was given, and reads and writes files by name. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

extern char **environ;

static int fail(const char *path) {
  fprintf(stderr, "%s: %s\n", path, strerror(errno));
  return 1;
}

/* A file to stdout. */
static int show(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) return fail(path);
  for (int c; (c = fgetc(file)) != EOF;) putchar(c);
  return ferror(file) ? fail(path) : fclose(file);
}

/* A line into a file. */
static int write_line(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  if (!file) return fail(path);
  if (fprintf(file, "%s\n", text) < 0 || fclose(file)) return fail(path);
  return 0;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  if (!strcmp(what, "args")) {
    for (int i = 0; i < argc; i++) puts(argv[i]);
    return 0;
  }
  if (!strcmp(what, "env")) {
    for (char **e = environ; *e; e++) puts(*e);
    return 0;
  }
  if (!strcmp(what, "show") && argc > 2) return show(argv[2]);
  if (!strcmp(what, "write") && argc > 3) return write_line(argv[2], argv[3]);
  return 64;
}
