/* needs: engine
 *
 * WAVE from a hostile command line: any text against types that have every kind in them.  What is
 * taken has to come out as text that is taken again, as the same text.  The library is
 * $WASMTIME_LIBRARY; it is not instrumented, and only makes and holds the values.  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/wave.h"

enum { TYPES = 16 };

static const char WORLD[] =
    "(component"
    " (type $l (list u8)) (type $ll (list $l)) (type $o (option s32)) (type $oo (option $o))"
    " (type $r (result string (error f64))) (type $n (result))"
    " (type $t (tuple char bool string)) (type $lt (list $t))"
    " (type $rec' (record (field \"x\" s64) (field \"y\" $o) (field \"z-z\" $ll)))"
    " (import \"rec\" (type $rec (eq $rec')))"
    " (type $v' (variant (case \"a\") (case \"none\" $rec) (case \"c\" $r)))"
    " (import \"v\" (type $v (eq $v')))"
    " (type $e' (enum \"red\" \"ok\" \"inf\")) (import \"e\" (type $e (eq $e')))"
    " (type $f' (flags \"a\" \"b\" \"true\")) (import \"f\" (type $f (eq $f')))"
    " (type $lv (list $v)) (type $lf (list f32))"
    " (import \"all\" (func (param \"p0\" u64) (param \"p1\" $ll) (param \"p2\" $oo) (param \"p3\" $r)"
    "  (param \"p4\" $n) (param \"p5\" $lt) (param \"p6\" $rec) (param \"p7\" $v) (param \"p8\" $e)"
    "  (param \"p9\" $f) (param \"p10\" $lv) (param \"p11\" $lf) (param \"p12\" char)"
    "  (param \"p13\" string) (param \"p14\" s8) (param \"p15\" f64))))";

static wasmtime_component_valtype_t types[TYPES];
/* Needed until the end: the types are theirs. */
static wasm_engine_t *which;
static wasmtime_component_t *component;

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  abort();
}

static void learn(const wasmtime_component_item_t *item) {
  char *name;
  size_t len;
  for (size_t i = 0; item->kind == WASMTIME_COMPONENT_ITEM_COMPONENT_FUNC && i < TYPES; i++)
    if (!engine.wasmtime_component_func_type_param_nth(item->of.component_func, i, &name, &len,
                                                       &types[i]))
      fail("a type is missing");
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  struct ws_error e = {0};
  wasm_byte_vec_t binary;
  wasmtime_component_extern_t *imported;
  wasmtime_component_item_t item;
  char *name, text[sizeof WORLD];
  size_t len;
  (void)argc;
  (void)argv;
  const char *library = getenv("WASMTIME_LIBRARY");
  if (!library || engine_library_load(library, WASMTIME_RELEASE, &e) < 0)
    fail("WASMTIME_LIBRARY does not name the engine's library");
  memcpy(text, WORLD, sizeof text);
  which = engine.wasm_engine_new_with_config(engine.wasm_config_new());
  if (engine.wasmtime_wat2wasm(text, sizeof text - 1, &binary) ||
      engine.wasmtime_component_new(which, (uint8_t *)binary.data, binary.size, &component))
    fail("the world is not valid");
  wasmtime_component_type_t *world = engine.wasmtime_component_type(component);
  for (size_t i = 0;
       engine.wasmtime_component_type_import_nth(world, which, i, &name, &len, &imported); i++) {
    engine.wasmtime_component_extern_type(imported, &item);
    learn(&item);
    engine.wasmtime_component_item_delete(&item);
    engine.wasmtime_component_extern_delete(imported);
  }
  engine.wasmtime_component_type_delete(world);
  engine.wasm_byte_vec_delete(&binary);
  return 0;
}

struct text {
  char *bytes;
  size_t size;
};

static bool keep(void *to, const char *bytes, size_t size) {
  struct text *t = to;
  t->bytes = realloc(t->bytes, t->size + size + 1);
  memcpy(t->bytes + t->size, bytes, size);
  t->size += size;
  return true;
}

static void again(const wasmtime_component_valtype_t *type, const struct text *first) {
  struct text second = {0};
  struct wave_error e = {0};
  wasmtime_component_val_t value;
  if (!wave_parse(first->bytes, first->size, type, &value, &e))
    fail(e.what);
  wave_print(&value, keep, &second);
  engine.wasmtime_component_val_delete(&value);
  if (second.size != first->size || memcmp(second.bytes, first->bytes, first->size) != 0)
    fail("another text the second time");
  free(second.bytes);
}

/* The first byte chooses the type; one choice more is the whole function's arguments. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  uint8_t choice = data[0] % (TYPES + 1);
  const char *text = (const char *)data + 1;
  struct wave_error e = {0};
  wasmtime_component_val_t value, values[TYPES];
  if (choice == TYPES) {
    if (wave_parse_arguments(text, size - 1, types, TYPES, values, &e))
      for (size_t i = 0; i < TYPES; i++)
        engine.wasmtime_component_val_delete(&values[i]);
  } else if (wave_parse(text, size - 1, &types[choice], &value, &e)) {
    struct text printed = {0};
    wave_print(&value, keep, &printed);
    engine.wasmtime_component_val_delete(&value);
    again(&types[choice], &printed);
    free(printed.bytes);
    return 0;
  }
  if (choice < TYPES && (!e.what[0] || e.at > size))
    fail("refused without a word");
  return 0;
}
