#include "zygote/launch.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/record.h"
#include "base/sys.h"
#include "worker.h"

static const uint64_t NAMESPACES =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

/* CLONE_PARENT: the supervisor is the worker's parent and reaps it. */
static uint64_t clone_flags(const struct zygote *z) {
  uint64_t flags = CLONE_PARENT | CLONE_PIDFD;
  if (z->walls & WS_WALL_NAMESPACES)
    flags |= NAMESPACES | (z->privileged ? 0 : CLONE_NEWUSER);
  return flags;
}

/* In the new process, first thing. */
static void prepare(const struct zygote *z, uint32_t walls, struct worker *worker) {
  worker->base = (struct jail_base){
      .lifeline = z->socket,
      .clone_walls = walls,
      .outer_uid = z->uid,
      .outer_gid = z->gid,
      .own_user_namespace = (walls & WS_WALL_NAMESPACES) && !z->privileged,
  };
  worker_prepare(worker);
}

static pid_t fork_for(const struct zygote *z, struct request *r, int *pidfd, struct ws_error *e) {
  uint32_t walls = z->walls;
  struct clone_args args = {.flags = clone_flags(z), .pidfd = (uint64_t)(uintptr_t)pidfd};
  if (r->head.cgroup_fd != ZYGOTE_NO_FD) {
    if (r->head.cgroup_fd >= r->fd_count)
      return ws_fail(e, EBADMSG, "request", "cgroup descriptor %u of %u", r->head.cgroup_fd,
                     r->fd_count);
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = (uint64_t)r->fds[r->head.cgroup_fd];
    walls |= WS_WALL_CGROUP;
  }
  long pid = sys_clone3(&args);
  if (pid < 0)
    return ws_fail(e, errno, "namespaces", "clone3 with flags %#llx", (unsigned long long)args.flags);
  if (pid == 0) {
    struct worker worker;
    prepare(z, walls, &worker);
    worker_main(&worker, r->fds, r->fd_count);
  }
  return (pid_t)pid;
}

/* The spare's life until its request comes; the zygote's end of the socket closes with the zygote,
 * and then the spare leaves, too. */
static _Noreturn void wait_for_request(const struct zygote *z, int socket) {
  static struct request request;
  struct worker worker;
  struct ws_error e = {0};
  prepare(z, z->walls, &worker);
  if (zygote_receive(socket, &request, &e) <= 0)
    _exit(0);
  worker_main(&worker, request.fds, request.fd_count);
}

void zygote_make_spare(struct zygote *z) {
  int ends[2];
  if (z->spare.pid || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return;
  struct spare spare = {.pidfd = -1, .socket = ends[0]};
  struct clone_args args = {.flags = clone_flags(z), .pidfd = (uint64_t)(uintptr_t)&spare.pidfd};
  long pid = sys_clone3(&args);
  if (pid == 0) {
    close(ends[0]);
    wait_for_request(z, ends[1]);
  }
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return;
  }
  spare.pid = (pid_t)pid;
  z->spare = spare;
}

/* The spare was forked before its request: it cannot be born into the request's cgroup. */
static pid_t use_spare(struct zygote *z, const struct request *r, int *pidfd) {
  struct spare spare = z->spare;
  if (!spare.pid || r->head.cgroup_fd != ZYGOTE_NO_FD)
    return 0;
  z->spare = (struct spare){0};
  int sent = zygote_forward(spare.socket, r);
  close(spare.socket);
  if (sent < 0) {
    close(spare.pidfd); /* it has ended; the supervisor knows its pid and reaps it */
    return 0;
  }
  *pidfd = spare.pidfd;
  return spare.pid;
}

pid_t zygote_launch(struct zygote *z, struct request *r, int *pidfd, struct ws_error *e) {
  uint32_t need = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  uint32_t refused = need & ~z->walls & ~r->head.allow_missing;
  if (refused)
    return ws_fail(e, EPERM, refused & WS_WALL_NAMESPACES ? "namespaces" : "network",
                   "this user cannot make the namespaces of a worker on this machine");
  pid_t pid = use_spare(z, r, pidfd);
  return pid ? pid : fork_for(z, r, pidfd, e);
}
