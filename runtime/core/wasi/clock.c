#include "wasi/clock.h"

#include <time.h>

#include "wasi/functions.h"
#include "wasi/memory.h"

#define NS_PER_S UINT64_C(1000000000)

static const clockid_t host_clock[W_CLOCKS] = {
    [W_CLOCK_REALTIME] = CLOCK_REALTIME,
    [W_CLOCK_MONOTONIC] = CLOCK_MONOTONIC,
    [W_CLOCK_PROCESS] = CLOCK_PROCESS_CPUTIME_ID,
    [W_CLOCK_THREAD] = CLOCK_THREAD_CPUTIME_ID,
};

void wasi_clock_init(struct wasi_ctx *ctx) {
  for (uint32_t id = 0; id < W_CLOCKS; id++) {
    struct timespec res;
    if (clock_getres(host_clock[id], &res) == 0) {
      ctx->resolution[id] = (uint64_t)res.tv_sec * NS_PER_S + (uint64_t)res.tv_nsec;
    }
  }
}

uint32_t wasi_clock_now(uint32_t id, uint64_t *now) {
  struct timespec ts;
  if (id >= W_CLOCKS || clock_gettime(host_clock[id], &ts) != 0) {
    return W_INVAL;
  }
  /* A realtime clock set before 1970 has no WASI form. */
  *now = ts.tv_sec < 0 ? 0 : (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
  return W_SUCCESS;
}

uint64_t wasi_clock_step(const struct wasi_ctx *ctx) {
  return ctx->config.clock_resolution_ns > 1 ? ctx->config.clock_resolution_ns : 1;
}

WASI_CALL(clock_res_get) {
  uint64_t id = args[0];
  if (id >= W_CLOCKS || ctx->resolution[id] == 0) {
    return W_INVAL;
  }
  uint64_t step = wasi_clock_step(ctx), res = ctx->resolution[id];
  return wasi_mem_put64(mem, args[1], res > step ? res : step) ? W_SUCCESS : W_FAULT;
}

/* The precision argument asks for at most that much error; the kernel's clock is never worse, and
 * a coarser step is the policy's decision. */
WASI_CALL(clock_time_get) {
  uint64_t now = 0;
  uint32_t err = wasi_clock_now((uint32_t)args[0], &now);
  if (err != W_SUCCESS) {
    return err;
  }
  now -= now % wasi_clock_step(ctx);
  return wasi_mem_put64(mem, args[2], now) ? W_SUCCESS : W_FAULT;
}
