/* libFuzzer target: every preview 1 function of both tables with arbitrary arguments.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
 *       -D_GNU_SOURCE -Dppoll=fuzz_ppoll -Dclock_gettime=fuzz_clock_gettime -I runtime/core \
 *       tests/fuzz/fuzz_wasi.c runtime/core/wasi/.c... runtime/core/base/record.c -o fuzz_wasi
 *
 * The two -D replace the calls that could hold the fuzzer: time is a counter that a sleep moves on,
 * and a wait without end is an error.  The guest's memory is an allocation of its exact size, so
 * that AddressSanitizer sees any byte touched outside.  Each input runs on a fresh context over the
 * same small tree; after it, nothing may have changed outside the preopen. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "wasi/wasi.h"

#define MEMORY 8192u
#define STRINGS 512u /* where the dictionary lies in the guest's memory */
#define IOVECS 2048u
#define SCRATCH 4096u
#define SLOT 32u
#define CALLS 64

static const char *const words[] = {"f",  "d",    "d/n",   "..",     "link", "esc",     "/etc",
                                    "d/", "esc/", "esc/x", "d/../f", ".",    "d/../..", "loop"};
#define WORDS (sizeof words / sizeof *words)

static char base[64];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct ws_record record;
static jmp_buf finished;
static struct timespec clock_now = {.tv_sec = 1000};

struct input {
  const uint8_t *data;
  size_t left;
};

int fuzz_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
               const sigset_t *mask);
int fuzz_clock_gettime(clockid_t id, struct timespec *out);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int fuzz_clock_gettime(clockid_t id, struct timespec *out) {
  (void)id;
  *out = clock_now;
  return 0;
}

int fuzz_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
               const sigset_t *mask) {
  (void)mask;
  int n = poll(fds, count, 0);
  if (n == 0 && timeout == NULL) {
    errno = ENOMEM;
    return -1;
  }
  if (n == 0 && timeout != NULL) {
    clock_now.tv_sec = (clock_now.tv_sec + timeout->tv_sec) & INT64_C(0x3ffffffff);
    clock_now.tv_sec += (clock_now.tv_nsec + timeout->tv_nsec) / 1000000000;
    clock_now.tv_nsec = (clock_now.tv_nsec + timeout->tv_nsec) % 1000000000;
  }
  return n;
}

static __attribute__((noreturn)) void finish(void *arg, enum ws_outcome outcome, uint32_t code) {
  (void)arg;
  (void)outcome;
  (void)code;
  longjmp(finished, 1);
}

static uint64_t take(struct input *in, unsigned bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes && in->left > 0; i++, in->left--) {
    value |= (uint64_t)*in->data++ << (8 * i);
  }
  return value;
}

static void at_base(char *out, size_t size, const char *name) {
  snprintf(out, size, "%s/%s", base, name);
}

static void make(const char *name, const char *target) {
  char path[256];
  at_base(path, sizeof path, name);
  if (target == NULL) {
    mkdir(path, 0700);
  } else if (target[0] == '\0') {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, "contents", 8) == 8) {
      close(fd);
    }
  } else if (symlink(target, path) != 0 && errno != EEXIST) {
    abort();
  }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

static void remove_base(void) { nftw(base, remove_one, 32, FTW_DEPTH | FTW_PHYS); }

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  struct rlimit size = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &size); /* a sparse file is cheap, fallocate is not */
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  snprintf(base, sizeof base, "%s/wasisup-fuzz-XXXXXX",
           access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  if (mkdtemp(base) == NULL) {
    abort();
  }
  atexit(remove_base);
  make("out", NULL);
  make("out/x", "");
  at_base(address.sun_path, sizeof address.sun_path, "sock");
  return 0;
}

