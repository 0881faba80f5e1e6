/* Names: hard links, renaming, symbolic links. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/path.h"
#include "wasi/table.h"

/* One end of a call with two paths. */
struct end {
  const struct wasi_desc *dir;
  struct wasi_path path;
  struct wasi_place place;
};

/* Rights of both ends are checked before either path is looked at. */
static uint32_t look_up(struct wasi_ctx *ctx, uint64_t number, uint64_t right, const char *who,
                        struct end *end) {
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)number, WASI_WANT_DIR, right, who, &entry);
  if (err == W_SUCCESS) {
    end->dir = entry->desc;
  }
  return err;
}

/* Opens the places of both ends; on success both are to be closed.  Two preopens are two mounts,
 * also when they lie on one file system: EXDEV, and from a `::ro` one no other answer. */
static uint32_t open_both(struct wasi_ctx *ctx, struct end *from, struct end *to) {
  uint32_t err = wasi_place_open(ctx, from->dir, &from->path, &from->place);
  if (err != W_SUCCESS) {
    return err;
  }
  err = wasi_place_open(ctx, to->dir, &to->path, &to->place);
  if (err != W_SUCCESS) {
    wasi_place_close(&from->place);
    return err;
  }
  if (from->dir->root != to->dir->root) {
    wasi_place_close(&from->place);
    wasi_place_close(&to->place);
    return W_XDEV;
  }
  return W_SUCCESS;
}

static uint32_t read_both(const struct wasi_memory *mem, uint64_t from_ptr, uint64_t from_len,
                          uint64_t to_ptr, uint64_t to_len, struct end *from, struct end *to) {
  uint32_t err = wasi_path_read(mem, from_ptr, from_len, &from->path);
  return err != W_SUCCESS ? err : wasi_path_read(mem, to_ptr, to_len, &to->path);
}

/* linkat and readlinkat would follow a symlink behind "name/", wherever it leads: such a path is
 * resolved beneath instead.  Returns the error, or `when_dir` when it is a directory after all. */
static uint32_t resolve_slash(struct wasi_ctx *ctx, const struct end *end, uint32_t when_dir) {
  int fd = wasi_open_beneath(end->dir->fd, end->path.bytes, O_PATH | O_DIRECTORY, 0);
  if (fd < 0) {
    return wasi_resolve_error(ctx, end->dir, &end->path, -fd);
  }
  close(fd);
  return when_dir;
}

/* path_link(old_fd, old_flags, old_path, old_len, new_fd, new_path, new_len).
 * Following the source is EINVAL, as in wasmtime. */
