/* Streams under odd conditions: many vectors, redirection, readiness, non-blocking, two preopens. */
#include "raw.h"

enum { MANY = 2000 };

static void vectors(int argc, char **argv) {
  static struct vec out[MANY], in[MANY];
  static char back[MANY];
  u32 fd = open_at("vectors", O_CREATE, FILE_RIGHTS, 0), n = 0, total = 0;
  u64 at;
  for (int i = 0; i < MANY; i++) {
    out[i] = (struct vec){&"0123456789"[i % 10], 1};
    in[i] = (struct vec){back + i, 1};
  }
  while (total < MANY && !w_fd_write(fd, out + total, MANY - total, &n) && n) total += n;
  printf("written %u\n", total);
  w_fd_seek(fd, 0, WHENCE_SET, &at);
  total = 0;
  while (total < MANY && !w_fd_read(fd, in + total, MANY - total, &n) && n) total += n;
  printf("read %u ends %.10s\n", total, back + MANY - 10);
  say("zero-length vector", w_fd_write(fd, &(struct vec){"x", 0}, 1, &n), "%u", n);
}

/* What libc prints goes into a file once 1 has been renumbered. */
static void redirect(int argc, char **argv) {
  u32 fd = open_at("redirected", O_CREATE, FILE_RIGHTS, 0), n;
  puts("before");
  fflush(stdout);
  u32 err = w_fd_renumber(fd, 1);
  puts("after");
  fflush(stdout);
  struct vec iov = {err ? "failed\n" : "moved\n", err ? 7 : 6};
  w_fd_write(2, &iov, 1, &n);
}

static struct subscription ready(u64 userdata, uint8_t tag, u32 fd) {
  struct subscription s;
  memset(&s, 0, sizeof s);
  s.userdata = userdata, s.tag = tag, s.u.fd = fd;
  return s;
}

static struct subscription after(u64 userdata, u64 ns) {
  struct subscription s = ready(userdata, TAG_CLOCK, 0);
  s.u.clock.id = 1;
  s.u.clock.timeout = ns;
  return s;
}

static void wait_for(const char *name, struct subscription *in, u32 count) {
  struct event out[4];
  u32 n = 0;
  u32 err = w_poll_oneoff(in, out, count, &n);
  say(name, err, "%u", n);
  for (u32 i = 0; !err && i < n; i++)
    printf("  %u %s type %u hangup %u\n", (u32)out[i].userdata, errno_names[out[i].error],
           out[i].type, out[i].flags & 1);
}

/* stdin has three bytes and then ends. */
static void poll_stdin(int argc, char **argv) {
  char buf[8];
  struct vec iov = {buf, sizeof buf};
  struct subscription in[2] = {ready(1, TAG_READ, 0), after(2, 5000000000u)};
  u32 n;
  wait_for("data", in, 2);
  w_fd_read(0, &iov, 1, &n);
  printf("%u bytes\n", n);
  wait_for("end", in, 2);
}

/* stdin is a pipe that stays empty until the test has seen the line "empty". */
static void patience(int argc, char **argv) {
  char buf[8];
  struct vec iov = {buf, sizeof buf};
  struct subscription in[2] = {ready(1, TAG_READ, 0), after(2, 10000000)};
  u32 n;
  wait_for("nothing yet", in, 2);
  say("set_flags nonblock", w_fd_fdstat_set_flags(0, FD_NONBLOCK), NULL);
  say("read, non-blocking", w_fd_read(0, &iov, 1, &n), "%u", n);
  say("set_flags none", w_fd_fdstat_set_flags(0, 0), NULL);
  puts("empty");
  fflush(stdout);
  in[1] = after(2, 20000000000u);
  wait_for("data", in, 2);
  u32 err = w_fd_read(0, &iov, 1, &n);
  say("read", err, "%u [%.*s]", n, (int)n, buf);
}

/* Preopens 3 and 4 are two directories of one file system. */
static void two_places(int argc, char **argv) {
  make_file("here", "text");
  say("rename across", w_path_rename(3, LEN("here"), 4, LEN("there")), NULL);
  struct filestat st;
  u32 err = w_path_filestat_get(4, 0, LEN("there"), &st);
  say("stat there", err, "size %u", (u32)st.size);
  make_file("again", "text");
  say("link across", w_path_link(3, 0, LEN("again"), 4, LEN("hard")), NULL);
  say("symlink there", w_path_symlink(LEN("../a/again"), 4, LEN("soft")), NULL);
  u32 fd;
  say("open through it", w_path_open(4, FOLLOW, LEN("soft"), 0, READ_RIGHTS, 0, 0, &fd), NULL);
  say("renumber a preopen", w_fd_renumber(4, 3), NULL);
  err = w_path_filestat_get(3, 0, LEN("soft"), &st);
  say("stat soft in 3", err, "type %u", st.type);
}

/* Flags given to path_open. */
static void flags(int argc, char **argv) {
  static const u32 all[] = {0, FD_APPEND, FD_NONBLOCK, FD_DSYNC, FD_RSYNC, FD_SYNC,
                            FD_APPEND | FD_NONBLOCK};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char name[40];
    u32 fd = 0;
    struct fdstat st = {0};
    snprintf(name, sizeof name, "open with flags %u", all[i]);
    u32 err = w_path_open(3, 0, LEN("flagged"), O_CREATE, FILE_RIGHTS, 0, all[i], &fd);
    if (!err) err = w_fd_fdstat_get(fd, &st);
    say(name, err, "%u", st.flags);
    if (!err) w_fd_close(fd);
  }
  static const u64 rights[] = {0, R(FD_READ_BIT), R(FD_WRITE_BIT), R(FD_READ_BIT) | R(FD_WRITE_BIT)};
  for (size_t i = 0; i < 4; i++) {
    char name[40], buf[4];
    u32 fd = 0, n;
    struct vec iov = {buf, 4};
    snprintf(name, sizeof name, "open with rights %u", (u32)rights[i]);
    u32 err = w_path_open(3, 0, LEN("flagged"), 0, rights[i], 0, 0, &fd);
    say(name, err, NULL);
    if (err) continue;
    printf("  reads %d writes %d\n", w_fd_read(fd, &iov, 1, &n) == 0, w_fd_write(fd, &iov, 1, &n) == 0);
    w_fd_close(fd);
  }
}

int main(int argc, char **argv) {
  static const struct test tests[] = {
      {"vectors", vectors}, {"redirect", redirect}, {"poll-stdin", poll_stdin},
      {"patience", patience}, {"two-places", two_places}, {"flags", flags}, {NULL, NULL},
  };
  return run_case(tests, argc, argv);
}
