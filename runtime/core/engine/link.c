/* The guest's imports: WASI functions by name, and nothing else.
 *
 * Only what the module imports is made, so a program that imports two functions has two; what is
 * not offered is refused by name before anything runs.  */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"

/* What one host function needs: which one, for which run, and where the memory is (looked up at the
 * first call, since a start function may call before instantiation has returned). */
struct binding {
  const struct wasi_function *function;
  struct guest *guest;
};

struct guest {
  const struct engine_run *run;
  wasmtime_memory_t memory;
  bool has_memory;
};

/* One run a process. */
static struct guest the_guest;

enum { MAX_PARAMS = 9 }; /* path_open */

static bool find_memory(struct guest *guest, wasmtime_caller_t *caller) {
  wasmtime_extern_t item;
  char name[] = "memory";
  if (guest->has_memory)
    return true;
  if (!engine.wasmtime_caller_export_get(caller, name, sizeof name - 1, &item))
    return false;
  if (item.kind == WASMTIME_EXTERN_MEMORY) {
    guest->memory = item.of.memory;
    guest->has_memory = true;
  }
  return guest->has_memory;
}

/* The way in: the guest's words out of the engine's slots, the memory as it is now. */
static size_t call_host(void *data, wasmtime_caller_t *caller, wasmtime_val_raw_t *slots, size_t n) {
  const struct binding *binding = data;
  const struct wasi_function *function = binding->function;
  struct guest *guest = binding->guest;
  struct wasi_memory memory = {0};
  uint64_t args[MAX_PARAMS];
  (void)n;
  if (find_memory(guest, caller)) {
    wasmtime_context_t *context = engine.wasmtime_caller_context(caller);
    memory.base = engine.wasmtime_memory_data(context, &guest->memory);
    memory.size = engine.wasmtime_memory_data_size(context, &guest->memory);
  } else if (function->needs_memory) {
    char message[] = "the module exports no memory named \"memory\", which this WASI function needs";
    return (size_t)engine.wasmtime_trap_new(message, sizeof message - 1);
  }
  for (size_t i = 0; function->params[i]; i++)
    args[i] = function->params[i] == 'I' ? (uint64_t)slots[i].i64 : (uint64_t)(uint32_t)slots[i].i32;
  uint32_t result = function->call(guest->run->wasi, &memory, args);
  if (function->has_result)
    slots[0].i32 = (int32_t)result;
  return 0;
}

static wasm_valtype_vec_t valtypes(const char *letters) {
  wasm_valtype_t *list[MAX_PARAMS];
  wasm_valtype_vec_t vec;
  size_t n = strlen(letters);
  for (size_t i = 0; i < n; i++)
    list[i] = engine.wasm_valtype_new(letters[i] == 'I' ? 1 : 0);
  if (n)
    engine.wasm_valtype_vec_new(&vec, n, list);
  else
    engine.wasm_valtype_vec_new_empty(&vec);
  return vec;
}

static bool same_types(wasm_valtype_vec_t *has, const char *letters) {
  if (has->size != strlen(letters))
    return false;
  for (size_t i = 0; i < has->size; i++)
    if (engine.wasm_valtype_kind(has->data[i]) != (letters[i] == 'I' ? 1 : 0))
      return false;
  return true;
}

static bool same_name(const char *have, const wasm_name_t *want) {
  return strlen(have) == want->size && memcmp(have, want->data, want->size) == 0;
}

static const struct wasi_function *find(const wasm_name_t *module, const wasm_name_t *name) {
  const struct wasi_function *table = NULL;
  if (same_name("wasi_snapshot_preview1", module))
    table = wasi_snapshot_preview1;
  else if (same_name("wasi_unstable", module))
    table = wasi_unstable;
  for (; table && table->name; table++)
    if (same_name(table->name, name))
      return table;
  return NULL;
}

/* Why this import cannot be served; NULL when it can. */
static const char *refusal(wasm_externtype_t *type, const struct wasi_function *function) {
  static const char *const kinds[] = {"function", "global", "table", "memory", "tag"};
  uint8_t kind = engine.wasm_externtype_kind(type);
  if (kind != 0)
    return kind < 5 ? kinds[kind] : "item";
  if (!function)
    return "function";
  wasm_functype_t *functype = engine.wasm_externtype_as_functype(type);
  if (!same_types(engine.wasm_functype_params(functype), function->params) ||
      !same_types(engine.wasm_functype_results(functype), function->has_result ? "i" : ""))
    return "function of another type";
  return NULL;
}

static void bind(struct binding *binding, wasmtime_context_t *context, wasmtime_extern_t *item) {
  const struct wasi_function *function = binding->function;
  wasm_valtype_vec_t params = valtypes(function->params);
  wasm_valtype_vec_t results = valtypes(function->has_result ? "i" : "");
  wasm_functype_t *type = engine.wasm_functype_new(&params, &results);
  item->kind = WASMTIME_EXTERN_FUNC;
  engine.wasmtime_func_new_unchecked(context, type, call_host, binding, NULL, &item->of.func);
  engine.wasm_functype_delete(type);
}

/* Names are the module's: what could pass for a line of ours is shown as '?'. */
static size_t append_name(char *out, size_t size, const wasm_name_t *name) {
  size_t n = name->size < 200 ? name->size : 200, at = 0;
  if (size < n + 3)
    return 0;
  out[at++] = '"';
  for (size_t i = 0; i < n; i++)
    out[at++] = (char)(name->data[i] < 0x20 || name->data[i] == 0x7f ? '?' : name->data[i]);
  out[at++] = '"';
  out[at] = 0;
  return at;
}

int engine_link(wasmtime_module_t *module, wasmtime_context_t *context,
                const struct engine_run *run, wasmtime_extern_t **externs, size_t *count) {
  char missing[2048];
  size_t used = 0, refused = 0;
  wasm_importtype_vec_t imports;
  engine.wasmtime_module_imports(module, &imports);
  struct binding *bindings = calloc(imports.size + 1, sizeof *bindings);
  *externs = calloc(imports.size + 1, sizeof **externs);
  *count = imports.size;
  the_guest.run = run;
  if (!bindings || !*externs) {
    ws_record_outcome(run->record, WS_OUTCOME_MEMORY, 0, NULL, 0);
    return -1;
  }
  for (size_t i = 0; i < imports.size; i++) {
    const wasm_name_t *from = engine.wasm_importtype_module(imports.data[i]);
    const wasm_name_t *name = engine.wasm_importtype_name(imports.data[i]);
    bindings[i] = (struct binding){find(from, name), &the_guest};
    const char *why = refusal(engine.wasm_importtype_type(imports.data[i]), bindings[i].function);
    if (!why) {
      bind(&bindings[i], context, &(*externs)[i]);
      continue;
    }
    refused++;
    if (sizeof missing - used > 512) { /* room for two names and a word */
      used += (size_t)snprintf(missing + used, 3, "%s", used ? ", " : "");
      used += append_name(missing + used, sizeof missing - used, from);
      missing[used++] = ' ';
      used += append_name(missing + used, sizeof missing - used, name);
      used += (size_t)snprintf(missing + used, 64, " (%s)", why);
    }
  }
  engine.wasm_importtype_vec_delete(&imports);
  if (refused) {
    char text[2304];
    int n = snprintf(text, sizeof text, "the module imports what is not offered: %s", missing);
    ws_record_outcome(run->record, WS_OUTCOME_INVALID, (uint32_t)refused, text,
                      n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    return -1;
  }
  return 0;
}
