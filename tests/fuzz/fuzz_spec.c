/* The decoder of the launch spec: bytes from outside the worker, read before any wall stands.
 *
 * Input: one byte, how many descriptors came along, then the spec.  Besides what the sanitizers see,
 * each accepted spec is checked for what the rest of the worker takes for granted.  */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { HEADER = 16, MAGIC_BYTES = 8, FIELD_HEADER = 8 };

#define REQUIRE(condition)                                                                        \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);              \
      abort();                                                                                    \
    }                                                                                             \
  } while (0)

static const uint8_t *input;
static size_t input_size;

static void check_bytes(const struct ws_bytes *b) {
  if (!b->bytes)
    return;
  const uint8_t *at = (const uint8_t *)b->bytes;
  REQUIRE(at >= input && b->len <= input_size && at + b->len <= input + input_size);
  REQUIRE(b->len == 0 || !memchr(b->bytes, 0, b->len));
}

static void check_fd(uint32_t index, uint32_t fd_count) {
  REQUIRE(index == WS_SPEC_NO_FD || (index >= 2 && index < fd_count));
}

static void check_descriptors(const struct ws_spec *s, uint32_t fd_count) {
  for (int i = 0; i < 3; i++)
    check_fd(s->stdio[i], fd_count);
  check_fd(s->artifact, fd_count);
  check_fd(s->module, fd_count);
  check_fd(s->output, fd_count);
  check_fd(s->description, fd_count);
  check_fd(s->broker, fd_count);
  check_fd(s->resolver, fd_count);
  if (s->kind == WS_KIND_RUN)
    REQUIRE(s->artifact != WS_SPEC_NO_FD);
  else if (s->kind == WS_KIND_BROKER)
    REQUIRE(s->broker != WS_SPEC_NO_FD && s->artifact == WS_SPEC_NO_FD && !s->preopen_count);
  else
    REQUIRE(s->module != WS_SPEC_NO_FD && s->output != WS_SPEC_NO_FD &&
            s->description != WS_SPEC_NO_FD);
}

static void check_grants(const struct ws_spec *s, uint32_t fd_count) {
  REQUIRE(s->preopen_count <= WS_SPEC_MAX_PREOPENS);
  for (size_t i = 0; i < s->preopen_count; i++) {
    const struct ws_preopen_spec *p = &s->preopens[i];
    REQUIRE(p->source <= WS_SOURCE_LISTENER && (p->flags & ~(uint32_t)WS_PREOPEN_READ_ONLY) == 0);
    REQUIRE((p->fd_index == WS_SPEC_NO_FD) == (p->source == WS_SOURCE_TMPFS));
    check_fd(p->fd_index, fd_count);
    check_bytes(&p->name);
  }
}

static void check_network(const struct ws_spec *s) {
  REQUIRE(s->rule_count <= WS_SPEC_MAX_RULES && s->name_count <= WS_SPEC_MAX_NAMES);
  REQUIRE(s->form == WS_FORM_COMPONENT || s->kind == WS_KIND_BROKER ||
          (s->broker == WS_SPEC_NO_FD && s->resolver == WS_SPEC_NO_FD && !s->name_count));
  for (size_t i = 0; i < s->rule_count; i++) {
    const struct ws_rule *r = &s->rules[i];
    REQUIRE(s->kind == WS_KIND_BROKER && r->prefix <= (r->family == 4 ? 32 : 128));
    REQUIRE(r->low <= r->high && (r->family == 4 || r->family == 6));
  }
  for (size_t i = 0; i < s->name_count; i++) {
    const struct ws_name *n = &s->names[i];
    check_bytes(&n->host);
    REQUIRE(n->host.len >= 1 && n->host.len <= WS_SPEC_MAX_HOST);
    REQUIRE(n->count == 0 || (n->addresses >= input &&
                              n->addresses + n->count * WS_NAME_ADDRESS <= input + input_size));
  }
}

static void check(const struct ws_spec *s, uint32_t fd_count) {
  REQUIRE(s->kind <= WS_KIND_BROKER && s->engine <= WS_ENGINE_PULLEY);
  REQUIRE(s->group_count <= WS_SPEC_MAX_GROUPS && s->umask <= 0777);
  REQUIRE(s->threads >= 1 && s->threads <= 256);
  for (size_t i = 0; i < s->arg_count; i++)
    check_bytes(&s->args[i]);
  for (size_t i = 0; i < s->env_count; i++)
    check_bytes(&s->env[i]);
  check_bytes(&s->invoke);
  for (int i = 0; i < 2; i++) {
    REQUIRE(s->filter[i].len <= BPF_MAXINSNS && (s->filter[i].len == 0) == !s->filter[i].filter);
    /* Reads all of it: its size is in the sanitizer's books. */
    for (unsigned j = 0; j < s->filter[i].len; j++)
      REQUIRE(s->filter[i].filter[j].code <= UINT16_MAX);
  }
  check_descriptors(s, fd_count);
  check_grants(s, fd_count);
  check_network(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct ws_spec spec;
  if (size < 1)
    return -1;
  const uint32_t fd_count = data[0];
  /* A block of its own, so that reading a byte too far is reading outside of it. */
  input_size = size - 1;
  uint8_t *copy = malloc(input_size ? input_size : 1);
  REQUIRE(copy);
  memcpy(copy, data + 1, input_size);
  input = copy;
  struct ws_error error = {0};
  int result = ws_spec_decode(&spec, copy, input_size, fd_count, &error);
  if (result == 0)
    check(&spec, fd_count);
  else
    REQUIRE(result < 0 && error.step[0] && memchr(error.step, 0, sizeof error.step) &&
            memchr(error.detail, 0, sizeof error.detail));
  ws_spec_clear(&spec);
  free(copy);
  return 0;
}

static void put_u32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

/* Makes the frame true again after a mutation, so that most inputs reach the fields. */
static void mend(uint8_t *spec, size_t size) {
  uint32_t count = 0;
  size_t at = HEADER;
  while (at + FIELD_HEADER <= size) {
    uint32_t length;
    memcpy(&length, spec + at + 4, sizeof length);
    size_t left = size - at - FIELD_HEADER;
    if (length > left)
      put_u32(spec + at + 4, length = (uint32_t)left);
    at += FIELD_HEADER + length;
    count++;
  }
  memcpy(spec, WS_SPEC_MAGIC, MAGIC_BYTES);
  put_u32(spec + 8, (uint32_t)size);
  put_u32(spec + 12, count);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 && size >= 1 + HEADER)
    mend(data + 1, size - 1);
  return size;
}
