/* Table, memory bounds, transfers, stdio, clocks, poll, process and sockets of runtime/core/wasi.
 * Built and run like test_wasi_paths.c; exits non-zero when a check failed. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wasi_guest.h"

#define NS_PER_MS UINT64_C(1000000)

/* Pipes in place of stdio: `in` is what the guest will read, `out` what it wrote to stdout. */
struct pipes {
  int in;
  int out;
};

static struct pipes start(struct guest *guest, struct wasi_config config, bool with_dir) {
  static const struct ws_bytes args[] = {{"program", 7}, {"one", 3}, {"", 0}};
  static const struct ws_bytes env[] = {{"K=V", 3}};
  static struct wasi_preopen preopen;
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    perror("pipe2");
    exit(2);
  }
  config.args = args;
  config.arg_count = 3;
  config.env = env;
  config.env_count = 1;
  config.stdio[0] = in[0];
  config.stdio[1] = out[1];
  config.stdio[2] = dup(out[1]);
  char dir[] = "/tmp/wasisup-test-XXXXXX";
  if (with_dir && mkdtemp(dir) != NULL) { /* nameless from here on: nothing is left behind */
    preopen = (struct wasi_preopen){.kind = WASI_PREOPEN_DIR, .name = ".", .name_len = 1};
    preopen.fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    config.preopens = &preopen;
    config.preopen_count = 1;
  }
  guest_start(guest, &config);
  if (with_dir) {
    guest_bytes(guest, dir, strlen(dir));
    memcpy(guest->memory, dir, sizeof dir);
  }
  return (struct pipes){.in = in[1], .out = out[0]};
}

/* Empties and removes the directory that `start` made; its name lies at the guest's address 0. */
static void stop(struct guest *g, struct pipes pipes, const char *const *names) {
  char path[600], dir[64];
  memcpy(dir, g->memory, sizeof dir);
  for (; names != NULL && *names != NULL; names++) {
    snprintf(path, sizeof path, "%s/%s", dir, *names);
    unlink(path);
  }
  if (names != NULL && rmdir(dir) != 0) {
    perror(dir);
  }
  close(pipes.in);
  close(pipes.out);
  guest_stop(g);
}

static void test_process(void) {
  struct guest guest, *g = &guest;
  struct pipes pipes = start(g, (struct wasi_config){.clock_resolution_ns = NS_PER_MS}, false);
  uint64_t a = guest_room(g, 64), b = guest_room(g, 64);
  CHECK_ERRNO("sizes", CALL(g, "args_sizes_get", a, a + 4), W_SUCCESS);
  CHECK("3 arguments, 13 bytes", guest_u32(g, a) == 3 && guest_u32(g, a + 4) == 13);
  CHECK_ERRNO("args", CALL(g, "args_get", a, b), W_SUCCESS);
  CHECK("strings", memcmp(g->memory + b, "program\0one\0", 13) == 0);
  CHECK("the second pointer", guest_u32(g, a + 4) == b + 8);
  CHECK_ERRNO("args out of bounds", CALL(g, "args_get", a, GUEST_MEMORY - 12), W_FAULT);
  CHECK_ERRNO("environ", CALL(g, "environ_get", a, b), W_SUCCESS);
  CHECK("K=V", strcmp((char *)g->memory + b, "K=V") == 0);
  CHECK_ERRNO("exit", CALL(g, "proc_exit", 7), 0xffff);
  CHECK("outcome", g->outcome == WS_OUTCOME_EXIT && g->code == 7);
  CHECK_ERRNO("raise urg", CALL(g, "proc_raise", 22), W_SUCCESS);
  CHECK_ERRNO("raise 0", CALL(g, "proc_raise", 0), W_INVAL);
  CHECK_ERRNO("raise 31", CALL(g, "proc_raise", 31), W_INVAL);
  CHECK_ERRNO("raise abrt", CALL(g, "proc_raise", 6), 0xffff);
  CHECK("SIGABRT", g->outcome == WS_OUTCOME_RAISED && g->code == SIGABRT);
  CHECK_ERRNO("raise sys", CALL(g, "proc_raise", 30), 0xffff);
  CHECK("SIGSYS", g->code == SIGSYS);
  CHECK_ERRNO("random", CALL(g, "random_get", 0, GUEST_MEMORY), W_SUCCESS);
  CHECK_ERRNO("random over the end", CALL(g, "random_get", 1, GUEST_MEMORY), W_FAULT);
  CHECK_ERRNO("yield", CALL(g, "sched_yield", 0), W_SUCCESS);
  for (uint64_t id = 0; id < 4; id++) {
    CHECK_ERRNO("time", CALL(g, "clock_time_get", id, 0, a), W_SUCCESS);
    CHECK("rounded down", guest_u64(g, a) % NS_PER_MS == 0);
    CHECK_ERRNO("resolution", CALL(g, "clock_res_get", id, a), W_SUCCESS);
    CHECK("as configured", guest_u64(g, a) == NS_PER_MS);
  }
  CHECK_ERRNO("no clock 4", CALL(g, "clock_time_get", 4, 0, a), W_INVAL);
  CHECK_ERRNO("no preopen", CALL(g, "fd_prestat_get", 3, a), W_BADF);
  CHECK("recorded", guest_denied(g, WS_DENIAL_NO_PREOPEN, ""));
  CHECK_ERRNO("no socket", CALL(g, "sock_accept", 3, 0, a), W_BADF);
  CHECK_ERRNO("not a socket", CALL(g, "sock_shutdown", 0, 1), W_NOTSOCK);
  CHECK("recorded", guest_denied(g, WS_DENIAL_SOCKET, "sock_accept"));
  stop(g, pipes, NULL);
}

