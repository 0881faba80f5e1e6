#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/component.h"

/* Exit statuses of a worker; the supervisor reads the record, these are for whoever looks at the
 * process alone. */
enum { STATUS_INVALID = 126, STATUS_TRAP = 134, STATUS_MEMORY = 137 };

static wasmtime_module_t *module;

int engine_load(const struct engine_run *run) {
  const struct ws_spec *s = run->spec;
  if (s->form == WS_FORM_COMPONENT)
    return engine_component_load(run);
  wasm_engine_t *which = engine_of(s->engine, s->limits.fuel != WS_UNLIMITED);
  char path[64];
  wasmtime_error_t *error;
  snprintf(path, sizeof path, "%s", run->artifact_path);
  if (run->artifact) {
    uint8_t *bytes = (uint8_t *)(uintptr_t)run->artifact; /* the interface lacks a const */
    error = engine.wasmtime_module_deserialize(which, bytes, run->artifact_size, &module);
    munmap(bytes, run->artifact_size);
  } else {
    error = engine.wasmtime_module_deserialize_file(which, path, &module);
  }
  if (error) {
    engine_record_error(run->record, WS_OUTCOME_REJECTED, 0, error);
    return -EINVAL;
  }
  return 0;
}

static int64_t bounded(uint64_t value) { return value > INT64_MAX ? -1 : (int64_t)value; }

/* The store with the guest's exact limits.  The data pointer is not needed: one run a process. */
wasmtime_context_t *engine_make_store(const struct engine_run *run, int64_t memories) {
  const struct ws_limits *l = &run->spec->limits;
  wasm_engine_t *which = engine_of(run->spec->engine, l->fuel != WS_UNLIMITED);
  wasmtime_store_t *store = engine.wasmtime_store_new(which, NULL, NULL);
  /* The limiter bounds each memory.  A module may have one, so --memory is the guest's exact figure;
   * a component may have several: each is bounded, and all together by RLIMIT_DATA.  -1 keeps the
   * engine's own number of instances and tables. */
  engine.wasmtime_store_limiter(store, bounded(l->memory), bounded(l->table_elements), -1, -1,
                                memories);
  wasmtime_context_t *context = engine.wasmtime_store_context(store);
  if (l->fuel != WS_UNLIMITED) {
    wasmtime_error_t *error = engine.wasmtime_context_set_fuel(context, l->fuel);
    if (error)
      engine.wasmtime_error_delete(error);
  }
  return context;
}

static void note_usage(wasmtime_context_t *context, wasmtime_instance_t *instance,
                       const struct engine_run *run) {
  wasmtime_extern_t item;
  char name[] = "memory";
  uint64_t left = 0;
  if (instance &&
      engine.wasmtime_instance_export_get(context, instance, name, sizeof name - 1, &item)) {
    if (item.kind == WASMTIME_EXTERN_MEMORY)
      run->record->memory_bytes = engine.wasmtime_memory_data_size(context, &item.of.memory);
    engine.wasmtime_extern_delete(&item);
  }
  if (run->spec->limits.fuel == WS_UNLIMITED)
    return;
  wasmtime_error_t *error = engine.wasmtime_context_get_fuel(context, &left);
  if (error)
    engine.wasmtime_error_delete(error);
  else
    run->record->fuel_used = run->spec->limits.fuel - left;
}

/* proc_exit and the quotas end the process from inside a host function: they need the store too. */
static wasmtime_context_t *live_context;
static wasmtime_instance_t *live_instance;
static const struct engine_run *live_run;

void engine_note_usage(void) {
  if (live_run)
    note_usage(live_context, live_instance, live_run);
}

int engine_finish_call(wasmtime_error_t *error, wasm_trap_t *trap, const struct engine_run *run) {
  uint8_t code = 0;
  engine_note_usage();
  if (error) {
    engine_record_error(run->record, WS_OUTCOME_TRAP, UINT32_MAX, error);
    return STATUS_TRAP;
  }
  if (!trap) {
    ws_record_outcome(run->record, WS_OUTCOME_EXIT, 0, NULL, 0);
    return 0;
  }
  bool known = engine.wasmtime_trap_code(trap, &code);
  bool fuel = known && code == WASMTIME_TRAP_CODE_OUT_OF_FUEL;
  engine_record_trap(run->record, fuel ? WS_OUTCOME_FUEL : WS_OUTCOME_TRAP, known ? code : UINT32_MAX,
                     trap);
  return STATUS_TRAP;
}

__attribute__((format(printf, 2, 3))) int engine_invalid(const struct engine_run *run,
                                                         const char *format, ...) {
  char text[512];
  va_list ap;
  va_start(ap, format);
  int n = vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  ws_record_outcome(run->record, WS_OUTCOME_INVALID, 0, text,
                    n < (int)sizeof text ? (size_t)n : sizeof text - 1);
  return STATUS_INVALID;
}

