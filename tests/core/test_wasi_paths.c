/* Paths and directories of runtime/core/wasi against a real directory.
 *
 *     cc -D_GNU_SOURCE -I runtime/core tests/core/test_wasi_paths.c \
 *       runtime/core/wasi/.c... runtime/core/base/record.c
 *
 * Exits non-zero when a check failed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wasi_guest.h"

static char base[] = "/tmp/wasisup-test-XXXXXX";

static void make_file(const char *name, const char *text) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", base, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
    perror(path);
    exit(2);
  }
  close(fd);
}

static void make_link(const char *target, const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", base, name);
  if (symlink(target, path) != 0) {
    perror(path);
    exit(2);
  }
}

static bool exists(const char *name) {
  char path[512];
  struct stat st;
  snprintf(path, sizeof path, "%s/%s", base, name);
  return lstat(path, &st) == 0;
}

/* base/out is outside, base/in is the preopen. */
static void make_tree(void) {
  static const char *const dirs[] = {"", "/out", "/in", "/in/dir", "/in/dir/nested", "/in/list"};
  if (mkdtemp(base) == NULL) {
    perror(base);
    exit(2);
  }
  for (size_t i = 1; i < sizeof dirs / sizeof *dirs; i++) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", base, dirs[i]);
    if (mkdir(path, 0755) != 0) {
      perror(path);
      exit(2);
    }
  }
  make_file("out/secret", "secret");
  make_file("in/file", "contents");
  make_file("in/dir/nested/deep", "deep");
  make_link("../out", "in/escape");
  make_link("/etc", "in/absolute");
  make_link("../out/secret", "in/escape-file");
  make_link("file", "in/link");
  make_link("dir", "in/dirlink");
  make_link("nowhere", "in/dangling");
  make_link("loop", "in/loop");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

static void start(struct guest *guest, bool read_only) {
  char path[512];
  snprintf(path, sizeof path, "%s/in", base);
  struct wasi_preopen preopen = {.kind = WASI_PREOPEN_DIR,
                                 .fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                                 .read_only = read_only,
                                 .name = "/data",
                                 .name_len = 5};
  struct wasi_config config = {
      .stdio = {-1, -1, -1}, .preopens = &preopen, .preopen_count = 1};
  guest_start(guest, &config);
}

static uint32_t stat_path(struct guest *g, const char *path, uint64_t follow, uint64_t out) {
  return CALL(g, "path_filestat_get", PREOPEN, follow, PATH(g, path), out);
}

static void test_open(struct guest *g) {
  uint32_t fd, done;
  CHECK_ERRNO("open", guest_open(g, PREOPEN, "file", 0, &fd), W_SUCCESS);
  CHECK("stdio is closed: the lowest number", fd == 0);
  CHECK_ERRNO("close", CALL(g, "fd_close", fd), W_SUCCESS);
  CHECK_ERRNO("close twice", CALL(g, "fd_close", fd), W_BADF);
  CHECK_ERRNO("through a link", guest_open(g, PREOPEN, "link", 0, &fd), W_SUCCESS);
  CALL(g, "fd_close", fd);
  CHECK_ERRNO("empty path", guest_open(g, PREOPEN, "", 0, &fd), W_NOENT);
  CHECK_ERRNO("file/", guest_open(g, PREOPEN, "file/", 0, &fd), W_NOTDIR);
  CHECK_ERRNO("missing", guest_open(g, PREOPEN, "missing", 0, &fd), W_NOENT);
  CHECK_ERRNO("dangling", guest_open(g, PREOPEN, "dangling", 0, &fd), W_NOENT);
  CHECK_ERRNO("loop", guest_open(g, PREOPEN, "loop", 0, &fd), W_LOOP);
  CHECK_ERRNO("dir for writing", guest_open(g, PREOPEN, "dir", 0, &fd), W_ISDIR);
  CHECK_ERRNO("file as directory", guest_open(g, PREOPEN, "file", W_OFLAG_DIRECTORY, &fd),
              W_NOTDIR);
  CHECK_ERRNO("exclusive", guest_open(g, PREOPEN, "file", W_OFLAG_CREAT | W_OFLAG_EXCL, &fd),
              W_EXIST);
  CHECK_ERRNO("create a directory",
              guest_open(g, PREOPEN, "x", W_OFLAG_CREAT | W_OFLAG_DIRECTORY, &fd), W_INVAL);
  CHECK_ERRNO("unknown oflag", guest_open(g, PREOPEN, "file", 16, &fd), W_INVAL);
  uint64_t out = guest_room(g, 8);
  CHECK_ERRNO("not following",
              CALL(g, "path_open", PREOPEN, 0, PATH(g, "link"), 0, READ_RIGHTS, 0, 0, out), W_LOOP);
  CHECK_ERRNO("NUL inside",
              CALL(g, "path_open", PREOPEN, 0, guest_bytes(g, "fi\0le", 5), 5, 0, READ_RIGHTS, 0, 0,
                   out),
              W_INVAL);
  CHECK_ERRNO("bad out pointer",
              CALL(g, "path_open", PREOPEN, 0, PATH(g, "made"), W_OFLAG_CREAT, ALL_RIGHTS, 0, 0,
                   GUEST_MEMORY - 3),
              W_FAULT);
  CHECK("nothing was created", !exists("in/made"));
  CHECK_ERRNO("bytes that are not UTF-8", guest_open(g, PREOPEN, "\xff\xfe", W_OFLAG_CREAT, &fd),
              W_SUCCESS);
  CHECK_ERRNO("write", guest_write(g, fd, "abc", &done), W_SUCCESS);
  CHECK("written", done == 3 && exists("in/\xff\xfe"));
  CALL(g, "fd_close", fd);
}

