/* A borrowed run of bytes: names and arguments need not be UTF-8 and are not NUL-terminated. */
#pragma once

#include <stddef.h>

struct ws_bytes {
  const char *bytes;
  size_t len;
};
