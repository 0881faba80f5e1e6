/* The guest's descriptor table.
 *
 * A guest number leads to an entry (a reference and the rights that go with it), the entry to an
 * open description.  Numbers are the guest's own, never the host's.  Descriptions are counted, so
 * that two numbers, or the tables of two processes, can share one; nothing here is global. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wasi/types.h"
#include "wasi/wasi.h"

enum wasi_kind {
  WASI_KIND_STDIO, /* the host descriptor is never closed or changed: it is the user's terminal */
  WASI_KIND_FILE,  /* anything opened by path that is not a directory */
  WASI_KIND_DIR,
  WASI_KIND_LISTENER,
  WASI_KIND_SOCKET,
};

/* What a preopen was granted as; borrowed name, lives as long as the context. */
struct wasi_root {
  const char *name;
  size_t name_len;
  bool read_only;
};

struct wasi_desc {
  uint32_t refs;
  int fd; /* host descriptor, owned */
  uint8_t kind;
  uint8_t filetype;
  uint8_t flags;      /* W_FDFLAG_* */
  bool preopen;       /* answers fd_prestat_get */
  bool output;        /* stdout or stderr: counts towards the output quota */
  const struct wasi_root *root; /* the preopen below which it was opened; NULL for stdio, sockets */
};

struct wasi_entry {
  struct wasi_desc *desc; /* NULL: the number is free */
  uint64_t rights;
  uint64_t inheriting;
};

struct wasi_table {
  struct wasi_entry *entries;
  uint32_t size;       /* entries allocated */
  uint32_t limit;      /* max_fds: numbers are below it */
  uint32_t first_free; /* no number below it is free */
};

#define WASI_RIGHTS_DIR                                                                           \
  (W_RIGHT_FD_DATASYNC | W_RIGHT_FD_FDSTAT_SET_FLAGS | W_RIGHT_FD_SYNC |                          \
   W_RIGHT_PATH_CREATE_DIRECTORY | W_RIGHT_PATH_CREATE_FILE | W_RIGHT_PATH_LINK_SOURCE |          \
   W_RIGHT_PATH_LINK_TARGET | W_RIGHT_PATH_OPEN | W_RIGHT_FD_READDIR | W_RIGHT_PATH_READLINK |    \
   W_RIGHT_PATH_RENAME_SOURCE | W_RIGHT_PATH_RENAME_TARGET | W_RIGHT_PATH_FILESTAT_GET |          \
   W_RIGHT_PATH_FILESTAT_SET_SIZE | W_RIGHT_PATH_FILESTAT_SET_TIMES | W_RIGHT_FD_FILESTAT_GET |   \
   W_RIGHT_FD_FILESTAT_SET_TIMES | W_RIGHT_PATH_SYMLINK | W_RIGHT_PATH_REMOVE_DIRECTORY |         \
   W_RIGHT_PATH_UNLINK_FILE)

#define WASI_RIGHTS_FILE                                                                   \
  (W_RIGHT_FD_DATASYNC | W_RIGHT_FD_READ | W_RIGHT_FD_SEEK | W_RIGHT_FD_FDSTAT_SET_FLAGS | \
   W_RIGHT_FD_SYNC | W_RIGHT_FD_TELL | W_RIGHT_FD_WRITE | W_RIGHT_FD_ADVISE |              \
   W_RIGHT_FD_ALLOCATE | W_RIGHT_FD_FILESTAT_GET | W_RIGHT_FD_FILESTAT_SET_SIZE |          \
   W_RIGHT_FD_FILESTAT_SET_TIMES | W_RIGHT_POLL_FD_READWRITE)

#define WASI_RIGHTS_SOCKET                                                           \
  (W_RIGHT_FD_READ | W_RIGHT_FD_WRITE | W_RIGHT_FD_FDSTAT_SET_FLAGS |                \
   W_RIGHT_FD_FILESTAT_GET | W_RIGHT_POLL_FD_READWRITE | W_RIGHT_SOCK_SHUTDOWN)

/* What a call can work on; the answer for the other kinds follows wasmtime. */
enum wasi_want {
  WASI_WANT_ANY,
  WASI_WANT_DIR,      /* ENOTDIR for files, EBADF for the rest */
  WASI_WANT_FILE,     /* EBADF for everything but files */
  WASI_WANT_SEEKABLE, /* ESPIPE for stdio and sockets, EBADF for directories */
  WASI_WANT_STREAM,   /* files, stdio, connected sockets; EBADF for the rest */
  WASI_WANT_SYNC,     /* files and directories; EBADF for the rest */
};

bool wasi_table_init(struct wasi_table *table, uint32_t limit);

/* Drops every reference and frees; closes stdio too. */
void wasi_table_free(struct wasi_table *table);

/* A new description with no reference yet; owns `fd` on success.  NULL: no memory. */
struct wasi_desc *wasi_desc_new(enum wasi_kind kind, int fd, uint8_t filetype);

/* Is there room for one more number?  To be asked before a call creates anything on the host. */
bool wasi_table_has_room(struct wasi_table *table);

/* Puts the description at the lowest free number and takes a reference.  EMFILE when full. */
uint32_t wasi_table_add(struct wasi_table *table, struct wasi_desc *desc, uint64_t rights,
                        uint64_t inheriting, uint32_t *number);

/* The same at a given free number, for stdio and preopens. */
uint32_t wasi_table_put(struct wasi_table *table, uint32_t number, struct wasi_desc *desc,
                        uint64_t rights, uint64_t inheriting);

/* Frees the number; the host descriptor is closed with the last reference.  A WASI errno. */
uint32_t wasi_table_close(struct wasi_table *table, uint32_t number);

/* Moves `from` to `to`, closing what `to` was.  Both must be open. */
uint32_t wasi_table_renumber(struct wasi_table *table, uint32_t from, uint32_t to);

static inline struct wasi_entry *wasi_table_get(struct wasi_table *table, uint32_t number) {
  if (number >= table->size || table->entries[number].desc == NULL) {
    return NULL;
  }
  return &table->entries[number];
}

/* The entry of guest descriptor `number` for the function `who`, which needs all of `rights`.
 * Checks, in this order: open (EBADF), of a fitting kind, rights (ENOTCAPABLE, recorded).
 * `*out` is valid until the table next changes. */
uint32_t wasi_lookup(struct wasi_ctx *ctx, uint32_t number, enum wasi_want want, uint64_t rights,
                     const char *who, struct wasi_entry **out);
