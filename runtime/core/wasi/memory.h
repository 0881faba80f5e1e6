/* The one door to the guest's memory: every access is checked here against the memory's size.
 *
 * A guest pointer out of bounds answers EFAULT.  (wasmtime traps there; the specification allows
 * both, and an errno keeps the run's outcome the guest's own.)  Alignment is not required: fields
 * are moved by memcpy.  Check every pointer a call will write to *before* its side effects. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "wasi/types.h"
#include "wasi/wasi.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "guest memory is little-endian");

/* Buffers a single call takes; more are left for the guest's next call, as a short transfer. */
#define WASI_IOV_MAX 1024u

static inline bool wasi_mem_ok(const struct wasi_memory *mem, uint64_t ptr, uint64_t len) {
  return len <= mem->size && ptr <= mem->size - len;
}

/* count * size is exact here: both factors come from 32-bit guest words or small constants. */
static inline bool wasi_mem_ok_array(const struct wasi_memory *mem, uint64_t ptr, uint32_t count,
                                     uint32_t size) {
  return wasi_mem_ok(mem, ptr, (uint64_t)count * size);
}

/* Copies `len` bytes out of, or into, the guest's memory; false: out of bounds, nothing copied. */
static inline bool wasi_mem_read(const struct wasi_memory *mem, uint64_t ptr, void *to,
                                 uint64_t len) {
  if (!wasi_mem_ok(mem, ptr, len)) {
    return false;
  }
  if (len > 0) {
    memcpy(to, mem->base + ptr, len);
  }
  return true;
}

static inline bool wasi_mem_write(const struct wasi_memory *mem, uint64_t ptr, const void *from,
                                  uint64_t len) {
  if (!wasi_mem_ok(mem, ptr, len)) {
    return false;
  }
  if (len > 0) {
    memcpy(mem->base + ptr, from, len);
  }
  return true;
}

static inline bool wasi_mem_put32(const struct wasi_memory *mem, uint64_t ptr, uint32_t value) {
  return wasi_mem_write(mem, ptr, &value, sizeof value);
}

static inline bool wasi_mem_put64(const struct wasi_memory *mem, uint64_t ptr, uint64_t value) {
  return wasi_mem_write(mem, ptr, &value, sizeof value);
}

/* Fields of a structure that was copied to, or is being built in, a local buffer. */
static inline void wasi_put16(uint8_t *at, uint16_t value) { memcpy(at, &value, sizeof value); }
static inline void wasi_put32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }
static inline void wasi_put64(uint8_t *at, uint64_t value) { memcpy(at, &value, sizeof value); }

static inline uint16_t wasi_get16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint32_t wasi_get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint64_t wasi_get64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

/* The buffers of one transfer, as host addresses inside the guest's memory. */
struct wasi_iov {
  uint64_t total; /* bytes in the first `count` buffers */
  int count;
  struct iovec iov[WASI_IOV_MAX];
};

/* Reads `count` guest iovecs at `ptr`.  The whole array and each buffer that is taken must lie in
 * the memory.  Fills only what it uses (the structure is large and lives on the caller's stack).
 * Returns a WASI errno. */
uint32_t wasi_mem_iovs(const struct wasi_memory *mem, uint64_t ptr, uint32_t count,
                       struct wasi_iov *out);

/* Shortens the transfer to at most `limit` bytes. */
void wasi_iov_cut(struct wasi_iov *iov, uint64_t limit);
