/* Everything that takes a path.  Preopen 3 is a tree made by the test:
 *   file (text "text"), dir/inner, empty/, link -> file, dirlink -> dir, dangling -> nowhere,
 *   loop -> loop, out -> ../outside, abs -> /etc/passwd  */
#include "raw.h"

static void try_open(const char *path, u32 follow, u32 oflags, u64 rights) {
  char name[300];
  u32 fd = ~0u;
  snprintf(name, sizeof name, "open [%.200s] follow %u oflags %u", path, follow, oflags);
  u32 err = w_path_open(3, follow, LEN(path), oflags, rights, 0, 0, &fd);
  struct fdstat st = {0};
  if (!err) w_fd_fdstat_get(fd, &st);
  say(name, err, "type %u", st.type);
  if (!err) w_fd_close(fd);
}

static void opens(int argc, char **argv) {
  static const char *const paths[] = {
      "file", "file/", "file/.", "./file", "dir/../file", "dir", "dir/", "dir/.", ".", "./", "",
      "none", "none/", "none/x", "file/x", "link", "link/", "dirlink", "dirlink/", "dirlink/inner",
      "dangling", "loop", "out", "abs", "..", "../", "../outside", "dir/../../outside", "dir/..",
      "/", "/file", "/etc/passwd", "//file", "dir//inner", "empty/..", "./..", "none/../file",
  };
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    try_open(paths[i], FOLLOW, 0, READ_RIGHTS);
    try_open(paths[i], 0, 0, READ_RIGHTS);
    try_open(paths[i], FOLLOW, O_DIRECTORY, R(FD_READDIR_BIT));
    try_open(paths[i], 0, O_DIRECTORY, R(FD_READDIR_BIT));
  }
}

