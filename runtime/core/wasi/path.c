#include "wasi/path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wasi/errno.h"

/* A rename elsewhere in the tree makes a beneath-walk through ".." give up with EAGAIN; a tree
 * that is renamed without pause must not hold the worker for ever. */
#define RESOLVE_RETRIES 128

uint32_t wasi_path_read(const struct wasi_memory *mem, uint64_t ptr, uint64_t len,
                        struct wasi_path *path) {
  if (!wasi_mem_ok(mem, ptr, len)) {
    return W_FAULT;
  }
  if (len == 0) {
    return W_NOENT;
  }
  if (len >= sizeof path->bytes) {
    return W_NAMETOOLONG;
  }
  wasi_mem_read(mem, ptr, path->bytes, len);
  path->bytes[len] = '\0';
  path->len = (uint32_t)len;
  return memchr(path->bytes, '\0', len) == NULL ? W_SUCCESS : W_INVAL;
}

int wasi_open_beneath(int dirfd, const char *path, int flags, unsigned mode) {
  struct open_how how = {
      .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
      .mode = flags & O_CREAT ? mode : 0,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
  };
  long fd = -1;
  for (int tries = 0; tries < RESOLVE_RETRIES; tries++) {
    fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) {
      break;
    }
  }
  return fd >= 0 ? (int)fd : -errno;
}

/* Reports name the path as the user granted it: the preopen's guest name, then the guest's path. */
static uint32_t deny_below(struct wasi_ctx *ctx, enum ws_denial_kind kind, uint32_t err,
                           const struct wasi_desc *desc, const struct wasi_path *path) {
  if (ctx->config.record == NULL) {
    return err;
  }
  char text[WS_RECORD_PATH];
  size_t len = 0;
  if (desc->root != NULL) {
    len = desc->root->name_len < sizeof text - 1 ? desc->root->name_len : sizeof text - 1;
    if (len > 0) {
      memcpy(text, desc->root->name, len);
    }
    text[len++] = '/';
  }
  size_t rest = path == NULL ? 0 : path->len;
  rest = rest < sizeof text - len ? rest : sizeof text - len;
  if (rest > 0) {
    memcpy(text + len, path->bytes, rest);
  }
  return wasi_deny(ctx, kind, err, text, len + rest);
}

uint32_t wasi_path_error(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                         const struct wasi_path *path, int err) {
  switch (err) {
  case EROFS:
    return deny_below(ctx, WS_DENIAL_READ_ONLY, W_ROFS, desc, path);
  case EACCES:
  case EPERM:
    return deny_below(ctx, WS_DENIAL_PERMISSION, wasi_errno(err), desc, path);
  case EMFILE:
  case ENFILE:
    return wasi_deny(ctx, WS_DENIAL_FDS, wasi_errno(err), NULL, 0);
  default:
    return wasi_errno(err);
  }
}

uint32_t wasi_resolve_error(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                            const struct wasi_path *path, int err) {
  if (err == EXDEV) {
    return wasi_deny(ctx, WS_DENIAL_ESCAPE, W_PERM, path->bytes, path->len);
  }
  return wasi_path_error(ctx, desc, path, err);
}

static bool is_dotdot(const char *name) {
  return name[0] == '.' && name[1] == '.' && (name[2] == '\0' || name[2] == '/');
}

/* Resolves the whole path and lets go of it again: only the answer counts. */
static uint32_t probe(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                      const struct wasi_path *path) {
  int fd = wasi_open_beneath(desc->fd, path->bytes, O_PATH | O_DIRECTORY, 0);
  if (fd < 0) {
    return wasi_resolve_error(ctx, desc, path, -fd);
  }
  close(fd);
  return W_SUCCESS;
}

/* Cuts all trailing slashes but one, which stays for the kernel to judge; returns where the last
 * name begins. */
