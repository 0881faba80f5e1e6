/* Everything that takes an open descriptor.  Preopen 3 is a fresh directory. */
#include "raw.h"

static void stdio(int argc, char **argv) {
  for (u32 fd = 0; fd < 3; fd++) {
    char name[40];
    struct fdstat st;
    struct prestat ps;
    u64 at = 0;
    snprintf(name, sizeof name, "fdstat %u", fd);
    u32 err = w_fd_fdstat_get(fd, &st);
    say(name, err, "type %u flags %u", st.type, st.flags);
    snprintf(name, sizeof name, "seek %u", fd);
    say(name, w_fd_seek(fd, 0, WHENCE_CUR, &at), NULL);
    snprintf(name, sizeof name, "tell %u", fd);
    say(name, w_fd_tell(fd, &at), NULL);
    snprintf(name, sizeof name, "prestat %u", fd);
    say(name, w_fd_prestat_get(fd, &ps), NULL);
    snprintf(name, sizeof name, "filestat %u", fd);
    struct filestat fs;
    err = w_fd_filestat_get(fd, &fs);
    say(name, err, "type %u size %llu", fs.type, (unsigned long long)fs.size);
    snprintf(name, sizeof name, "filestat_set_size %u", fd);
    say(name, w_fd_filestat_set_size(fd, 0), NULL);
    snprintf(name, sizeof name, "readdir %u", fd);
    u32 n;
    char buf[64];
    say(name, w_fd_readdir(fd, buf, sizeof buf, 0, &n), NULL);
  }
}

static void preopens(int argc, char **argv) {
  for (u32 fd = 3; fd < 6; fd++) {
    char name[40], path[64] = {0};
    struct prestat ps = {0};
    snprintf(name, sizeof name, "prestat %u", fd);
    if (say(name, w_fd_prestat_get(fd, &ps), "tag %u len %u", ps.tag, ps.name_len)) continue;
    snprintf(name, sizeof name, "dir_name %u short", fd);
    say(name, w_fd_prestat_dir_name(fd, path, 0), NULL);
    snprintf(name, sizeof name, "dir_name %u", fd);
    say(name, w_fd_prestat_dir_name(fd, path, ps.name_len), "[%s]", path);
    snprintf(name, sizeof name, "dir_name %u long", fd);
    say(name, w_fd_prestat_dir_name(fd, path, sizeof path), NULL);
  }
  struct fdstat st;
  u32 err = w_fd_fdstat_get(3, &st);
  say("fdstat of a preopen", err, "type %u flags %u", st.type, st.flags);
}

static u32 put(u32 fd, const char *text) {
  struct vec iov = {(void *)text, (u32)strlen(text)};
  char name[40];
  u32 n = 0;
  snprintf(name, sizeof name, "write to %u", fd);
  return say(name, w_fd_write(fd, &iov, 1, &n), "%u", n);
}

static u32 get(u32 fd, u32 len) {
  char buf[256] = {0};
  struct vec iov = {buf, len};
  char name[40];
  u32 n = 0;
  snprintf(name, sizeof name, "read from %u", fd);
  u32 err = w_fd_read(fd, &iov, 1, &n);
  return say(name, err, "%u [%.*s]", n, (int)n, buf);
}

