/* A worker that has already lost to its guest: native code, run in place of wasm behind both filters.
 *
 * Only the test build of the core holds it (WASISUP_HOSTILE=ON).  The arguments after the first are
 * steps, carried out in order in this one process.  A step is either a raw system call,
 *
 *     NUMBER ARG ARG ...          printed as "step result errno"
 *
 * or one of the words in `specials` below, for what no single call can say.  An ARG is
 *
 *     123, -1, 0x1f   a number            rK       the result of step K
 *     "text           a C string          &N       N zeroed bytes
 *     @hex            those bytes         >N       N bytes, printed in hex as far as the call filled them
 *     {A,A,...}       64-bit words, each an ARG of its own: iovec, msghdr, sock_fprog
 *     $               this process's first thread's stack pointer: some mapped address
 *
 * so that the table of attacks lives in one place, attacks.py, next to what each must come to.
 * Nothing here may call what libc would turn into a system call of its own, but write.  */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

int hostile_main(int argc, char **argv);

#define ARENA_BYTES (4u << 20)
#define MAX_STEPS 64
#define MAX_SHOWN 16

static _Alignas(4096) uint8_t arena[ARENA_BYTES];
static size_t arena_used;
static long results[MAX_STEPS];
static struct {
  const uint8_t *at;
  size_t len;
} shown[MAX_SHOWN];
static size_t shown_count;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...) {
  char line[512];
  va_list ap;
  va_start(ap, fmt);
  int len = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (len > (int)sizeof line - 1)
    len = sizeof line - 1;
  for (int done = 0; done < len;) {
    ssize_t n = write(1, line + done, (size_t)(len - done));
    if (n <= 0)
      return;
    done += (int)n;
  }
}

static void say_hex(const uint8_t *bytes, size_t len) {
  for (size_t i = 0; i < len; i += 128) {
    char text[257] = "";
    for (size_t j = i; j < len && j < i + 128; j++)
      snprintf(text + 2 * (j - i), 3, "%02x", bytes[j]);
    say("%s", text);
  }
}

