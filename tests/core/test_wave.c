/* needs: engine
 *
 * WAVE: every type's text read and written again, and what is refused.  The types are the engine's,
 * from a component that imports one function for each.  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/wave.h"
#include "engine/wit.h"

static int failures;

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      failures++;                                                                    \
      fprintf(stderr, "%s:%d: FAILED: %s\n", __FILE__, __LINE__, #condition);        \
    }                                                                                \
  } while (0)

static wasm_engine_t *which;

/* The type that `wat` writes; definitions may come before it. */
static wasmtime_component_valtype_t type_of(const char *definitions, const char *wat) {
  char text[4096], *name;
  size_t len;
  wasm_byte_vec_t binary;
  wasmtime_component_t *component;
  wasmtime_component_extern_t *imported;
  wasmtime_component_item_t item;
  wasmtime_component_valtype_t type = {0};
  snprintf(text, sizeof text, "(component %s (import \"f\" (func (param \"x\" %s))))", definitions, wat);
  wasmtime_error_t *error = engine.wasmtime_wat2wasm(text, strlen(text), &binary);
  if (!error)
    error = engine.wasmtime_component_new(which, (uint8_t *)binary.data, binary.size, &component);
  if (error) {
    wasm_name_t message;
    engine.wasmtime_error_message(error, &message);
    fprintf(stderr, "%s: %.*s\n", text, (int)message.size, (const char *)message.data);
    exit(1);
  }
  wasmtime_component_type_t *world = engine.wasmtime_component_type(component);
  for (size_t i = 0; engine.wasmtime_component_type_import_nth(world, which, i, &name, &len, &imported);
       i++) {
    engine.wasmtime_component_extern_type(imported, &item);
    engine.wasmtime_component_extern_delete(imported);
    if (item.kind == WASMTIME_COMPONENT_ITEM_COMPONENT_FUNC)
      engine.wasmtime_component_func_type_param_nth(item.of.component_func, 0, &name, &len, &type);
    engine.wasmtime_component_item_delete(&item);
  }
  engine.wasmtime_component_type_delete(world);
  engine.wasm_byte_vec_delete(&binary);
  return type;
}

static char printed[1 << 16];
static size_t printed_len;

static bool keep(void *to, const char *bytes, size_t size) {
  (void)to;
  if (printed_len + size >= sizeof printed)
    return false;
  memcpy(printed + printed_len, bytes, size);
  printed_len += size;
  return true;
}

/* What comes out when `text` is read as the type and written again; "! reason" when it is refused. */
static const char *again(const wasmtime_component_valtype_t *type, const char *text) {
  wasmtime_component_val_t value;
  struct wave_error e = {0};
  /* In a block of its own size: the sanitizer sees a read beyond it. */
  size_t len = strlen(text);
  char *copy = malloc(len + 1);
  memcpy(copy, text, len);
  char *exact = realloc(copy, len ? len : 1);
  printed_len = 0;
  if (wave_parse(exact, len, type, &value, &e)) {
    wave_print(&value, keep, NULL);
    printed[printed_len] = 0;
    engine.wasmtime_component_val_delete(&value);
  } else {
    snprintf(printed, sizeof printed, "! %s", e.what);
    CHECK(e.at <= len);
    CHECK(e.what[0]);
  }
  free(exact);
  return printed;
}

static void same(const char *definitions, const char *wat, const char *text, const char *expected) {
  wasmtime_component_valtype_t type = type_of(definitions, wat);
  const char *got = again(&type, text);
  CHECK(wave_has_text(&type));
  if (strcmp(got, expected) != 0) {
    failures++;
    fprintf(stderr, "FAILED: %s as %s: %s, not %s\n", text, wat, got, expected);
  }
  engine.wasmtime_component_valtype_delete(&type);
}

static void refused(const char *definitions, const char *wat, const char *text, const char *words) {
  wasmtime_component_valtype_t type = type_of(definitions, wat);
  const char *got = again(&type, text);
  if (got[0] != '!' || !strstr(got, words)) {
    failures++;
    fprintf(stderr, "FAILED: %s as %s: %s, not %s\n", text, wat, got, words);
  }
  engine.wasmtime_component_valtype_delete(&type);
}

