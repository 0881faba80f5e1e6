/* `--invoke` of a component's export: "name(1, [2, 3])", or the name with the guest's arguments as
 * values.  The result is printed, in WAVE as well.
 *
 * The name is a function's of the world, or "interface#function" ("interface/function" will do); the
 * interface may be named without its version or its package; a function that only one has, alone.  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/component.h"
#include "engine/wave.h"

enum { MAX_VALUES = 64 };

struct search {
  const char *name; /* what was asked for, up to its arguments */
  size_t len;
  int found;          /* how many functions it could mean */
  char interface[256]; /* of the last of those; empty: the world itself */
  char function[256];
};

static bool equal(const char *a, size_t a_len, const char *b, size_t b_len) {
  return a_len == b_len && memcmp(a, b, b_len) == 0;
}

/* Whether `asked` (a part of the name) is the interface: "package:name/interface@version" or, shorter,
 * without the version, or the interface alone. */
static bool is_interface(const char *asked, size_t asked_len, const char *interface, size_t len) {
  if (equal(asked, asked_len, interface, len))
    return true;
  const char *version = memchr(interface, '@', len);
  size_t bare = version ? (size_t)(version - interface) : len;
  const char *slash = memrchr(interface, '/', bare);
  return equal(asked, asked_len, interface, bare) ||
         (slash && equal(asked, asked_len, slash + 1, bare - (size_t)(slash + 1 - interface)));
}

static bool is_meant(const struct search *s, const char *interface, size_t interface_len,
                     const char *function, size_t len) {
  if (equal(s->name, s->len, function, len))
    return true;
  if (s->len < len + 2 || memcmp(s->name + s->len - len, function, len) != 0)
    return false;
  size_t before = s->len - len - 1;
  return (s->name[before] == '#' || s->name[before] == '/') &&
         is_interface(s->name, before, interface, interface_len);
}

static void look_at(struct search *s, const char *interface, size_t interface_len,
                    const char *function, size_t len, const wasmtime_component_item_t *item) {
  if (item->kind != WASMTIME_COMPONENT_ITEM_COMPONENT_FUNC || len >= sizeof s->function ||
      interface_len >= sizeof s->interface || !is_meant(s, interface, interface_len, function, len))
    return;
  s->found++;
  snprintf(s->interface, sizeof s->interface, "%.*s", (int)interface_len, interface);
  snprintf(s->function, sizeof s->function, "%.*s", (int)len, function);
}

static void look_into(struct search *s, wasm_engine_t *which, const struct engine_names *n) {
  wasmtime_component_extern_t *member;
  char *name;
  size_t len;
  for (size_t i = 0; engine.wasmtime_component_instance_type_export_nth(
           n->item.of.component_instance, which, i, &name, &len, &member); i++) {
    wasmtime_component_item_t item;
    engine.wasmtime_component_extern_type(member, &item);
    look_at(s, n->name, n->len, name, len, &item);
    engine.wasmtime_component_item_delete(&item);
    engine.wasmtime_component_extern_delete(member);
  }
}

static void search(struct search *s, wasm_engine_t *which) {
  wasmtime_component_type_t *type = engine_component_type();
  struct engine_names n = {.type = type, .engine = which};
  while (engine_names_next(&n)) {
    if (n.item.kind == WASMTIME_COMPONENT_ITEM_COMPONENT_INSTANCE)
      look_into(s, which, &n);
    else
      look_at(s, "", 0, n.name, n.len, &n.item);
  }
  engine.wasmtime_component_type_delete(type);
}

static bool find(const struct search *s, wasmtime_context_t *context,
                 wasmtime_component_instance_t *instance, wasmtime_component_func_t *func) {
  wasmtime_component_export_index_t *outer = NULL, *inner;
  char interface[256], function[256];
  memcpy(interface, s->interface, sizeof interface);
  memcpy(function, s->function, sizeof function);
  if (interface[0] && !(outer = engine.wasmtime_component_instance_get_export_index(
                            instance, context, NULL, interface, strlen(interface))))
    return false;
  inner = engine.wasmtime_component_instance_get_export_index(instance, context, outer, function,
                                                              strlen(function));
  return inner && engine.wasmtime_component_instance_get_func(instance, context, inner, func);
}

struct call {
  wasmtime_component_valtype_t types[MAX_VALUES], result;
  char *names[MAX_VALUES]; /* of the parameters, not NUL-terminated */
  size_t name_lens[MAX_VALUES];
  wasmtime_component_val_t values[MAX_VALUES];
  size_t count;
  bool has_result;
};

