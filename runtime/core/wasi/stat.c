/* filestat: reading and setting attributes, in both layouts. */
#include "wasi/stat.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/path.h"
#include "wasi/table.h"

#define NS_PER_S UINT64_C(1000000000)

uint8_t wasi_filetype(mode_t mode) {
  switch (mode & S_IFMT) {
  case S_IFREG:
    return W_FILETYPE_REGULAR_FILE;
  case S_IFDIR:
    return W_FILETYPE_DIRECTORY;
  case S_IFLNK:
    return W_FILETYPE_SYMBOLIC_LINK;
  case S_IFCHR:
    return W_FILETYPE_CHARACTER_DEVICE;
  case S_IFBLK:
    return W_FILETYPE_BLOCK_DEVICE;
  case S_IFSOCK:
    return W_FILETYPE_SOCKET_STREAM;
  default:
    return W_FILETYPE_UNKNOWN;
  }
}

/* Before 1970 becomes 0, after 2554 the largest timestamp. */
static uint64_t timestamp(struct timespec ts) {
  if (ts.tv_sec < 0) {
    return 0;
  }
  if ((uint64_t)ts.tv_sec >= UINT64_MAX / NS_PER_S) {
    return UINT64_MAX;
  }
  return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint32_t put_filestat(const struct wasi_memory *mem, uint64_t ptr, const struct stat *st,
                             uint8_t filetype, enum wasi_snapshot snapshot) {
  uint8_t out[W_SIZE_FILESTAT] = {0};
  uint8_t *rest = out + 32;
  uint64_t size = W_SIZE_FILESTAT;
  wasi_put64(out, st->st_dev);
  wasi_put64(out + 8, st->st_ino);
  out[16] = filetype;
  if (snapshot == WASI_UNSTABLE) { /* a 32-bit nlink, packed behind the type */
    wasi_put32(out + 20, (uint32_t)st->st_nlink);
    rest = out + 24;
    size = W_SIZE_FILESTAT_UNSTABLE;
  } else {
    wasi_put64(out + 24, st->st_nlink);
  }
  wasi_put64(rest, (uint64_t)st->st_size);
  wasi_put64(rest + 8, timestamp(st->st_atim));
  wasi_put64(rest + 16, timestamp(st->st_mtim));
  wasi_put64(rest + 24, timestamp(st->st_ctim));
  return wasi_mem_write(mem, ptr, out, size) ? W_SUCCESS : W_FAULT;
}

/* fd_filestat_get(fd, filestat*).  Stdio and sockets answer with their type alone, as wasmtime
 * does: nothing about the user's terminal is the guest's business. */
static uint32_t fd_filestat(struct wasi_ctx *ctx, const struct wasi_memory *mem,
                            const uint64_t *args, enum wasi_snapshot snapshot) {
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_ANY, W_RIGHT_FD_FILESTAT_GET,
                             "fd_filestat_get", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  struct stat st = {0};
  uint8_t filetype = entry->desc->filetype;
  if (entry->desc->kind == WASI_KIND_FILE || entry->desc->kind == WASI_KIND_DIR) {
    int host = wasi_host_fstat(entry->desc->fd, &st);
    if (host != 0) {
      return wasi_errno(-host);
    }
    filetype = wasi_filetype(st.st_mode);
  }
  return put_filestat(mem, args[1], &st, filetype, snapshot);
}

WASI_CALL(fd_filestat_get) { return fd_filestat(ctx, mem, args, WASI_PREVIEW1); }
WASI_CALL(fd_filestat_get_unstable) { return fd_filestat(ctx, mem, args, WASI_UNSTABLE); }

/* path_filestat_get(fd, lookupflags, path, path_len, filestat*) */
static uint32_t path_filestat(struct wasi_ctx *ctx, const struct wasi_memory *mem,
                              const uint64_t *args, enum wasi_snapshot snapshot) {
  struct wasi_entry *entry;
  struct wasi_path path;
  struct stat st;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_DIR, W_RIGHT_PATH_FILESTAT_GET,
                             "path_filestat_get", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (args[1] > W_LOOKUP_SYMLINK_FOLLOW) {
    return W_INVAL;
  }
  err = wasi_path_read(mem, args[2], args[3], &path);
  if (err == W_SUCCESS) {
    err = wasi_path_stat(ctx, entry->desc, &path, args[1] & W_LOOKUP_SYMLINK_FOLLOW, &st);
  }
  return err != W_SUCCESS ? err
                          : put_filestat(mem, args[4], &st, wasi_filetype(st.st_mode), snapshot);
}

WASI_CALL(path_filestat_get) { return path_filestat(ctx, mem, args, WASI_PREVIEW1); }
WASI_CALL(path_filestat_get_unstable) { return path_filestat(ctx, mem, args, WASI_UNSTABLE); }

static struct timespec to_timespec(uint64_t ns, bool set, bool now) {
  if (now) {
    return (struct timespec){.tv_nsec = UTIME_NOW};
  }
  if (!set) {
    return (struct timespec){.tv_nsec = UTIME_OMIT};
  }
  return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* The times of a set_times call; EINVAL for a time that is both given and "now". */
static uint32_t read_times(uint64_t atim, uint64_t mtim, uint64_t flags, struct timespec ts[2]) {
  bool both_atim = (flags & W_FST_ATIM) && (flags & W_FST_ATIM_NOW);
  bool both_mtim = (flags & W_FST_MTIM) && (flags & W_FST_MTIM_NOW);
  if ((flags & ~(uint64_t)W_FST_ALL) != 0 || both_atim || both_mtim) {
    return W_INVAL;
  }
  ts[0] = to_timespec(atim, flags & W_FST_ATIM, flags & W_FST_ATIM_NOW);
  ts[1] = to_timespec(mtim, flags & W_FST_MTIM, flags & W_FST_MTIM_NOW);
  return W_SUCCESS;
}

static bool on_read_only(const struct wasi_desc *desc) {
  return desc->root != NULL && desc->root->read_only;
}

/* fd_filestat_set_times(fd, atim, mtim, fstflags) */
WASI_CALL(fd_filestat_set_times) {
  (void)mem;
  struct wasi_entry *entry;
  struct timespec ts[2];
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_SYNC, W_RIGHT_FD_FILESTAT_SET_TIMES,
                             "fd_filestat_set_times", &entry);
  if (err == W_SUCCESS) {
    err = read_times(args[1], args[2], args[3], ts);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  if (on_read_only(entry->desc)) {
    return wasi_path_error(ctx, entry->desc, NULL, EROFS);
  }
  return futimens(entry->desc->fd, ts) == 0 ? W_SUCCESS
                                            : wasi_path_error(ctx, entry->desc, NULL, errno);
}

/* path_filestat_set_times(fd, lookupflags, path, path_len, atim, mtim, fstflags) */
WASI_CALL(path_filestat_set_times) {
  struct wasi_entry *entry;
  struct wasi_path path;
  struct timespec ts[2];
  uint32_t err =
      wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_DIR, W_RIGHT_PATH_FILESTAT_SET_TIMES,
                  "path_filestat_set_times", &entry);
  if (err == W_SUCCESS) {
    err = args[1] > W_LOOKUP_SYMLINK_FOLLOW ? W_INVAL : read_times(args[4], args[5], args[6], ts);
  }
  if (err == W_SUCCESS) {
    err = wasi_path_read(mem, args[2], args[3], &path);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  int nofollow = args[1] & W_LOOKUP_SYMLINK_FOLLOW ? 0 : O_NOFOLLOW;
  int fd = wasi_open_beneath(entry->desc->fd, path.bytes, O_PATH | nofollow, 0);
  if (fd < 0) {
    return wasi_resolve_error(ctx, entry->desc, &path, -fd);
  }
  int host = EROFS;
  if (!on_read_only(entry->desc)) { /* AT_EMPTY_PATH here: Linux 5.8 */
    host = utimensat(fd, "", ts, AT_EMPTY_PATH) == 0 ? 0 : errno;
  }
  close(fd);
  return host == 0 ? W_SUCCESS : wasi_path_error(ctx, entry->desc, &path, host);
}
