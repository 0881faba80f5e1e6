#include "wasi/stream.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "wasi/errno.h"

uint32_t wasi_wait(int fd, short events, bool block) {
  struct pollfd watched = {.fd = fd, .events = events};
  struct timespec now = {0};
  int n = TEMP_FAILURE_RETRY(ppoll(&watched, 1, block ? NULL : &now, NULL));
  if (n < 0) {
    return wasi_errno(errno);
  }
  return n == 0 ? W_AGAIN : W_SUCCESS;
}

uint32_t wasi_stdio_read(struct wasi_desc *desc, struct wasi_iov *iov, uint64_t *done) {
  bool block = (desc->flags & W_FDFLAG_NONBLOCK) == 0;
  uint32_t err = block ? W_SUCCESS : wasi_wait(desc->fd, POLLIN, false);
  while (err == W_SUCCESS) {
    ssize_t n = TEMP_FAILURE_RETRY(readv(desc->fd, iov->iov, iov->count));
    if (n >= 0) {
      *done = (uint64_t)n;
      return W_SUCCESS;
    }
    err = errno == EAGAIN && block ? wasi_wait(desc->fd, POLLIN, true) : wasi_errno(errno);
  }
  return err;
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
  uint32_t err = block ? W_SUCCESS : wasi_wait(desc->fd, POLLOUT, false);
  while (err == W_SUCCESS) {
    ssize_t n = TEMP_FAILURE_RETRY(writev(desc->fd, iov->iov, iov->count));
    if (n >= 0) {
      count_output(ctx, desc, (uint64_t)n);
      if ((uint64_t)n < wanted && quota_used_up(ctx, desc)) {
        ctx->config.finish(ctx->config.finish_arg, WS_OUTCOME_OUTPUT, 0);
      }
      *done = (uint64_t)n;
      return W_SUCCESS;
    }
    if (errno == EAGAIN && block) {
      err = wasi_wait(desc->fd, POLLOUT, true);
    } else {
      /* wasmtime's answer for a stdout closed at the other end; guests print it as an I/O error. */
      err = errno == EPIPE ? W_IO : wasi_errno(errno);
    }
  }
  return err;
}

uint32_t wasi_socket_recv(struct wasi_desc *desc, struct wasi_iov *iov, int flags, int *got_flags,
                          uint64_t *done) {
  flags |= MSG_CMSG_CLOEXEC | (desc->flags & W_FDFLAG_NONBLOCK ? MSG_DONTWAIT : 0);
  struct msghdr msg = {.msg_iov = iov->iov, .msg_iovlen = (size_t)iov->count};
  ssize_t n = TEMP_FAILURE_RETRY(recvmsg(desc->fd, &msg, flags));
  if (n < 0) {
    return wasi_errno(errno);
  }
  if (got_flags != NULL) {
    *got_flags = msg.msg_flags;
  }
  *done = (uint64_t)n;
  return W_SUCCESS;
}

uint32_t wasi_socket_send(struct wasi_desc *desc, struct wasi_iov *iov, uint64_t *done) {
  int flags = MSG_NOSIGNAL | (desc->flags & W_FDFLAG_NONBLOCK ? MSG_DONTWAIT : 0);
  struct msghdr msg = {.msg_iov = iov->iov, .msg_iovlen = (size_t)iov->count};
  ssize_t n = TEMP_FAILURE_RETRY(sendmsg(desc->fd, &msg, flags));
  if (n < 0) {
    return wasi_errno(errno);
  }
  *done = (uint64_t)n;
  return W_SUCCESS;
}
