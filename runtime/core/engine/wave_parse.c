/* The parser is led by the type: what stands in the text has to be what the type says.  How deep it
 * goes is the depth of the type, which validation bounds.  */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/wave.h"
#include "engine/wave_lex.h"

typedef wasmtime_component_valtype_t type_t;
typedef wasmtime_component_val_t val_t;

static bool parse(struct wave_cursor *c, const type_t *type, val_t *out);

/* --- values under construction --- */

struct values {
  val_t *data;
  size_t size, room;
};

static void drop(struct values *v) {
  for (size_t i = 0; i < v->size; i++)
    engine.wasmtime_component_val_delete(&v->data[i]);
  free(v->data);
}

static bool push(struct wave_cursor *c, struct values *v, const val_t *value) {
  if (v->size == v->room) {
    size_t room = v->room ? 2 * v->room : 8;
    val_t *more = realloc(v->data, room * sizeof *more);
    if (!more)
      return wave_fail(c, "no memory for so many values");
    v->data = more;
    v->room = room;
  }
  v->data[v->size++] = *value;
  return true;
}

static wasm_name_t name_of(const char *bytes, size_t len) {
  wasm_name_t name;
  engine.wasm_byte_vec_new(&name, len, (wasm_byte_t *)(uintptr_t)bytes);
  return name;
}

/* Parses a value and frees its type. */
static bool parse_inner(struct wave_cursor *c, type_t *type, val_t *out) {
  bool done = parse(c, type, out);
  engine.wasmtime_component_valtype_delete(type);
  return done;
}

/* --- numbers --- */

static bool integer(struct wave_cursor *c, bool is_signed, int bits, uint64_t *out) {
  char text[32], *end;
  if (!wave_take_number(c, text, sizeof text))
    return wave_fail(c, "an integer is expected");
  errno = 0;
  if (is_signed) {
    long long n = strtoll(text, &end, 10);
    long long most = bits == 64 ? INT64_MAX : (1ll << (bits - 1)) - 1;
    if (*end)
      return wave_fail(c, "\"%s\" is no integer", text);
    if (errno || n > most || n < -most - 1)
      return wave_fail(c, "%s is out of the range of s%d", text, bits);
    *out = (uint64_t)n;
    return true;
  }
  unsigned long long n = strtoull(text, &end, 10);
  if (*end)
    return wave_fail(c, "\"%s\" is no integer", text);
  if (errno || text[0] == '-' || (bits < 64 && n >> bits))
    return wave_fail(c, "%s is out of the range of u%d", text, bits);
  *out = n;
  return true;
}

static bool real(struct wave_cursor *c, double *out) {
  char text[512], *end;
  if (wave_take_word(c, "nan"))
    *out = NAN;
  else if (wave_take_word(c, "inf"))
    *out = INFINITY;
  else if (wave_take_word(c, "-inf"))
    *out = -INFINITY;
  else if (!wave_take_number(c, text, sizeof text))
    return wave_fail(c, "a number is expected");
  else if ((*out = strtod(text, &end), *end))
    return wave_fail(c, "\"%s\" is no number", text);
  return true;
}