static void readwrite(int argc, char **argv) {
  u32 fd = open_at("data", O_CREATE, FILE_RIGHTS, 0), n = 0;
  u64 at = 0;
  put(fd, "0123456789");
  say("tell", w_fd_tell(fd, &at), "%llu", (unsigned long long)at);
  say("seek set", w_fd_seek(fd, 2, WHENCE_SET, &at), "%llu", (unsigned long long)at);
  get(fd, 3);
  say("seek cur", w_fd_seek(fd, -1, WHENCE_CUR, &at), "%llu", (unsigned long long)at);
  get(fd, 100);
  get(fd, 100);
  say("seek end", w_fd_seek(fd, -4, WHENCE_END, &at), "%llu", (unsigned long long)at);
  say("seek before start", w_fd_seek(fd, -100, WHENCE_CUR, &at), NULL);
  char a[4] = {0}, b[5] = {0};
  struct vec two[3] = {{a, 3}, {a, 0}, {b, 4}};
  u32 err = w_fd_pread(fd, two, 3, 1, &n);
  say("pread", err, "%u [%s][%s]", n, a, b);
  say("pread past the end", w_fd_pread(fd, two, 3, 1000, &n), "%u", n);
  say("pread no vectors", w_fd_pread(fd, two, 0, 0, &n), "%u", n);
  struct vec w[2] = {{"AB", 2}, {"CDE", 3}};
  say("pwrite", w_fd_pwrite(fd, w, 2, 8, &n), "%u", n);
  say("tell is unmoved", w_fd_tell(fd, &at), "%llu", (unsigned long long)at);
  say("write no vectors", w_fd_write(fd, w, 0, &n), "%u", n);
  say("seek far", w_fd_seek(fd, 20, WHENCE_SET, &at), "%llu", (unsigned long long)at);
  put(fd, "hole");
  w_fd_seek(fd, 0, WHENCE_SET, &at);
  char all[64];
  struct vec one = {all, sizeof all};
  err = w_fd_read(fd, &one, 1, &n);
  for (u32 i = 0; i < n; i++)
    if (!all[i]) all[i] = '.';
  say("whole", err, "[%.*s]", (int)n, all);
  say("pread at -1", w_fd_pread(fd, two, 1, ~(u64)0, &n), NULL);
  say("pwrite at -1", w_fd_pwrite(fd, w, 1, ~(u64)0, &n), NULL);
}

static void append(int argc, char **argv) {
  make_file("log", "one\n");
  u32 fd = open_at("log", 0, FILE_RIGHTS, FD_APPEND), n = 0;
  u64 at = 0;
  struct fdstat st;
  say("fdstat", w_fd_fdstat_get(fd, &st), "type %u flags %u", st.type, st.flags);
  w_fd_seek(fd, 0, WHENCE_SET, &at);
  put(fd, "two\n");
  w_fd_seek(fd, 0, WHENCE_SET, &at);
  get(fd, 100);
  say("set_flags none", w_fd_fdstat_set_flags(fd, 0), NULL);
  say("fdstat", w_fd_fdstat_get(fd, &st), "flags %u", st.flags);
  w_fd_seek(fd, 0, WHENCE_SET, &at);
  put(fd, "ONE");
  say("set_flags append", w_fd_fdstat_set_flags(fd, FD_APPEND), NULL);
  put(fd, "three\n");
  say("set_flags nonblock", w_fd_fdstat_set_flags(fd, FD_NONBLOCK), NULL);
  say("fdstat", w_fd_fdstat_get(fd, &st), "flags %u", st.flags);
  say("set_flags sync", w_fd_fdstat_set_flags(fd, FD_SYNC), NULL);
  w_fd_seek(fd, 0, WHENCE_SET, &at);
  get(fd, 100);
  (void)n;
}

static void sizes(int argc, char **argv) {
  u32 fd = open_at("sized", O_CREATE, FILE_RIGHTS, 0);
  struct filestat st;
  say("set_size 1000", w_fd_filestat_set_size(fd, 1000), NULL);
  u32 err = w_fd_filestat_get(fd, &st);
  say("filestat", err, "type %u size %llu nlink %u", st.type, (unsigned long long)st.size, (u32)st.nlink);
  say("set_size 3", w_fd_filestat_set_size(fd, 3), NULL);
  err = w_fd_filestat_get(fd, &st);
  say("filestat", err, "size %llu", (unsigned long long)st.size);
  say("set_size -1", w_fd_filestat_set_size(fd, ~(u64)0), NULL);
  say("advise", w_fd_advise(fd, 0, 10, 3), NULL);
  say("advise a directory", w_fd_advise(3, 0, 10, 0), NULL);
  say("allocate", w_fd_allocate(fd, 0, 100), NULL);
  err = w_fd_filestat_get(fd, &st);
  say("filestat after allocate", err, "size %llu", (unsigned long long)st.size);
  say("allocate nothing", w_fd_allocate(fd, 0, 0), NULL);
  say("sync", w_fd_sync(fd), NULL);
  say("datasync", w_fd_datasync(fd), NULL);
  say("sync a directory", w_fd_sync(3), NULL);
  say("datasync a directory", w_fd_datasync(3), NULL);
  say("set_size of a directory", w_fd_filestat_set_size(3, 0), NULL);
  say("write a directory", w_fd_write(3, NULL, 0, (u32[1]){0}), NULL);
  say("seek a directory", w_fd_seek(3, 0, WHENCE_CUR, &(u64){0}), NULL);
}

