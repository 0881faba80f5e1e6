#include "zygote/messages.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

/* Room for the descriptors of one request, aligned as the kernel wants it. */
union control {
  char bytes[CMSG_SPACE(sizeof(int) * WS_SPEC_MAX_FDS)];
  struct cmsghdr align;
};

void zygote_request_close(struct request *r) {
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
    for (size_t i = 0; i < n && r->fd_count < WS_SPEC_MAX_FDS; i++)
      memcpy(&r->fds[r->fd_count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
  }
}

int zygote_receive(int socket, struct request *r, struct ws_error *e) {
  static union control control;
  struct iovec iov = {.iov_base = &r->head, .iov_len = sizeof r->head};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t n;
  r->fd_count = 0;
  do
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return ws_fail(e, errno, "request", "recvmsg");
  collect(&message, r);
  if (n == 0)
    return 0;
  if (n != sizeof r->head || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
      r->head.magic != ZYGOTE_MAGIC || r->head.version != ZYGOTE_VERSION)
    return ws_fail(e, EBADMSG, "request", "%zd bytes, flags %#x", n, (unsigned)message.msg_flags);
  if (r->head.fd_count != r->fd_count || r->fd_count == 1)
    return ws_fail(e, EBADMSG, "request", "%u descriptors came, %u were promised", r->fd_count,
                   r->head.fd_count);
  return 1;
}

void zygote_send_answer(int socket, const struct zygote_answer *answer, const int *fds,
                        size_t fd_count) {
  static union control control;
  struct iovec iov = {.iov_base = (void *)answer, .iov_len = sizeof *answer};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (fd_count) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
  }
  /* A supervisor that has gone shows at the next receive; its worker dies by the death signal. */
  while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0 && errno == EINTR)
    ;
}
