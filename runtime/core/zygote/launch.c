#include "zygote/launch.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/record.h"
#include "base/sys.h"
#include "engine/resident.h"
#include "worker.h"

/* The mount namespace follows when the launch is known: jail/mounts.c. */
static const uint64_t NAMESPACES = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

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
      .empty = z->empty,
      .for_broker = z->of_brokers,
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

int zygote_make_empty(void) {
  int ends[2], namespace = -1;
  char path[48], byte;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
    return -1;
  pid_t pid = fork();
  if (pid == 0) {
    struct ws_error e = {0};
    close(ends[0]);
    /* Holds the namespace until the other end is closed, and be it by the zygote's death. */
    if (jail_make_empty(&e) == 0 && write(ends[1], "", 1) == 1)
      (void)!read(ends[1], &byte, 1);
    _exit(0);
  }
  close(ends[1]);
  snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
  if (pid > 0 && read(ends[0], &byte, 1) == 1)
    namespace = open(path, O_RDONLY | O_CLOEXEC);
  close(ends[0]);
  if (pid > 0)
    waitpid(pid, NULL, 0);
  return namespace;
}

int zygote_make_spare(const struct zygote *z, struct spare *spare) {
  int ends[2], pidfd = -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return -errno;
  struct clone_args args = {.flags = clone_flags(z), .pidfd = (uint64_t)(uintptr_t)&pidfd};
  long pid = sys_clone3(&args);
  if (pid == 0) {
    close(ends[0]);
    wait_for_request(z, ends[1]);
  }
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return -EAGAIN;
  }
  *spare = (struct spare){.pid = (pid_t)pid, .fds = {ends[0], pidfd}};
  return 0;
}

pid_t zygote_launch(const struct zygote *z, struct request *r, int *pidfd, struct ws_error *e) {
  uint32_t need = WS_WALL_NAMESPACES | (z->of_brokers ? 0 : WS_WALL_NETWORK);
  uint32_t refused = need & ~z->walls & ~r->head.allow_missing;
  if (refused)
    return ws_fail(e, EPERM, refused & WS_WALL_NAMESPACES ? "namespaces" : "network",
                   "this user cannot make the namespaces of a worker on this machine");
  return fork_for(z, r, pidfd, e);
}
