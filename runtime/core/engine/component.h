/* Components (the component model, WASI 0.2): what the files of this folder share about them.
 *
 * Their WASI is the library's own, which has an asynchronous runtime below it (tokio): threads, and
 * system calls of its own.  policies/syscalls.py admits them.  */
#pragma once

#include "engine/internal.h"

/* As engine_load and engine_execute. */
int engine_component_load(const struct engine_run *run);
int engine_component_execute(const struct engine_run *run);

/* The WASI state that engine_component_prepare made; the store owns it afterwards. */
wasi_config_t *engine_component_take_wasi(void);

/* Has the library make sockets and look names up for the guest.  Returns 0 or a negative errno. */
int engine_component_allow_sockets(wasi_config_t *config, struct ws_error *e);

/* Writes `size` bytes to the guest's stdout, within its output quota.  Returns 0 or a negative
 * errno; ends the run when the quota is used up. */
int engine_component_print(const char *text, size_t size);

/* The type of what was loaded; the caller's to delete. */
wasmtime_component_type_t *engine_component_type(void);

/* Calls the export that --invoke names; its ending is that of engine_component_execute. */
int engine_component_invoke(wasmtime_context_t *context, wasmtime_component_instance_t *instance,
                            const struct engine_run *run);

/* The names of a component's world, one after the other. */
struct engine_names {
  wasmtime_component_type_t *type;
  wasm_engine_t *engine;
  bool imports;
  size_t next;
  const char *name; /* not NUL-terminated */
  size_t len;
  wasmtime_component_item_t item;
};
/* Goes to the next one; false at the end.  What the last call gave is freed by the next one. */
bool engine_names_next(struct engine_names *names);

/* Whether `name` is the interface "package/name" of a WASI 0.2 release, e.g. "wasi:cli/run". */
bool engine_is_wasi(const char *name, size_t len, const char *interface);

/* Records how a call of the guest's code ended that gave `error` (freed); answers the status. */
int engine_component_failed(wasmtime_error_t *error, const struct engine_run *run);
