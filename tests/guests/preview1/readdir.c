/* fd_readdir: buffers of every size, cookies, truncated entries, names changing underneath. */
#include "raw.h"

enum { MANY = 300 };

static int order(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Reads from `cookie` to the end through a buffer of `size` bytes; returns the number of entries
 * and leaves their names, sorted, in `names`. */
static u32 list(u32 fd, u64 cookie, u32 size, char **names, u32 room) {
  char *buf = malloc(size);
  u32 count = 0;
  for (;;) {
    u32 used = 0, at = 0;
    u32 err = w_fd_readdir(fd, buf, size, cookie, &used);
    if (err) {
      say("readdir", err, NULL);
      break;
    }
    u32 before = count;
    while (used - at >= sizeof(struct dirent)) {
      struct dirent d;
      memcpy(&d, buf + at, sizeof d);
      if (used - at - sizeof d < d.namlen) break;
      if (count < room) {
        names[count] = malloc(d.namlen + 3);
        sprintf(names[count], "%.*s/%u", (int)d.namlen, buf + at + sizeof d, d.type);
      }
      count++;
      cookie = d.next;
      at += sizeof d + d.namlen;
    }
    if (used < size) break;
    if (count == before) {
      printf("no entry fits in %u bytes\n", size);
      break;
    }
  }
  free(buf);
  if (count <= room) qsort(names, count, sizeof *names, order);
  return count;
}

static void everything(int argc, char **argv) {
  char *names[32];
  u32 n = list(3, 0, 4096, names, 32);
  for (u32 i = 0; i < n; i++) puts(names[i]);
  u32 fd = open_at("empty", O_DIRECTORY, R(FD_READDIR_BIT), 0);
  n = list(fd, 0, 4096, names, 32);
  for (u32 i = 0; i < n; i++) puts(names[i]);
}

static u32 fill(void) {
  char name[16];
  w_path_create_directory(3, LEN("many"));
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "many/f%03d", i);
    make_file(name, "");
  }
  return open_at("many", O_DIRECTORY, R(FD_READDIR_BIT), 0);
}

static void buffers(int argc, char **argv) {
  static char *names[MANY + 8];
  u32 fd = fill();
  u32 sizes[] = {28, 29, 30, 64, 100, 1000, 4096, 65536};
  for (int i = 0; i < 8; i++) {
    u32 n = list(fd, 0, sizes[i], names, MANY + 8);
    printf("%u bytes: %u entries, first %s last %s\n", sizes[i], n, names[0], names[n - 1]);
  }
  u32 n = 99;
  char tiny[24];
  say("readdir into 0 bytes", w_fd_readdir(fd, tiny, 0, 0, &n), "%u", n);
  say("readdir into 10 bytes", w_fd_readdir(fd, tiny, 10, 0, &n), "%u", n);
}

static void cookies(int argc, char **argv) {
  static char *names[MANY + 8];
  static char buf[65536];
  u32 fd = fill(), used = 0;
  u64 cookie[MANY + 8];
  u32 count = 0;
  w_fd_readdir(fd, buf, sizeof buf, 0, &used);
  for (u32 at = 0; at + sizeof(struct dirent) <= used;) {
    struct dirent d;
    memcpy(&d, buf + at, sizeof d);
    cookie[count++] = d.next;
    at += sizeof d + d.namlen;
  }
  printf("%u entries\n", count);
  u32 wrong = 0;
  for (u32 i = 0; i < count; i++) {
    u32 left = list(fd, cookie[i], 4096, names, 0);
    wrong += left != count - i - 1;
  }
  printf("resumed wrongly: %u\n", wrong);
  for (u32 i = count; i-- > 0;) wrong += list(fd, cookie[i], 65536, names, 0) != count - i - 1;
  printf("backwards wrongly: %u\n", wrong);
}

/* Every name that stays must be seen exactly once, whatever happens to the others meanwhile. */
static void changing(int argc, char **argv) {
  static uint8_t seen[MANY];
  char buf[256], name[16];
  u32 fd = fill(), used = 0, step = 0;
  u64 cookie = 0;
  for (;;) {
    if (w_fd_readdir(fd, buf, sizeof buf, cookie, &used)) break;
    u32 at = 0, got = 0;
    while (used - at >= sizeof(struct dirent)) {
      struct dirent d;
      memcpy(&d, buf + at, sizeof d);
      if (used - at - sizeof d < d.namlen) break;
      const char *p = buf + at + sizeof d;
      if (d.namlen == 4 && p[0] == 'f') seen[(p[1] - '0') * 100 + (p[2] - '0') * 10 + p[3] - '0']++;
      cookie = d.next;
      at += sizeof d + d.namlen;
      got++;
    }
    if (used < sizeof buf || !got) break;
    for (int i = 0; i < 3 && step < MANY / 2; i++, step++) {
      snprintf(name, sizeof name, "many/f%03u", step * 2 + 1);
      w_path_unlink_file(3, LEN(name));
      snprintf(name, sizeof name, "many/n%03u", step);
      make_file(name, "");
    }
  }
  u32 wrong = 0;
  for (u32 i = 0; i < MANY; i++) wrong += i % 2 == 0 ? seen[i] != 1 : seen[i] > 1;
  printf("seen wrongly: %u\n", wrong);
}

static void raw_names(int argc, char **argv) {
  char buf[4096];
  u32 used = 0;
  u32 err = w_fd_readdir(3, buf, sizeof buf, 0, &used);
  if (say("readdir", err, NULL)) return;
  for (u32 at = 0; at + sizeof(struct dirent) <= used;) {
    struct dirent d;
    struct filestat st;
    u32 fd;
    memcpy(&d, buf + at, sizeof d);
    const char *p = buf + at + sizeof d;
    at += sizeof d + d.namlen;
    if (p[0] == '.') continue;
    for (u32 i = 0; i < d.namlen; i++) printf("%02x", (uint8_t)p[i]);
    putchar('\n');
    say("stat", w_path_filestat_get(3, 0, p, d.namlen, &st), "size %u", (u32)st.size);
    say("open", w_path_open(3, 0, p, d.namlen, 0, READ_RIGHTS, 0, 0, &fd), NULL);
  }
  say("create", w_path_create_directory(3, "\xff\xfe", 2), NULL);
}

int main(int argc, char **argv) {
  static const struct test tests[] = {
      {"everything", everything}, {"buffers", buffers}, {"cookies", cookies},
      {"changing", changing}, {"raw-names", raw_names}, {NULL, NULL},
  };
  return run_case(tests, argc, argv);
}