static void times(int argc, char **argv) {
  u32 fd = open_at("timed", O_CREATE, FILE_RIGHTS, 0);
  struct filestat st;
  say("set_times", w_fd_filestat_set_times(fd, 1000000001, 2000000002, ATIM | MTIM), NULL);
  u32 err = w_fd_filestat_get(fd, &st);
  say("filestat", err, "%llu %llu", (unsigned long long)st.atim, (unsigned long long)st.mtim);
  say("set_times mtim", w_fd_filestat_set_times(fd, 5, 3000000003, MTIM), NULL);
  err = w_fd_filestat_get(fd, &st);
  say("filestat", err, "%llu %llu", (unsigned long long)st.atim, (unsigned long long)st.mtim);
  say("set_times now", w_fd_filestat_set_times(fd, 0, 0, ATIM_NOW | MTIM_NOW), NULL);
  err = w_fd_filestat_get(fd, &st);
  say("filestat", err, "recent %d", st.atim > 1704067200ull * 1000000000ull);
  say("set_times both", w_fd_filestat_set_times(fd, 0, 0, ATIM | ATIM_NOW), NULL);
  say("set_times none", w_fd_filestat_set_times(fd, 0, 0, 0), NULL);
  say("set_times of a directory", w_fd_filestat_set_times(3, 1, 1, ATIM | MTIM), NULL);
  say("set_times of stdin", w_fd_filestat_set_times(0, 1, 1, ATIM | MTIM), NULL);
  say("path set_times", w_path_filestat_set_times(3, FOLLOW, LEN("timed"), 7, 8, ATIM | MTIM), NULL);
  err = w_path_filestat_get(3, FOLLOW, LEN("timed"), &st);
  say("path filestat", err, "%llu %llu", (unsigned long long)st.atim, (unsigned long long)st.mtim);
  say("path set_times both", w_path_filestat_set_times(3, 0, LEN("timed"), 7, 8, MTIM | MTIM_NOW), NULL);
}

static void closing(int argc, char **argv) {
  u32 fd = open_at("c", O_CREATE, FILE_RIGHTS, 0);
  printf("lowest free: %u\n", fd);
  say("close", w_fd_close(fd), NULL);
  say("close again", w_fd_close(fd), NULL);
  say("close 1000000", w_fd_close(1000000), NULL);
  say("close -1", w_fd_close(~0u), NULL);
  struct fdstat st;
  say("fdstat of closed", w_fd_fdstat_get(fd, &st), NULL);
  get(fd, 1);
  say("close stdin", w_fd_close(0), NULL);
  get(0, 1);
  u32 again = open_at("c", 0, FILE_RIGHTS, 0);
  printf("reused: %u\n", again);
  say("close a preopen", w_fd_close(3), NULL);
  say("open below it", w_path_open(3, 0, LEN("c"), 0, FILE_RIGHTS, 0, 0, &fd), NULL);
}

static void renumbering(int argc, char **argv) {
  make_file("r", "renumbered");
  make_file("s", "second");
  u32 a = open_at("r", 0, FILE_RIGHTS, 0), b = open_at("s", 0, FILE_RIGHTS, 0);
  say("renumber onto open", w_fd_renumber(a, b), NULL);
  get(b, 100);
  get(a, 100);
  say("renumber closed", w_fd_renumber(a, b), NULL);
  say("renumber onto free", w_fd_renumber(b, a), NULL);
  get(a, 100);
  say("renumber onto itself", w_fd_renumber(b, b), NULL);
  say("renumber onto 10000", w_fd_renumber(a, 10000), NULL);
}