static void test_escapes(struct guest *g) {
  static const char *const leaving[] = {
      "..",          "../out/secret",   "dir/../../out", "/etc/passwd",        "/",
      "escape",      "escape/secret",   "escape/",       "absolute/passwd",    "escape-file",
      "absolute/",   "dir/nested/../../../out/secret",   "./..",               "dirlink/../../out",
  };
  uint64_t out = guest_room(g, 64);
  uint32_t fd;
  for (size_t i = 0; i < sizeof leaving / sizeof *leaving; i++) {
    const char *path = leaving[i];
    CHECK_ERRNO(path, guest_open_with(g, PREOPEN, path, 0, READ_RIGHTS, 0, &fd), W_PERM);
    CHECK_ERRNO(path, stat_path(g, path, 1, out), W_PERM);
    CHECK(path, guest_denied(g, WS_DENIAL_ESCAPE, path));
  }
  static const char *const parents[] = {"../x", "escape/x", "absolute/x", "/x", "dir/../../x",
                                        "escape/../x/"};
  for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
    const char *path = parents[i];
    CHECK_ERRNO(path, CALL(g, "path_create_directory", PREOPEN, PATH(g, path)), W_PERM);
    CHECK_ERRNO(path, CALL(g, "path_remove_directory", PREOPEN, PATH(g, path)), W_PERM);
    CHECK_ERRNO(path, CALL(g, "path_unlink_file", PREOPEN, PATH(g, path)), W_PERM);
    CHECK_ERRNO(path, CALL(g, "path_rename", PREOPEN, PATH(g, "file"), PREOPEN, PATH(g, path)),
                W_PERM);
    CHECK_ERRNO(path, CALL(g, "path_rename", PREOPEN, PATH(g, path), PREOPEN, PATH(g, "y")),
                W_PERM);
    CHECK_ERRNO(path, CALL(g, "path_link", PREOPEN, 0, PATH(g, "file"), PREOPEN, PATH(g, path)),
                W_PERM);
    CHECK_ERRNO(path, CALL(g, "path_symlink", PATH(g, "file"), PREOPEN, PATH(g, path)), W_PERM);
  }
  CHECK_ERRNO("mkdir ..", CALL(g, "path_create_directory", PREOPEN, PATH(g, "..")), W_PERM);
  CHECK_ERRNO("rmdir dir/../..", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "dir/../..")),
              W_PERM);
  CHECK_ERRNO("rmdir dir/..", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "dir/..")),
              W_NOTEMPTY);
  CHECK_ERRNO("readlink escape/",
              CALL(g, "path_readlink", PREOPEN, PATH(g, "escape/"), out, 8, out), W_PERM);
  CHECK_ERRNO("readlink escape/x",
              CALL(g, "path_readlink", PREOPEN, PATH(g, "escape/secret"), out, 8, out), W_PERM);
  CHECK_ERRNO("link escape/",
              CALL(g, "path_link", PREOPEN, 0, PATH(g, "escape/"), PREOPEN, PATH(g, "y")), W_PERM);
  CHECK_ERRNO("times of escape", CALL(g, "path_filestat_set_times", PREOPEN, 1, PATH(g, "escape"),
                                      0, 0, W_FST_ATIM),
              W_PERM);
  CHECK_ERRNO("rmdir escape/", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "escape/")),
              W_NOTDIR);
  CHECK_ERRNO("unlink escape-file/", CALL(g, "path_unlink_file", PREOPEN, PATH(g, "escape-file/")),
              W_NOTDIR);
  CHECK_ERRNO("rename to escape/",
              CALL(g, "path_rename", PREOPEN, PATH(g, "dir"), PREOPEN, PATH(g, "escape/")),
              W_NOTDIR);
  CHECK_ERRNO("create through a link out",
              guest_open(g, PREOPEN, "escape/new", W_OFLAG_CREAT, &fd), W_PERM);
  CHECK("nothing outside", !exists("out/new") && !exists("x") && exists("out/secret"));
  CHECK_ERRNO("the link itself", stat_path(g, "escape", 0, out), W_SUCCESS);
  CHECK("is a symlink", g->memory[out + 16] == W_FILETYPE_SYMBOLIC_LINK);
}