WASI_CALL(path_link) {
  struct end from, to;
  uint32_t err = look_up(ctx, args[0], W_RIGHT_PATH_LINK_SOURCE, "path_link", &from);
  if (err == W_SUCCESS) {
    err = look_up(ctx, args[4], W_RIGHT_PATH_LINK_TARGET, "path_link", &to);
  }
  if (err == W_SUCCESS && args[1] != 0) {
    err = W_INVAL;
  }
  if (err == W_SUCCESS) {
    err = read_both(mem, args[2], args[3], args[5], args[6], &from, &to);
  }
  if (err == W_SUCCESS) {
    err = open_both(ctx, &from, &to);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  if (from.place.slash) {
    err = resolve_slash(ctx, &from, W_PERM); /* what linkat says to a directory */
  }
  if (err == W_SUCCESS) {
    err = wasi_place_read_only(ctx, from.dir, &from.path, &from.place, false);
  }
  if (err == W_SUCCESS) {
    err = wasi_place_read_only(ctx, to.dir, &to.path, &to.place, true);
  }
  if (err == W_SUCCESS && linkat(from.place.dir, from.place.name, to.place.dir, to.place.name, 0)) {
    err = wasi_path_error(ctx, to.dir, &to.path, errno);
  }
  wasi_place_close(&from.place);
  wasi_place_close(&to.place);
  return err;
}

/* path_rename(fd, old_path, old_len, new_fd, new_path, new_len) */
WASI_CALL(path_rename) {
  struct end from, to;
  uint32_t err = look_up(ctx, args[0], W_RIGHT_PATH_RENAME_SOURCE, "path_rename", &from);
  if (err == W_SUCCESS) {
    err = look_up(ctx, args[3], W_RIGHT_PATH_RENAME_TARGET, "path_rename", &to);
  }
  if (err == W_SUCCESS) {
    err = read_both(mem, args[1], args[2], args[4], args[5], &from, &to);
  }
  if (err == W_SUCCESS) {
    err = open_both(ctx, &from, &to);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  err = wasi_place_read_only(ctx, from.dir, &from.path, &from.place, false);
  /* renameat2 by number: the C library's renameat is another system call on some machines. */
  if (err == W_SUCCESS && syscall(SYS_renameat2, from.place.dir, from.place.name, to.place.dir,
                                  to.place.name, 0) != 0) {
    err = wasi_path_error(ctx, to.dir, &to.path, errno);
  }
  wasi_place_close(&from.place);
  wasi_place_close(&to.place);
  return err;
}

/* path_symlink(target, target_len, fd, path, path_len).  An absolute target is EPERM, as in
 * wasmtime: it could never be followed, and outside it would lead away from the preopen. */
WASI_CALL(path_symlink) {
  struct wasi_path target;
  struct end link;
  uint32_t err = look_up(ctx, args[2], W_RIGHT_PATH_SYMLINK, "path_symlink", &link);
  if (err == W_SUCCESS) {
    err = wasi_path_read(mem, args[0], args[1], &target);
  }
  if (err == W_SUCCESS) {
    err = wasi_path_read(mem, args[3], args[4], &link.path);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  if (target.bytes[0] == '/') {
    return wasi_deny(ctx, WS_DENIAL_ESCAPE, W_PERM, target.bytes, target.len);
  }
  err = wasi_place_open(ctx, link.dir, &link.path, &link.place);
  if (err != W_SUCCESS) {
    return err;
  }
  err = wasi_place_read_only(ctx, link.dir, &link.path, &link.place, true);
  if (err == W_SUCCESS && symlinkat(target.bytes, link.place.dir, link.place.name) != 0) {
    err = wasi_path_error(ctx, link.dir, &link.path, errno);
  }
  wasi_place_close(&link.place);
  return err;
}

/* path_readlink(fd, path, path_len, buf, buf_len, bufused*): cut at the buffer's end, as readlink
 * does, and not terminated. */
WASI_CALL(path_readlink) {
  struct end link;
  uint32_t err = look_up(ctx, args[0], W_RIGHT_PATH_READLINK, "path_readlink", &link);
  if (err == W_SUCCESS) {
    err = wasi_path_read(mem, args[1], args[2], &link.path);
  }
  if (err == W_SUCCESS && (!wasi_mem_ok(mem, args[3], args[4]) || !wasi_mem_ok(mem, args[5], 4))) {
    err = W_FAULT;
  }
  if (err == W_SUCCESS) {
    err = wasi_place_open(ctx, link.dir, &link.path, &link.place);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  char target[PATH_MAX];
  ssize_t n = 0;
  if (link.place.slash) {
    err = resolve_slash(ctx, &link, W_INVAL); /* what readlinkat says to a directory */
  } else {
    n = readlinkat(link.place.dir, link.place.name, target, sizeof target);
    err = n < 0 ? wasi_path_error(ctx, link.dir, &link.path, errno) : W_SUCCESS;
  }
  wasi_place_close(&link.place);
  if (err != W_SUCCESS) {
    return err;
  }
  uint64_t used = (uint64_t)n < args[4] ? (uint64_t)n : args[4];
  bool stored = wasi_mem_write(mem, args[3], target, used) &&
                wasi_mem_put32(mem, args[5], (uint32_t)used);
  return stored ? W_SUCCESS : W_FAULT;
}