static void *room(size_t len) {
  size_t rounded = (len + 15) & ~(size_t)15;
  if (rounded > ARENA_BYTES - arena_used)
    return NULL;
  void *at = arena + arena_used;
  arena_used += rounded;
  return at;
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t word_len(const char *text) {
  return strcspn(text, " ,}");
}

static uint64_t parse_bytes(const char **text, int is_hex) {
  size_t len = word_len(*text);
  uint8_t *at = room(is_hex ? len / 2 : len + 1);
  if (at && is_hex)
    for (size_t i = 0; i + 1 < len; i += 2)
      at[i / 2] = (uint8_t)(hex_digit((*text)[i]) << 4 | hex_digit((*text)[i + 1]));
  else if (at)
    memcpy(at, *text, len);
  *text += len;
  return (uintptr_t)at;
}

static uint64_t parse_arg(const char **text) {
  const char kind = **text;
  char *end;
  uint64_t value;
  if (kind == '"' || kind == '@') {
    ++*text;
    return parse_bytes(text, kind == '@');
  }
  if (kind == '$') {
    ++*text;
    return (uintptr_t)__builtin_frame_address(0);
  }
  if (kind == '{') {
    uint64_t *words = room(16 * sizeof *words);
    size_t count = 0;
    do {
      ++*text;
      words[count++] = parse_arg(text);
    } while (**text == ',' && count < 16);
    if (**text == '}')
      ++*text;
    return (uintptr_t)words;
  }
  if (kind == '&' || kind == '>' || kind == 'r') {
    value = strtoull(*text + 1, &end, 0);
    *text = end;
    if (kind == 'r')
      return value < MAX_STEPS ? (uint64_t)results[value] : 0;
    void *at = room(value);
    if (kind == '>' && shown_count < MAX_SHOWN) {
      shown[shown_count].at = at;
      shown[shown_count++].len = value;
    }
    return (uintptr_t)at;
  }
  value = strtoull(*text, &end, 0);
  *text = end == *text ? *text + word_len(*text) : end;
  return value;
}

static size_t parse_args(const char *text, uint64_t *args, size_t max) {
  size_t count = 0;
  while (*text && count < max) {
    args[count++] = parse_arg(&text);
    while (*text && *text != ' ')
      text++;
    while (*text == ' ')
      text++;
  }
  return count;
}

/* The kernel's own interface: glibc's syscall() would do, but hides a result between -4095 and -1. */
static long raw(uint64_t nr, const uint64_t a[6]) {
  long result;
  register uint64_t r10 __asm__("r10") = a[3];
  register uint64_t r8 __asm__("r8") = a[4];
  register uint64_t r9 __asm__("r9") = a[5];
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

static void report(size_t step, long result) {
  int failed = result < 0 && result > -4096;
  results[step] = failed ? -1 : result;
  say("%zu %ld %ld\n", step, failed ? -1 : result, failed ? -result : 0);
}

static void call_step(size_t step, const char *text) {
  uint64_t a[7] = {0};
  shown_count = 0;
  parse_args(text, a, 7);
  long result = raw(a[0], a + 1);
  report(step, result);
  for (size_t i = 0; i < shown_count; i++) {
    say("%zu> ", step);
    say_hex(shown[i].at, shown[i].len);
    say("\n");
  }
}

/* The 32-bit entry of the kernel: its numbers mean other calls. */
static long do_int80(const uint64_t *a) {
  int result;
  __asm__ volatile("int $0x80"
                   : "=a"(result)
                   : "a"((uint32_t)a[0]), "b"((uint32_t)a[1]), "c"((uint32_t)a[2]), "d"((uint32_t)a[3])
                   : "memory", "r8", "r9", "r10", "r11");
  return result;
}

/* Which numbers below a[0] are open descriptors here; ppoll is admitted everywhere. */
static long do_descriptors(const uint64_t *a) {
  long found = 0;
  for (uint64_t fd = 0; fd < a[0]; fd++) {
    struct pollfd p = {.fd = (int)fd};
    struct timespec now = {0};
    uint64_t args[6] = {(uintptr_t)&p, 1, (uintptr_t)&now};
    if (raw(SYS_ppoll, args) >= 0 && !(p.revents & POLLNVAL)) {
      say("open %d\n", (int)fd);
      found++;
    }
  }
  return found;
}

/* write answers EFAULT for what is not mapped, so memory can be read out without a map of it. */
static long dump_from(uintptr_t page, long step) {
  long pages = 0;
  for (page &= ~(uintptr_t)4095; pages < 16384; page += (uintptr_t)(step * 4096), pages++) {
    uint64_t args[6] = {1, page, 4096};
    if (raw(SYS_write, args) < 0)
      break;
  }
  say("\n");
  return pages;
}

static long do_dump_stack(const uint64_t *a) {
  (void)a;
  return dump_from((uintptr_t)__builtin_frame_address(0), 1);
}

static long do_dump_heap(const uint64_t *a) {
  (void)a;
  uint64_t args[6] = {0};
  return dump_from((uintptr_t)raw(SYS_brk, args) - 4096, -1);
}

static long do_environ(const uint64_t *a) {
  (void)a;
  long count = 0;
  for (char **e = environ; e && *e; e++, count++)
    say("environ %s\n", *e);
  return count;
}

static const uint8_t return_42[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */

static long jump(void *to) {
  memcpy(to, return_42, sizeof return_42);
  __builtin___clear_cache(to, (char *)to + sizeof return_42);
  long (*code)(void);
  memcpy(&code, &to, sizeof to);
  return code() & 0xff;
}

static long do_run_data(const uint64_t *a) {
  (void)a;
  return jump(arena + ARENA_BYTES - 4096);
}

static long do_run_stack(const uint64_t *a) {
  uint8_t here[64];
  (void)a;
  return jump(here);
}

/* A forged signal frame: rt_sigreturn is admitted, and it sets the signal mask. */
static long do_block_signals(const uint64_t *a) {
  static ucontext_t frame;
  (void)a;
  memset(&frame, 0, sizeof frame);
  memset(&frame.uc_sigmask, 0xff, 8);
  frame.uc_mcontext.gregs[REG_CSGSFS] = 0x33 | 0x2bll << 48;
  __asm__ volatile("lea 1f(%%rip), %%rcx\n\t"
                   "mov %%rcx, %c[rip](%%rax)\n\t"
                   "mov %%rsp, %c[rsp](%%rax)\n\t"
                   "mov %%rbp, %c[rbp](%%rax)\n\t"
                   "mov %%rax, %%rsp\n\t"
                   "mov %[nr], %%eax\n\t"
                   "syscall\n"
                   "1:"
                   : "+a"((uintptr_t){(uintptr_t)&frame})
                   : [nr] "i"(SYS_rt_sigreturn),
                     [rip] "i"(offsetof(ucontext_t, uc_mcontext.gregs[REG_RIP])),
                     [rsp] "i"(offsetof(ucontext_t, uc_mcontext.gregs[REG_RSP])),
                     [rbp] "i"(offsetof(ucontext_t, uc_mcontext.gregs[REG_RBP]))
                   : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                     "memory", "cc");
  return 0;
}

/* a[0]: protection of a new anonymous page that is then written and called. */
static long do_run_anonymous(const uint64_t *a) {
  uint64_t args[6] = {0, 4096, a[0], MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
  long at = raw(SYS_mmap, args);
  return at < 0 && at > -4096 ? at : jump((void *)at);
}

static long do_spin(const uint64_t *a) {
  volatile uint64_t i = 0;
  while (i < a[0])
    i++;
  return 0;
}

/* Touches a[0] bytes at most, mapped with flags a[1], in steps of 1 MiB; the result is how many MiB there were. */
static long do_touch(const uint64_t *a) {
  long got = 0;
  for (; (uint64_t)got << 20 < a[0]; got++) {
    uint64_t args[6] = {0, 1u << 20, PROT_READ | PROT_WRITE, a[1], (uint64_t)-1, 0};
    long at = raw(SYS_mmap, args);
    if (at < 0 && at > -4096)
      break;
    memset((void *)at, 1, 1u << 20);
  }
  return got;
}

static long do_touch_brk(const uint64_t *a) {
  uint64_t args[6] = {0};
  uint64_t start = (uint64_t)raw(SYS_brk, args);
  long got = 0;
  for (; (uint64_t)got << 20 < a[0]; got++) {
    args[0] = start + ((uint64_t)(got + 1) << 20);
    if ((uint64_t)raw(SYS_brk, args) != args[0])
      break;
    memset((void *)(start + ((uint64_t)got << 20)), 1, 1u << 20);
  }
  return got;
}

static long recurse(volatile uint8_t *above, uint64_t depth) {
  volatile uint8_t frame[65536];
  frame[0] = above ? above[0] : 1;
  return depth ? recurse(frame, depth - 1) + frame[0] : 0;
}

static long do_overflow(const uint64_t *a) {
  return recurse(NULL, a[0]);
}

/* Calls a[0] with the arguments after it until it fails; the result is how often it worked. */
static long do_repeat(const uint64_t *a) {
  long count = 0;
  while (count < 1000000) {
    long result = raw(a[0], a + 1);
    if (result < 0 && result > -4096)
      break;
    count++;
  }
  return count;
}

/* 0: a forbidden call, 1: abort, 2: a loop for the CPU timer */
static void do_special_leave(uint64_t how) {
  if (how == 0)
    raw(SYS_getpid, (uint64_t[6]){0});
  else if (how == 1)
    abort();
  for (volatile uint64_t i = 0;; i++)
    ;
}

/* Clones until that fails; the children wait to be killed. */
static long do_fork_bomb(const uint64_t *a) {
  long count = 0;
  for (; (uint64_t)count < a[0]; count++) {
    uint64_t args[6] = {17 /* SIGCHLD */};
    long pid = raw(SYS_clone, args);
    if (pid < 0)
      break;
    if (pid == 0)
      for (;;)
        raw(SYS_ppoll, (uint64_t[6]){0});
  }
  return count;
}

static void *wait_for_ever(void *nothing) {
  for (;;)
    raw(SYS_ppoll, (uint64_t[6]){0});
  return nothing;
}

/* Makes threads until that fails, by the C library's own way; the smallest that it knows. */
static long do_thread_bomb(const uint64_t *a) {
  pthread_attr_t attributes;
  pthread_t thread;
  long count = 0;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 65536);
  while ((uint64_t)count < a[0] && pthread_create(&thread, &attributes, wait_for_ever, NULL) == 0)
    count++;
  return count;
}

static void *report_and_leave(void *how) {
  do_special_leave((uint64_t)(uintptr_t)how);
  return NULL;
}

/* Ends the process from another thread: a[0] is how. */
static long do_leave_elsewhere(const uint64_t *a) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, report_and_leave, (void *)(uintptr_t)a[0]) != 0)
    return -1;
  return raw(SYS_ppoll, (uint64_t[6]){0});
}