static void test_subdirectory(struct guest *g) {
  uint32_t dir, fd;
  CHECK_ERRNO("open a directory", guest_open_with(g, PREOPEN, "dir", W_OFLAG_DIRECTORY, READ_RIGHTS,
                                                  0, &dir),
              W_SUCCESS);
  CHECK_ERRNO("below", guest_open(g, dir, "nested/deep", 0, &fd), W_SUCCESS);
  CALL(g, "fd_close", fd);
  CHECK_ERRNO("a subdirectory is a jail too", guest_open(g, dir, "../file", 0, &fd), W_PERM);
  CHECK_ERRNO("read of a directory", CALL(g, "fd_read", dir, 0, 0, 0), W_BADF);
  CHECK_ERRNO("not a preopen", CALL(g, "fd_prestat_get", dir, guest_room(g, 8)), W_BADF);
  CALL(g, "fd_close", dir);
}

static void test_names(struct guest *g) {
  uint64_t out = guest_room(g, 64);
  CHECK_ERRNO("mkdir d/", CALL(g, "path_create_directory", PREOPEN, PATH(g, "d//")), W_SUCCESS);
  CHECK_ERRNO("mkdir again", CALL(g, "path_create_directory", PREOPEN, PATH(g, "d")), W_EXIST);
  CHECK_ERRNO("mkdir .", CALL(g, "path_create_directory", PREOPEN, PATH(g, ".")), W_EXIST);
  CHECK_ERRNO("unlink a directory", CALL(g, "path_unlink_file", PREOPEN, PATH(g, "d")), W_ISDIR);
  CHECK_ERRNO("rmdir d/", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "d/")), W_SUCCESS);
  CHECK_ERRNO("rmdir a file", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "file")), W_NOTDIR);
  CHECK_ERRNO("rmdir full", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "dir")), W_NOTEMPTY);
  CHECK_ERRNO("rmdir a link", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "dirlink/")),
              W_NOTDIR);
  CHECK_ERRNO("unlink file/", CALL(g, "path_unlink_file", PREOPEN, PATH(g, "file/")), W_NOTDIR);
  CHECK_ERRNO("link", CALL(g, "path_link", PREOPEN, 0, PATH(g, "file"), PREOPEN, PATH(g, "hard")),
              W_SUCCESS);
  CHECK_ERRNO("nlink", stat_path(g, "hard", 1, out), W_SUCCESS);
  CHECK("two names", guest_u64(g, out + 24) == 2 && guest_u64(g, out + 32) == 8);
  CHECK_ERRNO("link followed",
              CALL(g, "path_link", PREOPEN, 1, PATH(g, "link"), PREOPEN, PATH(g, "h2")), W_INVAL);
  CHECK_ERRNO("rename", CALL(g, "path_rename", PREOPEN, PATH(g, "hard"), PREOPEN,
                             PATH(g, "dir/moved")),
              W_SUCCESS);
  CHECK_ERRNO("rename file/", CALL(g, "path_rename", PREOPEN, PATH(g, "file/"), PREOPEN,
                                   PATH(g, "no")),
              W_NOTDIR);
  CHECK_ERRNO("rename .", CALL(g, "path_rename", PREOPEN, PATH(g, "."), PREOPEN, PATH(g, "no")),
              W_BUSY);
  CHECK_ERRNO("unlink", CALL(g, "path_unlink_file", PREOPEN, PATH(g, "dir/moved")), W_SUCCESS);
  CHECK_ERRNO("symlink", CALL(g, "path_symlink", PATH(g, "../any/where"), PREOPEN, PATH(g, "sym")),
              W_SUCCESS);
  CHECK_ERRNO("absolute symlink", CALL(g, "path_symlink", PATH(g, "/etc"), PREOPEN, PATH(g, "abs")),
              W_PERM);
  uint64_t buf = guest_room(g, 64);
  CHECK_ERRNO("readlink", CALL(g, "path_readlink", PREOPEN, PATH(g, "sym"), buf, 64, out),
              W_SUCCESS);
  CHECK("whole", guest_u32(g, out) == 12 && memcmp(g->memory + buf, "../any/where", 12) == 0);
  CHECK_ERRNO("readlink cut", CALL(g, "path_readlink", PREOPEN, PATH(g, "sym"), buf, 5, out),
              W_SUCCESS);
  CHECK("cut", guest_u32(g, out) == 5);
  CHECK_ERRNO("readlink of a file", CALL(g, "path_readlink", PREOPEN, PATH(g, "file"), buf, 5, out),
              W_INVAL);
  CHECK_ERRNO("unlink a symlink", CALL(g, "path_unlink_file", PREOPEN, PATH(g, "sym")), W_SUCCESS);
}

