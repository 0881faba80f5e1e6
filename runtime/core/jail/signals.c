/* Signals that end a run, and the CPU timer.
 *
 * The worker is process 1 of its PID namespace: signals with their default action are not delivered
 * to it (pid_namespaces(7)), so those that enforce a quota need handlers.  A handler stores what
 * happened in the run record and leaves; it makes no other system call.
 *
 * Only a component goes on after a call that the filter did not admit, when it is one of the network's:
 * what it gets then is worker.c's to say.  */
#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "jail/jail.h"

/* SYS_SECCOMP of the kernel's asm-generic/siginfo.h, which the C library's headers lack. */
enum { BY_FILTER = 1 };

/* One worker, one record: a handler has no other way to get at it. */
static struct ws_record *record;
static bool (*answer)(long number, const long args[6], long *result);

/* AddressSanitizer's bookkeeping for functions that do not return asks for the stack's bounds, which
 * is an open file behind the filter. */
#define IN_HANDLER __attribute__((no_sanitize_address))

IN_HANDLER static void leave(enum ws_outcome outcome, uint32_t code, int status) {
  ws_record_outcome(record, outcome, code, NULL, 0);
  for (;;)
    syscall(SYS_exit_group, status);
}

IN_HANDLER static void on_profile(int signal) {
  (void)signal;
  leave(WS_OUTCOME_CPU_TIME, 0, 152);
}

IN_HANDLER static void on_file_size(int signal) {
  (void)signal;
  leave(WS_OUTCOME_FILE_SIZE, 0, 153);
}

IN_HANDLER static void on_forbidden(int signal, siginfo_t *info, void *context) {
  (void)signal;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  /* As the kernel takes a system call's arguments; its number may be another architecture's. */
  const long args[] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                       registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
  long result;
  if (answer && info->si_code == BY_FILTER && info->si_arch == AUDIT_ARCH_X86_64 &&
      answer(info->si_syscall, args, &result)) {
    registers[REG_RAX] = result;
    return;
  }
  leave(WS_OUTCOME_SYSCALL, (uint32_t)info->si_syscall, 159);
}

static int handle(int signal, void (*handler)(int), struct ws_error *e) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  sigfillset(&action.sa_mask);
  if (sigaction(signal, &action, NULL) < 0)
    return ws_fail(e, errno, "signals", "sigaction %d", signal);
  return 0;
}

/* A POSIX timer on the process's CPU clock counts run time in nanoseconds; ITIMER_PROF would count
 * the ticks that find it running, which under load is 20 % off. */
static int start_timer(uint64_t cpu_ns, struct ws_error *e) {
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
  struct itimerspec when = {
      .it_value = {.tv_sec = (time_t)(cpu_ns / 1000000000u), .tv_nsec = (long)(cpu_ns % 1000000000u)},
      .it_interval = {.tv_nsec = 10000000}, /* again, should the first find the signal blocked */
  };
  if (cpu_ns == 0)
    when.it_value.tv_nsec = 1;
  if (timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) < 0 ||
      timer_settime(timer, 0, &when, NULL) < 0)
    return ws_fail(e, errno, "signals", "CPU timer");
  return 0;
}

int jail_signals(const struct jail *j, struct ws_error *e) {
  record = j->record;
  answer = j->answer;
  int r = handle(SIGPIPE, SIG_IGN, e);
  if (!r)
    r = handle(SIGPROF, on_profile, e);
  if (!r)
    r = handle(SIGXFSZ, on_file_size, e);
  if (r)
    return r;
  struct sigaction forbidden = {.sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  /* A thread's other stack may hold little more than the signal's frame; one that makes network calls
   * has room on its own. */
  if (answer)
    forbidden.sa_flags &= ~SA_ONSTACK;
  sigfillset(&forbidden.sa_mask);
  if (sigaction(SIGSYS, &forbidden, NULL) < 0)
    return ws_fail(e, errno, "signals", "sigaction SIGSYS");
  sigset_t none;
  sigemptyset(&none);
  if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
    return ws_fail(e, errno, "signals", "sigprocmask");
  return j->spec->limits.cpu_ns == WS_UNLIMITED ? 0 : start_timer(j->spec->limits.cpu_ns, e);
}