static long do_sleep(const uint64_t *a) {
  struct timespec span = {.tv_sec = (time_t)a[0]};
  return raw(SYS_ppoll, (uint64_t[6]){0, 0, (uintptr_t)&span});
}

/* Whether a page is there; a futex that others could share has to be looked up, and only that. */
static int is_mapped(uintptr_t page) {
  uint64_t args[6] = {page, 1 /* FUTEX_WAKE */, 0};
  return raw(SYS_futex, args) >= 0;
}

/* Overwrites the run record with a[0], but for its first a[1] bytes: what the supervisor reads next
 * is what a captured worker wants it to read. */
static long do_forge(const uint64_t *a) {
  uint64_t args[6] = {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
  uintptr_t start = (uintptr_t)raw(SYS_mmap, args);
  for (uintptr_t page = start - (64u << 20); page < start + (256u << 20); page += 4096)
    if (is_mapped(page) && *(uint32_t *)page == 0x43455257u) {
      memset((uint8_t *)page + a[1], (int)a[0], 65536 - a[1]);
      return 1;
    }
  return 0;
}

/* An address that another thread changes all the time, a byte after the other: half the time it is one,
 * half the time the other, and now and then a bit of both. */
enum { ADDRESS = 16 };
static struct {
  volatile uint8_t now[ADDRESS];
  const uint8_t *one, *other;
  atomic_bool done;
} raced;

static void *change(void *arg) {
  (void)arg;
  for (uint64_t i = 0; !raced.done; i++) {
    const uint8_t *from = i & 1 ? raced.one : raced.other;
    for (int at = 0; at < ADDRESS; at++)
      raced.now[at] = from[at];
  }
  return NULL;
}

/* One try with the address as it is at some moment of the call; the result is the kernel's. */
static long race_connect(long *fd, uint64_t kind) {
  if (*fd < 0)
    *fd = raw(SYS_socket, (uint64_t[6]){2 /* AF_INET */, kind, 0});
  if (*fd < 0)
    return *fd;
  if (kind == 2 /* SOCK_DGRAM */)
    return raw(SYS_sendto, (uint64_t[6]){(uint64_t)*fd, (uintptr_t) "race", 4, 0, (uintptr_t)raced.now, ADDRESS});
  long result = raw(SYS_connect, (uint64_t[6]){(uint64_t)*fd, (uintptr_t)raced.now, ADDRESS});
  if (result == -EACCES)
    return result; /* still a fresh socket */
  raw(SYS_close, (uint64_t[6]){(uint64_t)*fd});
  *fd = -1;
  return result;
}

/* a[0]: SOCK_STREAM connects, SOCK_DGRAM sends.  a[1]: how often.  a[2], a[3]: the two addresses.  The
 * result is how often it was not refused. */
static long do_race(const uint64_t *a) {
  pthread_t other;
  long fd = -1, passed = 0, refused = 0, failed = 0;
  memcpy(&raced.one, &a[2], sizeof raced.one);
  memcpy(&raced.other, &a[3], sizeof raced.other);
  for (int at = 0; at < ADDRESS; at++)
    raced.now[at] = raced.one[at];
  if (pthread_create(&other, NULL, change, NULL) != 0)
    return -EAGAIN;
  for (uint64_t i = 0; i < a[1]; i++) {
    long result = race_connect(&fd, a[0]);
    refused += result == -EACCES;
    passed += result == -EINPROGRESS || result >= 0;
    if (result < 0 && result != -EACCES && result != -EINPROGRESS)
      failed = -result;
  }
  raced.done = true;
  pthread_join(other, NULL);
  say("refused %ld, another error %ld\n", refused, failed);
  return passed;
}

static const struct {
  const char *name;
  long (*run)(const uint64_t *args);
} specials[] = {
    {"int80", do_int80},           {"descriptors", do_descriptors}, {"dump-stack", do_dump_stack},
    {"dump-heap", do_dump_heap},   {"environ", do_environ},         {"run-data", do_run_data},
    {"run-stack", do_run_stack},   {"run-anonymous", do_run_anonymous}, {"spin", do_spin},
    {"touch", do_touch},           {"touch-brk", do_touch_brk},     {"overflow", do_overflow},
    {"repeat", do_repeat},         {"fork-bomb", do_fork_bomb},     {"sleep", do_sleep},
    {"thread-bomb", do_thread_bomb}, {"leave-elsewhere", do_leave_elsewhere},
    {"block-signals", do_block_signals}, {"forge", do_forge},
    {"race", do_race},
};

static int special_step(size_t step, const char *text) {
  size_t len = word_len(text);
  for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
    if (strlen(specials[i].name) == len && memcmp(specials[i].name, text, len) == 0) {
      uint64_t args[8] = {0};
      text += len;
      parse_args(text + strspn(text, " "), args, 8);
      report(step, specials[i].run(args));
      return 0;
    }
  return -1;
}

int hostile_main(int argc, char **argv) {
  for (int i = 1; i < argc && i <= MAX_STEPS; i++) {
    size_t step = (size_t)i - 1;
    if (argv[i][0] >= '0' && argv[i][0] <= '9')
      call_step(step, argv[i]);
    else if (special_step(step, argv[i]) != 0) {
      say("unknown step %s\n", argv[i]);
      return 99;
    }
  }
  return 0;
}
