/* Directories: listing, making, removing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/path.h"
#include "wasi/table.h"

/* One getdents64 fills at most this much; a guest's larger buffer takes several. */
#define LISTING_BYTES 16384u

/* The kernel's record (linux/dirent.h); the C library's struct dirent is the same for 64 bits. */
struct host_dirent {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

struct listing {
  const struct wasi_memory *mem;
  uint64_t at;   /* guest address of the next byte */
  uint64_t left; /* bytes of the guest's buffer still free */
  int fd;        /* the directory */
};

static uint8_t entry_type(uint8_t type) {
  switch (type) {
  case DT_REG:
    return W_FILETYPE_REGULAR_FILE;
  case DT_DIR:
    return W_FILETYPE_DIRECTORY;
  case DT_LNK:
    return W_FILETYPE_SYMBOLIC_LINK;
  case DT_CHR:
    return W_FILETYPE_CHARACTER_DEVICE;
  case DT_BLK:
    return W_FILETYPE_BLOCK_DEVICE;
  case DT_SOCK:
    return W_FILETYPE_SOCKET_STREAM;
  default:
    return W_FILETYPE_UNKNOWN;
  }
}

static bool append(struct listing *out, const void *bytes, uint64_t len) {
  uint64_t n = len < out->left ? len : out->left;
  if (!wasi_mem_write(out->mem, out->at, bytes, n)) {
    return false;
  }
  out->at += n;
  out->left -= n;
  return true;
}

/* One entry, cut at the buffer's end: a full buffer tells the guest that there is more. */
static bool append_entry(struct listing *out, const struct host_dirent *entry) {
  uint8_t head[W_SIZE_DIRENT] = {0};
  size_t len = strlen(entry->name);
  struct stat st = {.st_ino = entry->ino};
  /* The parent's inode is none of the guest's business; wasmtime shows the directory's own, too. */
  if (len == 2 && memcmp(entry->name, "..", 2) == 0 && wasi_host_fstat(out->fd, &st) != 0) {
    st.st_ino = 0;
  }
  wasi_put64(head, (uint64_t)entry->off);
  wasi_put64(head + 8, st.st_ino);
  wasi_put32(head + 16, (uint32_t)len);
  head[20] = entry_type(entry->type);
  return append(out, head, sizeof head) && append(out, entry->name, len);
}

/* Fills the guest's buffer from the directory's position on.  A WASI errno. */
static uint32_t list(struct listing *out) {
  _Alignas(struct host_dirent) char buffer[LISTING_BYTES];
  while (out->left > 0) {
    /* The guest's records are longer than the kernel's by a few bytes at the most: asking for
     * about what fits spares the kernel entries that would be read again. */
    uint64_t want = out->left < 1024 ? 1024 : out->left;
    want = want < sizeof buffer ? want : sizeof buffer;
    long n = syscall(SYS_getdents64, out->fd, buffer, want);
    if (n < 0) {
      return wasi_errno(errno);
    }
    if (n == 0) {
      break;
    }
    for (long at = 0; at < n && out->left > 0;) {
      const struct host_dirent *entry = (const struct host_dirent *)(buffer + at);
      if (!append_entry(out, entry)) {
        return W_FAULT;
      }
      at += entry->reclen;
    }
  }
  return W_SUCCESS;
}

/* fd_readdir(fd, buf, buf_len, cookie, bufused*).
 * A cookie is the file system's own position (d_off), so that a listing goes on at the right place
 * while names come and go, without the host keeping anything between calls.  0 starts over. */
WASI_CALL(fd_readdir) {
  struct wasi_entry *entry;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_DIR, W_RIGHT_FD_READDIR,
                             "fd_readdir", &entry);
  if (err != W_SUCCESS) {
    return err;
  }
  if (!wasi_mem_ok(mem, args[1], args[2]) || !wasi_mem_ok(mem, args[4], 4)) {
    return W_FAULT;
  }
  int fd = entry->desc->fd;
  if (args[3] > INT64_MAX || lseek(fd, (off_t)args[3], SEEK_SET) < 0) {
    return W_INVAL;
  }
  struct listing out = {.mem = mem, .at = args[1], .left = args[2], .fd = fd};
  err = list(&out);
  if (err != W_SUCCESS) {
    return err;
  }
  return wasi_mem_put32(mem, args[4], (uint32_t)(args[2] - out.left)) ? W_SUCCESS : W_FAULT;
}

enum change { CREATE_DIRECTORY, REMOVE_DIRECTORY, UNLINK_FILE };

static int apply(enum change change, const struct wasi_place *place) {
  switch (change) {
  case CREATE_DIRECTORY:
    return mkdirat(place->dir, place->name, 0777);
  case REMOVE_DIRECTORY:
    return unlinkat(place->dir, place->name, AT_REMOVEDIR);
  default:
    return unlinkat(place->dir, place->name, 0);
  }
}

/* (fd, path, path_len).  None of the three follows the last name, also not behind a trailing slash,
 * which the kernel judges (a file's is ENOTDIR). */
static uint32_t change_name(struct wasi_ctx *ctx, const struct wasi_memory *mem,
                            const uint64_t *args, enum change change, uint64_t right,
                            const char *who) {
  struct wasi_entry *entry;
  struct wasi_path path;
  struct wasi_place place;
  uint32_t err = wasi_lookup(ctx, (uint32_t)args[0], WASI_WANT_DIR, right, who, &entry);
  if (err == W_SUCCESS) {
    err = wasi_path_read(mem, args[1], args[2], &path);
  }
  if (err == W_SUCCESS) {
    err = wasi_place_open(ctx, entry->desc, &path, &place);
  }
  if (err != W_SUCCESS) {
    return err;
  }
  err = wasi_place_read_only(ctx, entry->desc, &path, &place, change == CREATE_DIRECTORY);
  if (err == W_SUCCESS && apply(change, &place) != 0) {
    err = wasi_path_error(ctx, entry->desc, &path, errno);
  }
  wasi_place_close(&place);
  return err;
}

WASI_CALL(path_create_directory) {
  return change_name(ctx, mem, args, CREATE_DIRECTORY, W_RIGHT_PATH_CREATE_DIRECTORY,
                     "path_create_directory");
}

WASI_CALL(path_remove_directory) {
  return change_name(ctx, mem, args, REMOVE_DIRECTORY, W_RIGHT_PATH_REMOVE_DIRECTORY,
                     "path_remove_directory");
}

WASI_CALL(path_unlink_file) {
  return change_name(ctx, mem, args, UNLINK_FILE, W_RIGHT_PATH_UNLINK_FILE, "path_unlink_file");
}