static void test_numbers(void) {
  same("", "bool", "true", "true");
  same("", "bool", " false ", "false");
  refused("", "bool", "1", "true or false");
  refused("", "bool", "truest", "true or false");
  same("", "s8", "-128", "-128");
  same("", "u8", "255", "255");
  same("", "s16", "32767", "32767");
  same("", "u16", "65535", "65535");
  same("", "s32", "-2147483648", "-2147483648");
  same("", "u32", "4294967295", "4294967295");
  same("", "s64", "-9223372036854775808", "-9223372036854775808");
  same("", "u64", "18446744073709551615", "18446744073709551615");
  refused("", "s8", "128", "range of s8");
  refused("", "s8", "-129", "range of s8");
  refused("", "u8", "256", "range of u8");
  refused("", "u8", "-1", "range of u8");
  refused("", "u32", "4294967296", "range of u32");
  refused("", "s64", "9223372036854775808", "range of s64");
  refused("", "u64", "18446744073709551616", "range of u64");
  refused("", "u64", "-1", "range of u64");
  refused("", "u8", "1.5", "no integer");
  refused("", "u8", "+1", "integer is expected");
  refused("", "u8", "", "integer is expected");
  refused("", "u8", "0x10", "nothing more");
  same("", "f64", "0.1", "0.1");
  same("", "f64", "-1e300", "-1e+300");
  same("", "f64", "2", "2");
  same("", "f32", "0.1", "0.1");
  same("", "f32", "16777217", "16777216");
  same("", "f64", "nan", "nan");
  same("", "f32", "-inf", "-inf");
  same("", "f64", "inf", "inf");
  refused("", "f64", "1.2.3", "no number");
  refused("", "f64", ".5", "number is expected");
  refused("", "f64", "5.", "number is expected");
}

static void test_text(void) {
  same("", "char", "'x'", "'x'");
  same("", "char", "'\\''", "'\\''");
  same("", "char", "'\\u{1F600}'", "'\xf0\x9f\x98\x80'");
  same("", "char", "'\xe2\x82\xac'", "'\xe2\x82\xac'");
  same("", "char", "'\\u{7f}'", "'\\u{7f}'");
  refused("", "char", "''", "a character is expected");
  refused("", "char", "'ab'", "' is expected");
  refused("", "char", "'\\u{d800}'", "no character");
  refused("", "char", "'\\u{110000}'", "no character");
  refused("", "char", "'\\u{1234567}'", "hexadecimal");
  refused("", "char", "'\\u{}'", "hexadecimal");
  refused("", "char", "'\\u12'", "{ is expected");
  refused("", "char", "'\\x'", "no such escape");
  refused("", "char", "'\xed\xa0\x80'", "not UTF-8");
  refused("", "char", "'\xc0\x80'", "not UTF-8");
  refused("", "char", "'\xf0\x80\x80\x80'", "not UTF-8");
  refused("", "char", "'\xe2\x82", "not UTF-8");
  refused("", "char", "'x", "' is expected");
  same("", "string", "\"\"", "\"\"");
  same("", "string", "\"a \\\"b\\\" \\\\ \\n\\t\\r \\u{e9}\"", "\"a \\\"b\\\" \\\\ \\n\\t\\r \xc3\xa9\"");
  same("", "string", "\"it's\"", "\"it's\"");
  refused("", "string", "\"open", "closing quote");
  refused("", "string", "\"open\\", "no such escape");
  refused("", "string", "two\nlines", "double quotes");
  refused("", "string", "\"two\nlines\"", "line ends");
  refused("", "string", "\"\xff\"", "not UTF-8");
  refused("", "string", "\"a\" b", "nothing more");
}

