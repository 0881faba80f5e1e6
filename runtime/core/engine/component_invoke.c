#include "engine/component.h"

int engine_component_invoke(wasmtime_context_t *context, wasmtime_component_instance_t *instance,
                            const struct engine_run *run) {
  (void)context;
  (void)instance;
  return engine_invalid(run, "--invoke is for core modules");
}