static bool number(struct wave_cursor *c, uint8_t kind, val_t *out) {
  uint64_t n = 0;
  double f = 0;
  bool done;
  switch (kind) {
  case WASMTIME_COMPONENT_VALTYPE_S8:
    done = integer(c, true, 8, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_S8, .of.s8 = (int8_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_S16:
    done = integer(c, true, 16, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_S16, .of.s16 = (int16_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_S32:
    done = integer(c, true, 32, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_S32, .of.s32 = (int32_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_S64:
    done = integer(c, true, 64, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_S64, .of.s64 = (int64_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_U8:
    done = integer(c, false, 8, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_U8, .of.u8 = (uint8_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_U16:
    done = integer(c, false, 16, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_U16, .of.u16 = (uint16_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_U32:
    done = integer(c, false, 32, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_U32, .of.u32 = (uint32_t)n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_U64:
    done = integer(c, false, 64, &n);
    *out = (val_t){.kind = WASMTIME_COMPONENT_U64, .of.u64 = n};
    return done;
  case WASMTIME_COMPONENT_VALTYPE_F32:
    done = real(c, &f);
    *out = (val_t){.kind = WASMTIME_COMPONENT_F32, .of.f32 = (float)f};
    return done;
  default:
    done = real(c, &f);
    *out = (val_t){.kind = WASMTIME_COMPONENT_F64, .of.f64 = f};
    return done;
  }
}

/* --- text --- */

static bool string(struct wave_cursor *c, val_t *out) {
  size_t len;
  char *bytes = wave_take_string(c, &len);
  if (!bytes)
    return false;
  *out = (val_t){.kind = WASMTIME_COMPONENT_STRING, .of.string = name_of(bytes, len)};
  free(bytes);
  return true;
}

static bool boolean(struct wave_cursor *c, val_t *out) {
  *out = (val_t){.kind = WASMTIME_COMPONENT_BOOL, .of.boolean = wave_take_word(c, "true")};
  return out->of.boolean || wave_take_word(c, "false") || wave_fail(c, "true or false is expected");
}

static bool character(struct wave_cursor *c, val_t *out) {
  *out = (val_t){.kind = WASMTIME_COMPONENT_CHAR};
  return wave_take_char(c, &out->of.character);
}

/* --- what holds other values --- */

static bool list(struct wave_cursor *c, wasmtime_component_list_type_t *type, val_t *out) {
  type_t element;
  val_t value;
  struct values all = {0};
  if (!wave_expect(c, '['))
    return false;
  engine.wasmtime_component_list_type_element(type, &element);
  bool good = true;
  while (good && !wave_take(c, ']')) {
    good = parse(c, &element, &value) && push(c, &all, &value);
    good = good && wave_separator(c, ']');
  }
  engine.wasmtime_component_valtype_delete(&element);
  if (!good) {
    drop(&all);
    return false;
  }
  out->kind = WASMTIME_COMPONENT_LIST;
  engine.wasmtime_component_vallist_new(&out->of.list, all.size, all.data);
  free(all.data);
  return true;
}

static bool tuple(struct wave_cursor *c, wasmtime_component_tuple_type_t *type, val_t *out) {
  type_t part;
  val_t value;
  struct values all = {0};
  bool good = wave_expect(c, '(');
  for (size_t i = 0; good && engine.wasmtime_component_tuple_type_types_nth(type, i, &part); i++) {
    good = parse_inner(c, &part, &value) && push(c, &all, &value);
    good = good && wave_separator(c, ')');
  }
  if (!good || !wave_expect(c, ')')) {
    drop(&all);
    return false;
  }
  out->kind = WASMTIME_COMPONENT_TUPLE;
  engine.wasmtime_component_valtuple_new(&out->of.tuple, all.size, all.data);
  free(all.data);
  return true;
}

static bool record_field(struct wave_cursor *c, wasmtime_component_record_type_t *type,
                         wasmtime_component_valrecord_entry_t *fields, bool *given) {
  struct ws_bytes label;
  type_t field;
  char *name;
  size_t len;
  if (!wave_take_label(c, &label))
    return wave_fail(c, "the name of a field is expected");
  for (size_t i = 0; engine.wasmtime_component_record_type_field_nth(type, i, &name, &len, &field);
       i++) {
    if (!wave_is(&label, name, len)) {
      engine.wasmtime_component_valtype_delete(&field);
      continue;
    }
    if (given[i]) {
      engine.wasmtime_component_valtype_delete(&field);
      return wave_fail(c, "the field %.*s is given twice", (int)len, name);
    }
    bool colon = wave_expect(c, ':');
    if (!colon)
      engine.wasmtime_component_valtype_delete(&field);
    given[i] = colon && parse_inner(c, &field, &fields[i].val);
    return given[i] && wave_separator(c, '}');
  }
  return wave_fail(c, "the record has no field %.*s", (int)label.len, label.bytes);
}

/* A field that is left out is none, if it can be. */
static bool complete_record(struct wave_cursor *c, wasmtime_component_record_type_t *type,
                            wasmtime_component_valrecord_entry_t *fields, bool *given) {
  type_t field;
  char *name;
  size_t len;
  for (size_t i = 0; engine.wasmtime_component_record_type_field_nth(type, i, &name, &len, &field);
       i++) {
    bool may_lack = field.kind == WASMTIME_COMPONENT_VALTYPE_OPTION;
    engine.wasmtime_component_valtype_delete(&field);
    if (!given[i] && !may_lack)
      return wave_fail(c, "the field %.*s is missing", (int)len, name);
    if (!given[i])
      fields[i].val = (val_t){.kind = WASMTIME_COMPONENT_OPTION};
    given[i] = true;
    fields[i].name = name_of(name, len);
  }
  return true;
}

static bool record(struct wave_cursor *c, wasmtime_component_record_type_t *type, val_t *out) {
  size_t count = engine.wasmtime_component_record_type_field_count(type);
  wasmtime_component_valrecord_entry_t *fields = calloc(count + 1, sizeof *fields);
  bool *given = calloc(count + 1, sizeof *given);
  bool good = fields && given ? wave_expect(c, '{') : wave_fail(c, "no memory for the record");
  bool empty = good && wave_take(c, ':'); /* "{:}": every field is none, and no set of flags */
  while (good && !wave_take(c, '}'))
    good = empty ? wave_fail(c, "} is expected") : record_field(c, type, fields, given);
  good = good && complete_record(c, type, fields, given);
  for (size_t i = 0; !good && given && i < count; i++) {
    if (given[i])
      engine.wasmtime_component_val_delete(&fields[i].val);
    if (fields[i].name.data)
      engine.wasm_byte_vec_delete(&fields[i].name);
  }
  if (good) {
    out->kind = WASMTIME_COMPONENT_RECORD;
    engine.wasmtime_component_valrecord_new(&out->of.record, count, fields);
  }
  free(fields);
  free(given);
  return good;
}

static bool flags(struct wave_cursor *c, wasmtime_component_flags_type_t *type, val_t *out) {
  size_t count = engine.wasmtime_component_flags_type_names_count(type), used = 0;
  wasm_name_t *set = calloc(count + 1, sizeof *set);
  bool good = set ? wave_expect(c, '{') : wave_fail(c, "no memory for the flags");
  while (good && !wave_take(c, '}')) {
    struct ws_bytes label;
    char *name;
    size_t len, at = 0;
    good = wave_take_label(c, &label) || wave_fail(c, "the name of a flag is expected");
    while (good && engine.wasmtime_component_flags_type_names_nth(type, at, &name, &len) &&
           !wave_is(&label, name, len))
      at++;
    if (good && at == count)
      good = wave_fail(c, "there is no flag %.*s", (int)label.len, label.bytes);
    else if (good && used == count)
      good = wave_fail(c, "a flag is given twice");
    else if (good)
      set[used++] = name_of(label.bytes, label.len);
    good = good && wave_separator(c, '}');
  }
  if (good) {
    out->kind = WASMTIME_COMPONENT_FLAGS;
    engine.wasmtime_component_valflags_new(&out->of.flags, used, set);
  }
  for (size_t i = 0; !good && i < used; i++)
    engine.wasm_byte_vec_delete(&set[i]);
  free(set);
  return good;
}

/* --- one of several --- */

/* "(value)"; `out` becomes a value of its own. */
static bool payload(struct wave_cursor *c, type_t *type, val_t **out) {
  val_t value;
  if (!wave_expect(c, '(')) {
    engine.wasmtime_component_valtype_delete(type);
    return false;
  }
  if (!parse_inner(c, type, &value))
    return false;
  if (!wave_expect(c, ')')) {
    engine.wasmtime_component_val_delete(&value);
    return false;
  }
  *out = engine.wasmtime_component_val_new(&value);
  return true;
}

static bool variant(struct wave_cursor *c, wasmtime_component_variant_type_t *type, val_t *out) {
  struct ws_bytes label;
  type_t inner;
  char *name;
  size_t len;
  bool has;
  if (!wave_take_label(c, &label))
    return wave_fail(c, "the name of a case is expected");
  for (size_t i = 0;
       engine.wasmtime_component_variant_type_case_nth(type, i, &name, &len, &has, &inner); i++) {
    if (!wave_is(&label, name, len)) {
      if (has)
        engine.wasmtime_component_valtype_delete(&inner);
      continue;
    }
    val_t *value = NULL;
    if (has && !payload(c, &inner, &value))
      return false;
    out->kind = WASMTIME_COMPONENT_VARIANT;
    out->of.variant = (wasmtime_component_valvariant_t){name_of(name, len), value};
    return true;
  }
  return wave_fail(c, "there is no case %.*s", (int)label.len, label.bytes);
}

static bool enumeration(struct wave_cursor *c, wasmtime_component_enum_type_t *type, val_t *out) {
  struct ws_bytes label;
  char *name;
  size_t len;
  if (!wave_take_label(c, &label))
    return wave_fail(c, "the name of a case is expected");
  for (size_t i = 0; engine.wasmtime_component_enum_type_names_nth(type, i, &name, &len); i++)
    if (wave_is(&label, name, len)) {
      out->kind = WASMTIME_COMPONENT_ENUM;
      out->of.enumeration = name_of(name, len);
      return true;
    }
  return wave_fail(c, "there is no case %.*s", (int)label.len, label.bytes);
}

/* A value may stand for some(value) and ok(value), where it cannot be taken for one of those. */
static bool stands_alone(const type_t *inner) {
  return inner->kind != WASMTIME_COMPONENT_VALTYPE_OPTION &&
         inner->kind != WASMTIME_COMPONENT_VALTYPE_RESULT;
}

static bool option(struct wave_cursor *c, wasmtime_component_option_type_t *type, val_t *out) {
  type_t inner;
  val_t value;
  *out = (val_t){.kind = WASMTIME_COMPONENT_OPTION};
  if (wave_take_word(c, "none"))
    return true;
  engine.wasmtime_component_option_type_ty(type, &inner);
  if (wave_take_word(c, "some"))
    return payload(c, &inner, &out->of.option);
  if (!stands_alone(&inner)) {
    engine.wasmtime_component_valtype_delete(&inner);
    return wave_fail(c, "some(...) or none is expected");
  }
  if (!parse_inner(c, &inner, &value))
    return false;
  out->of.option = engine.wasmtime_component_val_new(&value);
  return true;
}

static bool result(struct wave_cursor *c, wasmtime_component_result_type_t *type, val_t *out) {
  type_t inner;
  val_t value;
  bool is_ok = wave_take_word(c, "ok"), is_err = !is_ok && wave_take_word(c, "err");
  *out = (val_t){.kind = WASMTIME_COMPONENT_RESULT, .of.result.is_ok = !is_err};
  bool has = is_err ? engine.wasmtime_component_result_type_err(type, &inner)
                    : engine.wasmtime_component_result_type_ok(type, &inner);
  if (is_ok || is_err)
    return !has || payload(c, &inner, &out->of.result.val);
  if (!has || !stands_alone(&inner)) {
    if (has)
      engine.wasmtime_component_valtype_delete(&inner);
    return wave_fail(c, "ok or err is expected");
  }
  if (!parse_inner(c, &inner, &value))
    return false;
  out->of.result.val = engine.wasmtime_component_val_new(&value);
  return true;
}

static bool parse(struct wave_cursor *c, const type_t *type, val_t *out) {
  *out = (val_t){0};
  switch (type->kind) {
  case WASMTIME_COMPONENT_VALTYPE_BOOL: return boolean(c, out);
  case WASMTIME_COMPONENT_VALTYPE_CHAR: return character(c, out);
  case WASMTIME_COMPONENT_VALTYPE_STRING: return string(c, out);
  case WASMTIME_COMPONENT_VALTYPE_LIST: return list(c, type->of.list, out);
  case WASMTIME_COMPONENT_VALTYPE_RECORD: return record(c, type->of.record, out);
  case WASMTIME_COMPONENT_VALTYPE_TUPLE: return tuple(c, type->of.tuple, out);
  case WASMTIME_COMPONENT_VALTYPE_VARIANT: return variant(c, type->of.variant, out);
  case WASMTIME_COMPONENT_VALTYPE_ENUM: return enumeration(c, type->of.enum_, out);
  case WASMTIME_COMPONENT_VALTYPE_OPTION: return option(c, type->of.option, out);
  case WASMTIME_COMPONENT_VALTYPE_RESULT: return result(c, type->of.result, out);
  case WASMTIME_COMPONENT_VALTYPE_FLAGS: return flags(c, type->of.flags, out);
  default:
    if (type->kind > WASMTIME_COMPONENT_VALTYPE_STRING)
      return wave_fail(c, "values of this type cannot be written");
    return number(c, type->kind, out);
  }
}

bool wave_parse(const char *text, size_t len, const type_t *type, val_t *value,
                struct wave_error *e) {
  struct wave_cursor c = {.text = text, .len = len, .error = e};
  if (!parse(&c, type, value))
    return false;
  if (wave_at_end(&c))
    return true;
  engine.wasmtime_component_val_delete(value);
  return wave_fail(&c, "nothing more is expected");
}

bool wave_parse_arguments(const char *text, size_t len, const type_t *types, size_t count,
                          val_t *values, struct wave_error *e) {
  struct wave_cursor c = {.text = text, .len = len, .error = e};
  size_t made = 0;
  bool good = wave_expect(&c, '(');
  while (good && made < count && !wave_ahead(&c, ')')) {
    good = parse(&c, &types[made], &values[made]);
    made += good;
    good = good && wave_separator(&c, ')');
  }
  for (; good && made < count && types[made].kind == WASMTIME_COMPONENT_VALTYPE_OPTION; made++)
    values[made] = (val_t){.kind = WASMTIME_COMPONENT_OPTION};
  if (good && made < count)
    good = wave_fail(&c, "the function takes %zu arguments, %zu were given", count, made);
  if (good && !wave_ahead(&c, ')'))
    good = wave_fail(&c, "the function takes %zu arguments, more were given", count);
  good = good && wave_expect(&c, ')') &&
         (wave_at_end(&c) || wave_fail(&c, "nothing more is expected"));
  for (size_t i = 0; !good && i < made; i++)
    engine.wasmtime_component_val_delete(&values[i]);
  return good;
}