static void test_stdio(void) {
  struct guest guest, *g = &guest;
  struct pipes pipes = start(g, (struct wasi_config){.max_output = 10}, false);
  uint64_t buf = guest_room(g, 64), out = guest_room(g, 64);
  uint64_t iov = guest_iov(g, buf, 64);
  uint32_t done;
  CHECK("fed", write(pipes.in, "hello", 5) == 5);
  CHECK_ERRNO("read", CALL(g, "fd_read", 0, iov, 1, out), W_SUCCESS);
  CHECK("hello", guest_u32(g, out) == 5 && memcmp(g->memory + buf, "hello", 5) == 0);
  CHECK_ERRNO("non-blocking", CALL(g, "fd_fdstat_set_flags", 0, W_FDFLAG_NONBLOCK), W_SUCCESS);
  CHECK_ERRNO("nothing there", CALL(g, "fd_read", 0, iov, 1, out), W_AGAIN);
  CHECK("the host's flags are the user's", (fcntl(g->config.stdio[0], F_GETFL) & O_NONBLOCK) == 0);
  CHECK_ERRNO("fdstat", CALL(g, "fd_fdstat_get", 0, out), W_SUCCESS);
  CHECK("unknown type, NONBLOCK", g->memory[out] == 0 && g->memory[out + 2] == W_FDFLAG_NONBLOCK);
  CHECK_ERRNO("seek", CALL(g, "fd_seek", 0, 0, 1, out), W_SPIPE);
  CHECK_ERRNO("pread", CALL(g, "fd_pread", 0, iov, 1, 0, out), W_SPIPE);
  CHECK_ERRNO("write to stdin", guest_write(g, 0, "x", &done), W_BADF);
  CHECK_ERRNO("read from stdout", CALL(g, "fd_read", 1, iov, 1, out), W_BADF);
  CHECK_ERRNO("sync", CALL(g, "fd_sync", 1), W_BADF);
  CHECK_ERRNO("filestat", CALL(g, "fd_filestat_get", 1, out), W_SUCCESS);
  CHECK_ERRNO("write", guest_write(g, 1, "12345", &done), W_SUCCESS);
  CHECK_ERRNO("over the quota", guest_write(g, 2, "6789012345", &done), 0xffff);
  CHECK("outcome", g->outcome == WS_OUTCOME_OUTPUT && g->record->output_bytes == 10);
  char text[32];
  CHECK("what fits was written", read(pipes.out, text, sizeof text) == 10);
  CHECK_ERRNO("nothing more", guest_write(g, 1, "x", &done), 0xffff);
  stop(g, pipes, NULL);

  pipes = start(g, (struct wasi_config){0}, false);
  close(pipes.out);
  pipes.out = -1;
  CHECK_ERRNO("other end closed", guest_write(g, 1, "x", &done), W_IO);
  CHECK_ERRNO("close", CALL(g, "fd_close", 1), W_SUCCESS);
  CHECK("the host's stays", fcntl(g->config.stdio[1], F_GETFD) >= 0);
  CHECK_ERRNO("closed", guest_write(g, 1, "x", &done), W_BADF);
  stop(g, pipes, NULL);
}

