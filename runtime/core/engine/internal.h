/* What the files of this folder share.  */
#pragma once

#include "engine/engine.h"
#include "engine/library.h"

/* The engine made by engine_prepare. */
wasm_engine_t *engine_of(uint32_t kind, bool fuel);

/* Writes the description of a module's imports and exports; layout in describe.c. */
int engine_describe(wasmtime_module_t *module, int fd);
int engine_describe_component(wasm_engine_t *which, wasmtime_component_t *component, int fd);

/* Records `outcome` with the message of `error` or `trap` (whichever is there) and frees it. */
void engine_record_error(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                         wasmtime_error_t *error);
void engine_record_trap(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                        wasm_trap_t *trap);

/* Builds one extern for each import of the module, in order.  On failure records INVALID with the
 * names of what is not offered.  `externs` is allocated; NULL when there are none. */
int engine_link(wasmtime_module_t *module, wasmtime_context_t *context,
                const struct engine_run *run, wasmtime_extern_t **externs, size_t *count);

/* Calls the export that --invoke names, with the guest's arguments as parameters, and prints its
 * results.  Same ending as engine_execute. */
int engine_invoke(wasmtime_context_t *context, wasmtime_func_t *func, const struct engine_run *run);

/* Records that the module cannot be run, and why; answers the exit status. */
__attribute__((format(printf, 2, 3))) int engine_invalid(const struct engine_run *run,
                                                         const char *format, ...);

/* Makes the store with the guest's limits.  `memories`: how many it may have; -1: as the engine. */
wasmtime_context_t *engine_make_store(const struct engine_run *run, int64_t memories);

/* Notes that the guest's code is entered now. */
void engine_enter_guest(wasmtime_context_t *context, const struct engine_run *run);

/* Whether an error is for want of memory, by the words of the pinned release. */
bool engine_is_about_memory(const wasm_name_t *message);

/* Ends a call: 0 results in `exit 0`; otherwise trap, fuel or error outcomes. */
int engine_finish_call(wasmtime_error_t *error, wasm_trap_t *trap, const struct engine_run *run);
