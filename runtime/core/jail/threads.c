/* A bound on the tasks of a worker that has threads: components have, modules have none.
 *
 * The filter admits clone(2) for threads, and cannot count.  What counts, whichever is there:
 *
 *   - the run's control group (pids.max; the supervisor sets it),
 *   - RLIMIT_NPROC, where the user namespace is the worker's own: anywhere else it counts every
 *     process of the user, and nothing for root,
 *   - kernel.pid_max of the worker's own PID namespace, from Linux 6.14 on (before, the file is the
 *     whole machine's).
 *
 * The first two are exact; the third is the kernel's least, some 300.  */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fd.h"
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

int jail_threads(const struct jail *j, struct ws_error *e) {
  if (!jail_has_threads(j))
    return 0;
  bool counted = j->base.own_user_namespace || (j->base.clone_walls & WS_WALL_CGROUP);
  if (counted || lower_pid_max(j)) {
    j->record->walls |= WS_WALL_THREADS;
    return 0;
  }
  if (jail_may_miss(j, WS_WALL_THREADS))
    return 0;
  return ws_fail(e, EPERM, "threads",
                 "nothing here bounds a component's threads (a control group delegated to wasisup "
                 "would, as would a kernel from 6.14 on)");
}
