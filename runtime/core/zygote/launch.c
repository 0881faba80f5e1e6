#include "zygote/launch.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/record.h"
#include "base/sys.h"
#include "engine/resident.h"
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

/* The spare's life until its request comes, from the supervisor itself: the shortest way.  When the
 * supervisor goes, its end of the socket goes with it, and the spare, too. */
static _Noreturn void wait_for_request(const struct zygote *z, int socket) {
  static struct request request;
  struct worker worker;
  struct ws_error e = {0};
  prepare(z, z->walls, &worker);
  engine_prefault();
  if (zygote_receive(socket, &request, &e) <= 0)
    _exit(0);
  worker_main(&worker, request.fds, request.fd_count);
}

/* The last process of a mount namespace waits for the kernel to take the mounts apart before its end
 * can be seen.  So the zygote keeps the namespace of the spare alive, and gives it up when it makes
 * the next one: a few idle milliseconds after the run. */
static void keep_mounts(struct zygote *z, pid_t pid) {
  char path[48];
  ws_close(&z->last_mounts);
  snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
  z->last_mounts = open(path, O_RDONLY | O_CLOEXEC);
}

int zygote_make_spare(struct zygote *z, struct spare *spare) {
  int ends[2], pidfd = -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return -errno;
  struct clone_args args = {.flags = clone_flags(z), .pidfd = (uint64_t)(uintptr_t)&pidfd};
  long pid = sys_clone3(&args);
  if (pid == 0) {
    close(ends[0]);
    ws_close(&z->last_mounts);
    wait_for_request(z, ends[1]);
  }
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return -EAGAIN;
  }
  keep_mounts(z, (pid_t)pid);
  *spare = (struct spare){.pid = (pid_t)pid, .fds = {ends[0], pidfd}};
  return 0;
}

pid_t zygote_launch(const struct zygote *z, struct request *r, int *pidfd, struct ws_error *e) {
  uint32_t need = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  uint32_t refused = need & ~z->walls & ~r->head.allow_missing;
  if (refused)
    return ws_fail(e, EPERM, refused & WS_WALL_NAMESPACES ? "namespaces" : "network",
                   "this user cannot make the namespaces of a worker on this machine");
  return fork_for(z, r, pidfd, e);
}