static void test_stat(struct guest *g) {
  uint64_t out = guest_room(g, 64);
  CHECK_ERRNO("link followed", stat_path(g, "link", 1, out), W_SUCCESS);
  CHECK("file", g->memory[out + 16] == W_FILETYPE_REGULAR_FILE && guest_u64(g, out + 32) == 8);
  CHECK_ERRNO("link not followed", stat_path(g, "link", 0, out), W_SUCCESS);
  CHECK("link", g->memory[out + 16] == W_FILETYPE_SYMBOLIC_LINK);
  CHECK_ERRNO("behind a slash", stat_path(g, "dirlink/", 0, out), W_SUCCESS);
  CHECK("directory", g->memory[out + 16] == W_FILETYPE_DIRECTORY);
  CHECK_ERRNO("dangling", stat_path(g, "dangling", 1, out), W_NOENT);
  CHECK_ERRNO("file/", stat_path(g, "file/", 1, out), W_NOTDIR);
  CHECK_ERRNO("times", CALL(g, "path_filestat_set_times", PREOPEN, 1, PATH(g, "link"),
                            UINT64_C(1000000001), UINT64_C(2000000002), W_FST_ATIM | W_FST_MTIM),
              W_SUCCESS);
  stat_path(g, "file", 1, out);
  CHECK("set", guest_u64(g, out + 40) == 1000000001 && guest_u64(g, out + 48) == 2000000002);
  CHECK_ERRNO("given and now", CALL(g, "path_filestat_set_times", PREOPEN, 1, PATH(g, "file"), 0, 0,
                                    W_FST_ATIM | W_FST_ATIM_NOW),
              W_INVAL);
  g->unstable = true;
  uint64_t old = guest_room(g, 64);
  memset(g->memory + old, 0xee, 64);
  CHECK_ERRNO("old layout", stat_path(g, "file", 1, old), W_SUCCESS);
  CHECK("nlink u32, 56 bytes", guest_u32(g, old + 20) == 1 && guest_u64(g, old + 24) == 8 &&
                                   guest_u64(g, old + 40) == 2000000002 &&
                                   g->memory[old + 56] == 0xee);
  g->unstable = false;
}

/* Walks the directory with a small buffer; `each` (may be NULL) runs after every call. */
static size_t list(struct guest *g, uint32_t fd, uint32_t size, char names[][256], size_t max,
                   void (*each)(int round)) {
  uint64_t buf = guest_room(g, size), used = guest_room(g, 4), cookie = 0;
  size_t count = 0;
  for (int round = 0; round < 10000; round++) {
    CHECK_ERRNO("readdir", CALL(g, "fd_readdir", fd, buf, size, cookie, used), W_SUCCESS);
    uint32_t n = guest_u32(g, used), at = 0;
    while (at + 24 <= n && count < max) {
      uint32_t len = guest_u32(g, buf + at + 16);
      if (at + 24 + len > n) {
        break;
      }
      memcpy(names[count], g->memory + buf + at + 24, len);
      names[count++][len] = '\0';
      cookie = guest_u64(g, buf + at);
      at += 24 + len;
    }
    if (each != NULL) {
      each(round);
    }
    if (n < size) {
      break;
    }
  }
  return count;
}

static size_t count_name(char names[][256], size_t count, const char *name) {
  size_t found = 0;
  for (size_t i = 0; i < count; i++) {
    found += strcmp(names[i], name) == 0;
  }
  return found;
}

static void disturb(int round) {
  char name[64], path[512];
  snprintf(name, sizeof name, "in/list/new-%d", round);
  make_file(name, "");
  snprintf(path, sizeof path, "%s/in/list/gone-%d", base, round);
  unlink(path);
}

