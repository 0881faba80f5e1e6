/* Host stat to WASI. */
#pragma once

#include <stdint.h>
#include <sys/stat.h>

/* W_FILETYPE_* of a st_mode.  A FIFO is unknown: preview 1 has no number for it. */
uint8_t wasi_filetype(mode_t mode);