static void test_bounds(void) {
  struct guest guest, *g = &guest;
  struct pipes pipes = start(g, (struct wasi_config){0}, true);
  uint64_t out = guest_room(g, 8), end = GUEST_MEMORY;
  uint32_t fd, done;
  CHECK_ERRNO("file", guest_open(g, PREOPEN, "f", W_OFLAG_CREAT, &fd), W_SUCCESS);
  CHECK_ERRNO("iovs over the end", CALL(g, "fd_write", fd, end - 4, 1, out), W_FAULT);
  CHECK_ERRNO("iovs far out", CALL(g, "fd_write", fd, 0xfffffff8, 0xffffffff, out), W_FAULT);
  CHECK_ERRNO("buffer over the end",
              CALL(g, "fd_write", fd, guest_iov(g, end - 1, 2), 1, out), W_FAULT);
  CHECK_ERRNO("buffer wraps", CALL(g, "fd_read", fd, guest_iov(g, 0xffffffff, 0xffffffff), 1, out),
              W_FAULT);
  CHECK_ERRNO("count pointer", CALL(g, "fd_write", fd, guest_iov(g, 0, 1), 1, end - 3), W_FAULT);
  CHECK_ERRNO("no bytes at the end", CALL(g, "fd_write", fd, guest_iov(g, end, 0), 1, out),
              W_SUCCESS);
  CHECK_ERRNO("no bytes behind it", CALL(g, "fd_write", fd, guest_iov(g, end + 1, 0), 1, out),
              W_FAULT);
  CHECK_ERRNO("no iovecs", CALL(g, "fd_write", fd, 0, 0, out), W_SUCCESS);
  CHECK_ERRNO("path out", CALL(g, "path_unlink_file", PREOPEN, end - 1, 2), W_FAULT);
  CHECK_ERRNO("path too long", CALL(g, "path_unlink_file", PREOPEN, 0, 4096), W_NAMETOOLONG);
  CHECK_ERRNO("stat out", CALL(g, "fd_filestat_get", fd, end - 63), W_FAULT);
  CHECK_ERRNO("readdir out", CALL(g, "fd_readdir", PREOPEN, end - 10, 11, 0, out), W_FAULT);
  CHECK_ERRNO("poll out", CALL(g, "poll_oneoff", 0, 0, 0xffffffff, out), W_FAULT);
  uint64_t many = guest_room(g, 8 * 2000), byte = guest_bytes(g, "x", 1);
  for (uint32_t i = 0; i < 2000; i++) {
    uint32_t pair[2] = {(uint32_t)byte, 1};
    memcpy(g->memory + many + 8 * i, pair, 8);
  }
  CHECK_ERRNO("2000 buffers", CALL(g, "fd_write", fd, many, 2000, out), W_SUCCESS);
  CHECK("as many as one call takes", guest_u32(g, out) == 1024);
  struct wasi_memory none = {0};
  g->view = none;
  CHECK_ERRNO("no memory at all", CALL(g, "fd_tell", fd, 0), W_FAULT);
  g->view = (struct wasi_memory){.base = g->memory, .size = GUEST_MEMORY};
  CHECK_ERRNO("still there", guest_write(g, fd, "y", &done), W_SUCCESS);
  stop(g, pipes, (const char *const[]){"f", NULL});
}

