#include "engine/wit.h"

#include <stdarg.h>
#include <stdio.h>

void engine_text_add(struct engine_text *text, const char *format, ...) {
  va_list ap;
  if (text->full)
    return;
  va_start(ap, format);
  int n = vsnprintf(text->bytes + text->used, text->size - text->used, format, ap);
  va_end(ap);
  if (n < 0 || (size_t)n >= text->size - text->used)
    text->full = true; /* a type can be too long to read: then nobody wants the rest of it */
  else
    text->used += (size_t)n;
}

static const char *const PLAIN[] = {"bool", "s8",  "s16", "s32", "s64",  "u8",    "u16",
                                    "u32",  "u64", "f32", "f64", "char", "string"};

/* Writes an inner type and frees it. */
static void inner(struct engine_text *out, wasmtime_component_valtype_t *type) {
  engine_wit_type(out, type);
  engine.wasmtime_component_valtype_delete(type);
}

static void record(struct engine_text *out, wasmtime_component_record_type_t *type) {
  wasmtime_component_valtype_t field;
  char *name;
  size_t len;
  engine_text_add(out, "record {");
  for (size_t i = 0; !out->full && engine.wasmtime_component_record_type_field_nth(
                                       type, i, &name, &len, &field); i++) {
    engine_text_add(out, "%s %.*s: ", i ? "," : "", (int)len, name);
    inner(out, &field);
  }
  engine_text_add(out, " }");
}

static void tuple(struct engine_text *out, wasmtime_component_tuple_type_t *type) {
  wasmtime_component_valtype_t part;
  engine_text_add(out, "tuple<");
  for (size_t i = 0;
       !out->full && engine.wasmtime_component_tuple_type_types_nth(type, i, &part); i++) {
    engine_text_add(out, "%s", i ? ", " : "");
    inner(out, &part);
  }
  engine_text_add(out, ">");
}

static void variant(struct engine_text *out, wasmtime_component_variant_type_t *type) {
  wasmtime_component_valtype_t payload;
  bool has;
  char *name;
  size_t len;
  engine_text_add(out, "variant {");
  for (size_t i = 0; !out->full && engine.wasmtime_component_variant_type_case_nth(
                                       type, i, &name, &len, &has, &payload); i++) {
    engine_text_add(out, "%s %.*s", i ? "," : "", (int)len, name);
    if (!has)
      continue;
    engine_text_add(out, "(");
    inner(out, &payload);
    engine_text_add(out, ")");
  }
  engine_text_add(out, " }");
}

static void enumeration(struct engine_text *out, wasmtime_component_enum_type_t *type) {
  char *name;
  size_t len;
  engine_text_add(out, "enum {");
  for (size_t i = 0;
       !out->full && engine.wasmtime_component_enum_type_names_nth(type, i, &name, &len); i++)
    engine_text_add(out, "%s %.*s", i ? "," : "", (int)len, name);
  engine_text_add(out, " }");
}

static void flags(struct engine_text *out, wasmtime_component_flags_type_t *type) {
  char *name;
  size_t len;
  engine_text_add(out, "flags {");
  for (size_t i = 0;
       !out->full && engine.wasmtime_component_flags_type_names_nth(type, i, &name, &len); i++)
    engine_text_add(out, "%s %.*s", i ? "," : "", (int)len, name);
  engine_text_add(out, " }");
}

static void result(struct engine_text *out, wasmtime_component_result_type_t *type) {
  wasmtime_component_valtype_t ok, err;
  bool has_ok = engine.wasmtime_component_result_type_ok(type, &ok);
  bool has_err = engine.wasmtime_component_result_type_err(type, &err);
  engine_text_add(out, has_ok || has_err ? "result<" : "result");
  if (has_ok)
    inner(out, &ok);
  else if (has_err)
    engine_text_add(out, "_");
  if (has_err) {
    engine_text_add(out, ", ");
    inner(out, &err);
  }
  engine_text_add(out, "%s", has_ok || has_err ? ">" : "");
}

void engine_wit_type(struct engine_text *out, const wasmtime_component_valtype_t *type) {
  wasmtime_component_valtype_t part;
  if (out->full)
    return;
  if (type->kind < sizeof PLAIN / sizeof *PLAIN) {
    engine_text_add(out, "%s", PLAIN[type->kind]);
    return;
  }
  switch (type->kind) {
  case WASMTIME_COMPONENT_VALTYPE_LIST:
    engine.wasmtime_component_list_type_element(type->of.list, &part);
    engine_text_add(out, "list<");
    inner(out, &part);
    engine_text_add(out, ">");
    return;
  case WASMTIME_COMPONENT_VALTYPE_OPTION:
    engine.wasmtime_component_option_type_ty(type->of.option, &part);
    engine_text_add(out, "option<");
    inner(out, &part);
    engine_text_add(out, ">");
    return;
  case WASMTIME_COMPONENT_VALTYPE_RECORD: record(out, type->of.record); return;
  case WASMTIME_COMPONENT_VALTYPE_TUPLE: tuple(out, type->of.tuple); return;
  case WASMTIME_COMPONENT_VALTYPE_VARIANT: variant(out, type->of.variant); return;
  case WASMTIME_COMPONENT_VALTYPE_ENUM: enumeration(out, type->of.enum_); return;
  case WASMTIME_COMPONENT_VALTYPE_RESULT: result(out, type->of.result); return;
  case WASMTIME_COMPONENT_VALTYPE_FLAGS: flags(out, type->of.flags); return;
  case WASMTIME_COMPONENT_VALTYPE_OWN: engine_text_add(out, "own<resource>"); return;
  case WASMTIME_COMPONENT_VALTYPE_BORROW: engine_text_add(out, "borrow<resource>"); return;
  default: engine_text_add(out, "other"); return;
  }
}

void engine_wit_function(struct engine_text *out, wasmtime_component_func_type_t *type) {
  wasmtime_component_valtype_t part;
  char *name;
  size_t len;
  engine_text_add(out, "func(");
  for (size_t i = 0; !out->full && engine.wasmtime_component_func_type_param_nth(
                                       type, i, &name, &len, &part); i++) {
    engine_text_add(out, "%s%.*s: ", i ? ", " : "", (int)len, name);
    inner(out, &part);
  }
  engine_text_add(out, ")");
  if (!out->full && engine.wasmtime_component_func_type_result(type, &part)) {
    engine_text_add(out, " -> ");
    inner(out, &part);
  }
}