/* A command's entry takes and gives nothing (WASI application ABI). */
static bool takes_nothing(wasmtime_context_t *context, wasmtime_func_t *func) {
  wasm_functype_t *type = engine.wasmtime_func_type(context, func);
  bool nothing = engine.wasm_functype_params(type)->size == 0 &&
                 engine.wasm_functype_results(type)->size == 0;
  engine.wasm_functype_delete(type);
  return nothing;
}

/* Finds an exported function; false when there is none of that name. */
static bool exported(wasmtime_context_t *context, wasmtime_instance_t *instance, const char *name,
                     size_t len, wasmtime_func_t *func) {
  wasmtime_extern_t item;
  char copy[256];
  if (len >= sizeof copy)
    return false;
  memcpy(copy, name, len);
  if (!engine.wasmtime_instance_export_get(context, instance, copy, len, &item))
    return false;
  if (item.kind != WASMTIME_EXTERN_FUNC) {
    engine.wasmtime_extern_delete(&item);
    return false;
  }
  *func = item.of.func;
  return true;
}

/* A reactor's `_initialize` runs once before any other export (WASI application ABI). */
static int initialize(wasmtime_context_t *context, wasmtime_instance_t *instance,
                      const struct engine_run *run, int *status) {
  wasmtime_func_t func;
  wasm_trap_t *trap = NULL;
  if (!exported(context, instance, "_initialize", 11, &func))
    return 0;
  if (!takes_nothing(context, &func)) {
    *status = engine_invalid(run, "_initialize takes parameters or gives results");
    return -1;
  }
  wasmtime_error_t *error = engine.wasmtime_func_call(context, &func, NULL, 0, NULL, 0, &trap);
  if (!error && !trap)
    return 0;
  *status = engine_finish_call(error, trap, run);
  return -1;
}

static int call_entry(wasmtime_context_t *context, wasmtime_instance_t *instance,
                      const struct engine_run *run) {
  const struct ws_bytes *invoke = &run->spec->invoke;
  wasmtime_func_t func;
  wasm_trap_t *trap = NULL;
  int status;
  if (invoke->len) {
    if (!exported(context, instance, invoke->bytes, invoke->len, &func))
      return engine_invalid(run, "the module exports no function \"%.*s\", which --invoke names",
                            (int)invoke->len, invoke->bytes);
    if (initialize(context, instance, run, &status))
      return status;
    return engine_invoke(context, &func, run);
  }
  if (!exported(context, instance, "_start", 6, &func)) {
    if (exported(context, instance, "_initialize", 11, &func))
      return engine_invalid(run, "this module is a reactor (it has _initialize and no _start): name "
                                 "the function to call with --invoke");
    return engine_invalid(run, "the module has no _start function: name the function to call with "
                               "--invoke");
  }
  if (!takes_nothing(context, &func))
    return engine_invalid(run, "_start takes parameters or gives results: this is no WASI command");
  wasmtime_error_t *error = engine.wasmtime_func_call(context, &func, NULL, 0, NULL, 0, &trap);
  return engine_finish_call(error, trap, run);
}

/* The C API gives no code for these: the words of the pinned release. */
static bool says(const wasm_name_t *message, const char *words) {
  return memmem(message->data, message->size, words, strlen(words)) != NULL;
}

bool engine_is_about_memory(const wasm_name_t *message) {
  return says(message, "exceeds memory limits") || says(message, "(os error 12)") ||
         says(message, "out of memory");
}

static int refuse_instance(wasmtime_error_t *error, const struct engine_run *run) {
  wasm_name_t message;
  engine.wasmtime_error_message(error, &message);
  bool memory = engine_is_about_memory(&message), many = says(&message, "memory count too high");
  engine.wasm_byte_vec_delete(&message);
  if (many) {
    engine.wasmtime_error_delete(error);
    return engine_invalid(run, "the module has more than one memory: wasisup gives one");
  }
  engine_record_error(run->record, memory ? WS_OUTCOME_MEMORY : WS_OUTCOME_INVALID, 0, error);
  return memory ? STATUS_MEMORY : STATUS_INVALID;
}

void engine_enter_guest(wasmtime_context_t *context, const struct engine_run *run) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  run->record->t_running_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  run->record->phase = WS_PHASE_RUNNING;
  live_context = context;
  live_run = run;
}

int engine_execute(const struct engine_run *run) {
  if (run->spec->form == WS_FORM_COMPONENT)
    return engine_component_execute(run);
  static wasmtime_instance_t instance;
  wasmtime_context_t *context = engine_make_store(run, 1);
  wasmtime_extern_t *externs;
  wasm_trap_t *trap = NULL;
  size_t count;
  if (engine_link(module, context, run, &externs, &count) < 0)
    return STATUS_INVALID;
  engine_enter_guest(context, run);
  /* A start function runs here: this is the guest's code already. */
  wasmtime_error_t *error =
      engine.wasmtime_instance_new(context, module, externs, count, &instance, &trap);
  free(externs);
  if (error)
    return refuse_instance(error, run);
  if (trap)
    return engine_finish_call(NULL, trap, run);
  live_instance = &instance;
  return call_entry(context, &instance, run);
}