static void test_files(void) {
  struct guest guest, *g = &guest;
  struct pipes pipes = start(g, (struct wasi_config){0}, true);
  uint64_t out = guest_room(g, 64), buf = guest_room(g, 64);
  uint32_t fd, done;
  CHECK_ERRNO("append", guest_open_with(g, PREOPEN, "f", W_OFLAG_CREAT, ALL_RIGHTS,
                                        W_FDFLAG_APPEND, &fd),
              W_SUCCESS);
  guest_write(g, fd, "abcdef", &done);
  uint64_t xy = guest_iov(g, guest_bytes(g, "XY", 2), 2);
  CHECK_ERRNO("pwrite", CALL(g, "fd_pwrite", fd, xy, 1, 1, out), W_SUCCESS);
  guest_write(g, fd, "g", &done);
  CHECK_ERRNO("pread", CALL(g, "fd_pread", fd, guest_iov(g, buf, 64), 1, 0, out), W_SUCCESS);
  CHECK("at the offset, then appended", guest_u32(g, out) == 7 &&
                                            memcmp(g->memory + buf, "aXYdefg", 7) == 0);
  CHECK_ERRNO("pread far", CALL(g, "fd_pread", fd, xy, 1, UINT64_MAX, out), W_INVAL);
  CHECK_ERRNO("seek set", CALL(g, "fd_seek", fd, 2, 0, out), W_SUCCESS);
  CHECK_ERRNO("seek cur", CALL(g, "fd_seek", fd, 1, 1, out), W_SUCCESS);
  CHECK("3", guest_u64(g, out) == 3);
  CHECK_ERRNO("seek below 0", CALL(g, "fd_seek", fd, (uint64_t)-4, 1, out), W_INVAL);
  g->unstable = true;
  CHECK_ERRNO("old end", CALL(g, "fd_seek", fd, 0, 1, out), W_SUCCESS);
  CHECK("7", guest_u64(g, out) == 7);
  CHECK_ERRNO("old set", CALL(g, "fd_seek", fd, 5, 2, out), W_SUCCESS);
  CHECK_ERRNO("old cur", CALL(g, "fd_seek", fd, 1, 0, out), W_SUCCESS);
  CHECK("6", guest_u64(g, out) == 6);
  g->unstable = false;
  CHECK_ERRNO("tell", CALL(g, "fd_tell", fd, out), W_SUCCESS);
  CHECK("6", guest_u64(g, out) == 6);
  CHECK_ERRNO("size", CALL(g, "fd_filestat_set_size", fd, 100), W_SUCCESS);
  CHECK_ERRNO("allocate", CALL(g, "fd_allocate", fd, 0, 200), W_SUCCESS);
  CHECK_ERRNO("advise", CALL(g, "fd_advise", fd, 0, 0, 5), W_SUCCESS);
  CHECK_ERRNO("advise 6", CALL(g, "fd_advise", fd, 0, 0, 6), W_INVAL);
  CHECK_ERRNO("sync", CALL(g, "fd_sync", fd), W_SUCCESS);
  CHECK_ERRNO("datasync", CALL(g, "fd_datasync", fd), W_SUCCESS);
  CHECK_ERRNO("stat", CALL(g, "fd_filestat_get", fd, out), W_SUCCESS);
  CHECK("200 bytes", guest_u64(g, out + 32) == 200);
  CHECK_ERRNO("no change of sync", CALL(g, "fd_fdstat_set_flags", fd, W_FDFLAG_SYNC), W_INVAL);
  CHECK_ERRNO("flags", CALL(g, "fd_fdstat_set_flags", fd, W_FDFLAG_NONBLOCK), W_SUCCESS);
  CALL(g, "fd_fdstat_get", fd, out);
  CHECK("nonblock, no append", g->memory[out + 2] == W_FDFLAG_NONBLOCK);
  CALL(g, "fd_close", fd);
  CHECK_ERRNO("reading only", guest_open_with(g, PREOPEN, "f", 0, READ_RIGHTS, 0, &fd), W_SUCCESS);
  CHECK_ERRNO("no right", guest_write(g, fd, "x", &done), W_NOTCAPABLE);
  CHECK("recorded", guest_denied(g, WS_DENIAL_RIGHTS, "fd_write"));
  CHECK_ERRNO("give up", CALL(g, "fd_fdstat_set_rights", fd, W_RIGHT_FD_TELL, 0), W_SUCCESS);
  CHECK_ERRNO("gone", CALL(g, "fd_seek", fd, 1, 0, out), W_NOTCAPABLE);
  CHECK_ERRNO("tell is left", CALL(g, "fd_seek", fd, 0, 1, out), W_SUCCESS);
  CHECK_ERRNO("no way back", CALL(g, "fd_fdstat_set_rights", fd, ALL_RIGHTS, 0), W_NOTCAPABLE);
  stop(g, pipes, (const char *const[]){"f", NULL});
}

