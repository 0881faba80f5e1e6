/* A pretended guest for tests of runtime/core/wasi: a memory, a context on a fresh directory, and
 * calls by name as a module would make them. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/record.h"
#include "wasi/types.h"
#include "wasi/wasi.h"

#define GUEST_MEMORY (1u << 20)
#define PREOPEN 3u /* the first preopen's number */

struct guest {
  uint8_t *memory;
  struct wasi_memory view;
  struct wasi_config config;
  struct wasi_ctx *ctx;
  struct ws_record *record;
  uint32_t top; /* strings and buffers are placed from here on */
  jmp_buf finished;
  bool did_finish;
  enum ws_outcome outcome;
  uint32_t code;
  bool unstable;
};

static int failures;
static int checks;

#define CHECK(what, condition)                                                 \
  do {                                                                         \
    checks++;                                                                  \
    if (!(condition)) {                                                        \
      failures++;                                                              \
      fprintf(stderr, "%s:%d: FAILED %s: %s\n", __FILE__, __LINE__, what, #condition); \
    }                                                                          \
  } while (0)

#define CHECK_ERRNO(what, call, wanted)                                                     \
  do {                                                                                      \
    uint32_t got_ = (call);                                                                 \
    checks++;                                                                               \
    if (got_ != (uint32_t)(wanted)) {                                                       \
      failures++;                                                                           \
      fprintf(stderr, "%s:%d: FAILED %s: errno %u, wanted %s\n", __FILE__, __LINE__, what, got_, \
              #wanted);                                                                     \
    }                                                                                       \
  } while (0)

static inline __attribute__((noreturn)) void guest_finish(void *arg, enum ws_outcome outcome,
                                                          uint32_t code) {
  struct guest *guest = arg;
  guest->did_finish = true;
  guest->outcome = outcome;
  guest->code = code;
  longjmp(guest->finished, 1);
}

/* `config` is completed here (finish, record, limits that are 0). */
static inline void guest_start(struct guest *guest, const struct wasi_config *config) {
  memset(guest, 0, sizeof *guest);
  guest->memory = calloc(1, GUEST_MEMORY);
  guest->record = calloc(1, sizeof *guest->record);
  guest->view = (struct wasi_memory){.base = guest->memory, .size = GUEST_MEMORY};
  guest->config = *config;
  guest->config.finish = guest_finish;
  guest->config.finish_arg = guest;
  guest->config.record = guest->record;
  guest->config.max_fds = config->max_fds ? config->max_fds : 32;
  guest->config.max_output = config->max_output ? config->max_output : UINT64_MAX;
  guest->top = 4096;
  guest->ctx = wasi_ctx_new(&guest->config);
  if (guest->ctx == NULL) {
    perror("wasi_ctx_new");
    exit(2);
  }
}

static inline void guest_stop(struct guest *guest) {
  wasi_ctx_delete(guest->ctx);
  free(guest->memory);
  free(guest->record);
}

static inline const struct wasi_function *find_function(bool unstable, const char *name) {
  const struct wasi_function *table = unstable ? wasi_unstable : wasi_snapshot_preview1;
  while (table->name != NULL && strcmp(table->name, name) != 0) {
    table++;
  }
  if (table->name == NULL) {
    fprintf(stderr, "no function %s\n", name);
    exit(2);
  }
  return table;
}

/* 0xffff: the call ended the run. */
static inline uint32_t guest_call_(struct guest *guest, const char *name, const uint64_t *args) {
  const struct wasi_function *volatile function = find_function(guest->unstable, name);
  guest->did_finish = false;
  if (setjmp(guest->finished) != 0) {
    return 0xffff;
  }
  return function->call(guest->ctx, &guest->view, args);
}

#define CALL(guest, name, ...) guest_call_(guest, name, (const uint64_t[]){__VA_ARGS__})

/* Room in the guest's memory, never given back. */
static inline uint64_t guest_room(struct guest *guest, uint32_t size) {
  uint32_t at = (guest->top + 7) & ~7u;
  guest->top = at + size;
  if (guest->top > GUEST_MEMORY) {
    fprintf(stderr, "the guest's memory is used up\n");
    exit(2);
  }
  return at;
}

static inline uint64_t guest_bytes(struct guest *guest, const void *bytes, size_t len) {
  uint64_t at = guest_room(guest, (uint32_t)len + 1);
  memcpy(guest->memory + at, bytes, len);
  return at;
}

static inline uint32_t guest_u32(const struct guest *guest, uint64_t at) {
  uint32_t value;
  memcpy(&value, guest->memory + at, 4);
  return value;
}

static inline uint64_t guest_u64(const struct guest *guest, uint64_t at) {
  uint64_t value;
  memcpy(&value, guest->memory + at, 8);
  return value;
}

/* A path as the two words pointer, length. */
#define PATH(guest, text) guest_bytes(guest, text, strlen(text)), strlen(text)

static inline uint32_t guest_open_with(struct guest *guest, uint32_t dir, const char *path,
                                       uint64_t oflags, uint64_t rights, uint64_t fdflags,
                                       uint32_t *fd) {
  uint64_t out = guest_room(guest, 4);
  uint32_t err = CALL(guest, "path_open", dir, W_LOOKUP_SYMLINK_FOLLOW, PATH(guest, path), oflags,
                      rights, ~UINT64_C(0), fdflags, out);
  *fd = err == 0 ? guest_u32(guest, out) : UINT32_MAX;
  return err;
}

#define ALL_RIGHTS (~UINT64_C(0))
#define READ_RIGHTS (~(W_RIGHT_FD_WRITE | W_RIGHT_FD_ALLOCATE | W_RIGHT_FD_FILESTAT_SET_SIZE))

static inline uint32_t guest_open(struct guest *guest, uint32_t dir, const char *path,
                                  uint64_t oflags, uint32_t *fd) {
  return guest_open_with(guest, dir, path, oflags, ALL_RIGHTS, 0, fd);
}

/* One iovec on `len` bytes at `at`. */
static inline uint64_t guest_iov(struct guest *guest, uint64_t at, uint32_t len) {
  uint32_t pair[2] = {(uint32_t)at, len};
  return guest_bytes(guest, pair, sizeof pair);
}

static inline uint32_t guest_write(struct guest *guest, uint32_t fd, const char *text,
                                   uint32_t *done) {
  uint64_t out = guest_room(guest, 4);
  uint64_t at = guest_bytes(guest, text, strlen(text));
  uint32_t err =
      CALL(guest, "fd_write", fd, guest_iov(guest, at, (uint32_t)strlen(text)), 1, out);
  *done = guest_u32(guest, out);
  return err;
}

static inline bool guest_denied(const struct guest *guest, enum ws_denial_kind kind,
                                const char *path) {
  for (uint32_t i = 0; i < guest->record->denial_count; i++) {
    const struct ws_denial *denial = &guest->record->denials[i];
    if (denial->kind == (uint32_t)kind &&
        (path == NULL || (denial->path_len == strlen(path) &&
                          memcmp(denial->path, path, denial->path_len) == 0))) {
      return true;
    }
  }
  return false;
}
