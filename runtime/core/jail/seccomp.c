/* Loads the filters that came with the launch; they are built, as data, from policies/syscalls.py. */
#include <errno.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail/jail.h"

int jail_seccomp(struct jail *j, int stage, struct ws_error *e) {
  const struct sock_fprog *filter = &j->spec->filter[stage - 1];
  if (filter->len == 0) {
    if (jail_may_miss(j, WS_WALL_SECCOMP))
      return 0;
    return ws_fail(e, ENOENT, "seccomp", "the launch brought no filter for stage %d", stage);
  }
  /* For every thread, should there ever be others by now. */
  long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, filter);
  if (r)
    return ws_fail(e, r < 0 ? errno : ESRCH, "seccomp", "loading the filter of stage %d", stage);
  j->record->walls |= WS_WALL_SECCOMP;
  return 0;
}
