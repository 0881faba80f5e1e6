/* Describes a component's world, in the format of describe.c.
 *
 * The first record is 'c' with nothing in it: what follows is a world.  Then, for each import and
 * export, one record for each function and resource of an interface, with the interface's name where
 * a module's would be (also for exports); an interface without any is one record of kind 6.  What
 * stands in the world itself, outside of any interface, has no such name.  Types are WIT.  */
#include "engine/component.h"
#include "engine/describe.h"
#include "engine/wit.h"

enum { KIND_FUNCTION = 0, KIND_RESOURCE = 5, KIND_INTERFACE = 6, KIND_OTHER = 255 };

struct described {
  FILE *out;
  wasm_engine_t *engine;
  char what; /* 'i' or 'e' */
};

static void member(const struct described *d, const char *interface, size_t interface_len,
                   const char *name, size_t len, const wasmtime_component_item_t *item) {
  char bytes[4096] = "";
  struct engine_text text = {.bytes = bytes, .size = sizeof bytes};
  uint8_t kind = KIND_OTHER;
  if (item->kind == WASMTIME_COMPONENT_ITEM_COMPONENT_FUNC) {
    kind = KIND_FUNCTION;
    engine_wit_function(&text, item->of.component_func);
  } else if (item->kind == WASMTIME_COMPONENT_ITEM_RESOURCE) {
    kind = KIND_RESOURCE;
  } else if (item->kind == WASMTIME_COMPONENT_ITEM_TYPE) {
    return; /* a name for a type asks for nothing and offers nothing */
  }
  engine_describe_entry(d->out, d->what, kind, (struct ws_bytes){interface, interface_len},
                        (struct ws_bytes){name, len}, (struct ws_bytes){bytes, text.used});
}

static void interface(const struct described *d, const struct engine_names *n) {
  wasmtime_component_instance_type_t *type = n->item.of.component_instance;
  wasmtime_component_extern_t *found;
  char *name;
  size_t len;
  bool any = false;
  for (size_t i = 0; engine.wasmtime_component_instance_type_export_nth(type, d->engine, i, &name,
                                                                        &len, &found); i++) {
    wasmtime_component_item_t item;
    engine.wasmtime_component_extern_type(found, &item);
    member(d, n->name, n->len, name, len, &item);
    any = any || item.kind != WASMTIME_COMPONENT_ITEM_TYPE;
    engine.wasmtime_component_item_delete(&item);
    engine.wasmtime_component_extern_delete(found);
  }
  if (!any)
    engine_describe_entry(d->out, d->what, KIND_INTERFACE, (struct ws_bytes){n->name, n->len},
                          (struct ws_bytes){0}, (struct ws_bytes){0});
}

static void names(const struct described *d, wasmtime_component_type_t *type) {
  struct engine_names n = {.type = type, .engine = d->engine, .imports = d->what == 'i'};
  while (engine_names_next(&n)) {
    if (n.item.kind == WASMTIME_COMPONENT_ITEM_COMPONENT_INSTANCE)
      interface(d, &n);
    else
      member(d, NULL, 0, n.name, n.len, &n.item);
  }
}

int engine_describe_component(wasm_engine_t *which, wasmtime_component_t *component, int fd) {
  FILE *out = fdopen(fd, "w");
  if (!out)
    return -1;
  engine_describe_entry(out, 'c', KIND_OTHER, (struct ws_bytes){0}, (struct ws_bytes){0},
                        (struct ws_bytes){0});
  wasmtime_component_type_t *type = engine.wasmtime_component_type(component);
  struct described d = {.out = out, .engine = which, .what = 'i'};
  names(&d, type);
  d.what = 'e';
  names(&d, type);
  engine.wasmtime_component_type_delete(type);
  return fflush(out) == 0 && !ferror(out) ? 0 : -1;
}