static void test_table(void) {
  struct guest guest, *g = &guest;
  struct pipes pipes = start(g, (struct wasi_config){.max_fds = 24}, true);
  uint32_t fds[32], count = 0, fd, done;
  uint64_t out = guest_room(g, 8);
  while (guest_open(g, PREOPEN, "f", W_OFLAG_CREAT, &fd) == 0 && count < 32) {
    fds[count++] = fd;
  }
  CHECK("20 besides stdio and the preopen", count == 20 && fds[0] == 4 && fds[19] == 23);
  CHECK_ERRNO("full", guest_open(g, PREOPEN, "g", W_OFLAG_CREAT, &fd), W_MFILE);
  CHECK("recorded", guest_denied(g, WS_DENIAL_FDS, ""));
  CALL(g, "fd_close", 9);
  CALL(g, "fd_close", 5);
  CHECK_ERRNO("and not created", guest_open(g, PREOPEN, "g", 0, &fd), W_NOENT);
  CHECK_ERRNO("again", guest_open(g, PREOPEN, "f", 0, &fd), W_SUCCESS);
  CHECK("lowest free", fd == 5);
  guest_write(g, 6, "six", &done);
  CHECK_ERRNO("renumber", CALL(g, "fd_renumber", 6, 7), W_SUCCESS);
  CHECK_ERRNO("moved", CALL(g, "fd_tell", 7, out), W_SUCCESS);
  CHECK("position", guest_u64(g, out) == 3);
  CHECK_ERRNO("source closed", CALL(g, "fd_tell", 6, out), W_BADF);
  CHECK_ERRNO("to itself", CALL(g, "fd_renumber", 7, 7), W_SUCCESS);
  CHECK_ERRNO("from closed", CALL(g, "fd_renumber", 6, 7), W_BADF);
  CHECK_ERRNO("to closed", CALL(g, "fd_renumber", 7, 6), W_BADF);
  CHECK_ERRNO("far out", CALL(g, "fd_renumber", 7, 0xffffffff), W_BADF);
  CHECK_ERRNO("over stdout", CALL(g, "fd_renumber", 7, 1), W_SUCCESS);
  CHECK_ERRNO("it is a file now", CALL(g, "fd_tell", 1, out), W_SUCCESS);
  CHECK_ERRNO("prestat", CALL(g, "fd_prestat_get", PREOPEN, out), W_SUCCESS);
  CHECK("directory, 1 byte", guest_u32(g, out) == 0 && guest_u32(g, out + 4) == 1);
  CHECK_ERRNO("name", CALL(g, "fd_prestat_dir_name", PREOPEN, out, 1), W_SUCCESS);
  CHECK(".", g->memory[out] == '.');
  CHECK_ERRNO("no room for the name", CALL(g, "fd_prestat_dir_name", PREOPEN, out, 0),
              W_NAMETOOLONG);
  CHECK_ERRNO("no directory", CALL(g, "fd_prestat_dir_name", 4, out, 1), W_NOTDIR);
  CHECK_ERRNO("move the preopen", CALL(g, "fd_renumber", PREOPEN, 4), W_SUCCESS);
  CHECK_ERRNO("still a preopen", CALL(g, "fd_prestat_get", 4, out), W_SUCCESS);
  CHECK_ERRNO("path on a file", guest_open(g, 8, "f", 0, &fd), W_NOTDIR);
  CHECK_ERRNO("path on stdin", guest_open(g, 0, "f", 0, &fd), W_BADF);
  stop(g, pipes, (const char *const[]){"f", NULL});
}

/* One subscription in the layout of the guest's snapshot, at `at`. */
static void subscribe(struct guest *g, uint64_t at, uint64_t userdata, uint8_t type, uint32_t fd,
                      uint64_t timeout, uint16_t flags) {
  uint64_t clock = at + (g->unstable ? 24 : 16);
  memset(g->memory + at, 0, g->unstable ? 56 : 48);
  memcpy(g->memory + at, &userdata, 8);
  g->memory[at + 8] = type;
  if (type == W_EVENT_CLOCK) {
    memcpy(g->memory + clock, &fd, 4);
    memcpy(g->memory + clock + 8, &timeout, 8);
    memcpy(g->memory + clock + 24, &flags, 2);
  } else {
    memcpy(g->memory + at + 16, &fd, 4);
  }
}

static uint64_t monotonic(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000 * NS_PER_MS + (uint64_t)ts.tv_nsec;
}

