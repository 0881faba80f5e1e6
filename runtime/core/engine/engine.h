/* Compiling, loading and running modules with libwasmtime.  Only this folder sees its types.  */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "base/record.h"
#include "spec/spec.h"
#include "wasi/wasi.h"

struct wasm_engine_t;
struct wasmtime_module;

/* Makes the engine of this kind when it is not there yet.  The zygote does it before it forks, so
 * that workers start with it; fuel metering is another engine, made in the worker that wants it. */
int engine_prepare(uint32_t kind, bool fuel, struct ws_error *e);

struct engine_run {
  const struct ws_spec *spec;
  struct ws_record *record;
  struct wasi_ctx *wasi;
  const char *artifact_path;
  const uint8_t *artifact; /* the artifact's bytes where they are mapped, else NULL */
  size_t artifact_size;
};

/* Loads the artifact: the last step that may make memory executable.  Records the outcome and
 * returns a negative errno when the artifact is not one of this engine's. */
int engine_load(const struct engine_run *run);

/* Instantiates and runs.  Records the outcome, answers the worker's exit status. */
int engine_execute(const struct engine_run *run);

/* Notes memory and fuel used so far in the record; for endings inside a host function. */
void engine_note_usage(void);

/* Compiles the module read from `module_fd`; writes the artifact and its description (imports,
 * exports).  Records the outcome, answers the worker's exit status. */
int engine_compile(const struct ws_spec *spec, struct ws_record *record, int module_fd,
                   int artifact_fd, int description_fd);
