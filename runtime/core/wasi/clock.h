/* Clocks, as the guest may see them: rounded down to the context's resolution. */
#pragma once

#include <stdint.h>

#include "wasi/context.h"

/* Reads the kernel's resolutions once: clock_getres is not among the guest's system calls. */
void wasi_clock_init(struct wasi_ctx *ctx);

/* Nanoseconds of clock `id`, exact.  EINVAL for a clock that does not exist. */
uint32_t wasi_clock_now(uint32_t id, uint64_t *now);

/* What the guest's clocks advance by, in ns, at least 1. */
uint64_t wasi_clock_step(const struct wasi_ctx *ctx);