static int learn_types(struct call *c, wasmtime_component_func_t *func,
                       wasmtime_context_t *context, const struct engine_run *run) {
  wasmtime_component_func_type_t *type = engine.wasmtime_component_func_type(func, context);
  while (c->count < MAX_VALUES &&
         engine.wasmtime_component_func_type_param_nth(type, c->count, &c->names[c->count],
                                                       &c->name_lens[c->count],
                                                       &c->types[c->count])) {
    if (!wave_has_text(&c->types[c->count]))
      return engine_invalid(run, "the function takes a resource (its parameter %.*s): those have no "
                                 "text, so --invoke cannot give one",
                            (int)c->name_lens[c->count], c->names[c->count]);
    c->count++;
  }
  if (c->count == MAX_VALUES)
    return engine_invalid(run, "the function has too many parameters (%d is the most)",
                          MAX_VALUES - 1);
  c->has_result = engine.wasmtime_component_func_type_result(type, &c->result);
  if (c->has_result && !wave_has_text(&c->result))
    return engine_invalid(run, "the function gives a resource: those have no text, so --invoke cannot "
                               "show one");
  return 0; /* the type lives as long as its names are wanted */
}

/* A string may be given without quotes, when it is an argument of its own. */
static bool parse_word(const struct ws_bytes *word, const wasmtime_component_valtype_t *type,
                       wasmtime_component_val_t *value, struct wave_error *e) {
  if (type->kind != WASMTIME_COMPONENT_VALTYPE_STRING || (word->len && word->bytes[0] == '"'))
    return wave_parse(word->bytes, word->len, type, value, e);
  value->kind = WASMTIME_COMPONENT_STRING;
  engine.wasm_byte_vec_new(&value->of.string, word->len, (wasm_byte_t *)(uintptr_t)word->bytes);
  return true;
}

static int parse_words(struct call *c, const struct engine_run *run) {
  const struct ws_spec *s = run->spec;
  size_t given = s->arg_count ? s->arg_count - 1 : 0; /* without argv[0] */
  if (given != c->count)
    return engine_invalid(run, "the function takes %zu arguments, %zu were given", c->count, given);
  for (size_t i = 0; i < given; i++) {
    const struct ws_bytes *word = &s->args[i + 1];
    struct wave_error e = {0};
    if (!parse_word(word, &c->types[i], &c->values[i], &e))
      return engine_invalid(run, "argument %zu of the function (%.*s): %s, at byte %zu of \"%.*s\"",
                            i + 1, (int)c->name_lens[i], c->names[i], e.what, e.at,
                            word->len < 80 ? (int)word->len : 80, word->bytes);
  }
  return 0;
}

static int parse_text(struct call *c, const char *text, size_t len, const struct engine_run *run) {
  struct wave_error e = {0};
  if (wave_parse_arguments(text, len, c->types, c->count, c->values, &e))
    return 0;
  return engine_invalid(run, "the arguments of --invoke: %s, at byte %zu of \"%.*s\"", e.what, e.at,
                        len < 80 ? (int)len : 80, text);
}

static bool print(void *to, const char *bytes, size_t size) {
  (void)to;
  return engine_component_print(bytes, size) == 0;
}

int engine_component_invoke(wasmtime_context_t *context, wasmtime_component_instance_t *instance,
                            const struct engine_run *run) {
  static struct call call;
  const struct ws_bytes *asked = &run->spec->invoke;
  const char *open = memchr(asked->bytes, '(', asked->len);
  struct search s = {.name = asked->bytes,
                     .len = open ? (size_t)(open - asked->bytes) : asked->len};
  wasmtime_component_func_t func;
  search(&s, engine_of(run->spec->engine, run->spec->limits.fuel != WS_UNLIMITED));
  if (s.found > 1)
    return engine_invalid(run, "more than one interface has a function \"%.*s\": name it "
                               "interface#function",
                          (int)s.len, s.name);
  if (!s.found || !find(&s, context, instance, &func))
    return engine_invalid(run, "the component exports no function \"%.*s\", which --invoke names",
                          (int)s.len, s.name);
  int status = learn_types(&call, &func, context, run);
  if (!status)
    status = open ? parse_text(&call, open, asked->len - s.len, run) : parse_words(&call, run);
  if (status)
    return status;
  wasmtime_component_val_t result = {0};
  wasmtime_error_t *error = engine.wasmtime_component_func_call(
      &func, context, call.values, call.count, &result, call.has_result ? 1 : 0);
  if (error)
    return engine_component_failed(error, run);
  if (call.has_result && wave_print(&result, print, NULL))
    engine_component_print("\n", 1);
  engine_note_usage();
  ws_record_outcome(run->record, WS_OUTCOME_EXIT, 0, NULL, 0);
  return 0;
}
