/* Descriptors with one owner.  `close` is never retried: after EINTR the number is already free. */
#pragma once

#include <unistd.h>

static inline void ws_close(int *fd) {
  if (*fd >= 0) {
    close(*fd);
    *fd = -1;
  }
}

/* Closes at the end of the scope unless ws_steal took the descriptor away. */
#define ws_cleanup_fd __attribute__((cleanup(ws_close)))

static inline int ws_steal(int *fd) {
  int taken = *fd;
  *fd = -1;
  return taken;
}
