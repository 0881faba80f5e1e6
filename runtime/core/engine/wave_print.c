#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/wave.h"

struct sink {
  bool (*emit)(void *to, const char *bytes, size_t size);
  void *to;
  char bytes[4096];
  size_t used;
  bool closed; /* `emit` wants no more */
};

static void flush(struct sink *s) {
  if (!s->closed && s->used && !s->emit(s->to, s->bytes, s->used))
    s->closed = true;
  s->used = 0;
}

static void put(struct sink *s, const char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (s->used == sizeof s->bytes)
      flush(s);
    s->bytes[s->used++] = bytes[i];
  }
}

static void word(struct sink *s, const char *text) { put(s, text, strlen(text)); }

__attribute__((format(printf, 2, 3))) static void format(struct sink *s, const char *how, ...) {
  char text[64];
  va_list ap;
  va_start(ap, how);
  vsnprintf(text, sizeof text, how, ap);
  va_end(ap);
  word(s, text);
}

/* The fewest digits that read back as the same number. */
static void real(struct sink *s, double value, bool single) {
  char text[64];
  if (isnan(value) || isinf(value)) {
    word(s, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
    return;
  }
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
      break;
  }
  word(s, text);
}

/* One Unicode scalar value in UTF-8. */
static void utf8(struct sink *s, uint32_t c) {
  char b[4];
  size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = n - 1; i > 0; i--, c >>= 6)
    b[i] = (char)(0x80 | (c & 0x3f));
  b[0] = (char)(lead[n > 1 ? n : 0] | c);
  put(s, b, n);
}

/* An ASCII character inside quotes; true when it needs (and got) an escape. */
static bool escape(struct sink *s, uint32_t c, char quote) {
  switch (c) {
  case '\t': word(s, "\\t"); return true;
  case '\n': word(s, "\\n"); return true;
  case '\r': word(s, "\\r"); return true;
  case '\\': word(s, "\\\\"); return true;
  default:
    if (c == (uint32_t)quote)
      format(s, "\\%c", quote);
    else if (c < 0x20 || c == 0x7f)
      format(s, "\\u{%x}", c);
    else
      return false;
    return true;
  }
}

static void string(struct sink *s, const wasm_name_t *text) {
  word(s, "\"");
  for (size_t i = 0; i < text->size; i++) {
    unsigned char byte = (unsigned char)text->data[i];
    if (!escape(s, byte, '"'))
      put(s, (const char *)&text->data[i], 1); /* UTF-8 by the component model's rules */
  }
  word(s, "\"");
}

/* Labels that could be taken for something else are written with a % (WAVE's grammar). */
static void label(struct sink *s, const wasm_name_t *name) {
  static const char *const keywords[] = {"true", "false", "inf", "nan", "some", "none", "ok", "err"};
  for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
    if (name->size == strlen(keywords[i]) && memcmp(name->data, keywords[i], name->size) == 0)
      word(s, "%");
  put(s, (const char *)name->data, name->size);
}

static void value(struct sink *s, const wasmtime_component_val_t *v);

static void values(struct sink *s, const wasmtime_component_val_t *data, size_t size,
                   const char *open, const char *close) {
  word(s, open);
  for (size_t i = 0; i < size && !s->closed; i++) {
    word(s, i ? ", " : "");
    value(s, &data[i]);
  }
  word(s, close);
}

static void record(struct sink *s, const wasmtime_component_valrecord_t *fields) {
  word(s, "{");
  for (size_t i = 0; i < fields->size && !s->closed; i++) {
    word(s, i ? ", " : "");
    put(s, (const char *)fields->data[i].name.data, fields->data[i].name.size);
    word(s, ": ");
    value(s, &fields->data[i].val);
  }
  word(s, "}");
}

static void flags(struct sink *s, const wasmtime_component_valflags_t *set) {
  word(s, "{");
  for (size_t i = 0; i < set->size; i++) {
    word(s, i ? ", " : "");
    put(s, (const char *)set->data[i].data, set->data[i].size);
  }
  word(s, "}");
}

static void payload(struct sink *s, const wasmtime_component_val_t *inner) {
  if (inner)
    values(s, inner, 1, "(", ")");
}

static void character(struct sink *s, uint32_t c) {
  word(s, "'");
  if (!escape(s, c, '\''))
    utf8(s, c);
  word(s, "'");
}

static void value(struct sink *s, const wasmtime_component_val_t *v) {
  switch (v->kind) {
  case WASMTIME_COMPONENT_BOOL: word(s, v->of.boolean ? "true" : "false"); break;
  case WASMTIME_COMPONENT_S8: format(s, "%d", v->of.s8); break;
  case WASMTIME_COMPONENT_U8: format(s, "%u", v->of.u8); break;
  case WASMTIME_COMPONENT_S16: format(s, "%d", v->of.s16); break;
  case WASMTIME_COMPONENT_U16: format(s, "%u", v->of.u16); break;
  case WASMTIME_COMPONENT_S32: format(s, "%" PRId32, v->of.s32); break;
  case WASMTIME_COMPONENT_U32: format(s, "%" PRIu32, v->of.u32); break;
  case WASMTIME_COMPONENT_S64: format(s, "%" PRId64, v->of.s64); break;
  case WASMTIME_COMPONENT_U64: format(s, "%" PRIu64, v->of.u64); break;
  case WASMTIME_COMPONENT_F32: real(s, (double)v->of.f32, true); break;
  case WASMTIME_COMPONENT_F64: real(s, v->of.f64, false); break;
  case WASMTIME_COMPONENT_CHAR: character(s, v->of.character); break;
  case WASMTIME_COMPONENT_STRING: string(s, &v->of.string); break;
  case WASMTIME_COMPONENT_LIST: values(s, v->of.list.data, v->of.list.size, "[", "]"); break;
  case WASMTIME_COMPONENT_TUPLE: values(s, v->of.tuple.data, v->of.tuple.size, "(", ")"); break;
  case WASMTIME_COMPONENT_RECORD: record(s, &v->of.record); break;
  case WASMTIME_COMPONENT_FLAGS: flags(s, &v->of.flags); break;
  case WASMTIME_COMPONENT_ENUM: label(s, &v->of.enumeration); break;
  case WASMTIME_COMPONENT_VARIANT:
    label(s, &v->of.variant.discriminant);
    payload(s, v->of.variant.val);
    break;
  case WASMTIME_COMPONENT_OPTION:
    word(s, v->of.option ? "some" : "none");
    payload(s, v->of.option);
    break;
  case WASMTIME_COMPONENT_RESULT:
    word(s, v->of.result.is_ok ? "ok" : "err");
    payload(s, v->of.result.val);
    break;
  default: word(s, "<no text>"); break;
  }
}

bool wave_print(const wasmtime_component_val_t *v,
                bool (*emit)(void *to, const char *bytes, size_t size), void *to) {
  struct sink s = {.emit = emit, .to = to};
  value(&s, v);
  flush(&s);
  return !s.closed;
}
