/* Open files: transfers, position, size, syncing, advice. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/path.h"
#include "wasi/stream.h"
#include "wasi/table.h"

static uint32_t result(int host) { return host == 0 ? W_SUCCESS : wasi_errno(errno); }

/* Finishes a transfer: its errno, or the count stored where the guest wants it.  A count fits 32
 * bits: Linux moves at most 0x7ffff000 bytes a call. */
static uint32_t finish_transfer(const struct wasi_memory *mem, uint64_t count_ptr, uint32_t err,
                                uint64_t done) {
  if (err != W_SUCCESS) {
    return err;
  }
  return wasi_mem_put32(mem, count_ptr, (uint32_t)done) ? W_SUCCESS : W_FAULT;
}

static uint32_t take_iovs(const struct wasi_memory *mem, uint64_t ptr, uint32_t count,
                          uint64_t count_ptr, struct wasi_iov *iov) {
  return wasi_mem_ok(mem, count_ptr, 4) ? wasi_mem_iovs(mem, ptr, count, iov) : W_FAULT;
}

static uint32_t from_host(ssize_t n, uint64_t *done) {
  if (n < 0) {
    return wasi_errno(errno);
  }
  *done = (uint64_t)n;
  return W_SUCCESS;
}

/* fd_read(fd, iovs, iovs_len, nread*) */
WASI_CALL(fd_read) {
  struct wasi_entry *entry;
  struct wasi_iov iov;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_STREAM, W_RIGHT_FD_READ, "fd_read",
                             &entry);
  if (err == W_SUCCESS) {
    err = take_iovs(mem, args[1], (uint32_t)args[2], args[3], &iov);
  }
  if (err != W_SUCCESS || iov.total == 0) {
    return finish_transfer(mem, args[3], err, 0);
  }
  uint64_t done = 0;
  if (entry->desc->kind == WASI_KIND_STDIO) {
    err = wasi_stdio_read(entry->desc, &iov, &done);
  } else if (entry->desc->kind == WASI_KIND_SOCKET) {
    err = wasi_socket_recv(entry->desc, &iov, 0, NULL, &done);
  } else {
    err = from_host(TEMP_FAILURE_RETRY(readv(entry->desc->fd, iov.iov, iov.count)), &done);
  }
  return finish_transfer(mem, args[3], err, done);
}

/* fd_write(fd, iovs, iovs_len, nwritten*) */
WASI_CALL(fd_write) {
  struct wasi_entry *entry;
  struct wasi_iov iov;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_STREAM, W_RIGHT_FD_WRITE,
                             "fd_write", &entry);
  if (err == W_SUCCESS) {
    err = take_iovs(mem, args[1], (uint32_t)args[2], args[3], &iov);
  }
  if (err != W_SUCCESS || iov.total == 0) {
    return finish_transfer(mem, args[3], err, 0);
  }
  uint64_t done = 0;
  if (entry->desc->kind == WASI_KIND_STDIO) {
    err = wasi_stdio_write(ctx, entry->desc, &iov, &done);
  } else if (entry->desc->kind == WASI_KIND_SOCKET) {
    err = wasi_socket_send(entry->desc, &iov, &done);
  } else {
    err = from_host(TEMP_FAILURE_RETRY(writev(entry->desc->fd, iov.iov, iov.count)), &done);
  }
  return finish_transfer(mem, args[3], err, done);
}

/* What fd_pread and fd_pwrite check: (fd, iovs, iovs_len, offset, count*). */
static uint32_t begin_at(struct wasi_ctx *ctx, const struct wasi_memory *mem, const uint64_t *args,
                         uint64_t right, const char *who, struct wasi_entry **entry,
                         struct wasi_iov *iov) {
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_SEEKABLE, right | W_RIGHT_FD_SEEK,
                             who, entry);
  if (err == W_SUCCESS) {
    err = take_iovs(mem, args[1], (uint32_t)args[2], args[4], iov);
  }
  return err == W_SUCCESS && args[3] > INT64_MAX ? W_INVAL : err;
}

/* fd_pread(fd, iovs, iovs_len, offset, nread*) */
WASI_CALL(fd_pread) {
  struct wasi_entry *entry;
  struct wasi_iov iov;
  uint32_t err = begin_at(ctx, mem, args, W_RIGHT_FD_READ, "fd_pread", &entry, &iov);
  if (err != W_SUCCESS || iov.total == 0) {
    return finish_transfer(mem, args[4], err, 0);
  }
  uint64_t done = 0;
  off_t offset = (off_t)args[3];
  err = from_host(TEMP_FAILURE_RETRY(preadv(entry->desc->fd, iov.iov, iov.count, offset)), &done);
  return finish_transfer(mem, args[4], err, done);
}

/* Linux appends in pwrite when O_APPEND is set; POSIX and wasmtime write at the offset.  The open
 * description is this guest's own, so the flag can step aside for the call. */
static ssize_t write_at(const struct wasi_desc *desc, struct wasi_iov *iov, off_t offset) {
  bool append = (desc->flags & W_FDFLAG_APPEND) != 0;
  int rest = desc->flags & W_FDFLAG_NONBLOCK ? O_NONBLOCK : 0;
  if (append && fcntl(desc->fd, F_SETFL, rest) != 0) {
    return -1;
  }
  ssize_t n = TEMP_FAILURE_RETRY(pwritev(desc->fd, iov->iov, iov->count, offset));
  int err = errno;
  if (append && fcntl(desc->fd, F_SETFL, rest | O_APPEND) != 0) {
    return -1;
  }
  errno = err;
  return n;
}

