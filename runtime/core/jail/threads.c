/* A bound on the tasks of a worker that has threads: components have, modules have none.
 *
 * The filter admits clone(2) for threads, and cannot count.  What counts, whichever is there:
 *
 *   - the run's control group (pids.max; the supervisor sets it),
 *   - RLIMIT_NPROC, where the user namespace is the worker's own: anywhere else it counts every
 *     process of the user.  The kernel does not hold the machine's root to it in any namespace
 *     (copy_process in kernel/fork.c), and from inside of one nobody can see who that is: so it is
 *     tried,
 *   - kernel.pid_max of the worker's own PID namespace, from Linux 6.14 on (before, the file is the
 *     whole machine's).
 *
 * The first two are exact; the third is the kernel's least, some 300.  */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/sys.h"
#include "jail/jail.h"

/* RESERVED_PIDS + 1, the least that the kernel takes (kernel/pid_namespace.c). */
static const char LEAST_PID_MAX[] = "301";

static bool pid_max_is_ours(const struct jail *j) {
  struct utsname name;
  int major, minor;
  if (!(j->base.clone_walls & WS_WALL_NAMESPACES) || getpid() != 1 || uname(&name) < 0 ||
      sscanf(name.release, "%d.%d", &major, &minor) != 2)
    return false;
  return major > 6 || (major == 6 && minor >= 14);
}

static bool lower_pid_max(const struct jail *j) {
  if (!pid_max_is_ours(j))
    return false;
  ws_cleanup_fd int fd = open("/proc/sys/kernel/pid_max", O_WRONLY | O_CLOEXEC);
  const ssize_t size = sizeof LEAST_PID_MAX - 1;
  return fd >= 0 && write(fd, LEAST_PID_MAX, (size_t)size) == size;
}

/* Whether the limit on processes holds this worker, which has its own user namespace: with room for
 * none there must be none. */
static bool is_held_by_nproc(const struct jail *j) {
  struct rlimit now;
  struct clone_args args = {.exit_signal = SIGCHLD};
  if (!j->base.own_user_namespace || getrlimit(RLIMIT_NPROC, &now) < 0)
    return false;
  const struct rlimit none = {.rlim_cur = 0, .rlim_max = now.rlim_max};
  if (setrlimit(RLIMIT_NPROC, &none) < 0)
    return false;
  long pid = sys_clone3(&args);
  if (pid == 0)
    _exit(0);
  const bool held = pid < 0 && errno == EAGAIN;
  if (pid > 0)
    waitpid((pid_t)pid, NULL, 0);
  return setrlimit(RLIMIT_NPROC, &now) == 0 && held;
}

int jail_threads(const struct jail *j, struct ws_error *e) {
  if (!jail_has_threads(j))
    return 0;
  if ((j->base.clone_walls & WS_WALL_CGROUP) || is_held_by_nproc(j) || lower_pid_max(j)) {
    j->record->walls |= WS_WALL_THREADS;
    return 0;
  }
  if (jail_may_miss(j, WS_WALL_THREADS))
    return 0;
  return ws_fail(e, EPERM, "threads",
                 "nothing here bounds a component's threads (a control group delegated to wasisup "
                 "would, as would a kernel from 6.14 on)");
}
