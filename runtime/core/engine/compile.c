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

/* The fourth to eighth byte: version 13 (before 1.0), layer 1. */
static bool is_component(const uint8_t *bytes, size_t size) {
  return size >= 8 && memcmp(bytes, "\0asm\x0d\0\1\0", 8) == 0;
}

static bool is_binary(const uint8_t *bytes, size_t size) {
  return size >= 4 && memcmp(bytes, "\0asm", 4) == 0;
}

struct compiled {
  wasm_engine_t *engine;
  wasmtime_module_t *module; /* one of the two */
  wasmtime_component_t *component;
};

static wasmtime_error_t *translate(struct compiled *made, const wasm_byte_vec_t *binary,
                                   wasm_byte_vec_t *artifact) {
  wasmtime_error_t *error;
  if (is_component((const uint8_t *)binary->data, binary->size)) {
    error = engine.wasmtime_component_new(made->engine, (uint8_t *)binary->data, binary->size,
                                          &made->component);
    return error ? error : engine.wasmtime_component_serialize(made->component, artifact);
  }
  error = engine.wasmtime_module_new(made->engine, (uint8_t *)binary->data, binary->size,
                                     &made->module);
  return error ? error : engine.wasmtime_module_serialize(made->module, artifact);
}

static int describe(const struct compiled *made, int fd) {
  return made->component ? engine_describe_component(made->engine, made->component, fd)
                         : engine_describe(made->module, fd);
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
  struct compiled made = {.engine = engine_of(s->engine, s->limits.fuel != WS_UNLIMITED)};
  wasm_byte_vec_t artifact;
  if ((error = translate(&made, &binary, &artifact))) {
    engine_record_error(record, WS_OUTCOME_INVALID, 0, error);
    return STATUS_INVALID;
  }
  if (!write_all(artifact_fd, artifact.data, artifact.size))
    return fail(record, WS_OUTCOME_SETUP, "the artifact could not be written");
  /* The artifact is whole from here on.  The description only informs people: should the library
   * give up on a type that its C API cannot express, the program can still be run. */
  ws_record_outcome(record, WS_OUTCOME_COMPILED, 0, NULL, 0);
  return describe(&made, description_fd) < 0 ? STATUS_SETUP : 0;
}
