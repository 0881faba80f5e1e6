/* The compile worker: untrusted bytes in, artifact out.  */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/internal.h"

enum { STATUS_INVALID = 126, STATUS_SETUP = 125 };

static int fail(struct ws_record *record, enum ws_outcome outcome, const char *text) {
  ws_record_outcome(record, outcome, (uint32_t)errno, text, strlen(text));
  return outcome == WS_OUTCOME_INVALID ? STATUS_INVALID : STATUS_SETUP;
}

/* Reads the whole module; its size is the file's, bounded by the memory quota. */
static uint8_t *read_module(int fd, size_t *size) {
  struct stat st;
  if (fstat(fd, &st) < 0 || st.st_size <= 0)
    return NULL;
  uint8_t *bytes = malloc((size_t)st.st_size);
  size_t at = 0;
  while (bytes && at < (size_t)st.st_size) {
    ssize_t n = pread(fd, bytes + at, (size_t)st.st_size - at, (off_t)at);
    if (n <= 0)
      break;
    at += (size_t)n;
  }
  *size = at;
  return bytes;
}

static bool write_all(int fd, const uint8_t *bytes, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t n = write(fd, bytes + at, size - at);
    if (n <= 0)
      return false;
    at += (size_t)n;
  }
  return true;
}

static bool is_binary(const uint8_t *bytes, size_t size) {
  return size >= 4 && memcmp(bytes, "\0asm", 4) == 0;
}

int engine_compile(const struct ws_spec *s, struct ws_record *record, int module_fd,
                   int artifact_fd, int description_fd) {
  size_t size = 0;
  uint8_t *bytes = read_module(module_fd, &size);
  if (!bytes)
    return fail(record, WS_OUTCOME_SETUP, "the module could not be read");
  wasm_byte_vec_t binary = {.size = size, .data = bytes};
  wasmtime_error_t *error = NULL;
  if (!is_binary(bytes, size) && (error = engine.wasmtime_wat2wasm((char *)bytes, size, &binary))) {
    engine_record_error(record, WS_OUTCOME_INVALID, 0, error);
    return STATUS_INVALID;
  }
  wasmtime_module_t *module = NULL;
  wasm_engine_t *which = engine_of(s->engine, s->limits.fuel != WS_UNLIMITED);
  if ((error = engine.wasmtime_module_new(which, binary.data, binary.size, &module))) {
    engine_record_error(record, WS_OUTCOME_INVALID, 0, error);
    return STATUS_INVALID;
  }
  wasm_byte_vec_t artifact;
  if ((error = engine.wasmtime_module_serialize(module, &artifact))) {
    engine_record_error(record, WS_OUTCOME_INVALID, 0, error);
    return STATUS_INVALID;
  }
  if (!write_all(artifact_fd, artifact.data, artifact.size))
    return fail(record, WS_OUTCOME_SETUP, "the artifact could not be written");
  /* The artifact is whole from here on.  The description only informs people: should the library
   * give up on a type that its C API cannot express, the program can still be run. */
  ws_record_outcome(record, WS_OUTCOME_COMPILED, 0, NULL, 0);
  return engine_describe(module, description_fd) < 0 ? STATUS_SETUP : 0;
}
