/* Which types have a text: all but handles of resources, and what 0.3 adds.  */
#include "engine/wave.h"

/* Frees the inner type. */
static bool inner(wasmtime_component_valtype_t *type) {
  bool has = wave_has_text(type);
  engine.wasmtime_component_valtype_delete(type);
  return has;
}

static bool record(wasmtime_component_record_type_t *type) {
  wasmtime_component_valtype_t part;
  char *name;
  size_t len;
  for (size_t i = 0; engine.wasmtime_component_record_type_field_nth(type, i, &name, &len, &part);
       i++)
    if (!inner(&part))
      return false;
  return true;
}

static bool tuple(wasmtime_component_tuple_type_t *type) {
  wasmtime_component_valtype_t part;
  for (size_t i = 0; engine.wasmtime_component_tuple_type_types_nth(type, i, &part); i++)
    if (!inner(&part))
      return false;
  return true;
}

static bool variant(wasmtime_component_variant_type_t *type) {
  wasmtime_component_valtype_t part;
  char *name;
  size_t len;
  bool has;
  for (size_t i = 0;
       engine.wasmtime_component_variant_type_case_nth(type, i, &name, &len, &has, &part); i++)
    if (has && !inner(&part))
      return false;
  return true;
}

bool wave_has_text(const wasmtime_component_valtype_t *type) {
  wasmtime_component_valtype_t part;
  switch (type->kind) {
  case WASMTIME_COMPONENT_VALTYPE_LIST:
    engine.wasmtime_component_list_type_element(type->of.list, &part);
    return inner(&part);
  case WASMTIME_COMPONENT_VALTYPE_OPTION:
    engine.wasmtime_component_option_type_ty(type->of.option, &part);
    return inner(&part);
  case WASMTIME_COMPONENT_VALTYPE_RESULT:
    if (engine.wasmtime_component_result_type_ok(type->of.result, &part) && !inner(&part))
      return false;
    return !engine.wasmtime_component_result_type_err(type->of.result, &part) || inner(&part);
  case WASMTIME_COMPONENT_VALTYPE_RECORD: return record(type->of.record);
  case WASMTIME_COMPONENT_VALTYPE_TUPLE: return tuple(type->of.tuple);
  case WASMTIME_COMPONENT_VALTYPE_VARIANT: return variant(type->of.variant);
  case WASMTIME_COMPONENT_VALTYPE_ENUM: return true;
  case WASMTIME_COMPONENT_VALTYPE_FLAGS: return true;
  default: return type->kind <= WASMTIME_COMPONENT_VALTYPE_STRING;
  }
}