static uint32_t last_name(struct wasi_path *path, bool *slash) {
  uint32_t end = path->len;
  while (end > 0 && path->bytes[end - 1] == '/') {
    end--;
  }
  *slash = end < path->len;
  if (*slash) {
    path->len = end + 1;
    path->bytes[end + 1] = '\0';
  }
  uint32_t start = end;
  while (start > 0 && path->bytes[start - 1] != '/') {
    start--;
  }
  return start;
}

uint32_t wasi_place_open(struct wasi_ctx *ctx, const struct wasi_desc *desc, struct wasi_path *path,
                         struct wasi_place *place) {
  if (path->bytes[0] == '/') {
    return wasi_resolve_error(ctx, desc, path, EXDEV);
  }
  uint32_t start = last_name(path, &place->slash);
  place->name = path->bytes + start;
  place->owned = start > 0;
  place->dir = desc->fd;
  if (is_dotdot(place->name)) {
    /* The kernel refuses to create, remove or rename "..", wherever it leads; an escape is to be
     * told apart from that, with EPERM. */
    uint32_t err = probe(ctx, desc, path);
    if (err != W_SUCCESS) {
      return err;
    }
  }
  if (start == 0) {
    return W_SUCCESS;
  }
  path->bytes[start - 1] = '\0';
  place->dir = wasi_open_beneath(desc->fd, path->bytes, O_PATH | O_DIRECTORY, 0);
  path->bytes[start - 1] = '/';
  return place->dir < 0 ? wasi_resolve_error(ctx, desc, path, -place->dir) : W_SUCCESS;
}

void wasi_place_close(struct wasi_place *place) {
  if (place->owned) {
    close(place->dir);
  }
}

static int host_fstatat(int dir, const char *name, struct stat *st, int flags) {
  /* Not the wrapper: newer C libraries choose fstat(2) or statx(2), which the filter refuses. */
  return syscall(SYS_newfstatat, dir, name, st, flags) == 0 ? 0 : -errno;
}

int wasi_host_fstat(int fd, struct stat *st) { return host_fstatat(fd, "", st, AT_EMPTY_PATH); }

uint32_t wasi_place_read_only(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                              const struct wasi_path *path, const struct wasi_place *place,
                              bool creating) {
  if (desc->root == NULL || !desc->root->read_only) {
    return W_SUCCESS;
  }
  /* A read-only mount reports a name that is (not) there first.  fstatat must not be given the
   * trailing slash: with it, it would follow a symlink. */
  char name[NAME_MAX + 1];
  size_t len = strlen(place->name) - place->slash;
  if (len >= sizeof name) {
    return W_NAMETOOLONG;
  }
  memcpy(name, place->name, len);
  name[len] = '\0';
  struct stat st;
  int err = is_dotdot(name) ? 0 : -host_fstatat(place->dir, name, &st, AT_SYMLINK_NOFOLLOW);
  if (err == 0 && creating) {
    return W_EXIST;
  }
  if (err != 0 && !(err == ENOENT && creating)) {
    return wasi_path_error(ctx, desc, path, err);
  }
  return wasi_path_error(ctx, desc, path, EROFS);
}

uint32_t wasi_path_stat(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                        const struct wasi_path *path, bool follow, struct stat *st) {
  /* One name that is no symlink needs no resolution: nothing in it can leave the directory. */
  if (memchr(path->bytes, '/', path->len) == NULL && !is_dotdot(path->bytes)) {
    int err = -host_fstatat(desc->fd, path->bytes, st, AT_SYMLINK_NOFOLLOW);
    if (err != 0) {
      return wasi_path_error(ctx, desc, path, err);
    }
    if (!follow || !S_ISLNK(st->st_mode)) {
      return W_SUCCESS;
    }
  }
  int fd = wasi_open_beneath(desc->fd, path->bytes, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
  if (fd < 0) {
    return wasi_resolve_error(ctx, desc, path, -fd);
  }
  int err = -wasi_host_fstat(fd, st);
  close(fd);
  return err != 0 ? wasi_path_error(ctx, desc, path, err) : W_SUCCESS;
}
