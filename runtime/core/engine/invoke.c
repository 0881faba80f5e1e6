/* `--invoke NAME`: the guest's arguments become the function's parameters, its results are printed,
 * one a line, as the wasmtime command does.  */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/internal.h"

enum { MAX_VALUES = 64 };

/* Integers in decimal or 0x form, signed or unsigned, in the range of the type. */
static bool parse_integer(const char *text, int bits, int64_t *out) {
  char *end;
  errno = 0;
  if (text[0] == '-') {
    long long value = strtoll(text, &end, 0);
    if (errno || *end || end == text + 1 || (bits == 32 && value < INT32_MIN))
      return false;
    *out = value;
    return true;
  }
  unsigned long long value = strtoull(text, &end, 0);
  if (errno || *end || end == text || (bits == 32 && value > UINT32_MAX))
    return false;
  *out = (int64_t)value;
  return true;
}

static bool parse_float(const char *text, double *out) {
  char *end;
  errno = 0;
  *out = strtod(text, &end);
  return end != text && *end == 0;
}

static bool parse(const char *text, uint8_t kind, wasmtime_val_t *value) {
  int64_t integer = 0;
  double real = 0;
  value->kind = kind;
  if (text[0] == 0 || text[0] == ' ')
    return false;
  switch (kind) {
  case WASMTIME_I32:
    if (!parse_integer(text, 32, &integer))
      return false;
    value->of.i32 = (int32_t)(uint32_t)integer;
    return true;
  case WASMTIME_I64:
    if (!parse_integer(text, 64, &integer))
      return false;
    value->of.i64 = integer;
    return true;
  case WASMTIME_F32:
    if (!parse_float(text, &real))
      return false;
    value->of.f32 = (float)real;
    return true;
  case WASMTIME_F64:
    if (!parse_float(text, &real))
      return false;
    value->of.f64 = real;
    return true;
  default: return false;
  }
}

static size_t print(char *out, size_t size, const wasmtime_val_t *value) {
  int n;
  switch (value->kind) {
  case WASMTIME_I32: n = snprintf(out, size, "%" PRId32 "\n", value->of.i32); break;
  case WASMTIME_I64: n = snprintf(out, size, "%" PRId64 "\n", value->of.i64); break;
  case WASMTIME_F32: n = snprintf(out, size, "%.9g\n", (double)value->of.f32); break;
  case WASMTIME_F64: n = snprintf(out, size, "%.17g\n", value->of.f64); break;
  default: n = snprintf(out, size, "<reference>\n"); break;
  }
  return n > 0 ? (size_t)n : 0;
}

/* Results count towards the output quota like what the guest writes. */
static void write_results(const wasmtime_val_t *results, size_t count, const struct engine_run *run) {
  char text[MAX_VALUES * 32];
  size_t used = 0;
  uint64_t room = run->spec->limits.output - run->record->output_bytes;
  for (size_t i = 0; i < count; i++)
    used += print(text + used, sizeof text - used, &results[i]);
  if (used > room) {
    used = (size_t)room;
    ws_record_outcome(run->record, WS_OUTCOME_OUTPUT, 0, NULL, 0);
  }
  for (size_t at = 0; at < used;) {
    ssize_t n = write(STDOUT_FILENO, text + at, used - at);
    if (n <= 0)
      return; /* a stdout closed at the other end: the results have no reader */
    at += (size_t)n;
    run->record->output_bytes += (uint64_t)n;
  }
}

int engine_invoke(wasmtime_context_t *context, wasmtime_func_t *func, const struct engine_run *run) {
  wasmtime_val_t params[MAX_VALUES], results[MAX_VALUES];
  wasm_trap_t *trap = NULL;
  wasm_functype_t *type = engine.wasmtime_func_type(context, func);
  wasm_valtype_vec_t *wants = engine.wasm_functype_params(type);
  size_t result_count = engine.wasm_functype_results(type)->size;
  const struct ws_spec *s = run->spec;
  size_t given = s->arg_count ? s->arg_count - 1 : 0; /* without argv[0] */
  if (wants->size > MAX_VALUES || result_count > MAX_VALUES)
    return engine_invalid(run, "the function has too many parameters or results (%d is the most)",
                          MAX_VALUES);
  if (wants->size != given)
    return engine_invalid(run, "the function takes %zu arguments, %zu were given", wants->size, given);
  for (size_t i = 0; i < given; i++) {
    char text[128];
    snprintf(text, sizeof text, "%.*s", (int)s->args[i + 1].len, s->args[i + 1].bytes);
    if (!parse(text, engine.wasm_valtype_kind(wants->data[i]), &params[i]))
      return engine_invalid(run, "argument %zu of the function is not of its type: \"%s\"", i + 1, text);
  }
  wasmtime_error_t *error =
      engine.wasmtime_func_call(context, func, params, given, results, result_count, &trap);
  if (!error && !trap)
    write_results(results, result_count, run);
  engine.wasm_functype_delete(type);
  return engine_finish_call(error, trap, run);
}
