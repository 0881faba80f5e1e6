/* The table as the guest sees it: closing, renumbering, fdstat, preopens. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "wasi/context.h"
#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/table.h"

/* Preopens and stdio may be closed and renumbered like any other, as in wasmtime. */
WASI_CALL(fd_close) {
  (void)mem;
  return wasi_table_close(&ctx->table, (uint32_t)args[0]);
}

/* fd_renumber(from, to) */
WASI_CALL(fd_renumber) {
  (void)mem;
  return wasi_table_renumber(&ctx->table, (uint32_t)args[0], (uint32_t)args[1]);
}

/* fd_fdstat_get(fd, fdstat*) */
WASI_CALL(fd_fdstat_get) {
  struct wasi_entry *entry;
  uint32_t err =
      wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_ANY, 0, "fd_fdstat_get", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  uint8_t out[W_SIZE_FDSTAT] = {0};
  out[0] = entry->desc->filetype;
  wasi_put16(out + 2, entry->desc->flags);
  wasi_put64(out + 8, entry->rights);
  wasi_put64(out + 16, entry->inheriting);
  return wasi_mem_write(mem, args[1], out, sizeof out) ? W_SUCCESS : W_FAULT;
}

/* fd_fdstat_set_flags(fd, flags).  The syncing flags are fixed when the file is opened: the kernel
 * ignores them in F_SETFL.  Only a file's host descriptor is changed: stdio's belongs to the user
 * too, and the rest takes its flags from the table. */
WASI_CALL(fd_fdstat_set_flags) {
  (void)mem;
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_ANY, W_RIGHT_FD_FDSTAT_SET_FLAGS,
                             "fd_fdstat_set_flags", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  struct wasi_desc *desc = entry->desc;
  uint64_t flags = args[1];
  if ((flags & ~(uint64_t)W_FDFLAG_ALL) != 0 ||
      ((flags ^ desc->flags) & W_FDFLAG_ANY_SYNC) != 0) {
    return W_INVAL;
  }
  if (desc->kind == WASI_KIND_FILE) {
    int host = (flags & W_FDFLAG_APPEND ? O_APPEND : 0) |
               (flags & W_FDFLAG_NONBLOCK ? O_NONBLOCK : 0);
    if (fcntl(desc->fd, F_SETFL, host) != 0) {
      return wasi_errno(errno);
    }
  }
  desc->flags = (uint8_t)flags;
  return W_SUCCESS;
}

/* fd_fdstat_set_rights(fd, base, inheriting): rights can be given up, never gained.  (wasmtime no
 * longer keeps rights and answers ENOTSUP.) */
WASI_CALL(fd_fdstat_set_rights) {
  (void)mem;
  struct wasi_entry *entry;
  uint32_t err =
      wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_ANY, 0, "fd_fdstat_set_rights", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if ((args[1] & ~entry->rights) != 0 || (args[2] & ~entry->inheriting) != 0) {
    static const char who[] = "fd_fdstat_set_rights";
    return wasi_deny(ctx, WS_DENIAL_RIGHTS, W_NOTCAPABLE, who, sizeof who - 1);
  }
  entry->rights = args[1];
  entry->inheriting = args[2];
  return W_SUCCESS;
}

static struct wasi_desc *find_preopen(struct wasi_ctx *ctx, uint64_t number) {
  struct wasi_entry *entry = wasi_table_get(&ctx->table, (uint32_t)number);
  return entry != NULL && entry->desc->preopen ? entry->desc : NULL;
}

/* fd_prestat_get(fd, prestat*).  A libc walks from 3 upwards until EBADF, so a listener, which
 * preview 1 has no prestat for, answers with a tag of its own and an empty name: EBADF would hide
 * every directory behind it. */
WASI_CALL(fd_prestat_get) {
  struct wasi_desc *desc = find_preopen(ctx, args[0]);
  if (desc == NULL) {
    if (ctx->config.preopen_count == 0 && !ctx->preopen_missed) {
      ctx->preopen_missed = true;
      wasi_deny(ctx, WS_DENIAL_NO_PREOPEN, W_BADF, NULL, 0);
    }
    return W_BADF;
  }
  uint8_t out[W_SIZE_PRESTAT] = {0};
  out[0] = desc->kind == WASI_KIND_DIR ? W_PREOPEN_DIR : W_PREOPEN_SOCKET;
  wasi_put32(out + 4, desc->root != NULL ? (uint32_t)desc->root->name_len : 0);
  return wasi_mem_write(mem, args[1], out, sizeof out) ? W_SUCCESS : W_FAULT;
}

/* fd_prestat_dir_name(fd, path*, path_len): no terminator; wasmtime's errors. */
WASI_CALL(fd_prestat_dir_name) {
  struct wasi_desc *desc = find_preopen(ctx, args[0]);
  if (desc == NULL) {
    return wasi_table_get(&ctx->table, (uint32_t)args[0]) == NULL ? W_BADF : W_NOTDIR;
  }
  if (desc->root == NULL) {
    return W_NOTDIR;
  }
  if (desc->root->name_len > args[2]) {
    return W_NAMETOOLONG;
  }
  return wasi_mem_write(mem, args[1], desc->root->name, desc->root->name_len) ? W_SUCCESS
                                                                               : W_FAULT;
}
