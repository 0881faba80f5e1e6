#include "wasi/stream.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "wasi/errno.h"

bool wasi_wait(int fd, short events, bool block) {
  struct pollfd poll = {.fd = fd, .events = events};
  struct timespec now = {0};
  for (;;) {
    int n = ppoll(&poll, 1, block ? NULL : &now, NULL);
    if (n >= 0 || errno != EINTR) {
      return n != 0;
    }
  }
}

uint32_t wasi_stdio_read(struct wasi_desc *desc, struct wasi_iov *iov, uint64_t *done) {
  bool block = (desc->flags & W_FDFLAG_NONBLOCK) == 0;
  for (;;) {
    if (!block && !wasi_wait(desc->fd, POLLIN, false)) {
      return W_AGAIN;
    }
    ssize_t n = readv(desc->fd, iov->iov, iov->count);
    if (n >= 0) {
      *done = (uint64_t)n;
      return W_SUCCESS;
    }
    if (errno == EAGAIN && block) {
      wasi_wait(desc->fd, POLLIN, true);
    } else if (errno != EINTR) {
      return wasi_errno(errno);
    }
  }
}

/* The bytes that one write may carry now, by the quota and by the promise not to block. */
static uint64_t write_limit(const struct wasi_ctx *ctx, const struct wasi_desc *desc, bool block) {
  uint64_t limit = UINT64_MAX;
  if (desc->output && ctx->config.max_output != UINT64_MAX) {
    limit = ctx->config.max_output - ctx->output;
  }
  /* POLLOUT promises room for PIPE_BUF bytes; more could block. */
  return !block && limit > PIPE_BUF ? PIPE_BUF : limit;
}

static void count_output(struct wasi_ctx *ctx, const struct wasi_desc *desc, uint64_t n) {
  if (desc->output) {
    ctx->output += n;
    if (ctx->config.record != NULL) {
      ctx->config.record->output_bytes = ctx->output;
    }
  }
}

static bool quota_used_up(const struct wasi_ctx *ctx, const struct wasi_desc *desc) {
  return desc->output && ctx->output >= ctx->config.max_output;
}

uint32_t wasi_stdio_write(struct wasi_ctx *ctx, struct wasi_desc *desc, struct wasi_iov *iov,
                          uint64_t *done) {
  bool block = (desc->flags & W_FDFLAG_NONBLOCK) == 0;
  uint64_t wanted = iov->total;
  if (quota_used_up(ctx, desc)) {
    ctx->config.finish(ctx->config.finish_arg, WS_OUTCOME_OUTPUT, 0);
  }
  wasi_iov_cut(iov, write_limit(ctx, desc, block));
  for (;;) {
    if (!block && !wasi_wait(desc->fd, POLLOUT, false)) {
      return W_AGAIN;
    }
    ssize_t n = writev(desc->fd, iov->iov, iov->count);
    if (n >= 0) {
      count_output(ctx, desc, (uint64_t)n);
      if ((uint64_t)n < wanted && quota_used_up(ctx, desc)) {
        ctx->config.finish(ctx->config.finish_arg, WS_OUTCOME_OUTPUT, 0);
      }
      *done = (uint64_t)n;
      return W_SUCCESS;
    }
    if (errno == EAGAIN && block) {
      wasi_wait(desc->fd, POLLOUT, true);
    } else if (errno != EINTR) {
      /* wasmtime's answer for a stdout closed at the other end; guests print it as an I/O error. */
      return errno == EPIPE ? W_IO : wasi_errno(errno);
    }
  }
}

uint32_t wasi_socket_recv(struct wasi_desc *desc, struct wasi_iov *iov, int flags, int *got_flags,
                          uint64_t *done) {
  bool block = (desc->flags & W_FDFLAG_NONBLOCK) == 0;
  struct msghdr msg = {.msg_iov = iov->iov, .msg_iovlen = (size_t)iov->count};
  for (;;) {
    ssize_t n = recvmsg(desc->fd, &msg, flags | MSG_CMSG_CLOEXEC | (block ? 0 : MSG_DONTWAIT));
    if (n >= 0) {
      if (got_flags != NULL) {
        *got_flags = msg.msg_flags;
      }
      *done = (uint64_t)n;
      return W_SUCCESS;
    }
    if (errno != EINTR) {
      return wasi_errno(errno);
    }
  }
}

uint32_t wasi_socket_send(struct wasi_desc *desc, struct wasi_iov *iov, uint64_t *done) {
  bool block = (desc->flags & W_FDFLAG_NONBLOCK) == 0;
  struct msghdr msg = {.msg_iov = iov->iov, .msg_iovlen = (size_t)iov->count};
  for (;;) {
    ssize_t n = sendmsg(desc->fd, &msg, MSG_NOSIGNAL | (block ? 0 : MSG_DONTWAIT));
    if (n >= 0) {
      *done = (uint64_t)n;
      return W_SUCCESS;
    }
    if (errno != EINTR) {
      return wasi_errno(errno);
    }
  }
}
