/* Guest paths on the host: everything is resolved by the kernel, beneath a directory descriptor.
 *
 * Names are bytes in both directions: Linux does not demand UTF-8, so neither do we (wasmtime
 * answers EILSEQ).  A path with a NUL inside is EINVAL: it could not reach the kernel whole. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "wasi/context.h"
#include "wasi/memory.h"

/* A path copied out of the guest's memory, NUL-terminated. */
struct wasi_path {
  uint32_t len;
  char bytes[PATH_MAX];
};

/* ENAMETOOLONG from PATH_MAX bytes on; ENOENT for the empty path. */
uint32_t wasi_path_read(const struct wasi_memory *mem, uint64_t ptr, uint64_t len,
                        struct wasi_path *path);

/* openat2 with RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS; close-on-exec.  An owned descriptor or a
 * negative errno; -EXDEV says that the path leaves the directory. */
int wasi_open_beneath(int dirfd, const char *path, int flags, unsigned mode);

/* The WASI errno for a host errno met while resolving `path` below `desc`; records the denial that
 * it stands for.  Only for openat2: EXDEV there is an escape, answered with EPERM. */
uint32_t wasi_resolve_error(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                            const struct wasi_path *path, int err);

/* The same for the call that does the work, where EXDEV is the real one of rename and link. */
uint32_t wasi_path_error(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                         const struct wasi_path *path, int err);

/* Where the last name of a path lives. */
struct wasi_place {
  int dir;          /* host descriptor of the parent */
  bool owned;       /* `dir` is to be closed by wasi_place_close */
  bool slash;       /* the path ended in '/': `name` does too */
  const char *name; /* inside the path; not followed by the calls that take a wasi_place */
};

/* Resolves the parent of `path`'s last name, for calls that never follow that name themselves.
 * `path` must outlive `place`.  On error there is nothing to close. */
uint32_t wasi_place_open(struct wasi_ctx *ctx, const struct wasi_desc *desc, struct wasi_path *path,
                         struct wasi_place *place);
void wasi_place_close(struct wasi_place *place);

/* On a `::ro` preopen: the answer that a read-only file system gives to a call that would create
 * (or, with `creating` false, change) the name.  0 on any other preopen.  The mount is read-only
 * as well; this is the same grant held up once more, on the WASI side. */
uint32_t wasi_place_read_only(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                              const struct wasi_path *path, const struct wasi_place *place,
                              bool creating);

/* stat of `path` beneath `desc`, following a last symlink when `follow`. */
uint32_t wasi_path_stat(struct wasi_ctx *ctx, const struct wasi_desc *desc,
                        const struct wasi_path *path, bool follow, struct stat *st);

/* fstat by newfstatat, the one stat call that the guest's filter admits.  0 or a negative errno. */
int wasi_host_fstat(int fd, struct stat *st);
