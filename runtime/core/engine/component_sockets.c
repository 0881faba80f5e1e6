/* Lets a component make sockets, as far as the library is concerned: the walls decide.
 *
 * The library refuses TCP and UDP unless it is told otherwise (wasmtime's pull request 13936 of July
 * 2026), and its C interface has a way to say so for look-ups of names alone.  The three are
 * neighbours: struct AllowedNetworkUses { ip_name_lookup: bool, udp: bool, tcp: bool }.  The first is
 * found by what the interface's function changes, and the other two follow it.  Should a release keep
 * them elsewhere, more or less than one byte changes, or the next two are not the zeros that they are
 * by default, and no component is run: a test of the suite then says what there is to do.
 *
 * A byte that is wrong could grant nothing: all of this is the first wall's, behind which the worker
 * has no network.  */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/component.h"

static const char STEP[] = "component";

/* Where the one byte is that differs; 0 when there is not one. */
static size_t changed_byte(const uint8_t *before, const uint8_t *after, size_t size) {
  size_t at = 0, count = 0;
  for (size_t i = 0; i < size; i++)
    if (before[i] != after[i]) {
      at = i;
      count++;
    }
  return count == 1 ? at : 0;
}

int engine_component_allow_sockets(wasi_config_t *config, struct ws_error *e) {
  enum { UDP = 1, TCP = 2 };
  size_t size = malloc_usable_size(config);
  uint8_t *bytes = (uint8_t *)config, *before = malloc(size);
  if (!before)
    return ws_fail(e, ENOMEM, STEP, "%zu bytes", size);
  memcpy(before, bytes, size);
  engine.wasi_config_allow_ip_name_lookup(config, true);
  size_t at = changed_byte(before, bytes, size);
  free(before);
  if (!at || at + TCP >= size || bytes[at] != 1 || bytes[at + UDP] || bytes[at + TCP])
    return ws_fail(e, ENOTSUP, STEP, "this release of the engine has its switch for sockets elsewhere");
  bytes[at + UDP] = bytes[at + TCP] = 1;
  return 0;
}
