/* libwasmtime, loaded at run time from the pinned wheel.
 *
 * A function of the library is named once, in ENGINE_SYMBOLS: that line declares the pointer (with
 * the type of the generated header), looks it up and names it when it is missing.  */
#pragma once

#include "base/error.h"
#include "wasmtime.gen.h"

#define ENGINE_SYMBOLS(X)                                                                          \
  X(wasi_config_allow_ip_name_lookup)                                                              \
  X(wasi_config_delete)                                                                            \
  X(wasi_config_inherit_network)                                                                   \
  X(wasi_config_inherit_stdin)                                                                     \
  X(wasi_config_new)                                                                               \
  X(wasi_config_preopen_dir)                                                                       \
  X(wasi_config_set_argv)                                                                          \
  X(wasi_config_set_env)                                                                           \
  X(wasi_config_set_stderr_custom)                                                                 \
  X(wasi_config_set_stdout_custom)                                                                 \
  X(wasm_byte_vec_delete)                                                                          \
  X(wasm_byte_vec_new)                                                                             \
  X(wasm_config_new)                                                                               \
  X(wasm_engine_new_with_config)                                                                   \
  X(wasm_exporttype_name)                                                                          \
  X(wasm_exporttype_type)                                                                          \
  X(wasm_exporttype_vec_delete)                                                                    \
  X(wasm_externtype_as_functype)                                                                   \
  X(wasm_externtype_as_memorytype)                                                                 \
  X(wasm_externtype_kind)                                                                          \
  X(wasm_functype_delete)                                                                          \
  X(wasm_functype_new)                                                                             \
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
  X(wasmtime_component_deserialize)                                                                \
  X(wasmtime_component_deserialize_file)                                                           \
  X(wasmtime_component_enum_type_names_nth)                                                        \
  X(wasmtime_component_extern_delete)                                                              \
  X(wasmtime_component_extern_type)                                                                \
  X(wasmtime_component_flags_type_names_count)                                                     \
  X(wasmtime_component_flags_type_names_nth)                                                       \
  X(wasmtime_component_func_call)                                                                  \
  X(wasmtime_component_func_type)                                                                  \
  X(wasmtime_component_func_type_param_nth)                                                        \
  X(wasmtime_component_func_type_result)                                                           \
  X(wasmtime_component_instance_get_export_index)                                                  \
  X(wasmtime_component_instance_get_func)                                                          \
  X(wasmtime_component_instance_type_export_nth)                                                   \
  X(wasmtime_component_item_delete)                                                                \
  X(wasmtime_component_linker_add_wasi_http)                                                       \
  X(wasmtime_component_linker_add_wasip2)                                                          \
  X(wasmtime_component_linker_allow_shadowing)                                                     \
  X(wasmtime_component_linker_instance_add_func)                                                   \
  X(wasmtime_component_linker_instance_add_instance)                                               \
  X(wasmtime_component_linker_instance_delete)                                                     \
  X(wasmtime_component_linker_instantiate)                                                         \
  X(wasmtime_component_linker_new)                                                                 \
  X(wasmtime_component_linker_root)                                                                \
  X(wasmtime_component_list_type_element)                                                          \
  X(wasmtime_component_new)                                                                        \
  X(wasmtime_component_option_type_ty)                                                             \
  X(wasmtime_component_record_type_field_count)                                                    \
  X(wasmtime_component_record_type_field_nth)                                                      \
  X(wasmtime_component_result_type_err)                                                            \
  X(wasmtime_component_result_type_ok)                                                             \
  X(wasmtime_component_serialize)                                                                  \
  X(wasmtime_component_tuple_type_types_nth)                                                       \
  X(wasmtime_component_type)                                                                       \
  X(wasmtime_component_type_delete)                                                                \
  X(wasmtime_component_type_export_nth)                                                            \
  X(wasmtime_component_type_import_nth)                                                            \
  X(wasmtime_component_val_delete)                                                                 \
  X(wasmtime_component_val_new)                                                                    \
  X(wasmtime_component_valflags_new)                                                               \
  X(wasmtime_component_vallist_new)                                                                \
  X(wasmtime_component_valrecord_new)                                                              \
  X(wasmtime_component_valtuple_new)                                                               \
  X(wasmtime_component_valtype_delete)                                                             \
  X(wasmtime_component_variant_type_case_nth)                                                      \
  X(wasmtime_config_consume_fuel_set)                                                              \
  X(wasmtime_config_native_unwind_info_set)                                                        \
  X(wasmtime_config_target_set)                                                                    \
  X(wasmtime_context_get_fuel)                                                                     \
  X(wasmtime_context_set_fuel)                                                                     \
  X(wasmtime_context_set_wasi)                                                                     \
  X(wasmtime_context_set_wasi_http)                                                                \
  X(wasmtime_error_delete)                                                                         \
  X(wasmtime_error_exit_status)                                                                    \
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
