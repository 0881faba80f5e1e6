/* The worker must not outlive its supervisor, however that ends.  */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

#include "jail/jail.h"

/* The death signal is sent when the thread that made the zygote ends.  It is lost when that thread
 * ended before this call, so the supervisor's end of the zygote's socket is looked at afterwards. */
int jail_lifeline(int socket, struct ws_error *e) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
    return ws_fail(e, errno, "lifeline", "PR_SET_PDEATHSIG");
  struct pollfd peer = {.fd = socket, .events = POLLIN};
  if (poll(&peer, 1, 0) > 0 && (peer.revents & (POLLHUP | POLLERR)))
    return ws_fail(e, EPIPE, "lifeline", "the supervisor has gone");
  return 0;
}
