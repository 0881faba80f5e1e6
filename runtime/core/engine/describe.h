/* The format in which compile workers describe what they compiled: see describe.c.  */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "base/bytes.h"

/* One record; errors stay in `out`. */
void engine_describe_entry(FILE *out, char what, uint8_t kind, struct ws_bytes module,
                           struct ws_bytes name, struct ws_bytes type);
