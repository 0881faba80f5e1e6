/* Reading and writing what has no position: stdio and sockets. */
#pragma once

#include <stdint.h>

#include "wasi/context.h"
#include "wasi/memory.h"

/* One transfer each; `*done` gets the bytes moved, at most iov->total (which must not be 0).
 * Non-blocking mode is the guest's alone: the host's descriptor is shared with the user's shell,
 * so it is emulated with ppoll, and a host descriptor that happens to be non-blocking is waited
 * for when the guest's is not. */
uint32_t wasi_stdio_read(struct wasi_desc *desc, struct wasi_iov *iov, uint64_t *done);

/* Counts towards the output quota: writes what still fits, then ends the run. */
uint32_t wasi_stdio_write(struct wasi_ctx *ctx, struct wasi_desc *desc, struct wasi_iov *iov,
                          uint64_t *done);

/* `flags` are MSG_*.  `*got_flags` (may be NULL) gets the kernel's. */
uint32_t wasi_socket_recv(struct wasi_desc *desc, struct wasi_iov *iov, int flags, int *got_flags,
                          uint64_t *done);
uint32_t wasi_socket_send(struct wasi_desc *desc, struct wasi_iov *iov, uint64_t *done);

/* Waits until the host descriptor has one of `events` (POLLIN, POLLOUT); without `block`, EAGAIN
 * when it has none now.  Errors and hang-ups of the descriptor count as ready. */
uint32_t wasi_wait(int fd, short events, bool block);