static void test_poll(bool unstable) {
  struct guest guest, *g = &guest;
  struct pipes pipes = start(g, (struct wasi_config){0}, true);
  g->unstable = unstable;
  uint32_t size = unstable ? 56 : 48, fd, done;
  uint64_t subs = guest_room(g, size * 64), events = guest_room(g, 32 * 64), n = guest_room(g, 4);
  guest_open(g, PREOPEN, "f", W_OFLAG_CREAT, &fd);
  guest_write(g, fd, "12345678", &done);
  CALL(g, "fd_seek", fd, 3, unstable ? 2 : 0, n);
  CHECK_ERRNO("nothing", CALL(g, "poll_oneoff", subs, events, 0, n), W_INVAL);

  uint64_t before = monotonic();
  subscribe(g, subs, 11, W_EVENT_CLOCK, W_CLOCK_MONOTONIC, 20 * NS_PER_MS, 0);
  CHECK_ERRNO("sleep", CALL(g, "poll_oneoff", subs, events, 1, n), W_SUCCESS);
  CHECK("slept as long", monotonic() - before >= 20 * NS_PER_MS);
  CHECK("one event", guest_u32(g, n) == 1 && guest_u64(g, events) == 11 &&
                         guest_u32(g, events + 8) == 0);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  before = monotonic();
  subscribe(g, subs, 12, W_EVENT_CLOCK, W_CLOCK_REALTIME,
            (uint64_t)now.tv_sec * 1000 * NS_PER_MS + (uint64_t)now.tv_nsec + 20 * NS_PER_MS,
            W_SUBCLOCK_ABSTIME);
  subscribe(g, subs + size, 13, W_EVENT_FD_READ, 0, 0, 0);
  CHECK_ERRNO("until", CALL(g, "poll_oneoff", subs, events, 2, n), W_SUCCESS);
  CHECK("the clock, in time", guest_u32(g, n) == 1 && guest_u64(g, events) == 12 &&
                                  monotonic() - before >= 19 * NS_PER_MS);

  subscribe(g, subs, 1, W_EVENT_CLOCK, W_CLOCK_MONOTONIC, UINT64_MAX, 0);
  subscribe(g, subs + size, 2, W_EVENT_FD_READ, fd, 0, 0);
  subscribe(g, subs + 2 * size, 3, W_EVENT_FD_WRITE, fd, 0, 0);
  subscribe(g, subs + 3 * size, 4, W_EVENT_FD_WRITE, 1, 0, 0);
  subscribe(g, subs + 4 * size, 5, W_EVENT_FD_READ, 77, 0, 0);
  subscribe(g, subs + 5 * size, 6, W_EVENT_FD_READ, PREOPEN, 0, 0);
  subscribe(g, subs + 6 * size, 7, W_EVENT_FD_READ, 0, 0, 0);
  subscribe(g, subs + 7 * size, 8, W_EVENT_CLOCK, W_CLOCK_PROCESS, 0, 0);
  CHECK_ERRNO("all kinds", CALL(g, "poll_oneoff", subs, events, 8, n), W_SUCCESS);
  CHECK("six events", guest_u32(g, n) == 6);
  CHECK("file: what is left", guest_u64(g, events) == 2 && guest_u64(g, events + 16) == 5);
  CHECK("file: room", guest_u64(g, events + 32) == 3 && g->memory[events + 32 + 10] == 2);
  CHECK("stdout", guest_u64(g, events + 64) == 4);
  CHECK("closed: EBADF", guest_u64(g, events + 96) == 5 && g->memory[events + 96 + 8] == W_BADF);
  CHECK("directory: EBADF", g->memory[events + 128 + 8] == W_BADF);
  CHECK("CPU clock: EINVAL", g->memory[events + 160 + 8] == W_INVAL);

  CHECK("fed", write(pipes.in, "x", 1) == 1);
  subscribe(g, subs, 1, W_EVENT_FD_READ, 0, 0, 0);
  CHECK_ERRNO("stdin", CALL(g, "poll_oneoff", subs, events, 1, n), W_SUCCESS);
  CHECK("ready", guest_u32(g, n) == 1 && guest_u64(g, events + 16) == 1);
  subscribe(g, subs, 1, 3, 0, 0, 0);
  CHECK_ERRNO("no such event", CALL(g, "poll_oneoff", subs, events, 1, n), W_INVAL);
  for (uint32_t i = 0; i < 64; i++) {
    subscribe(g, subs + i * size, i, i % 2 ? W_EVENT_FD_READ : W_EVENT_FD_WRITE, i % 2 ? 0 : 1, 0,
              0);
  }
  CHECK_ERRNO("many", CALL(g, "poll_oneoff", subs, events, 64, n), W_SUCCESS);
  CHECK("each its event", guest_u32(g, n) == 64);
  stop(g, pipes, (const char *const[]){"f", NULL});
}

