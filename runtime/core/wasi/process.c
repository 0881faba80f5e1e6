/* Arguments, environment, leaving, signals, random bytes. */
#include <errno.h>
#include <signal.h>
#include <sys/random.h>

#include "wasi/context.h"
#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"

/* getrandom is interruptible above 256 bytes; a large fill goes in pieces that keep it so. */
#define RANDOM_CHUNK 65536u

/* Pointers at `vector`, NUL-terminated strings at `buffer`.  Both areas are checked as a whole
 * before the first byte is written. */
static uint32_t put_strings(const struct wasi_memory *mem, uint64_t vector, uint64_t buffer,
                            const struct ws_bytes *items, size_t count, uint32_t bytes) {
  if (!wasi_mem_ok_array(mem, vector, (uint32_t)count, 4) || !wasi_mem_ok(mem, buffer, bytes)) {
    return W_FAULT;
  }
  for (size_t i = 0; i < count; i++) {
    if (!wasi_mem_put32(mem, vector + 4 * i, (uint32_t)buffer) ||
        !wasi_mem_write(mem, buffer, items[i].bytes, items[i].len) ||
        !wasi_mem_write(mem, buffer + items[i].len, "", 1)) {
      return W_FAULT;
    }
    buffer += items[i].len + 1;
  }
  return W_SUCCESS;
}

static uint32_t put_sizes(const struct wasi_memory *mem, const uint64_t *args, size_t count,
                          uint32_t bytes) {
  bool stored =
      wasi_mem_put32(mem, args[0], (uint32_t)count) && wasi_mem_put32(mem, args[1], bytes);
  return stored ? W_SUCCESS : W_FAULT;
}

WASI_CALL(args_get) {
  return put_strings(mem, args[0], args[1], ctx->config.args, ctx->config.arg_count,
                     ctx->args_bytes);
}

WASI_CALL(args_sizes_get) {
  return put_sizes(mem, args, ctx->config.arg_count, ctx->args_bytes);
}

WASI_CALL(environ_get) {
  return put_strings(mem, args[0], args[1], ctx->config.env, ctx->config.env_count,
                     ctx->env_bytes);
}

WASI_CALL(environ_sizes_get) {
  return put_sizes(mem, args, ctx->config.env_count, ctx->env_bytes);
}

WASI_CALL(proc_exit) {
  (void)mem;
  ctx->config.finish(ctx->config.finish_arg, WS_OUTCOME_EXIT, (uint32_t)args[0]);
}

/* WASI numbers its signals as Linux does up to SIGTERM, and leaves out SIGSTKFLT (16). */
#define LAST_SIGNAL 30u

/* proc_raise(signal): what Linux ignores by default changes nothing; every other signal ends the
 * run (a stop would never be continued).  0 is reserved by the specification. */
WASI_CALL(proc_raise) {
  (void)mem;
  uint64_t signal = args[0];
  if (signal == 0 || signal > LAST_SIGNAL) {
    return W_INVAL;
  }
  uint32_t host = (uint32_t)(signal <= SIGTERM ? signal : signal + 1);
  if (host == SIGCHLD || host == SIGCONT || host == SIGURG || host == SIGWINCH) {
    return W_SUCCESS;
  }
  ctx->config.finish(ctx->config.finish_arg, WS_OUTCOME_RAISED, host);
}

/* random_get(buf, buf_len) */
WASI_CALL(random_get) {
  (void)ctx;
  uint8_t bytes[256];
  uint64_t at = args[0], left = args[1];
  if (!wasi_mem_ok(mem, at, left)) {
    return W_FAULT;
  }
  while (left > 0) {
    bool direct = left > sizeof bytes;
    size_t want = direct ? (left < RANDOM_CHUNK ? left : RANDOM_CHUNK) : left;
    ssize_t n = getrandom(direct ? mem->base + at : bytes, want, 0);
    if (n < 0 && errno != EINTR) {
      return wasi_errno(errno);
    }
    if (n > 0) {
      if (!direct && !wasi_mem_write(mem, at, bytes, (uint64_t)n)) {
        return W_FAULT;
      }
      at += (uint64_t)n;
      left -= (uint64_t)n;
    }
  }
  return W_SUCCESS;
}

/* One thread, and no system call spent on it: the kernel preempts the guest anyway. */
WASI_CALL(sched_yield) {
  (void)ctx;
  (void)mem;
  (void)args;
  return W_SUCCESS;
}