static void creates(int argc, char **argv) {
  try_open("new1", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("new1", FOLLOW, O_CREATE | O_EXCL, FILE_RIGHTS);
  try_open("new2", 0, O_CREATE | O_EXCL, FILE_RIGHTS);
  try_open("new3/", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("new4", FOLLOW, O_CREATE | O_DIRECTORY, FILE_RIGHTS);
  try_open("none/new5", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("link", 0, O_CREATE, FILE_RIGHTS);
  try_open("link", FOLLOW, O_CREATE | O_EXCL, FILE_RIGHTS);
  try_open("dangling", 0, O_CREATE, FILE_RIGHTS);
  try_open("dangling", FOLLOW, O_CREATE | O_EXCL, FILE_RIGHTS);
  try_open("dir", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("dir", FOLLOW, O_TRUNC, FILE_RIGHTS);
  try_open("dir", FOLLOW, 0, FILE_RIGHTS);
  try_open("file", FOLLOW, O_TRUNC, READ_RIGHTS);
  try_open("file", FOLLOW, O_TRUNC, FILE_RIGHTS);
  try_open("out", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("../new6", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("/new7", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("new8", FOLLOW, O_CREATE, READ_RIGHTS);
  struct filestat st;
  u32 err = w_path_filestat_get(3, 0, LEN("file"), &st);
  say("file", err, "size %u", (u32)st.size);
}

static void through_dangling(int argc, char **argv) {
  try_open("dangling", FOLLOW, O_CREATE, FILE_RIGHTS);
  struct filestat st;
  u32 err = w_path_filestat_get(3, 0, LEN("nowhere"), &st);
  say("nowhere", err, "size %u", (u32)st.size);
}

static void stats(int argc, char **argv) {
  static const char *const paths[] = {
      "file", "file/", "dir", "dir/", ".", "", "link", "link/", "dirlink", "dirlink/", "dangling",
      "loop", "out", "abs", "..", "../outside", "/file", "none", "file/x", "dir/inner",
  };
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    for (u32 follow = 0; follow < 2; follow++) {
      char name[64];
      struct filestat st = {0};
      u32 err = w_path_filestat_get(3, follow, LEN(paths[i]), &st);
      snprintf(name, sizeof name, "stat [%s] follow %u", paths[i], follow);
      say(name, err, "type %u size %d nlink %d", st.type, st.type == 4 ? (int)st.size : -1,
          st.type == 4 ? (int)st.nlink : -1);
    }
  }
  struct filestat a, b;
  w_path_filestat_get(3, 0, LEN("file"), &a);
  w_path_filestat_get(3, FOLLOW, LEN("link"), &b);
  printf("same file: %d, has numbers: %d\n", a.ino == b.ino && a.dev == b.dev, a.ino != 0);
}

static void directories(int argc, char **argv) {
  static const char *const made[] = {"d1", "d1", "d2/", "none/d3", "file", "file/d", "../d4", "/d5",
                                     "d1/d6", "link", "dangling", ".", "", "..", "out/x"};
  static const char *const removed[] = {"d1", "d1/d6/", "d1/.", "d1/", "d2/", "file", "file/",
                                        "link", "dirlink", "dirlink/", ".", "..", "", "none",
                                        "dir", "../outside"};
  char name[64];
  for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
    snprintf(name, sizeof name, "mkdir [%s]", made[i]);
    say(name, w_path_create_directory(3, LEN(made[i])), NULL);
  }
  for (size_t i = 0; i < sizeof removed / sizeof *removed; i++) {
    snprintf(name, sizeof name, "rmdir [%s]", removed[i]);
    say(name, w_path_remove_directory(3, LEN(removed[i])), NULL);
  }
}

static void unlinks(int argc, char **argv) {
  static const char *const paths[] = {"file/", "link/", "link", "dirlink/", "dirlink", "dangling",
                                      "loop", "dir", "dir/", "empty", "none", "none/", "..", ".",
                                      "", "../outside", "/file", "file/.", "dir/inner", "file",
                                      "file", "out", "abs"};
  char name[64];
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    snprintf(name, sizeof name, "unlink [%s]", paths[i]);
    say(name, w_path_unlink_file(3, LEN(paths[i])), NULL);
  }
}

static void try_rename(const char *from, const char *to) {
  char name[80];
  snprintf(name, sizeof name, "rename [%s] [%s]", from, to);
  say(name, w_path_rename(3, LEN(from), 3, LEN(to)), NULL);
}

static void renames(int argc, char **argv) {
  make_file("a", "a");
  make_file("b", "bb");
  static const char *const pairs[][2] = {
      {"a", "b"}, {"a", "b"}, {"b", "c"}, {"c", "c"}, {"c", "dir"}, {"dir", "c"}, {"empty", "dir"},
      {"dir", "empty"}, {"empty", "empty/sub"}, {"c/", "d"}, {"c", "d/"}, {"empty/", "moved/"},
      {"link", "link2"}, {"link2", "c"}, {"dangling", "still"}, {"none", "x"}, {"c", "none/x"},
      {"../outside", "stolen"}, {"moved", "../up"}, {"/etc/passwd", "x"}, {"moved", "/x"},
      {".", "x"}, {"moved", "."}, {"..", "x"}, {"moved", ".."}, {"", "x"}, {"moved", ""},
      {"out", "out2"}, {"moved/inner", "dirlink/inner2"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) try_rename(pairs[i][0], pairs[i][1]);
}

static void try_link(const char *from, const char *to, u32 flags) {
  char name[80];
  snprintf(name, sizeof name, "link [%s] [%s] flags %u", from, to, flags);
  say(name, w_path_link(3, flags, LEN(from), 3, LEN(to)), NULL);
}

static void links(int argc, char **argv) {
  static const char *const pairs[][2] = {
      {"file", "hard"}, {"file", "hard"}, {"dir", "hard2"}, {"none", "hard3"}, {"file", "hard4/"},
      {"file/", "hard5"}, {"link", "hard6"}, {"dangling", "hard7"}, {"file", "../up"},
      {"../outside", "stolen"}, {"/etc/passwd", "stolen"}, {"out", "stolen2"}, {"file", "dir"},
      {"file", ""}, {"", "x"}, {"file", "none/x"},
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) try_link(pairs[i][0], pairs[i][1], 0);
  try_link("link", "followed", FOLLOW);
  struct filestat st;
  u32 err = w_path_filestat_get(3, 0, LEN("hard"), &st);
  say("stat hard", err, "nlink %u", (u32)st.nlink);
  err = w_path_filestat_get(3, 0, LEN("hard6"), &st);
  say("stat hard6", err, "type %u", st.type);
}

static void symlinks(int argc, char **argv) {
  static const char *const pairs[][2] = {
      {"file", "s1"}, {"file", "s1"}, {"none", "s2"}, {"../outside", "s3"}, {"/etc/passwd", "s4"},
      {"", "s5"}, {"file", "s6/"}, {"dir/", "s7"}, {"file", "dir"}, {"file", "../up"},
      {"file", "none/x"}, {"file", ""}, {"..", "s8"}, {"inner", "dir/s9"},
  };
  char name[80], buf[64];
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    snprintf(name, sizeof name, "symlink [%s] [%s]", pairs[i][0], pairs[i][1]);
    say(name, w_path_symlink(LEN(pairs[i][0]), 3, LEN(pairs[i][1])), NULL);
  }
  static const char *const read[] = {"s1", "s2", "s3", "s7", "link", "link/", "file", "dir", "none",
                                     "out", "abs", "dir/s9", "../x", "", "s8", "dangling"};
  for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
    u32 n = 0;
    snprintf(name, sizeof name, "readlink [%s]", read[i]);
    u32 err = w_path_readlink(3, LEN(read[i]), buf, sizeof buf, &n);
    say(name, err, "%u [%.*s]", n, (int)n, buf);
  }
  u32 n = 0;
  u32 err = w_path_readlink(3, LEN("link"), buf, 2, &n);
  say("readlink into 2 bytes", err, "%u [%.*s]", n, (int)n, buf);
  say("readlink into none", w_path_readlink(3, LEN("link"), buf, 0, &n), "%u", n);
  try_open("s3", FOLLOW, 0, READ_RIGHTS);
  try_open("dir/s9", FOLLOW, 0, READ_RIGHTS);
  try_open("s8/file", FOLLOW, 0, READ_RIGHTS);
  try_open("s7/inner", FOLLOW, 0, READ_RIGHTS);
}

static void times(int argc, char **argv) {
  static const char *const paths[] = {"file", "link", "dangling", "none", "../outside", "out", "/x",
                                      "dir/", "file/", ""};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    for (u32 follow = 0; follow < 2; follow++) {
      char name[64];
      snprintf(name, sizeof name, "set_times [%s] follow %u", paths[i], follow);
      say(name, w_path_filestat_set_times(3, follow, LEN(paths[i]), 1000, 2000 + follow, ATIM | MTIM),
          NULL);
    }
  }
  struct filestat st;
  w_path_filestat_get(3, 0, LEN("file"), &st);
  printf("file %llu %llu\n", (unsigned long long)st.atim, (unsigned long long)st.mtim);
  w_path_filestat_get(3, 0, LEN("link"), &st);
  printf("link %llu\n", (unsigned long long)st.mtim);
}

static void names(int argc, char **argv) {
  static char longest[256], too_long[257], deep[5000];
  memset(longest, 'n', 255);
  memset(too_long, 'n', 256);
  for (int i = 0; i < 4998; i += 2) memcpy(deep + i, "./", 2);
  try_open(longest, FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open(too_long, FOLLOW, O_CREATE, FILE_RIGHTS);
  say("deep path", w_path_create_directory(3, LEN(deep)), NULL);
  try_open("sp ace", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("new\nline", FOLLOW, O_CREATE, FILE_RIGHTS);
  try_open("\xc3\xa9t\xc3\xa9", FOLLOW, O_CREATE, FILE_RIGHTS);
}

static void wrong(const char *kind, const char *what, u32 err) {
  char name[40];
  snprintf(name, sizeof name, "%s: %s", kind, what);
  say(name, err, NULL);
}

static void wrong_descriptor(int argc, char **argv) {
  static const char *const kinds[] = {"file", "closed", "stdout"};
  u32 bad[] = {open_at("file", 0, FILE_RIGHTS, 0), 77, 1}, fd, n;
  struct filestat st;
  char buf[8];
  for (int i = 0; i < 3; i++) {
    u32 d = bad[i];
    const char *kind = kinds[i];
    wrong(kind, "open", w_path_open(d, 0, LEN("x"), 0, FILE_RIGHTS, 0, 0, &fd));
    wrong(kind, "stat", w_path_filestat_get(d, 0, LEN("x"), &st));
    wrong(kind, "mkdir", w_path_create_directory(d, LEN("x")));
    wrong(kind, "rmdir", w_path_remove_directory(d, LEN("x")));
    wrong(kind, "unlink", w_path_unlink_file(d, LEN("x")));
    wrong(kind, "readlink", w_path_readlink(d, LEN("x"), buf, sizeof buf, &n));
    wrong(kind, "symlink", w_path_symlink(LEN("t"), d, LEN("x")));
    wrong(kind, "rename from", w_path_rename(d, LEN("x"), 3, LEN("y")));
    wrong(kind, "rename to", w_path_rename(3, LEN("file"), d, LEN("y")));
    wrong(kind, "link to", w_path_link(3, 0, LEN("file"), d, LEN("y")));
    wrong(kind, "set_times", w_path_filestat_set_times(d, 0, LEN("x"), 0, 0, ATIM));
    wrong(kind, "readdir", w_fd_readdir(d, buf, sizeof buf, 0, &n));
  }
}

int main(int argc, char **argv) {
  static const struct test tests[] = {
      {"opens", opens}, {"creates", creates}, {"through-dangling", through_dangling},
      {"stats", stats}, {"directories", directories}, {"unlinks", unlinks}, {"renames", renames},
      {"links", links}, {"symlinks", symlinks}, {"times", times}, {"names", names},
      {"wrong-descriptor", wrong_descriptor}, {NULL, NULL},
  };
  return run_case(tests, argc, argv);
}
