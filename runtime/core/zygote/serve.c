/* The zygote: single-threaded, the library loaded, engines made, no secrets.  It reads requests,
 * forks workers and answers; it never looks at what a request's descriptors hold.  */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/record.h"
#include "jail/jail.h"
#include "zygote/launch.h"
#include "zygote/zygote.h"

/* A broker has every wall of a worker but that one.  Whether this process may make namespaces without
 * a user namespace is tried with one that costs nothing. */
static int stay_in_network(struct zygote *z, struct ws_error *e) {
  z->uid = geteuid();
  z->gid = getegid();
  z->privileged = unshare(CLONE_NEWUTS) == 0;
  if (!z->privileged && unshare(CLONE_NEWUSER) < 0)
    return 0;
  z->walls = WS_WALL_NAMESPACES;
  return z->privileged ? jail_drop_bounding_set(e) : jail_map_ids(z->uid, z->gid, e);
}

/* The network namespace with nothing in it is the zygote's own: made once, inherited by every
 * worker.  An ordinary user needs a user namespace around it. */
static int enter_empty_network(struct zygote *z, struct ws_error *e) {
  z->uid = geteuid();
  z->gid = getegid();
  z->privileged = unshare(CLONE_NEWNET) == 0;
  if (!z->privileged && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
    return 0; /* walls that are missing: each launch says whether it can do without them */
  z->walls = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  return z->privileged ? jail_drop_bounding_set(e) : jail_map_ids(z->uid, z->gid, e);
}

static void hello(const struct zygote *z, const struct ws_error *e) {
  struct zygote_hello h = {.magic = ZYGOTE_MAGIC, .version = ZYGOTE_VERSION, .err = e->err,
                           .walls = z->walls};
  snprintf(h.engine, sizeof h.engine, "%s", zygote_engine_release());
  memcpy(h.step, e->step, sizeof h.step);
  memcpy(h.detail, e->detail, sizeof h.detail);
  while (send(z->socket, &h, sizeof h, MSG_NOSIGNAL) < 0 && errno == EINTR)
    ;
}

static void serve_one(const struct zygote *z, struct request *request, bool received,
                      struct ws_error *e) {
  struct zygote_answer a = {.magic = ZYGOTE_MAGIC, .version = ZYGOTE_VERSION};
  int pidfd = -1;
  pid_t pid = received ? zygote_launch(z, request, &pidfd, e) : 0;
  a.pid = pid > 0 ? pid : 0;
  a.err = e->err;
  memcpy(a.step, e->step, sizeof a.step);
  memcpy(a.detail, e->detail, sizeof a.detail);
  zygote_send_answer(z->socket, &a, &pidfd, pidfd >= 0 ? 1 : 0);
  ws_close(&pidfd);
  zygote_request_close(request);
}

/* Forks the next spare once nothing has been asked for `idle_ms`.  A fork and a worker that makes or
 * gives up its memory wait for each other; so that is longer than a short run takes, unless the
 * supervisor knows better.  The spare is the supervisor's then. */
static void prepare_when_idle(struct zygote *z, int idle_ms) {
  const uint32_t all = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  struct pollfd next = {.fd = z->socket, .events = POLLIN};
  struct spare spare;
  if (!z->stay || z->has_spare || (z->walls & all) != all || poll(&next, 1, idle_ms) != 0 ||
      zygote_make_spare(z, &spare) < 0)
    return;
  struct zygote_answer news = {.magic = ZYGOTE_MAGIC, .version = ZYGOTE_VERSION, .spare = spare.pid};
  zygote_send_answer(z->socket, &news, spare.fds, 2);
  ws_close(&spare.fds[0]);
  ws_close(&spare.fds[1]);
  z->has_spare = true;
}

/* Answers how long to wait with the next spare. */
static int hear_news(struct zygote *z, uint32_t news, int usual_ms) {
  if (news == ZYGOTE_PING) {
    struct zygote_answer alive = {.magic = ZYGOTE_MAGIC, .version = ZYGOTE_VERSION};
    zygote_send_answer(z->socket, &alive, NULL, 0);
    return usual_ms;
  }
  z->has_spare = false;
  return news == ZYGOTE_NOW ? 0 : usual_ms;
}

int zygote_serve(enum zygote_kind kind, int socket, bool stay, int start_result,
                 struct ws_error *start_error) {
  struct zygote z = {
      .socket = socket, .of_brokers = kind == ZYGOTE_OF_BROKERS, .stay = stay, .empty = -1};
  struct ws_error e = *start_error;
  static struct request request;
  /* The socket's end is the usual way out; the signal is for a supervisor killed while its socket
   * lives on in somebody else. */
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (start_result == 0)
    start_result = z.of_brokers ? stay_in_network(&z, &e) : enter_empty_network(&z, &e);
  if (start_result == 0 && z.privileged)
    z.empty = zygote_make_empty();
  hello(&z, &e);
  if (start_result < 0)
    return 1;
  enum { IDLE_MS = 3 };
  int idle_ms = IDLE_MS;
  for (;;) {
    e = (struct ws_error){0};
    prepare_when_idle(&z, idle_ms);
    idle_ms = IDLE_MS;
    int r = zygote_receive(socket, &request, &e);
    if (r == 0)
      return 0;
    if (r > 0 && request.fd_count == 0)
      idle_ms = hear_news(&z, request.head.news, IDLE_MS);
    else
      serve_one(&z, &request, r > 0, &e);
    if (r < 0 && e.err != EBADMSG)
      return 1;
  }
}