static void test_lists(void) {
  same("(type $t (list u8))", "$t", "[1, 2,3]", "[1, 2, 3]");
  same("(type $t (list u8))", "$t", " [ 1 , ] // that is all", "[1]");
  same("(type $t (list u8))", "$t", "[]", "[]");
  same("(type $i (list string)) (type $t (list $i))", "$t", "[[\"a\"], [], [\"b\", \"c\"]]",
       "[[\"a\"], [], [\"b\", \"c\"]]");
  refused("(type $t (list u8))", "$t", "[1 2]", ", or ] is expected");
  refused("(type $t (list u8))", "$t", "[1,", "integer is expected");
  refused("(type $t (list u8))", "$t", "[1,,2]", "integer is expected");
  refused("(type $t (list u8))", "$t", "[300]", "range of u8");
  refused("(type $t (list u8))", "$t", "1", "[ is expected");
  same("(type $t (tuple u8 string))", "$t", "(1, \"x\",)", "(1, \"x\")");
  refused("(type $t (tuple u8 string))", "$t", "(1)", "double quotes");
  refused("(type $t (tuple u8 string))", "$t", "(1, \"x\", 2)", ") is expected");
}

#define RECORD "(type $o (option u8)) (type $r' (record (field \"x\" s32) (field \"y-z\" $o)))"             \
  " (import \"r\" (type $r (eq $r')))"
#define FLAGS "(type $f' (flags \"a\" \"b-c\" \"d\")) (import \"g\" (type $f (eq $f')))"

static void test_records(void) {
  same(RECORD, "$r", "{x: 1, y-z: some(2)}", "{x: 1, y-z: some(2)}");
  same(RECORD, "$r", "{y-z: 2, x: 1,}", "{x: 1, y-z: some(2)}");
  same(RECORD, "$r", "{x: -1}", "{x: -1, y-z: none}");
  refused(RECORD, "$r", "{y-z: 1}", "the field x is missing");
  refused(RECORD, "$r", "{x: 1, x: 2}", "given twice");
  refused(RECORD, "$r", "{x: 1, q: 2}", "no field q");
  refused(RECORD, "$r", "{x 1}", ": is expected");
  refused(RECORD, "$r", "{x: 1", ", or } is expected");
  refused(RECORD, "$r", "{:}", "the field x is missing");
  refused(RECORD, "$r", "{1}", "no field 1");
  same(FLAGS, "$f", "{a, d}", "{a, d}");
  same(FLAGS, "$f", "{}", "{}");
  refused(FLAGS, "$f", "{a, e}", "no flag e");
  refused(FLAGS, "$f", "{a, a, a, a}", "given twice");
}

#define VARIANT "(type $l (list u8)) (type $v' (variant (case \"none\") (case \"some-list\" $l)))"         \
  " (import \"v\" (type $v (eq $v')))"
#define ENUM "(type $e' (enum \"red\" \"ok\")) (import \"e\" (type $e (eq $e')))"

static void test_cases(void) {
  same(VARIANT, "$v", "some-list([1])", "some-list([1])");
  same(VARIANT, "$v", "%none", "%none");
  refused(VARIANT, "$v", "some-list", "( is expected");
  refused(VARIANT, "$v", "other", "no case other");
  refused(VARIANT, "$v", "%none(1)", "nothing more");
  same(ENUM, "$e", "red", "red");
  same(ENUM, "$e", "%ok", "%ok");
  refused(ENUM, "$e", "blue", "no case blue");
  refused(ENUM, "$e", "", "name of a case");
  same("(type $t (option u8))", "$t", "some(1)", "some(1)");
  same("(type $t (option u8))", "$t", "1", "some(1)");
  same("(type $t (option u8))", "$t", "none", "none");
  refused("(type $t (option u8))", "$t", "some(1", ") is expected");
  same("(type $i (option u8)) (type $t (option $i))", "$t", "some(none)", "some(none)");
  refused("(type $i (option u8)) (type $t (option $i))", "$t", "1", "some(...) or none");
  same("(type $t (result u8 (error string)))", "$t", "ok(1)", "ok(1)");
  same("(type $t (result u8 (error string)))", "$t", "err(\"no\")", "err(\"no\")");
  same("(type $t (result u8 (error string)))", "$t", "7", "ok(7)");
  refused("(type $t (result u8 (error string)))", "$t", "ok", "( is expected");
  same("(type $t (result))", "$t", "ok", "ok");
  same("(type $t (result))", "$t", "err", "err");
  refused("(type $t (result))", "$t", "1", "ok or err");
}

