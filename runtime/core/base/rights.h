/* One descriptor on its way with a message (SCM_RIGHTS, unix(7)).  Async-signal-safe.  */
#pragma once

#include <string.h>
#include <sys/socket.h>

/* Room for one descriptor; alignment leaves room for two, and the kernel drops what does not fit. */
union ws_control {
  char bytes[CMSG_SPACE(sizeof(int))];
  struct cmsghdr align;
};

/* Lets `fd` go along with `message`, unless it is negative.  `control` has to live until the message
 * is sent; the descriptor stays the caller's. */
static inline void ws_attach_fd(struct msghdr *message, union ws_control *control, int fd) {
  if (fd < 0)
    return;
  *control = (union ws_control){0};
  message->msg_control = control->bytes;
  message->msg_controllen = sizeof control->bytes;
  struct cmsghdr *c = CMSG_FIRSTHDR(message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
}
