#include "engine/engine.h"

#include <errno.h>

#include "engine/internal.h"

/* By kind, then by metering. */
static wasm_engine_t *engines[2][2];

wasm_engine_t *engine_of(uint32_t kind, bool fuel) { return engines[kind][fuel]; }

int engine_prepare(uint32_t kind, bool fuel, struct ws_error *e) {
  if (engines[kind][fuel])
    return 0;
  wasm_config_t *config = engine.wasm_config_new();
  if (kind == WS_ENGINE_PULLEY) {
    char target[] = "pulley64";
    wasmtime_error_t *error = engine.wasmtime_config_target_set(config, target);
    if (error) {
      engine.wasmtime_error_delete(error);
      return ws_fail(e, EOPNOTSUPP, "engine", "this libwasmtime has no Pulley interpreter");
    }
  }
  engine.wasmtime_config_consume_fuel_set(config, fuel);
  /* Traps unwind by frame pointers; tables for foreign unwinders would only be registered with the
   * C library at every load. */
  engine.wasmtime_config_native_unwind_info_set(config, false);
  engines[kind][fuel] = engine.wasm_engine_new_with_config(config);
  if (!engines[kind][fuel])
    return ws_fail(e, ENOMEM, "engine", "the engine could not be made");
  return 0;
}

void engine_record_error(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                         wasmtime_error_t *error) {
  wasm_name_t message;
  engine.wasmtime_error_message(error, &message);
  ws_record_outcome(record, outcome, code, (const char *)message.data, message.size);
  engine.wasm_byte_vec_delete(&message);
  engine.wasmtime_error_delete(error);
}

void engine_record_trap(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                        wasm_trap_t *trap) {
  wasm_name_t message;
  engine.wasm_trap_message(trap, &message);
  size_t size = message.size;
  if (size && message.data[size - 1] == 0)
    size--; /* the C API ends a trap's message with a NUL */
  ws_record_outcome(record, outcome, code, (const char *)message.data, size);
  engine.wasm_byte_vec_delete(&message);
  engine.wasm_trap_delete(trap);
}