/* The preopen's tree, and the wall around it: `out` must never change. */
static int make_tree(void) {
  char path[256];
  at_base(path, sizeof path, "in");
  make("in", NULL);
  make("in/d", NULL);
  make("in/d/n", "");
  make("in/f", "");
  make("in/link", "f");
  make("in/esc", "../out");
  make("in/loop", "loop");
  return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void check_tree(void) {
  char path[256];
  struct stat st;
  at_base(path, sizeof path, "out/x");
  if (stat(path, &st) != 0 || st.st_size != 8 || st.st_nlink != 1) {
    abort();
  }
  at_base(path, sizeof path, "out");
  if (stat(path, &st) != 0 || st.st_nlink != 2) {
    abort();
  }
  at_base(path, sizeof path, "in");
  nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* A listener with one connection that has sent its bytes and gone: nothing on it can block. */
static int make_listener(void) {
  unlink(address.sun_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 2) != 0 ||
      connect(client, (struct sockaddr *)&address, sizeof address) != 0 ||
      send(client, "ping", 4, 0) != 4) {
    abort();
  }
  close(client);
  return fd;
}

static struct wasi_ctx *make_context(struct input *in) {
  static const struct ws_bytes strings[] = {{"a", 1}, {"", 0}, {"bc", 2}};
  uint8_t how = (uint8_t)take(in, 1);
  struct wasi_preopen preopens[] = {
      {.kind = WASI_PREOPEN_DIR, .fd = make_tree(), .name = "/p", .name_len = 2},
      {.kind = WASI_PREOPEN_LISTENER, .fd = make_listener(), .name = ""},
  };
  preopens[0].read_only = how & 1;
  struct wasi_config config = {
      .args = strings,
      .arg_count = 3,
      .env = strings,
      .env_count = how & 2 ? 0 : 2,
      .preopens = preopens,
      .preopen_count = 2,
      .max_fds = 12,
      .max_output = how & 4 ? 100 : UINT64_MAX,
      .clock_resolution_ns = how & 8 ? 1000000 : 0,
      .record = &record,
      .finish = finish,
  };
  for (int i = 0; i < 3; i++) {
    config.stdio[i] = how & 16 && i == 0 ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);
  }
  return wasi_ctx_new(&config);
}

static void fill_memory(uint8_t *memory, const struct input *in) {
  size_t n = in->left < MEMORY - SCRATCH ? in->left : MEMORY - SCRATCH;
  memset(memory, 0, MEMORY);
  memcpy(memory + SCRATCH, in->data, n);
  for (size_t i = 0; i < WORDS; i++) {
    memcpy(memory + STRINGS + SLOT * i, words[i], strlen(words[i]));
  }
  for (uint32_t i = 0; i < 64; i++) {
    uint32_t pair[2] = {SCRATCH + 16 * i, i};
    memcpy(memory + IOVECS + 8 * i, pair, sizeof pair);
  }
}

/* One argument; a pointer to a word makes the next argument its length. */
static uint64_t argument(struct input *in, char type, uint64_t *length) {
  if (*length != 0) {
    uint64_t value = *length;
    *length = 0;
    return value;
  }
  uint8_t kind = (uint8_t)take(in, 1);
  size_t word = (kind >> 3) % WORDS;
  switch (kind & 7) {
  case 0:
    return kind >> 3;
  case 1:
    *length = strlen(words[word]);
    return STRINGS + SLOT * word;
  case 2:
    return IOVECS + (kind >> 3);
  case 3:
    return SCRATCH + 8u * (kind >> 3);
  case 4:
    return MEMORY - (kind >> 3);
  case 5:
    return type == 'I' ? ~UINT64_C(0) : UINT32_MAX - (kind >> 3);
  default:
    return take(in, type == 'I' ? 8 : (kind & 1 ? 4 : 1));
  }
}

static void one_call(struct input *in, struct wasi_ctx *ctx, const struct wasi_memory *memory) {
  uint64_t args[16] = {0}, length = 0;
  uint8_t which = (uint8_t)take(in, 1);
  const struct wasi_function *function = which & 128 ? wasi_unstable : wasi_snapshot_preview1;
  for (which &= 127; which > 0 && function[1].name != NULL; which--) {
    function++;
  }
  for (int i = 0; function->params[i] != '\0'; i++) {
    args[i] = argument(in, function->params[i], &length);
  }
  function->call(ctx, memory, args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input in = {.data = data, .left = size};
  uint8_t *bytes = malloc(MEMORY);
  const struct wasi_memory memory = {.base = bytes, .size = MEMORY};
  memset(&record, 0, sizeof record);
  struct wasi_ctx *ctx = make_context(&in);
  if (bytes == NULL || ctx == NULL) {
    abort();
  }
  fill_memory(bytes, &in);
  for (volatile int i = 0; i < CALLS && in.left > 0; i++) {
    if (setjmp(finished) == 0) {
      one_call(&in, ctx, &memory);
    }
  }
  wasi_ctx_delete(ctx);
  free(bytes);
  check_tree();
  return 0;
}
