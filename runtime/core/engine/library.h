/* libwasmtime, loaded at run time from the pinned wheel.
 *
 * A function of the library is named once, in ENGINE_SYMBOLS: that line declares the pointer (with
 * the type of the generated header), looks it up and names it when it is missing.  */
#pragma once

#include "base/error.h"
#include "wasmtime.gen.h"

#define ENGINE_SYMBOLS(X)                                                                          \
  X(wasm_byte_vec_delete)                                                                          \
  X(wasm_config_new)                                                                               \
  X(wasm_engine_new_with_config)                                                                   \
  X(wasm_exporttype_name)                                                                          \
  X(wasm_exporttype_type)                                                                          \
  X(wasm_exporttype_vec_delete)                                                                    \
  X(wasm_externtype_as_functype)                                                                   \
  X(wasm_externtype_as_memorytype)                                                                 \
  X(wasm_externtype_kind)                                                                          \
  X(wasm_functype_new)                                                                             \
  X(wasm_functype_delete)                                                                          \
  X(wasm_functype_params)                                                                          \
  X(wasm_functype_results)                                                                         \
  X(wasm_importtype_module)                                                                        \
  X(wasm_importtype_name)                                                                          \
  X(wasm_importtype_type)                                                                          \
  X(wasm_importtype_vec_delete)                                                                    \
  X(wasm_trap_delete)                                                                              \
  X(wasm_trap_message)                                                                             \
  X(wasm_valtype_kind)                                                                             \
  X(wasm_valtype_new)                                                                              \
  X(wasm_valtype_vec_new)                                                                          \
  X(wasm_valtype_vec_new_empty)                                                                    \
  X(wasmtime_caller_context)                                                                       \
  X(wasmtime_caller_export_get)                                                                    \
  X(wasmtime_config_consume_fuel_set)                                                              \
  X(wasmtime_config_native_unwind_info_set)                                                        \
  X(wasmtime_config_target_set)                                                                    \
  X(wasmtime_context_get_fuel)                                                                     \
  X(wasmtime_context_set_fuel)                                                                     \
  X(wasmtime_error_delete)                                                                         \
  X(wasmtime_error_message)                                                                        \
  X(wasmtime_extern_delete)                                                                        \
  X(wasmtime_func_call)                                                                            \
  X(wasmtime_func_new_unchecked)                                                                   \
  X(wasmtime_func_type)                                                                            \
  X(wasmtime_instance_export_get)                                                                  \
  X(wasmtime_instance_new)                                                                         \
  X(wasmtime_memory_data)                                                                          \
  X(wasmtime_memory_data_size)                                                                     \
  X(wasmtime_memorytype_is64)                                                                      \
  X(wasmtime_memorytype_isshared)                                                                  \
  X(wasmtime_memorytype_maximum)                                                                   \
  X(wasmtime_memorytype_minimum)                                                                   \
  X(wasmtime_module_deserialize)                                                                   \
  X(wasmtime_module_deserialize_file)                                                              \
  X(wasmtime_module_exports)                                                                       \
  X(wasmtime_module_imports)                                                                       \
  X(wasmtime_module_new)                                                                           \
  X(wasmtime_module_serialize)                                                                     \
  X(wasmtime_store_context)                                                                        \
  X(wasmtime_store_limiter)                                                                        \
  X(wasmtime_store_new)                                                                            \
  X(wasmtime_trap_code)                                                                            \
  X(wasmtime_trap_new)                                                                             \
  X(wasmtime_wat2wasm)

struct engine_library {
#define ENGINE_POINTER(name) __typeof__(name) *name;
  ENGINE_SYMBOLS(ENGINE_POINTER)
#undef ENGINE_POINTER
};

/* The one library of this process. */
extern struct engine_library engine;

/* Loads `path`.  `release` is what the supervisor found beside it; another than the one this core
 * was built against is refused.  Returns 0 or a negative errno with the error filled. */
int engine_library_load(const char *path, const char *release, struct ws_error *e);
