/* Compiling, loading and running modules and components with libwasmtime.  Only this folder sees its types.  */
#pragma once

#include <stdbool.h>
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

/* Has what every component needs of this kind of engine made ahead, for workers that are forked later.
 * It takes a part of a millisecond: worth it for a zygote that stays.  After engine_prepare. */
void engine_component_ready(uint32_t kind);

struct engine_run {
  const struct ws_spec *spec;
  struct ws_record *record;
  struct wasi_ctx *wasi;
  const char *artifact_path;
  const uint8_t *artifact; /* the artifact's bytes where they are mapped, else NULL */
  size_t artifact_size;
  /* Ends the run at once, from any thread, and does not return: as in struct wasi_config. */
  void (*finish)(void *arg, enum ws_outcome outcome, uint32_t code) __attribute__((noreturn));
};

/* A directory for a component. */
struct engine_preopen {
  char path[64]; /* where it can be opened now */
  bool read_only;
  struct ws_bytes name; /* the guest's */
};

/* Makes the WASI of a component: opens the preopens, takes stdout and stderr (stdio[1], stdio[2], -1:
 * closed; stdin is descriptor 0).  `run` has to live on.  Before any filter. */
int engine_component_prepare(const struct engine_run *run, const int stdio[3],
                             const struct engine_preopen *preopens, size_t count,
                             struct ws_error *e);

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
