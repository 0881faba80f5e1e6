/* A session of its own, so that nothing reaches the supervisor's process group: no signal to the
 * group, no setpriority(PRIO_PGRP), no controlling terminal to put input into (TIOCSTI).
 *
 * With a terminal among the guest's streams the worker stays: reading a terminal from the
 * foreground or the background is a matter of process groups, and the person at it expects the
 * usual.  There seccomp alone refuses those calls.  */
#include <errno.h>
#include <unistd.h>

#include "jail/jail.h"

int jail_session(const struct jail *j, struct ws_error *e) {
  for (int i = 0; i < 3; i++) {
    uint32_t index = j->spec->stdio[i];
    if (index != WS_SPEC_NO_FD && isatty(j->fds[index]))
      return 0;
  }
  return setsid() < 0 ? ws_fail(e, errno, "session", "setsid") : 0;
}
