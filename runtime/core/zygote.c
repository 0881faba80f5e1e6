/* The zygote: single-threaded, the library loaded, engines made, no secrets.  It reads requests,
 * forks workers and answers; it never looks at what a request's descriptors hold.  */
#include "zygote.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/record.h"
#include "base/sys.h"
#include "spec/spec.h"
#include "worker.h"
#include "zygote_main.h"

enum { MAX_FDS = WS_SPEC_MAX_FDS };

struct zygote {
  int socket;
  bool privileged; /* may make namespaces without a user namespace */
  uint32_t walls;  /* what clone3 will be able to put up */
  uid_t uid;
  gid_t gid;
};

static const uint64_t NAMESPACES =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

/* Descriptors of one request; closed when the request has been dealt with, in the parent. */
struct request {
  struct zygote_request head;
  int fds[MAX_FDS];
  uint32_t fd_count;
};

static void close_all(struct request *r) {
  for (uint32_t i = 0; i < r->fd_count; i++)
    ws_close(&r->fds[i]);
  r->fd_count = 0;
}

/* Takes the descriptors out of every control message, so that none is lost. */
static void collect(struct msghdr *message, struct request *r) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n && r->fd_count < MAX_FDS; i++)
      memcpy(&r->fds[r->fd_count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
  }
}

/* Answers 1 with a request, 0 at the end of the conversation, negative errno on failure. */
static int receive(const struct zygote *z, struct request *r, struct ws_error *e) {
  static union {
    char bytes[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    struct cmsghdr align;
  } control;
  struct iovec iov = {.iov_base = &r->head, .iov_len = sizeof r->head};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t n;
  r->fd_count = 0;
  do
    n = recvmsg(z->socket, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return ws_fail(e, errno, "request", "recvmsg");
  collect(&message, r);
  if (n == 0)
    return 0;
  if (n != sizeof r->head || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
      r->head.magic != ZYGOTE_MAGIC || r->head.version != ZYGOTE_VERSION)
    return ws_fail(e, EBADMSG, "request", "%zd bytes, flags %#x", n, (unsigned)message.msg_flags);
  if (r->head.fd_count != r->fd_count || r->fd_count < 2)
    return ws_fail(e, EBADMSG, "request", "%u descriptors came, %u were promised", r->fd_count,
                   r->head.fd_count);
  return 1;
}

static void answer(const struct zygote *z, pid_t pid, int pidfd, const struct ws_error *e) {
  struct zygote_answer a = {.magic = ZYGOTE_MAGIC, .version = ZYGOTE_VERSION, .pid = pid,
                            .err = e->err};
  memcpy(a.step, e->step, sizeof a.step);
  memcpy(a.detail, e->detail, sizeof a.detail);
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {{0}};
  struct iovec iov = {.iov_base = &a, .iov_len = sizeof a};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (pidfd >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &pidfd, sizeof(int));
  }
  /* A supervisor that has gone shows at the next receive; its worker dies by the death signal. */
  while (sendmsg(z->socket, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
    ;
}

static uint64_t clone_flags(const struct zygote *z, uint32_t walls) {
  uint64_t flags = CLONE_PARENT | CLONE_PIDFD;
  if (walls & WS_WALL_NAMESPACES)
    flags |= NAMESPACES | (z->privileged ? 0 : CLONE_NEWUSER);
  return flags;
}

/* Forks the worker for `r`.  CLONE_PARENT: the supervisor is its parent and reaps it. */
static pid_t launch(const struct zygote *z, struct request *r, int *pidfd, struct ws_error *e) {
  uint32_t need = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  uint32_t walls = z->walls;
  uint32_t refused = need & ~walls & ~r->head.allow_missing;
  if (refused)
    return ws_fail(e, EPERM, refused & WS_WALL_NAMESPACES ? "namespaces" : "network",
                   "this user cannot make the namespaces of a worker on this machine");
  struct clone_args args = {.flags = clone_flags(z, walls), .pidfd = (uint64_t)(uintptr_t)pidfd};
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
    struct worker_launch w = {.fds = r->fds, .fd_count = r->fd_count, .lifeline = z->socket,
                              .clone_walls = walls, .uid = z->uid, .gid = z->gid,
                              .own_user_namespace = (args.flags & CLONE_NEWUSER) != 0};
    worker_main(&w);
  }
  return (pid_t)pid;
}

static int map_self(uid_t uid, gid_t gid) {
  static const char *const files[] = {"/proc/self/setgroups", "/proc/self/gid_map",
                                      "/proc/self/uid_map"};
  char text[3][48];
  snprintf(text[0], sizeof text[0], "deny");
  snprintf(text[1], sizeof text[1], "%u %u 1", gid, gid);
  snprintf(text[2], sizeof text[2], "%u %u 1", uid, uid);
  for (int i = 0; i < 3; i++) {
    ws_cleanup_fd int fd = open(files[i], O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text[i], strlen(text[i])) < 0)
      return -1;
  }
  return 0;
}

/* The network namespace with nothing in it is the zygote's own: made once, inherited by every
 * worker.  An ordinary user needs a user namespace around it. */
static void enter_empty_network(struct zygote *z) {
  z->uid = geteuid();
  z->gid = getegid();
  if (unshare(CLONE_NEWNET) == 0) {
    z->privileged = true;
    z->walls = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  } else if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 && map_self(z->uid, z->gid) == 0) {
    z->walls = WS_WALL_NAMESPACES | WS_WALL_NETWORK;
  }
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

int zygote_serve(int socket, int start_result, struct ws_error *start_error) {
  struct zygote z = {.socket = socket};
  static struct request request;
  /* The socket's end is the usual way out; the signal is for a supervisor killed while its socket
   * lives on in somebody else. */
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (start_result == 0)
    enter_empty_network(&z);
  hello(&z, start_error);
  if (start_result < 0)
    return 1;
  for (;;) {
    struct ws_error e = {0};
    int pidfd = -1;
    int r = receive(&z, &request, &e);
    if (r == 0)
      return 0;
    pid_t pid = r > 0 ? launch(&z, &request, &pidfd, &e) : 0;
    answer(&z, pid > 0 ? pid : 0, pidfd, &e);
    ws_close(&pidfd);
    close_all(&request);
    if (r < 0 && e.err != EBADMSG)
      return 1;
  }
}
