/* Loads and runs a component: a command of `wasi:cli`, or one function of another for --invoke. */
#include "engine/component.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { STATUS_INVALID = 126, STATUS_TRAP = 134, STATUS_MEMORY = 137 };

static wasmtime_component_t *component;

int engine_component_load(const struct engine_run *run) {
  const struct ws_spec *s = run->spec;
  wasm_engine_t *which = engine_of(s->engine, s->limits.fuel != WS_UNLIMITED);
  char path[64];
  wasmtime_error_t *error;
  snprintf(path, sizeof path, "%s", run->artifact_path);
  if (run->artifact) {
    uint8_t *bytes = (uint8_t *)(uintptr_t)run->artifact; /* the interface lacks a const */
    error = engine.wasmtime_component_deserialize(which, bytes, run->artifact_size, &component);
    munmap(bytes, run->artifact_size);
  } else {
    error = engine.wasmtime_component_deserialize_file(which, path, &component);
  }
  if (error) {
    engine_record_error(run->record, WS_OUTCOME_REJECTED, 0, error);
    return -EINVAL;
  }
  return 0;
}

wasmtime_component_type_t *engine_component_type(void) {
  return engine.wasmtime_component_type(component);
}

bool engine_names_next(struct engine_names *n) {
  wasmtime_component_extern_t *item;
  char *name;
  if (n->name)
    engine.wasmtime_component_item_delete(&n->item);
  n->name = NULL;
  bool found = n->imports ? engine.wasmtime_component_type_import_nth(n->type, n->engine, n->next,
                                                                      &name, &n->len, &item)
                          : engine.wasmtime_component_type_export_nth(n->type, n->engine, n->next,
                                                                      &name, &n->len, &item);
  if (!found)
    return false;
  engine.wasmtime_component_extern_type(item, &n->item);
  engine.wasmtime_component_extern_delete(item);
  n->name = name;
  n->next++;
  return true;
}

/* A release candidate ("0.2.0-rc-...") is not compatible with what was released. */
bool engine_is_wasi(const char *name, size_t len, const char *interface) {
  size_t start = strlen(interface);
  const char version[] = "@0.2.";
  if (len <= start + sizeof version - 1 || memcmp(name, interface, start) != 0 ||
      memcmp(name + start, version, sizeof version - 1) != 0)
    return false;
  for (size_t i = start + sizeof version - 1; i < len; i++)
    if (name[i] < '0' || name[i] > '9')
      return false;
  return true;
}

/* The interfaces of wasmtime_component_linker_add_wasip2 and ..._add_wasi_http. */
static const char *const OFFERED[] = {
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
};

static bool is_offered(const char *name, size_t len) {
  for (size_t i = 0; i < sizeof OFFERED / sizeof *OFFERED; i++)
    if (engine_is_wasi(name, len, OFFERED[i]))
      return true;
  return false;
}

/* An interface that holds nothing but types asks for nothing. */
static bool asks_for_something(const struct engine_names *n) {
  if (n->item.kind == WASMTIME_COMPONENT_ITEM_TYPE)
    return false;
  if (n->item.kind != WASMTIME_COMPONENT_ITEM_COMPONENT_INSTANCE)
    return true;
  wasmtime_component_instance_type_t *type = n->item.of.component_instance;
  wasmtime_component_extern_t *member;
  char *name;
  size_t len;
  bool asks = false;
  for (size_t i = 0; !asks && engine.wasmtime_component_instance_type_export_nth(
                                  type, n->engine, i, &name, &len, &member); i++) {
    wasmtime_component_item_t item;
    engine.wasmtime_component_extern_type(member, &item);
    asks = item.kind != WASMTIME_COMPONENT_ITEM_TYPE;
    engine.wasmtime_component_item_delete(&item);
    engine.wasmtime_component_extern_delete(member);
  }
  return asks;
}

/* What the world says about running it. */
struct world {
  char run[128];     /* the export "wasi:cli/run@..."; empty: there is none */
  char preopens[128]; /* the import "wasi:filesystem/preopens@..."; empty: there is none */
  bool serves, http; /* exports a handler of requests; imports anything of wasi:http */
  size_t missing;    /* imports that nobody offers */
  char names[1024];  /* those, as far as there is room */
};

static void look_at_imports(struct engine_names *n, struct world *w) {
  static const char http[] = "wasi:http/";
  size_t used = 0;
  while (engine_names_next(n)) {
    bool offered = is_offered(n->name, n->len);
    if (offered && n->len > sizeof http && memcmp(n->name, http, sizeof http - 1) == 0)
      w->http = true;
    if (engine_is_wasi(n->name, n->len, "wasi:filesystem/preopens") && n->len < sizeof w->preopens)
      snprintf(w->preopens, sizeof w->preopens, "%.*s", (int)n->len, n->name);
    if (offered || !asks_for_something(n))
      continue;
    w->missing++;
    if (used + n->len + 3 < sizeof w->names)
      used += (size_t)snprintf(w->names + used, sizeof w->names - used, "%s%.*s",
                               used ? ", " : "", (int)n->len, n->name);
  }
}