static void rights(int argc, char **argv) {
  make_file("rights", "abc");
  u32 fd = open_at("rights", 0, R(FD_READ_BIT) | R(FD_SEEK_BIT), 0);
  u64 at;
  struct fdstat st;
  get(fd, 10);
  put(fd, "x");
  say("seek", w_fd_seek(fd, 0, WHENCE_SET, &at), NULL);
  say("set_size", w_fd_filestat_set_size(fd, 0), NULL);
  say("allocate", w_fd_allocate(fd, 0, 10), NULL);
  say("set_rights to more", w_fd_fdstat_set_rights(fd, ALL_RIGHTS, 0), NULL);
  say("set_rights to less", w_fd_fdstat_set_rights(fd, R(FD_READ_BIT), 0), NULL);
  say("set_rights of closed", w_fd_fdstat_set_rights(99, 0, 0), NULL);
  u32 wo = open_at("rights", 0, R(FD_WRITE_BIT), 0);
  get(wo, 10);
  put(wo, "z");
  say("fdstat", w_fd_fdstat_get(wo, &st), NULL);
  u32 dir = open_at(".", O_DIRECTORY, R(FD_READDIR_BIT), 0);
  get(dir, 10);
  say("fdstat of a directory", w_fd_fdstat_get(dir, &st), "type %u", st.type);
}

static void poll_files(int argc, char **argv) {
  make_file("p", "pollable");
  u32 fd = open_at("p", 0, FILE_RIGHTS, 0), n = 0;
  struct subscription in[4];
  struct event out[4];
  memset(in, 0, sizeof in);
  in[0].userdata = 1, in[0].tag = TAG_READ, in[0].u.fd = fd;
  u32 err = w_poll_oneoff(in, out, 1, &n);
  say("poll a file", err, "%u", n);
  if (!err) printf("  %u %s type %u nbytes %u\n", (u32)out[0].userdata, errno_names[out[0].error], out[0].type, (u32)out[0].nbytes);
  in[0].u.fd = 999;
  err = w_poll_oneoff(in, out, 1, &n);
  say("poll a closed descriptor", err, "%u", n);
  if (!err) printf("  %u %s type %u\n", (u32)out[0].userdata, errno_names[out[0].error], out[0].type);
  in[0].tag = TAG_WRITE, in[0].u.fd = 1;
  err = w_poll_oneoff(in, out, 1, &n);
  say("poll stdout", err, "%u", n);
  if (!err) printf("  %u %s type %u\n", (u32)out[0].userdata, errno_names[out[0].error], out[0].type);
}

/* Values outside an enumeration or a set of flags. */
static void invalid(int argc, char **argv) {
  u32 fd = open_at("i", O_CREATE, FILE_RIGHTS, 0);
  const char *which = argv[2];
  if (!strcmp(which, "whence")) say(which, w_fd_seek(fd, 0, 7, &(u64){0}), NULL);
  if (!strcmp(which, "fdflags")) say(which, w_fd_fdstat_set_flags(fd, 1u << 9), NULL);
  if (!strcmp(which, "advice")) say(which, w_fd_advise(fd, 0, 10, 99), NULL);
  if (!strcmp(which, "fstflags")) say(which, w_fd_filestat_set_times(fd, 0, 0, 1u << 8), NULL);
  if (!strcmp(which, "oflags"))
    say(which, w_path_open(3, 0, LEN("i"), 1u << 9, FILE_RIGHTS, 0, 0, &fd), NULL);
  if (!strcmp(which, "lookupflags"))
    say(which, w_path_open(3, 1u << 5, LEN("i"), 0, FILE_RIGHTS, 0, 0, &fd), NULL);
  if (!strcmp(which, "clock id")) say(which, w_clock_time_get(4, 1, &(u64){0}), NULL);
  if (!strcmp(which, "path bytes")) say(which, w_path_create_directory(3, "\xff\xfe", 2), NULL);
  if (!strcmp(which, "NUL in a path")) say(which, w_path_create_directory(3, "a\0b", 3), NULL);
}

int main(int argc, char **argv) {
  static const struct test tests[] = {
      {"stdio", stdio}, {"preopens", preopens}, {"readwrite", readwrite}, {"append", append},
      {"sizes", sizes}, {"times", times}, {"closing", closing}, {"renumbering", renumbering},
      {"rights", rights}, {"invalid", invalid}, {"poll-files", poll_files}, {NULL, NULL},
  };
  return run_case(tests, argc, argv);
}
