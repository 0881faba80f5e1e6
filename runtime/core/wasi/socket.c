/* Sockets: accepting on a listener preopen, and the connections that come from it. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/stream.h"
#include "wasi/table.h"

/* A socket call that finds no socket is a denial: the flag that grants one is --tcplisten. */
static uint32_t look_up(struct wasi_ctx *ctx, uint64_t number, enum wasi_kind kind, uint64_t right,
                        const char *who, struct wasi_entry **entry) {
  struct wasi_entry *found = wasi_table_get(&ctx->table, (uint32_t)number);
  if (found == NULL) {
    return wasi_deny(ctx, WS_DENIAL_SOCKET, W_BADF, who, strlen(who));
  }
  if (found->desc->kind != kind) {
    if (found->desc->kind == WASI_KIND_SOCKET) {
      return W_INVAL; /* accept on a connection */
    }
    if (found->desc->kind == WASI_KIND_LISTENER) {
      return W_NOTCONN;
    }
    return wasi_deny(ctx, WS_DENIAL_SOCKET, W_NOTSOCK, who, strlen(who));
  }
  return wasi_lookup(ctx, (uint32_t)number, WASI_WANT_ANY, right, who, entry);
}

/* An owned connection, or -1 and a WASI errno.  A listener that is non-blocking on the host (so
 * that a connection that went away between poll and accept cannot hold us) is waited for here. */
static int accept_one(const struct wasi_desc *listener, uint32_t *err) {
  bool block = (listener->flags & W_FDFLAG_NONBLOCK) == 0;
  *err = block ? W_SUCCESS : wasi_wait(listener->fd, POLLIN, false);
  while (*err == W_SUCCESS) {
    int fd = TEMP_FAILURE_RETRY(accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC));
    if (fd >= 0) {
      return fd;
    }
    *err = errno == EAGAIN && block ? wasi_wait(listener->fd, POLLIN, true) : wasi_errno(errno);
  }
  return -1;
}

/* sock_accept(fd, fdflags, opened_fd*) */
WASI_CALL(sock_accept) {
  struct wasi_entry *entry;
  uint32_t err = look_up(ctx, args[0], WASI_KIND_LISTENER, W_RIGHT_SOCK_ACCEPT, "sock_accept",
                         &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (!wasi_mem_ok(mem, args[2], 4)) {
    return W_FAULT;
  }
  if ((args[1] & ~(uint64_t)W_FDFLAG_NONBLOCK) != 0) {
    return W_INVAL;
  }
  const struct wasi_desc *listener = entry->desc;
  uint64_t rights = entry->inheriting;
  if (!wasi_table_has_room(&ctx->table)) { /* may move the table: `entry` is not used below */
    return wasi_deny(ctx, WS_DENIAL_FDS, W_MFILE, NULL, 0);
  }
  ws_cleanup_fd int fd = accept_one(listener, &err);
  if (fd < 0) {
    return err;
  }
  struct wasi_desc *desc = wasi_desc_new(WASI_KIND_SOCKET, fd, W_FILETYPE_SOCKET_STREAM);
  if (desc == NULL) {
    return W_NOMEM;
  }
  ws_steal(&fd);
  desc->flags = (uint8_t)args[1];
  uint32_t number = 0;
  err = wasi_table_add(&ctx->table, desc, rights & WASI_RIGHTS_SOCKET, 0, &number);
  if (err == W_SUCCESS && !wasi_mem_put32(mem, args[2], number)) {
    return W_FAULT;
  }
  return err;
}

/* sock_recv(fd, iovs, iovs_len, ri_flags, datalen*, ro_flags*) */
WASI_CALL(sock_recv) {
  struct wasi_entry *entry;
  struct wasi_iov iov;
  uint32_t err = look_up(ctx, args[0], WASI_KIND_SOCKET, W_RIGHT_FD_READ, "sock_recv", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (!wasi_mem_ok(mem, args[4], 4) || !wasi_mem_ok(mem, args[5], 2)) {
    return W_FAULT;
  }
  if ((args[3] & ~(uint64_t)(W_RI_PEEK | W_RI_WAITALL)) != 0) {
    return W_INVAL;
  }
  err = wasi_mem_iovs(mem, args[1], (uint32_t)args[2], &iov);
  if (err != W_SUCCESS) {
    return err;
  }
  int flags = (args[3] & W_RI_PEEK ? MSG_PEEK : 0) | (args[3] & W_RI_WAITALL ? MSG_WAITALL : 0);
  int got = 0;
  uint64_t done = 0;
  err = wasi_socket_recv(entry->desc, &iov, flags, &got, &done);
  if (err != W_SUCCESS) {
    return err;
  }
  uint16_t truncated = got & MSG_TRUNC ? W_RO_TRUNCATED : 0;
  bool stored = wasi_mem_put32(mem, args[4], (uint32_t)done) &&
                wasi_mem_write(mem, args[5], &truncated, sizeof truncated);
  return stored ? W_SUCCESS : W_FAULT;
}

/* sock_send(fd, iovs, iovs_len, si_flags, datalen*) */
WASI_CALL(sock_send) {
  struct wasi_entry *entry;
  struct wasi_iov iov;
  uint32_t err = look_up(ctx, args[0], WASI_KIND_SOCKET, W_RIGHT_FD_WRITE, "sock_send", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (!wasi_mem_ok(mem, args[4], 4)) {
    return W_FAULT;
  }
  if (args[3] != 0) { /* preview 1 defines no sending flag */
    return W_INVAL;
  }
  err = wasi_mem_iovs(mem, args[1], (uint32_t)args[2], &iov);
  uint64_t done = 0;
  if (err == W_SUCCESS) {
    err = wasi_socket_send(entry->desc, &iov, &done);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  return wasi_mem_put32(mem, args[4], (uint32_t)done) ? W_SUCCESS : W_FAULT;
}

/* sock_shutdown(fd, how) */
WASI_CALL(sock_shutdown) {
  (void)mem;
  static const int how[] = {[W_SD_RD] = SHUT_RD, [W_SD_WR] = SHUT_WR, [3] = SHUT_RDWR};
  struct wasi_entry *entry;
  uint32_t err = look_up(ctx, args[0], WASI_KIND_SOCKET, W_RIGHT_SOCK_SHUTDOWN, "sock_shutdown",
                         &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (args[1] == 0 || args[1] > 3) {
    return W_INVAL;
  }
  return shutdown(entry->desc->fd, how[args[1]]) == 0 ? W_SUCCESS : wasi_errno(errno);
}
