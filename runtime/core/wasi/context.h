/* One guest's state.  Everything a function needs comes through it; there are no globals. */
#pragma once

#include "wasi/table.h"
#include "wasi/types.h"
#include "wasi/wasi.h"

struct wasi_ctx {
  struct wasi_config config; /* args, env and names stay borrowed; preopens is not used any more */
  struct wasi_table table;
  struct wasi_root *roots; /* one a preopen, in its order */
  uint32_t args_bytes;     /* with a NUL after each */
  uint32_t env_bytes;
  uint64_t output;                /* bytes written to stdout and stderr so far */
  uint64_t resolution[W_CLOCKS];  /* ns; 0: this kernel lacks the clock */
  bool preopen_missed;            /* WS_DENIAL_NO_PREOPEN has been recorded */
};

/* Records a denial (`path` may be NULL with `len` 0) and returns `err`, so that callers write
 * `return wasi_deny(...)`. */
uint32_t wasi_deny(struct wasi_ctx *ctx, enum ws_denial_kind kind, uint32_t err, const char *path,
                   size_t len);