static void look_at_exports(struct engine_names *n, struct world *w) {
  while (engine_names_next(n)) {
    if (engine_is_wasi(n->name, n->len, "wasi:cli/run") && n->len < sizeof w->run)
      snprintf(w->run, sizeof w->run, "%.*s", (int)n->len, n->name);
    if (engine_is_wasi(n->name, n->len, "wasi:http/incoming-handler"))
      w->serves = true;
  }
}

static void look_at(wasm_engine_t *which, struct world *w) {
  wasmtime_component_type_t *type = engine_component_type();
  struct engine_names imports = {.type = type, .engine = which, .imports = true};
  struct engine_names exports = {.type = type, .engine = which};
  look_at_imports(&imports, w);
  look_at_exports(&exports, w);
  engine.wasmtime_component_type_delete(type);
}

/* Whether this world can be run as it was asked; records why not. */
static int check(const struct world *w, const struct engine_run *run) {
  if (w->missing)
    return engine_invalid(run, "the component imports what is not offered: %s%s", w->names,
                          w->missing > 1 ? "" : " (WASI 0.2 is, and nothing else)");
  if (run->spec->invoke.len || w->run[0])
    return 0;
  if (w->serves)
    return engine_invalid(run, "this component is a server's (it exports wasi:http/incoming-handler "
                               "and no wasi:cli/run): there is nothing in it to run");
  return engine_invalid(run, "the component exports no wasi:cli/run of WASI 0.2: name the function "
                             "to call with --invoke");
}

/* A trap comes as an error whose words alone say that it is one: those of the pinned release, in
 * the order of enum wasmtime_trap_code.  What has no number for `judge` is told by its words. */
static const char *const TRAPS[] = {
    "call stack exhausted",
    "out of bounds memory access",
    "unaligned atomic",
    "undefined element: out of bounds table access",
    "uninitialized element",
    "indirect call type mismatch",
    "integer overflow",
    "integer divide by zero",
    "invalid conversion to integer",
    "wasm `unreachable` instruction executed",
    "interrupt",
    "all fuel consumed by WebAssembly",
    "atomic wait on non-shared memory",
    "null reference",
    "out of bounds array access",
    "allocation size too large",
    "cast failure",
    "cannot enter component instance",
};

static uint32_t trap_code(const wasm_name_t *message) {
  static const char mark[] = "wasm trap: ";
  const char *at = memmem(message->data, message->size, mark, sizeof mark - 1);
  if (!at)
    return UINT32_MAX;
  at += sizeof mark - 1;
  size_t left = message->size - (size_t)(at - (const char *)message->data);
  for (uint32_t i = 0; i < sizeof TRAPS / sizeof *TRAPS; i++)
    if (strlen(TRAPS[i]) <= left && memcmp(at, TRAPS[i], strlen(TRAPS[i])) == 0)
      return i;
  return UINT32_MAX;
}

int engine_component_failed(wasmtime_error_t *error, const struct engine_run *run) {
  int status;
  engine_note_usage();
  if (engine.wasmtime_error_exit_status(error, &status)) {
    engine.wasmtime_error_delete(error);
    ws_record_outcome(run->record, WS_OUTCOME_EXIT, (uint32_t)status, NULL, 0);
    return status & 0xff;
  }
  wasm_name_t message;
  engine.wasmtime_error_message(error, &message);
  uint32_t code = trap_code(&message);
  engine.wasm_byte_vec_delete(&message);
  engine_record_error(run->record,
                      code == WASMTIME_TRAP_CODE_OUT_OF_FUEL ? WS_OUTCOME_FUEL : WS_OUTCOME_TRAP,
                      code, error);
  return STATUS_TRAP;
}

/* Instantiating runs the guest's code already: it can trap, and exit. */
static int refuse(wasmtime_error_t *error, const struct engine_run *run) {
  wasm_name_t message;
  int status;
  if (engine.wasmtime_error_exit_status(error, &status))
    return engine_component_failed(error, run);
  engine.wasmtime_error_message(error, &message);
  bool memory = engine_is_about_memory(&message);
  bool ran = memmem(message.data, message.size, "wasm trap: ", 11) != NULL;
  engine.wasm_byte_vec_delete(&message);
  if (ran)
    return engine_component_failed(error, run);
  engine_record_error(run->record, memory ? WS_OUTCOME_MEMORY : WS_OUTCOME_INVALID, 0, error);
  return memory ? STATUS_MEMORY : STATUS_INVALID;
}