static void test_arguments(void) {
  wasmtime_component_val_t values[2];
  wasmtime_component_valtype_t types[2] = {type_of("", "u8"), type_of("(type $t (option u8))", "$t")};
  static const struct {
    const char *text, *words; /* NULL: taken */
  } cases[] = {
      {"(1, 2)", NULL},        {"(1, some(2),)", NULL},        {" ( 1 ) ", NULL},
      {"()", "takes 2"},       {"(1, 2, 3)", "more were given"}, {"(1, 2) x", "nothing more"},
      {"(1", ", or ) is expected"}, {"1", "( is expected"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct wave_error e = {0};
    bool taken = wave_parse_arguments(cases[i].text, strlen(cases[i].text), types, 2, values, &e);
    if (taken != !cases[i].words || (!taken && !strstr(e.what, cases[i].words))) {
      failures++;
      fprintf(stderr, "FAILED: %s: %s\n", cases[i].text, e.what);
    }
    if (taken) {
      engine.wasmtime_component_val_delete(&values[0]);
      engine.wasmtime_component_val_delete(&values[1]);
    }
  }
  engine.wasmtime_component_valtype_delete(&types[0]);
  engine.wasmtime_component_valtype_delete(&types[1]);
}

static void test_types_without_text(void) {
  wasmtime_component_valtype_t own =
      type_of("(import \"r\" (type $r (sub resource))) (type $o (own $r)) (type $l (list $o))", "$l");
  char bytes[64];
  struct engine_text text = {.bytes = bytes, .size = sizeof bytes};
  CHECK(!wave_has_text(&own));
  CHECK(strstr(again(&own, "[1]"), "cannot be written"));
  engine_wit_type(&text, &own);
  CHECK(strcmp(bytes, "list<own<resource>>") == 0);
  engine.wasmtime_component_valtype_delete(&own);
}

/* Types as WIT, and a type whose text is longer than its room. */
static void test_wit(void) {
  static const char *const expected =
      "record { x: s32, y-z: option<u8> }";
  wasmtime_component_valtype_t type = type_of(RECORD, "$r");
  char bytes[64];
  struct engine_text text = {.bytes = bytes, .size = sizeof bytes};
  engine_wit_type(&text, &type);
  CHECK(strcmp(bytes, expected) == 0 && !text.full);
  struct engine_text small = {.bytes = bytes, .size = 16};
  engine_wit_type(&small, &type);
  CHECK(small.full && small.used < 16);
  engine.wasmtime_component_valtype_delete(&type);
}

static bool refuse(void *to, const char *bytes, size_t size) {
  (void)bytes;
  *(size_t *)to += size;
  return false;
}

/* Nothing more is written once nobody wants it. */
static void test_printing_ends(void) {
  static char text[1 << 16];
  wasmtime_component_valtype_t type = type_of("(type $t (list u8))", "$t");
  wasmtime_component_val_t value;
  struct wave_error e = {0};
  size_t written = 0;
  memset(text, ' ', sizeof text);
  text[0] = '[';
  for (size_t i = 1; i < sizeof text - 2; i += 2)
    memcpy(text + i, "7,", 2);
  text[sizeof text - 1] = ']';
  CHECK(wave_parse(text, sizeof text, &type, &value, &e));
  CHECK(!wave_print(&value, refuse, &written));
  CHECK(written <= 4096);
  engine.wasmtime_component_val_delete(&value);
  engine.wasmtime_component_valtype_delete(&type);
}

int main(void) {
  struct ws_error e = {0};
  if (engine_library_load(getenv("WASMTIME_LIBRARY"), WASMTIME_RELEASE, &e) < 0) {
    fprintf(stderr, "%s: %s\n", e.step, e.detail);
    return 1;
  }
  which = engine.wasm_engine_new_with_config(engine.wasm_config_new());
  test_numbers();
  test_text();
  test_lists();
  test_records();
  test_cases();
  test_arguments();
  test_types_without_text();
  test_wit();
  test_printing_ends();
  if (failures)
    fprintf(stderr, "%d failures\n", failures);
  return failures != 0;
}
