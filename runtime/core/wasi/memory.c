#include "wasi/memory.h"

uint32_t wasi_mem_iovs(const struct wasi_memory *mem, uint64_t ptr, uint32_t count,
                       struct wasi_iov *out) {
  out->total = 0;
  out->count = 0;
  if (!wasi_mem_ok_array(mem, ptr, count, W_SIZE_IOVEC)) {
    return W_FAULT;
  }
  for (uint32_t i = 0; i < count && out->count < (int)WASI_IOV_MAX; i++) {
    uint8_t raw[W_SIZE_IOVEC];
    if (!wasi_mem_read(mem, ptr + (uint64_t)i * W_SIZE_IOVEC, raw, sizeof raw)) {
      return W_FAULT;
    }
    uint32_t at = wasi_get32(raw), len = wasi_get32(raw + 4);
    if (!wasi_mem_ok(mem, at, len)) {
      return W_FAULT;
    }
    if (len == 0) {
      continue;
    }
    out->iov[out->count++] = (struct iovec){.iov_base = mem->base + at, .iov_len = len};
    out->total += len;
  }
  return W_SUCCESS;
}

void wasi_iov_cut(struct wasi_iov *iov, uint64_t limit) {
  if (iov->total <= limit) {
    return;
  }
  uint64_t left = limit;
  int i = 0;
  for (; i < iov->count && left > 0; i++) {
    if (iov->iov[i].iov_len > left) {
      iov->iov[i].iov_len = left;
    }
    left -= iov->iov[i].iov_len;
  }
  iov->count = i;
  iov->total = limit;
}
