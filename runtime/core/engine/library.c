#include "engine/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

struct engine_library engine;

int engine_library_load(const char *path, const char *release, struct ws_error *e) {
  if (strcmp(release, WASMTIME_RELEASE) != 0)
    return ws_fail(e, ELIBBAD, "engine",
                   "this core is built for wasmtime " WASMTIME_RELEASE ", found %s", release);
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle)
    return ws_fail(e, ELIBACC, "engine", "%s", dlerror());
#define ENGINE_LOOKUP(name)                                                                        \
  engine.name = (__typeof__(name) *)dlsym(handle, #name);                                          \
  if (!engine.name)                                                                                \
    return ws_fail(e, ELIBBAD, "engine", "%s has no function " #name, path);
  ENGINE_SYMBOLS(ENGINE_LOOKUP)
#undef ENGINE_LOOKUP
  return 0; /* never unloaded: the worker's code is in it */
}