/* fd_pwrite(fd, iovs, iovs_len, offset, nwritten*) */
WASI_CALL(fd_pwrite) {
  struct wasi_entry *entry;
  struct wasi_iov iov;
  uint32_t err = begin_at(ctx, mem, args, W_RIGHT_FD_WRITE, "fd_pwrite", &entry, &iov);
  if (err != W_SUCCESS || iov.total == 0) {
    return finish_transfer(mem, args[4], err, 0);
  }
  uint64_t done = 0;
  err = from_host(write_at(entry->desc, &iov, (off_t)args[3]), &done);
  return finish_transfer(mem, args[4], err, done);
}

/* FD_SEEK implies FD_TELL, which is enough to ask for the position without moving it. */
static uint64_t right_to_tell(struct wasi_ctx *ctx, uint32_t number) {
  struct wasi_entry *entry = wasi_table_get(&ctx->table, number);
  return entry != NULL && (entry->rights & W_RIGHT_FD_SEEK) ? W_RIGHT_FD_SEEK : W_RIGHT_FD_TELL;
}

static uint32_t seek(struct wasi_ctx *ctx, const struct wasi_memory *mem, uint32_t number,
                     int64_t offset, int whence, uint64_t out, const char *who) {
  struct wasi_entry *entry;
  bool tell = whence == SEEK_CUR && offset == 0;
  uint64_t right = tell ? right_to_tell(ctx, number) : W_RIGHT_FD_SEEK;
  uint32_t err = wasi_lookup(ctx, number, WASI_WANT_SEEKABLE, right, who, &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (!wasi_mem_ok(mem, out, 8)) {
    return W_FAULT;
  }
  off_t at = lseek(entry->desc->fd, offset, whence);
  if (at < 0) {
    return wasi_errno(errno);
  }
  return wasi_mem_put64(mem, out, (uint64_t)at) ? W_SUCCESS : W_FAULT;
}

/* fd_seek(fd, offset, whence, newoffset*) */
WASI_CALL(fd_seek) {
  static const int whence[] = {SEEK_SET, SEEK_CUR, SEEK_END};
  uint32_t w = (uint32_t)args[2];
  return w > 2 ? W_INVAL
               : seek(ctx, mem, (uint32_t)args[0], (int64_t)args[1], whence[w], args[3], "fd_seek");
}

WASI_CALL(fd_seek_unstable) {
  static const int whence[] = {SEEK_CUR, SEEK_END, SEEK_SET};
  uint32_t w = (uint32_t)args[2];
  return w > 2 ? W_INVAL
               : seek(ctx, mem, (uint32_t)args[0], (int64_t)args[1], whence[w], args[3], "fd_seek");
}

/* fd_tell(fd, offset*) */
WASI_CALL(fd_tell) {
  return seek(ctx, mem, (uint32_t)args[0], 0, SEEK_CUR, args[1], "fd_tell");
}

/* Below a `::ro` preopen the guest has written nothing; a run with no other directory may not make
 * these system calls either. */
static uint32_t sync_host(const struct wasi_desc *desc, int (*sync_fd)(int)) {
  bool read_only = desc->root != NULL && desc->root->read_only;
  return read_only ? W_SUCCESS : result(sync_fd(desc->fd));
}

WASI_CALL(fd_sync) {
  (void)mem;
  struct wasi_entry *entry;
  uint32_t err =
      wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_SYNC, W_RIGHT_FD_SYNC, "fd_sync", &entry);
  return err != W_SUCCESS ? err : sync_host(entry->desc, fsync);
}

WASI_CALL(fd_datasync) {
  (void)mem;
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_SYNC, W_RIGHT_FD_DATASYNC,
                             "fd_datasync", &entry);
  return err != W_SUCCESS ? err : sync_host(entry->desc, fdatasync);
}

/* fd_advise(fd, offset, len, advice) */
WASI_CALL(fd_advise) {
  (void)mem;
  static const int advice[] = {POSIX_FADV_NORMAL,   POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM,
                               POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED,   POSIX_FADV_NOREUSE};
  struct wasi_entry *entry;
  uint32_t err =
      wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_FILE, W_RIGHT_FD_ADVISE, "fd_advise", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (args[3] >= sizeof advice / sizeof *advice || args[1] > INT64_MAX || args[2] > INT64_MAX) {
    return W_INVAL;
  }
  int host = posix_fadvise(entry->desc->fd, (off_t)args[1], (off_t)args[2], advice[args[3]]);
  return host == 0 ? W_SUCCESS : wasi_errno(host);
}

/* fd_allocate(fd, offset, len): posix_fallocate in the specification.  fallocate alone, because
 * the C library's fallback would write the whole range on a file system that lacks it. */
WASI_CALL(fd_allocate) {
  (void)mem;
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_FILE, W_RIGHT_FD_ALLOCATE,
                             "fd_allocate", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (args[1] > INT64_MAX || args[2] > INT64_MAX) {
    return W_INVAL;
  }
  return result(TEMP_FAILURE_RETRY(fallocate(entry->desc->fd, 0, (off_t)args[1], (off_t)args[2])));
}

/* fd_filestat_set_size(fd, size) */
WASI_CALL(fd_filestat_set_size) {
  (void)mem;
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_FILE, W_RIGHT_FD_FILESTAT_SET_SIZE,
                             "fd_filestat_set_size", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (args[1] > INT64_MAX) {
    return W_INVAL;
  }
  return result(TEMP_FAILURE_RETRY(ftruncate(entry->desc->fd, (off_t)args[1])));
}
