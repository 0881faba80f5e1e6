/* WASI preview 1 on the kernel, for one guest in one worker.
 *
 * This folder sees a guest memory and a descriptor table; it knows neither the engine nor the jail.
 * The engine looks functions up in the two tables below, turns the guest's arguments into 64-bit
 * words and calls them.  */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/record.h"

/* The guest's memory for the length of one call: it may move or grow between calls. */
struct wasi_memory {
  uint8_t *base;
  uint64_t size; /* bytes */
};

struct wasi_ctx;

/* One function.  `args` holds one word a parameter (i32 zero-extended).  Returns the WASI errno. */
typedef uint32_t (*wasi_call)(struct wasi_ctx *ctx, const struct wasi_memory *mem, const uint64_t *args);

struct wasi_function {
  const char *name;
  const char *params; /* 'i' = i32, 'I' = i64, in order */
  bool has_result;    /* one i32, the errno; proc_exit has none */
  bool needs_memory;  /* reads or writes the guest's memory: a module without one traps */
  wasi_call call;
};

/* Ends with a NULL name.  `wasi_unstable` is the older snapshot with its own structure layouts. */
extern const struct wasi_function wasi_snapshot_preview1[];
extern const struct wasi_function wasi_unstable[];

enum wasi_preopen_kind { WASI_PREOPEN_DIR = 0, WASI_PREOPEN_LISTENER = 1 };

struct wasi_preopen {
  enum wasi_preopen_kind kind;
  int fd;           /* host descriptor; owned by the context afterwards */
  bool read_only;   /* the mount is read-only too */
  const char *name; /* guest path, not NUL-terminated; borrowed: must outlive the context */
  size_t name_len;
};

struct wasi_config {
  const struct ws_bytes *args; /* argv[0] first; borrowed, no NUL inside */
  size_t arg_count;
  const struct ws_bytes *env; /* "KEY=VALUE" */
  size_t env_count;
  int stdio[3]; /* host descriptors, owned by the context afterwards; -1: closed for the guest */
  const struct wasi_preopen *preopens; /* become guest descriptors 3, 4, ... in this order */
  size_t preopen_count;
  uint32_t max_fds;             /* guest descriptors open at once, stdio and preopens included */
  uint64_t max_output;          /* bytes to stdout and stderr together; UINT64_MAX: no limit */
  uint64_t clock_resolution_ns; /* clocks are rounded down to this; 0 or 1: as the kernel has them */
  struct ws_record *record;     /* may be NULL */
  /* Ends the run at once and does not return (the worker records the outcome and leaves; a fuzzer
   * longjmps).  Called for proc_exit (WS_OUTCOME_EXIT, code), proc_raise (WS_OUTCOME_RAISED, Linux
   * signal) and the output quota (WS_OUTCOME_OUTPUT). */
  void (*finish)(void *arg, enum ws_outcome outcome, uint32_t code) __attribute__((noreturn));
  void *finish_arg;
};

/* Makes the context.  Every allocation that depends on the configuration happens here (before the
 * guest's filter is on); file types of stdio are read here too, so that no fstat is needed later.
 * Returns NULL with errno set when memory is short or the configuration is out of range. */
struct wasi_ctx *wasi_ctx_new(const struct wasi_config *config);

/* Closes every descriptor and frees; the worker never calls it (it leaves by _exit), tests do. */
void wasi_ctx_delete(struct wasi_ctx *ctx);