static int call_run(wasmtime_context_t *context, wasmtime_component_instance_t *instance,
                    const char *interface, const struct engine_run *run) {
  char from[128], name[] = "run";
  wasmtime_component_func_t func;
  wasmtime_component_val_t result = {0};
  snprintf(from, sizeof from, "%s", interface);
  wasmtime_component_export_index_t *outer = engine.wasmtime_component_instance_get_export_index(
      instance, context, NULL, from, strlen(from));
  wasmtime_component_export_index_t *inner =
      outer ? engine.wasmtime_component_instance_get_export_index(instance, context, outer, name, 3)
            : NULL;
  if (!inner || !engine.wasmtime_component_instance_get_func(instance, context, inner, &func))
    return engine_invalid(run, "the component's %s has no function run", interface);
  wasmtime_error_t *error =
      engine.wasmtime_component_func_call(&func, context, NULL, 0, &result, 1);
  if (error)
    return engine_component_failed(error, run);
  engine_note_usage();
  /* run: func() -> result; the interface's text: "result indicates success or failure" */
  bool failed = result.kind != WASMTIME_COMPONENT_RESULT || !result.of.result.is_ok;
  ws_record_outcome(run->record, WS_OUTCOME_EXIT, failed, NULL, 0);
  return failed;
}

/* get-directories, where there are none: what a module's fd_prestat_get notes then. */
static size_t no_directories(void *run, wasmtime_context_t *context,
                             wasmtime_component_func_type_t *type, wasmtime_component_val_t *args,
                             size_t arg_count, wasmtime_component_val_t *results, size_t count) {
  const struct engine_run *r = run;
  (void)context, (void)type, (void)args, (void)arg_count;
  ws_record_denial(r->record, WS_DENIAL_NO_PREOPEN, 0, NULL, 0);
  if (count == 1) {
    results[0].kind = WASMTIME_COMPONENT_LIST;
    engine.wasmtime_component_vallist_new(&results[0].of.list, 0, NULL);
  }
  return 0; /* no error */
}

/* The library has no way to tell that the guest looked for files, so we answer in its place. */
static wasmtime_error_t *watch_preopens(wasmtime_component_linker_t *linker, const struct world *w,
                                        const struct engine_run *run) {
  char interface[sizeof w->preopens], function[] = "get-directories";
  wasmtime_component_linker_instance_t *root, *instance;
  if (!w->preopens[0] || run->spec->preopen_count)
    return NULL;
  memcpy(interface, w->preopens, sizeof interface);
  engine.wasmtime_component_linker_allow_shadowing(linker, true);
  root = engine.wasmtime_component_linker_root(linker);
  wasmtime_error_t *error = engine.wasmtime_component_linker_instance_add_instance(
      root, interface, strlen(interface), &instance);
  if (!error) {
    error = engine.wasmtime_component_linker_instance_add_func(
        instance, function, sizeof function - 1, no_directories, (void *)(uintptr_t)run, NULL);
    engine.wasmtime_component_linker_instance_delete(instance);
  }
  engine.wasmtime_component_linker_instance_delete(root);
  return error;
}

static wasmtime_component_linker_t *new_linker(wasm_engine_t *which, bool http,
                                               wasmtime_error_t **error) {
  wasmtime_component_linker_t *linker = engine.wasmtime_component_linker_new(which);
  *error = engine.wasmtime_component_linker_add_wasip2(linker);
  if (!*error && http)
    *error = engine.wasmtime_component_linker_add_wasi_http(linker);
  return linker;
}

/* By kind of the engine, with everything in them: made before the fork, by a zygote that stays. */
static wasmtime_component_linker_t *ready[2];

void engine_component_ready(uint32_t kind) {
  wasmtime_error_t *error;
  ready[kind] = new_linker(engine_of(kind, false), true, &error);
  if (!error)
    return;
  engine.wasmtime_error_delete(error); /* whoever needs one makes it, and reports why it cannot */
  ready[kind] = NULL;
}

static wasmtime_component_linker_t *make_linker(wasm_engine_t *which, const struct world *w,
                                                const struct engine_run *run,
                                                wasmtime_error_t **error) {
  wasmtime_component_linker_t *linker = ready[run->spec->engine];
  *error = NULL;
  if (!linker || run->spec->limits.fuel != WS_UNLIMITED) /* metering is another engine's */
    linker = new_linker(which, w->http, error);
  if (!*error)
    *error = watch_preopens(linker, w, run);
  return linker;
}

int engine_component_execute(const struct engine_run *run) {
  static wasmtime_component_instance_t instance;
  static struct world world;
  wasmtime_error_t *error;
  wasm_engine_t *which = engine_of(run->spec->engine, run->spec->limits.fuel != WS_UNLIMITED);
  look_at(which, &world);
  int status = check(&world, run);
  if (status)
    return status;
  wasmtime_context_t *context = engine_make_store(run, -1);
  wasmtime_component_linker_t *linker = make_linker(which, &world, run, &error);
  if (!error)
    error = engine.wasmtime_context_set_wasi(context, engine_component_take_wasi());
  if (error)
    return refuse(error, run);
  engine.wasmtime_context_set_wasi_http(context);
  engine_enter_guest(context, run);
  error = engine.wasmtime_component_linker_instantiate(linker, context, component, &instance);
  if (error)
    return refuse(error, run);
  if (run->spec->invoke.len)
    return engine_component_invoke(context, &instance, run);
  return call_run(context, &instance, world.run, run);
}
