/* Arguments, environment, clocks, random, yield, exit, raise and the clock side of poll_oneoff. */
#include "raw.h"

static void args(int argc, char **argv) {
  u32 count = 0, bytes = 0;
  say("args_sizes_get", w_args_sizes_get(&count, &bytes), "%u %u", count, bytes);
  char *list[16], buf[512];
  say("args_get", w_args_get(list, buf), NULL);
  for (u32 i = 0; i < count; i++) printf("arg %u [%s] at %u\n", i, list[i], (u32)(list[i] - buf));
}

static void environment(int argc, char **argv) {
  u32 count = 0, bytes = 0;
  say("environ_sizes_get", w_environ_sizes_get(&count, &bytes), "%u %u", count, bytes);
  char *list[16], buf[512];
  say("environ_get", w_environ_get(list, buf), NULL);
  for (u32 i = 0; i < count; i++) printf("env %u [%s] at %u\n", i, list[i], (u32)(list[i] - buf));
}

static void clocks(int argc, char **argv) {
  for (u32 id = 0; id < 4; id++) {
    char name[32];
    u64 a = 0, b = 0;
    snprintf(name, sizeof name, "clock_res_get %u", id);
    u32 err = w_clock_res_get(id, &a);
    say(name, err, a > 0 ? "positive" : "zero");
    snprintf(name, sizeof name, "clock_time_get %u", id);
    err = w_clock_time_get(id, 1, &a);
    w_clock_time_get(id, 1, &b);
    say(name, err, a <= b ? "not backwards" : "backwards");
    if (id == 0 && !err) printf("realtime after 2024: %d\n", a > 1704067200ull * 1000000000ull);
  }
}

static void randomness(int argc, char **argv) {
  static uint8_t a[100000], b[100000];
  say("random_get 0", w_random_get(a, 0), NULL);
  say("random_get large", w_random_get(a, sizeof a), NULL);
  say("random_get again", w_random_get(b, sizeof b), NULL);
  unsigned set = 0;
  for (size_t i = 0; i < sizeof a; i++) set += __builtin_popcount(a[i]);
  printf("half the bits: %d, different: %d\n", set > 395000 && set < 405000,
         memcmp(a, b, sizeof a) != 0);
}

static void yield(int argc, char **argv) { say("sched_yield", w_sched_yield(), NULL); }

static void leave(int argc, char **argv) {
  printf("leaving\n");
  fflush(stdout);
  w_proc_exit((u32)atoi(argv[2]));
}

static void raise_signal(int argc, char **argv) {
  say("proc_raise", w_proc_raise((u32)atoi(argv[2])), NULL);
}

static u64 now(u32 id) {
  u64 t = 0;
  w_clock_time_get(id, 1, &t);
  return t;
}

static struct subscription after(u64 userdata, u32 id, u64 timeout, uint16_t flags) {
  struct subscription s;
  memset(&s, 0, sizeof s);
  s.userdata = userdata;
  s.tag = TAG_CLOCK;
  s.u.clock.id = id;
  s.u.clock.timeout = timeout;
  s.u.clock.flags = flags;
  return s;
}

static void show_events(const char *name, u32 err, const struct event *e, u32 n) {
  say(name, err, "%u", n);
  for (u32 i = 0; !err && i < n; i++)
    printf("  event %u: %s type %u\n", (u32)e[i].userdata, errno_names[e[i].error], e[i].type);
}

static void poll_clock(int argc, char **argv) {
  struct event out[4];
  struct subscription in[4];
  const u64 ms = 1000000;
  u32 n = 0;
  show_events("poll nothing", w_poll_oneoff(in, out, 0, &n), out, n);
  u64 start = now(1);
  in[0] = after(7, 1, 20 * ms, 0);
  u32 err = w_poll_oneoff(in, out, 1, &n);
  show_events("poll relative", err, out, n);
  printf("waited 20 ms: %d\n", now(1) - start >= 20 * ms && now(1) - start < 2000 * ms);
  in[0] = after(8, 1, now(1) + 20 * ms, 1);
  start = now(1);
  show_events("poll absolute", w_poll_oneoff(in, out, 1, &n), out, n);
  printf("waited 20 ms: %d\n", now(1) - start >= 19 * ms && now(1) - start < 2000 * ms);
  in[0] = after(9, 0, now(0) - 1000 * ms, 1);
  show_events("poll absolute, past", w_poll_oneoff(in, out, 1, &n), out, n);
  in[0] = after(1, 1, 5000 * ms, 0);
  in[1] = after(2, 1, 10 * ms, 0);
  show_events("poll two, the nearer", w_poll_oneoff(in, out, 2, &n), out, n);
  in[0] = after(3, 1, 0, 0);
  show_events("poll zero", w_poll_oneoff(in, out, 1, &n), out, n);
  in[0] = after(4, 99, 1, 0);
  show_events("poll bad clock", w_poll_oneoff(in, out, 1, &n), out, n);
}

static void poll_cpu_clock(int argc, char **argv) {
  struct event out;
  struct subscription in = after(5, (u32)atoi(argv[2]), 1000, 0);
  u32 n = 0;
  show_events("poll process clock", w_poll_oneoff(&in, &out, 1, &n), &out, n);
}

static void poll_bad_tag(int argc, char **argv) {
  struct event out;
  struct subscription in = after(5, 1, 1000, 0);
  u32 n = 0;
  in.tag = 3;
  show_events("poll bad tag", w_poll_oneoff(&in, &out, 1, &n), &out, n);
}

/* Pointers outside the guest's memory. */
static char *const wild = (char *)0xfffffff0u;

static void fault(int argc, char **argv) {
  u32 n;
  struct vec bad = {wild, 64};
  const char *which = argv[2];
  if (!strcmp(which, "random_get")) say(which, w_random_get(wild, 64), NULL);
  if (!strcmp(which, "clock_time_get")) say(which, w_clock_time_get(1, 1, (u64 *)wild + 1), NULL);
  if (!strcmp(which, "fd_write")) say(which, w_fd_write(1, &bad, 1, &n), NULL);
  if (!strcmp(which, "fd_write list")) say(which, w_fd_write(1, (void *)wild, 8, &n), NULL);
  if (!strcmp(which, "fd_read")) say(which, w_fd_read(0, &bad, 1, &n), NULL);
  if (!strcmp(which, "args_get")) say(which, w_args_get((char **)wild, wild), NULL);
  if (!strcmp(which, "path_open")) say(which, w_path_open(3, 0, wild, 64, 0, 0, 0, 0, &n), NULL);
  if (!strcmp(which, "poll_oneoff"))
    say(which, w_poll_oneoff((void *)wild, (void *)wild, 4, &n), NULL);
  if (!strcmp(which, "huge count")) {
    struct vec one = {"x", 1};
    say(which, w_fd_write(1, &one, 0x20000000u, &n), NULL);
  }
}

int main(int argc, char **argv) {
  static const struct test tests[] = {
      {"args", args}, {"environ", environment}, {"clocks", clocks}, {"random", randomness},
      {"yield", yield}, {"exit", leave}, {"raise", raise_signal}, {"poll-clock", poll_clock},
      {"poll-cpu-clock", poll_cpu_clock}, {"poll-bad-tag", poll_bad_tag}, {"fault", fault},
      {NULL, NULL},
  };
  return run_case(tests, argc, argv);
}
