/* WAVE, the text encoding of component values (the WebAssembly Value Encoding of wasm-tools), for
 * --invoke: "[1, 2]", "{x: 1, y: some(2)}", "ok(\"text\")".
 *
 * Left out: multi-line strings (""").  Resources, futures and streams have no text.  */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "engine/library.h"

/* What is wrong with a text, and where (bytes from its start). */
struct wave_error {
  size_t at;
  char what[160];
};

/* Parses all of `text` as one value of `type`.  The value is the caller's to delete, except after
 * failure. */
bool wave_parse(const char *text, size_t len, const wasmtime_component_valtype_t *type,
                wasmtime_component_val_t *value, struct wave_error *e);

/* Parses all of "(1, 2)" as values of `types`.  Options at the end may be left out: they are none. */
bool wave_parse_arguments(const char *text, size_t len, const wasmtime_component_valtype_t *types,
                          size_t count, wasmtime_component_val_t *values, struct wave_error *e);

/* Whether values of the type can be written at all. */
bool wave_has_text(const wasmtime_component_valtype_t *type);

/* Writes the value piece by piece: `emit` takes each in order; once it returns false nothing more is
 * written, and false is returned. */
bool wave_print(const wasmtime_component_val_t *value,
                bool (*emit)(void *to, const char *bytes, size_t size), void *to);
