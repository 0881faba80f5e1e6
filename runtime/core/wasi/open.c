/* path_open: from a path beneath a directory to a new guest descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/path.h"
#include "wasi/stat.h"
#include "wasi/table.h"

/* Read and write for all, less the umask: what a program without wasisup would ask for. */
#define CREATE_MODE 0666u

struct request {
  uint64_t dirflags;
  uint64_t oflags;
  uint64_t fdflags;
  uint64_t rights;
  uint64_t inheriting;
};

static bool valid(const struct request *request) {
  if (request->dirflags > W_LOOKUP_SYMLINK_FOLLOW || request->oflags > W_OFLAG_ALL ||
      request->fdflags > W_FDFLAG_ALL) {
    return false;
  }
  /* A directory is not created or truncated by opening it; wasmtime refuses to try, too. */
  return !(request->oflags & W_OFLAG_DIRECTORY) ||
         !(request->oflags & (W_OFLAG_CREAT | W_OFLAG_EXCL | W_OFLAG_TRUNC));
}

/* Reading and writing follow from the rights asked for; what neither reads nor writes is opened
 * for reading, and the missing right keeps the guest from it. */
static int host_flags(const struct request *request) {
  bool reads = request->rights & W_RIGHT_FD_READ, writes = request->rights & W_RIGHT_FD_WRITE;
  int flags = O_NOCTTY | (writes ? (reads ? O_RDWR : O_WRONLY) : O_RDONLY);
  flags |= request->dirflags & W_LOOKUP_SYMLINK_FOLLOW ? 0 : O_NOFOLLOW;
  flags |= request->oflags & W_OFLAG_CREAT ? O_CREAT : 0;
  flags |= request->oflags & W_OFLAG_DIRECTORY ? O_DIRECTORY : 0;
  flags |= request->oflags & W_OFLAG_EXCL ? O_EXCL : 0;
  flags |= request->oflags & W_OFLAG_TRUNC ? O_TRUNC : 0;
  flags |= request->fdflags & W_FDFLAG_APPEND ? O_APPEND : 0;
  flags |= request->fdflags & W_FDFLAG_NONBLOCK ? O_NONBLOCK : 0;
  flags |= request->fdflags & W_FDFLAG_DSYNC ? O_DSYNC : 0;
  flags |= request->fdflags & (W_FDFLAG_SYNC | W_FDFLAG_RSYNC) ? O_SYNC : 0;
  return flags;
}

/* The right to truncate is PATH_FILESTAT_SET_SIZE; a directory that hands down FD_FILESTAT_SET_SIZE
 * gives the same by another way, and libcs that list rights by hand forget the first. */
static uint64_t needed_rights(struct wasi_ctx *ctx, uint32_t number, uint64_t oflags) {
  uint64_t rights = W_RIGHT_PATH_OPEN;
  rights |= oflags & W_OFLAG_CREAT ? W_RIGHT_PATH_CREATE_FILE : 0;
  struct wasi_entry *entry = wasi_table_get(&ctx->table, number);
  if ((oflags & W_OFLAG_TRUNC) &&
      !(entry != NULL && (entry->inheriting & W_RIGHT_FD_FILESTAT_SET_SIZE))) {
    rights |= W_RIGHT_PATH_FILESTAT_SET_SIZE;
  }
  return rights;
}

/* Below a `::ro` preopen: the host flags that are left, or the errno (negative) that a read-only
 * mount would answer with.  Nothing may be created or truncated while finding out. */
static int read_only_flags(int dirfd, const struct wasi_path *path, int flags) {
  bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
  if (!changes && !(flags & O_CREAT)) {
    return flags;
  }
  int fd = wasi_open_beneath(dirfd, path->bytes, O_PATH | (flags & O_NOFOLLOW), 0);
  if (fd < 0) {
    return fd == -ENOENT && (flags & O_CREAT) ? -EROFS : fd;
  }
  close(fd);
  if ((flags & O_CREAT) && (flags & O_EXCL)) {
    return -EEXIST;
  }
  return changes ? -EROFS : flags & ~O_CREAT;
}

