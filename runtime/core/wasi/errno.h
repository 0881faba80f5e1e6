/* Host errno to WASI errno. */
#pragma once

#include <stdint.h>

/* `err` is a positive Linux errno; an unknown one becomes EIO. */
uint32_t wasi_errno(int err);
