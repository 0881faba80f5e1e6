/* The opener's one conversation: SOCK_SEQPACKET on descriptor 3, one answer to each request, in order.
 *
 * On start the opener sends one opener_hello.  A request is a struct opener_request, cut behind the
 * last byte of its path, which is not NUL-terminated; LOOK and COPY have no path and one descriptor
 * (SCM_RIGHTS), the others the reverse.  An answer is a struct opener_answer, cut in the same way;
 * with err 0 it brings one descriptor, but for LOOK.  Mirrored in runtime/opener.py. */
#pragma once

#include <stdint.h>

#define OPENER_MAGIC 0x4e45504fu /* "OPEN" */
#define OPENER_VERSION 1u
#define OPENER_PATH 4096u /* PATH_MAX: one more than the longest path that the kernel takes */

enum opener_op {
  OPENER_MODULE = 1,    /* a regular file that the caller may read; answers O_PATH */
  OPENER_DIRECTORY = 2, /* a directory that the caller may search; answers O_PATH */
  OPENER_LOOK = 3,      /* what a descriptor is; answers none */
  OPENER_COPY = 4,      /* the file's bytes, at most `limit`; answers a sealed memfd */
};

struct opener_hello {
  uint32_t magic, version;
  int32_t err;  /* 0, or errno: then the opener is not the caller, and leaves */
  char step[48];
  char detail[256];
};

struct opener_request {
  uint32_t magic, version;
  uint32_t op;
  uint32_t flags; /* 0 */
  uint64_t limit; /* COPY: bytes */
  char path[OPENER_PATH];
};

struct opener_stat {
  uint64_t dev, ino;
  uint32_t mode, uid, gid, reserved;
  uint64_t size;
  int64_t mtime_ns, ctime_ns;
};

struct opener_answer {
  uint32_t magic, version;
  int32_t err;          /* 0 or errno; EBADMSG: the request was malformed */
  uint32_t open_flags;  /* F_GETFL of the descriptor that was asked about, or was opened */
  uint32_t mount_flags; /* ST_RDONLY and its like of statvfs(3) */
  uint32_t fs_type;     /* f_type of statfs(2) */
  struct opener_stat stat;
  struct opener_stat after; /* COPY: the same file, once it was copied */
  char path[OPENER_PATH];   /* as the kernel has it; empty when that is too long for it */
};