/* An owned descriptor, or -1 and `*err`. */
static int open_host(struct wasi_ctx *ctx, const struct wasi_desc *dir,
                     const struct wasi_path *path, const struct request *request, uint32_t *err) {
  int flags = host_flags(request);
  if (dir->root != NULL && dir->root->read_only) {
    flags = read_only_flags(dir->fd, path, flags);
  }
  int fd = flags < 0 ? flags : wasi_open_beneath(dir->fd, path->bytes, flags, CREATE_MODE);
  if (fd < 0) {
    *err = wasi_resolve_error(ctx, dir, path, -fd);
    return -1;
  }
  return fd;
}

/* Which of the rights mean anything for what was opened, and are backed by how it was opened. */
static uint64_t fitting_rights(uint64_t rights, bool dir) {
  if (dir) {
    return rights & WASI_RIGHTS_DIR;
  }
  rights &= WASI_RIGHTS_FILE;
  if (!(rights & W_RIGHT_FD_WRITE)) {
    rights &= ~(W_RIGHT_FD_ALLOCATE | W_RIGHT_FD_FILESTAT_SET_SIZE);
  }
  return rights;
}

static uint32_t add(struct wasi_ctx *ctx, const struct wasi_desc *dir,
                    const struct request *request, int *fd, uint32_t *number) {
  uint8_t filetype = W_FILETYPE_DIRECTORY;
  if (!(request->oflags & W_OFLAG_DIRECTORY)) {
    struct stat st;
    int err = wasi_host_fstat(*fd, &st);
    if (err != 0) {
      return wasi_errno(-err);
    }
    filetype = wasi_filetype(st.st_mode);
  }
  bool is_dir = filetype == W_FILETYPE_DIRECTORY;
  struct wasi_desc *desc = wasi_desc_new(is_dir ? WASI_KIND_DIR : WASI_KIND_FILE, *fd, filetype);
  if (desc == NULL) {
    return W_NOMEM;
  }
  ws_steal(fd);
  desc->flags = (uint8_t)request->fdflags;
  desc->root = dir->root;
  return wasi_table_add(&ctx->table, desc, fitting_rights(request->rights, is_dir),
                        request->inheriting, number);
}

/* path_open(fd, dirflags, path, path_len, oflags, base, inheriting, fdflags, opened_fd*).
 * Rights beyond what the directory hands down are not given, and not an error: libcs ask for all
 * they know.  A call that needs one of them answers ENOTCAPABLE. */
WASI_CALL(path_open) {
  struct wasi_entry *entry;
  struct wasi_path path;
  struct request request = {.dirflags = args[1], .oflags = args[4], .fdflags = args[7]};
  uint32_t dirfd = (uint32_t)args[0];
  uint32_t err = wasi_lookup(ctx, dirfd, WASI_WANT_DIR, needed_rights(ctx, dirfd, args[4]),
                             "path_open", &entry);
  if (err == W_SUCCESS) {
    err = !wasi_mem_ok(mem, args[8], 4) ? W_FAULT : !valid(&request) ? W_INVAL : W_SUCCESS;
  }
  if (err == W_SUCCESS) {
    err = wasi_path_read(mem, args[2], args[3], &path);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  const struct wasi_desc *dir = entry->desc;
  request.rights = args[5] & entry->inheriting;
  request.inheriting = args[6] & entry->inheriting;
  if (!wasi_table_has_room(&ctx->table)) { /* may move the table: `entry` is not used below */
    return wasi_deny(ctx, WS_DENIAL_FDS, W_MFILE, NULL, 0);
  }
  ws_cleanup_fd int fd = open_host(ctx, dir, &path, &request, &err);
  if (fd < 0) {
    return err;
  }
  uint32_t number = 0;
  err = add(ctx, dir, &request, &fd, &number);
  if (err == W_SUCCESS && !wasi_mem_put32(mem, args[8], number)) {
    return W_FAULT;
  }
  return err;
}