static int listener(struct sockaddr_in *address) {
  socklen_t len = sizeof *address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  *address = (struct sockaddr_in){.sin_family = AF_INET};
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof *address) != 0 || listen(fd, 4) != 0 ||
      getsockname(fd, (struct sockaddr *)address, &len) != 0) {
    perror("listener");
    exit(2);
  }
  return fd;
}

static void test_sockets(void) {
  struct guest guest, *g = &guest;
  struct sockaddr_in address;
  struct wasi_preopen preopen = {.kind = WASI_PREOPEN_LISTENER, .name = ""};
  preopen.fd = listener(&address);
  guest_start(g, &(struct wasi_config){
                     .stdio = {-1, -1, -1}, .preopens = &preopen, .preopen_count = 1});
  uint64_t out = guest_room(g, 8), buf = guest_room(g, 16), iov = guest_iov(g, buf, 16);
  CHECK_ERRNO("a tag of its own", CALL(g, "fd_prestat_get", PREOPEN, out), W_SUCCESS);
  CHECK("not a directory", g->memory[out] == W_PREOPEN_SOCKET);
  CHECK_ERRNO("non-blocking", CALL(g, "fd_fdstat_set_flags", PREOPEN, W_FDFLAG_NONBLOCK),
              W_SUCCESS);
  CHECK_ERRNO("nobody yet", CALL(g, "sock_accept", PREOPEN, 0, out), W_AGAIN);
  CHECK_ERRNO("recv on a listener", CALL(g, "sock_recv", PREOPEN, iov, 1, 0, out, out), W_NOTCONN);
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK("connected", connect(client, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK_ERRNO("accept", CALL(g, "sock_accept", PREOPEN, W_FDFLAG_NONBLOCK, out), W_SUCCESS);
  uint32_t fd = guest_u32(g, out);
  CHECK_ERRNO("nothing sent yet", CALL(g, "sock_recv", fd, iov, 1, 0, out, out + 4), W_AGAIN);
  CHECK("sent", send(client, "ping", 4, 0) == 4);
  CHECK_ERRNO("blocking", CALL(g, "fd_fdstat_set_flags", fd, 0), W_SUCCESS);
  CHECK_ERRNO("peek", CALL(g, "sock_recv", fd, iov, 1, W_RI_PEEK, out, out + 4), W_SUCCESS);
  CHECK_ERRNO("fd_read", CALL(g, "fd_read", fd, iov, 1, out), W_SUCCESS);
  CHECK("ping", guest_u32(g, out) == 4 && memcmp(g->memory + buf, "ping", 4) == 0);
  CHECK_ERRNO("send", CALL(g, "sock_send", fd, guest_iov(g, buf, 4), 1, 0, out), W_SUCCESS);
  CHECK_ERRNO("send with a flag", CALL(g, "sock_send", fd, iov, 1, 1, out), W_INVAL);
  CHECK_ERRNO("shutdown", CALL(g, "sock_shutdown", fd, W_SD_WR), W_SUCCESS);
  CHECK_ERRNO("shutdown nothing", CALL(g, "sock_shutdown", fd, 0), W_INVAL);
  char text[8];
  CHECK("pong", recv(client, text, sizeof text, MSG_WAITALL) == 4);
  CHECK_ERRNO("write after shutdown", CALL(g, "fd_write", fd, iov, 1, out), W_PIPE);
  CHECK_ERRNO("seek", CALL(g, "fd_tell", fd, out), W_SPIPE);
  close(client);
  guest_stop(g);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN); /* as in the worker */
  test_process();
  test_stdio();
  test_bounds();
  test_files();
  test_table();
  test_poll(false);
  test_poll(true);
  test_sockets();
  printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