static void test_readdir(struct guest *g) {
  static char names[512][256];
  char name[64];
  for (int i = 0; i < 60; i++) {
    snprintf(name, sizeof name, "in/list/stays-%d", i);
    make_file(name, "");
    snprintf(name, sizeof name, "in/list/gone-%d", i);
    make_file(name, "");
  }
  uint32_t fd;
  CHECK_ERRNO("open", guest_open_with(g, PREOPEN, "list", W_OFLAG_DIRECTORY, READ_RIGHTS, 0, &fd),
              W_SUCCESS);
  size_t count = list(g, fd, 4096, names, 512, NULL);
  CHECK("all names, and the two dots", count == 122);
  CHECK("dots", count_name(names, count, ".") == 1 && count_name(names, count, "..") == 1);
  CHECK("a second walk is the same", list(g, fd, 100, names, 512, NULL) == 122);
  count = list(g, fd, 100, names, 512, disturb);
  for (int i = 0; i < 60; i++) {
    snprintf(name, sizeof name, "stays-%d", i);
    CHECK("each lasting name once", count_name(names, count, name) == 1);
  }
  uint64_t buf = guest_room(g, 16), used = guest_room(g, 4);
  CHECK_ERRNO("cut inside the head", CALL(g, "fd_readdir", fd, buf, 10, 0, used), W_SUCCESS);
  CHECK("buffer full", guest_u32(g, used) == 10);
  CHECK_ERRNO("no room", CALL(g, "fd_readdir", fd, buf, 0, 0, used), W_SUCCESS);
  CHECK_ERRNO("absurd cookie", CALL(g, "fd_readdir", fd, buf, 10, UINT64_MAX, used), W_INVAL);
  CALL(g, "fd_close", fd);
}

static void test_read_only(struct guest *g) {
  uint32_t fd;
  CHECK_ERRNO("read", guest_open_with(g, PREOPEN, "file", 0, READ_RIGHTS, 0, &fd), W_SUCCESS);
  CHECK_ERRNO("its times", CALL(g, "fd_filestat_set_times", fd, 0, 0, W_FST_ATIM_NOW), W_ROFS);
  CALL(g, "fd_close", fd);
  CHECK_ERRNO("write", guest_open(g, PREOPEN, "file", 0, &fd), W_ROFS);
  CHECK("recorded", guest_denied(g, WS_DENIAL_READ_ONLY, "/data/file"));
  CHECK_ERRNO("truncate", guest_open_with(g, PREOPEN, "file", W_OFLAG_TRUNC, READ_RIGHTS, 0, &fd),
              W_ROFS);
  CHECK_ERRNO("create", guest_open(g, PREOPEN, "fresh", W_OFLAG_CREAT, &fd), W_ROFS);
  CHECK_ERRNO("create, there, reading",
              guest_open_with(g, PREOPEN, "file", W_OFLAG_CREAT, READ_RIGHTS, 0, &fd), W_SUCCESS);
  CALL(g, "fd_close", fd);
  CHECK_ERRNO("mkdir", CALL(g, "path_create_directory", PREOPEN, PATH(g, "fresh")), W_ROFS);
  CHECK_ERRNO("mkdir there", CALL(g, "path_create_directory", PREOPEN, PATH(g, "dir")), W_EXIST);
  CHECK_ERRNO("unlink", CALL(g, "path_unlink_file", PREOPEN, PATH(g, "file")), W_ROFS);
  CHECK_ERRNO("rmdir", CALL(g, "path_remove_directory", PREOPEN, PATH(g, "dir/nested/")), W_ROFS);
  CHECK_ERRNO("rename", CALL(g, "path_rename", PREOPEN, PATH(g, "file"), PREOPEN, PATH(g, "n")),
              W_ROFS);
  CHECK_ERRNO("symlink", CALL(g, "path_symlink", PATH(g, "file"), PREOPEN, PATH(g, "n")), W_ROFS);
  CHECK_ERRNO("link", CALL(g, "path_link", PREOPEN, 0, PATH(g, "file"), PREOPEN, PATH(g, "n")),
              W_ROFS);
  CHECK_ERRNO("times", CALL(g, "path_filestat_set_times", PREOPEN, 1, PATH(g, "file"), 0, 0,
                            W_FST_MTIM_NOW),
              W_ROFS);
  CHECK("untouched", exists("in/file") && !exists("in/fresh") && !exists("in/n"));
}

int main(void) {
  struct guest guest;
  make_tree();
  start(&guest, false);
  test_open(&guest);
  test_escapes(&guest);
  test_subdirectory(&guest);
  test_names(&guest);
  test_stat(&guest);
  test_readdir(&guest);
  guest_stop(&guest);
  start(&guest, true);
  test_read_only(&guest);
  guest_stop(&guest);
  nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
  printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
