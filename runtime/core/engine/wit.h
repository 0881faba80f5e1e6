/* Component types as text: what WIT would say, with every named type written out (a component's
 * binary has no names for the types below its functions that the C API would give).  */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "engine/library.h"

/* Text that is cut where its room ends. */
struct engine_text {
  char *bytes;
  size_t size, used;
  bool full;
};

__attribute__((format(printf, 2, 3))) void engine_text_add(struct engine_text *text,
                                                           const char *format, ...);

/* "list<u8>", "record { x: s32 }" */
void engine_wit_type(struct engine_text *out, const wasmtime_component_valtype_t *type);

/* "func(x: s32) -> string" */
void engine_wit_function(struct engine_text *out, wasmtime_component_func_type_t *type);
