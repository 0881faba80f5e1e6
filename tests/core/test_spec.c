/* The launch spec's decoder, field by field: what it takes, and each thing that it refuses.  */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/spec.h"

enum { FD_COUNT = 10 };

static int failures;

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      failures++;                                                                    \
      fprintf(stderr, "%s:%d: FAILED: %s\n", __FILE__, __LINE__, #condition);        \
    }                                                                                \
  } while (0)

/* A message under construction. */
static struct {
  uint8_t bytes[WS_SPEC_MAX_BYTES];
  size_t len;
  uint32_t fields;
} m;

static struct ws_spec spec;
static struct ws_error error;

static void put(const void *bytes, size_t len) {
  if (len)
    memcpy(m.bytes + m.len, bytes, len);
  m.len += len;
}

static void put_u32(uint32_t value) { put(&value, sizeof value); }

static void field(uint32_t tag, const void *payload, size_t len) {
  put_u32(tag);
  put_u32((uint32_t)len);
  put(payload, len);
  m.fields++;
}

static void words(uint32_t tag, size_t count, const uint32_t *values) {
  field(tag, values, count * sizeof *values);
}

#define WORDS(tag, ...)                                                                          \
  words(tag, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

static void text(uint32_t tag, const char *value) { field(tag, value, strlen(value)); }

static void preopen(uint32_t source, uint32_t fd, uint32_t flags, const char *name, size_t len) {
  uint8_t payload[256];
  uint32_t head[4] = {source, fd, flags, 0};
  uint64_t size = 4096;
  memcpy(payload, head, sizeof head);
  memcpy(payload + sizeof head, &size, sizeof size);
  memcpy(payload + sizeof head + sizeof size, name, len);
  field(WS_TAG_PREOPEN, payload, sizeof head + sizeof size + len);
}

static void filter(uint32_t stage, size_t bytes) {
  static uint8_t payload[4 + (BPF_MAXINSNS + 1) * sizeof(struct sock_filter)];
  memset(payload, 6, sizeof payload);
  memcpy(payload, &stage, sizeof stage);
  field(WS_TAG_FILTER, payload, sizeof stage + bytes);
}

static void begin(void) {
  m.len = 0;
  m.fields = 0;
  put(WS_SPEC_MAGIC, 8);
  put_u32(0);
  put_u32(0);
}

static void limits(uint64_t fds) {
  uint64_t values[8] = {1, 2, fds, 4, 5, 6, 7, 8};
  field(WS_TAG_LIMITS, values, sizeof values);
}

/* What every run needs. */
static void begin_run(void) {
  begin();
  WORDS(WS_TAG_KIND, WS_KIND_RUN);
  WORDS(WS_TAG_ENGINE, WS_ENGINE_PULLEY);
  WORDS(WS_TAG_ARTIFACT, 3);
  limits(64);
}

static int decode_as_is(size_t len) {
  /* A copy of the exact size: the sanitizer sees a byte read too far. */
  static uint8_t *copy;
  free(copy);
  copy = malloc(len ? len : 1);
  memcpy(copy, m.bytes, len);
  error = (struct ws_error){0};
  return ws_spec_decode(&spec, copy, len, FD_COUNT, &error);
}

static int decode(void) {
  uint32_t len = (uint32_t)m.len;
  memcpy(m.bytes + 8, &len, sizeof len);
  memcpy(m.bytes + 12, &m.fields, sizeof m.fields);
  return decode_as_is(m.len);
}

static void accepted(void) {
  CHECK(decode() == 0);
  CHECK(error.detail[0] == 0);
}

static void refused(void) {
  CHECK(decode() == -EINVAL);
  CHECK(strcmp(error.step, "launch spec") == 0 && error.detail[0]);
  ws_spec_clear(&spec);
}

static void test_smallest(void) {
  begin_run();
  accepted();
  CHECK(spec.kind == WS_KIND_RUN && spec.engine == WS_ENGINE_PULLEY && spec.artifact == 3);
  CHECK(spec.limits.memory == 1 && spec.limits.fds == 64 && spec.limits.data_overhead == 8);
  CHECK(spec.stdio[0] == WS_SPEC_NO_FD && spec.module == WS_SPEC_NO_FD);
  CHECK(spec.umask == 022 && spec.threads == 1 && !spec.has_identity);
  CHECK(spec.arg_count == 0 && spec.invoke.len == 0 && spec.filter[0].len == 0);
  ws_spec_clear(&spec);
}

static void test_strings(void) {
  begin_run();
  text(WS_TAG_ARG, "one");
  text(WS_TAG_ENV, "K=V");
  text(WS_TAG_ARG, "");
  text(WS_TAG_ARG, "\xff\xfe");
  text(WS_TAG_INVOKE, "main");
  accepted();
  CHECK(spec.arg_count == 3 && spec.env_count == 1);
  CHECK(spec.args[0].len == 3 && memcmp(spec.args[0].bytes, "one", 3) == 0);
  CHECK(spec.args[1].len == 0 && spec.args[2].len == 2);
  CHECK(spec.env[0].len == 3 && spec.invoke.len == 4);
  ws_spec_clear(&spec);
  const uint32_t tags[] = {WS_TAG_ARG, WS_TAG_ENV, WS_TAG_INVOKE};
  for (size_t i = 0; i < 3; i++) {
    begin_run();
    field(tags[i], "a\0b", 3);
    refused();
  }
}

static void test_preopens(void) {
  begin_run();
  preopen(WS_SOURCE_DIR, 4, WS_PREOPEN_READ_ONLY, "/data", 5);
  preopen(WS_SOURCE_TMPFS, WS_SPEC_NO_FD, 0, "/tmp", 4);
  preopen(WS_SOURCE_LISTENER, 5, 0, "", 0);
  accepted();
  CHECK(spec.preopen_count == 3);
  CHECK(spec.preopens[0].fd_index == 4 && spec.preopens[0].flags == WS_PREOPEN_READ_ONLY);
  CHECK(spec.preopens[1].size == 4096 && spec.preopens[2].source == WS_SOURCE_LISTENER);
  ws_spec_clear(&spec);
  static const struct {
    uint32_t source, fd, flags;
  } bad[] = {{3, 4, 0},
             {WS_SOURCE_DIR, WS_SPEC_NO_FD, 0},
             {WS_SOURCE_TMPFS, 4, 0},
             {WS_SOURCE_DIR, 0, 0},
             {WS_SOURCE_DIR, 1, 0},
             {WS_SOURCE_DIR, FD_COUNT, 0},
             {WS_SOURCE_DIR, 4, 2}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    begin_run();
    preopen(bad[i].source, bad[i].fd, bad[i].flags, "x", 1);
    refused();
  }
  begin_run();
  preopen(WS_SOURCE_DIR, 4, 0, "a\0b", 3);
  refused();
  for (uint32_t count = WS_SPEC_MAX_PREOPENS; count <= WS_SPEC_MAX_PREOPENS + 1; count++) {
    begin_run();
    for (uint32_t i = 0; i < count; i++)
      preopen(WS_SOURCE_TMPFS, WS_SPEC_NO_FD, 0, "x", 1);
    CHECK((decode() == 0) == (count == WS_SPEC_MAX_PREOPENS));
    ws_spec_clear(&spec);
  }
}

static void test_filters(void) {
  const size_t each = sizeof(struct sock_filter);
  begin_run();
  filter(1, each);
  filter(2, BPF_MAXINSNS * each);
  accepted();
  CHECK(spec.filter[0].len == 1 && spec.filter[1].len == BPF_MAXINSNS);
  CHECK(spec.filter[1].filter[BPF_MAXINSNS - 1].code == 0x0606);
  ws_spec_clear(&spec);
  static const struct {
    uint32_t stage;
    size_t bytes;
  } bad[] = {{0, 8}, {3, 8}, {1, 0}, {1, 7}, {2, (BPF_MAXINSNS + 1) * sizeof(struct sock_filter)}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    begin_run();
    filter(bad[i].stage, bad[i].bytes);
    refused();
  }
  begin_run();
  filter(1, each);
  filter(1, each);
  refused();
}

static void test_numbers(void) {
  begin_run();
  WORDS(WS_TAG_STDIO, 2, WS_SPEC_NO_FD, 9);
  WORDS(WS_TAG_IDENTITY, 1000, 1001, 4, 24);
  WORDS(WS_TAG_UMASK, 0777);
  WORDS(WS_TAG_THREADS, 256);
  WORDS(WS_TAG_FORM, WS_FORM_COMPONENT);
  WORDS(WS_TAG_CLOCK_RES, 1, 0);
  accepted();
  CHECK(spec.stdio[0] == 2 && spec.stdio[1] == WS_SPEC_NO_FD && spec.stdio[2] == 9);
  CHECK(spec.has_identity && spec.uid == 1000 && spec.gid == 1001 && spec.group_count == 2);
  CHECK(spec.groups[1] == 24 && spec.clock_resolution_ns == 1);
  ws_spec_clear(&spec);
  static const struct {
    uint32_t tag, values[3];
    size_t count;
  } bad[] = {{WS_TAG_UMASK, {01000}, 1},     {WS_TAG_THREADS, {0}, 1},
             {WS_TAG_FORM, {2}, 1},         {WS_TAG_FORM, {1, 1}, 2},
             {WS_TAG_THREADS, {257}, 1},     {WS_TAG_STDIO, {2, 3}, 2},
             {WS_TAG_STDIO, {0, 3, 4}, 3},   {WS_TAG_IDENTITY, {1}, 1},
             {WS_TAG_CLOCK_RES, {1}, 1},     {WS_TAG_ALLOW_MISSING, {1, 2}, 2},
             {WS_TAG_MODULE, {WS_SPEC_NO_FD}, 1}, {WS_TAG_OUTPUT, {3, FD_COUNT}, 2}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    begin_run();
    words(bad[i].tag, bad[i].count, bad[i].values);
    refused();
  }
  static uint32_t groups[2 + WS_SPEC_MAX_GROUPS + 1];
  begin_run();
  words(WS_TAG_IDENTITY, 2 + WS_SPEC_MAX_GROUPS, groups);
  CHECK(decode() == 0 && spec.group_count == WS_SPEC_MAX_GROUPS);
  ws_spec_clear(&spec);
  begin_run();
  words(WS_TAG_IDENTITY, 2 + WS_SPEC_MAX_GROUPS + 1, groups);
  refused();
}

/* A field that is given twice, or that is missing. */
static void test_presence(void) {
  const uint32_t once[] = {WS_TAG_KIND, WS_TAG_ENGINE, WS_TAG_UMASK, WS_TAG_ALLOW_MISSING};
  for (size_t i = 0; i < sizeof once / sizeof *once; i++) {
    begin_run();
    WORDS(once[i], 0);
    if (once[i] > WS_TAG_ENGINE)
      WORDS(once[i], 0);
    refused();
  }
  begin();
  refused();
  begin();
  WORDS(WS_TAG_KIND, WS_KIND_COMPILE);
  WORDS(WS_TAG_ENGINE, WS_ENGINE_CRANELIFT);
  limits(64);
  WORDS(WS_TAG_MODULE, 4);
  refused(); /* no output */
  begin();
  WORDS(WS_TAG_KIND, WS_KIND_COMPILE);
  WORDS(WS_TAG_ENGINE, WS_ENGINE_CRANELIFT);
  limits(64);
  WORDS(WS_TAG_MODULE, 4);
  WORDS(WS_TAG_OUTPUT, 5, 6);
  accepted();
  CHECK(spec.module == 4 && spec.output == 5 && spec.description == 6);
  ws_spec_clear(&spec);
  begin();
  WORDS(WS_TAG_KIND, 2);
  WORDS(WS_TAG_ENGINE, 0);
  WORDS(WS_TAG_ARTIFACT, 3);
  limits(64);
  refused();
}

static void test_frame(void) {
  const uint32_t unknown[] = {0, 6, 24, 63, 64, 0x10000 | WS_TAG_ARG, UINT32_MAX};
  for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
    begin_run();
    field(unknown[i], "", 0);
    refused();
  }
  begin_run();
  CHECK(decode() == 0);
  ws_spec_clear(&spec);
  for (size_t len = 0; len < m.len; len++) { /* cut short anywhere */
    CHECK(decode_as_is(len) < 0);
    ws_spec_clear(&spec);
  }
  static const size_t lies[] = {0, 8, 12, 20}; /* magic, total, count, first field's length */
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
    for (uint32_t bit = 0; bit < 32; bit++) {
      begin_run();
      CHECK(decode() == 0);
      ws_spec_clear(&spec);
      m.bytes[lies[i] + bit / 8] ^= (uint8_t)(1u << bit % 8);
      CHECK(decode_as_is(m.len) < 0);
      ws_spec_clear(&spec);
    }
  begin_run();
  limits(1u << 20 | 1);
  refused();
}

static void rule(uint8_t allow, uint8_t actions, uint8_t protocol, uint8_t family, uint8_t prefix,
                 uint16_t low, uint16_t high) {
  struct ws_rule r = {.allow = allow, .actions = actions, .protocol = protocol, .family = family,
                      .prefix = prefix, .low = low, .high = high};
  field(WS_TAG_RULE, &r, sizeof r);
}

static void begin_broker(void) {
  begin();
  WORDS(WS_TAG_KIND, WS_KIND_BROKER);
  WORDS(WS_TAG_ENGINE, WS_ENGINE_CRANELIFT);
  WORDS(WS_TAG_BROKER, 4);
  limits(64);
}

static void test_broker(void) {
  begin_broker();
  rule(1, 3, 3, 4, 32, 1, 65535);
  rule(0, 1, 2, 6, 128, 53, 53);
  accepted();
  CHECK(spec.kind == WS_KIND_BROKER && spec.broker == 4 && spec.rule_count == 2);
  CHECK(spec.rules[0].allow == 1 && spec.rules[1].prefix == 128 && spec.rules[1].low == 53);
  ws_spec_clear(&spec);
  static const uint16_t wrong[][7] = {
      {2, 1, 1, 4, 32, 1, 1}, {1, 0, 1, 4, 32, 1, 1},   {1, 4, 1, 4, 32, 1, 1},
      {1, 1, 0, 4, 32, 1, 1}, {1, 1, 4, 4, 32, 1, 1},   {1, 1, 1, 5, 32, 1, 1},
      {1, 1, 1, 4, 33, 1, 1}, {1, 1, 1, 6, 129, 1, 1},  {1, 1, 1, 4, 32, 2, 1},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    const uint16_t *w = wrong[i];
    begin_broker();
    rule((uint8_t)w[0], (uint8_t)w[1], (uint8_t)w[2], (uint8_t)w[3], (uint8_t)w[4], w[5], w[6]);
    refused();
  }
  struct ws_rule whole = {.allow = 1, .actions = 1, .protocol = 1, .family = 4};
  for (size_t len = 0; len <= sizeof whole + 1; len++) { /* of this length and of no other */
    uint8_t bytes[sizeof whole + 1] = {0};
    memcpy(bytes, &whole, sizeof whole);
    begin_broker();
    field(WS_TAG_RULE, bytes, len);
    if (len == sizeof whole)
      CHECK(decode() == 0);
    else
      refused();
    ws_spec_clear(&spec);
  }
  begin_broker(); /* it holds one descriptor and nothing else */
  preopen(WS_SOURCE_DIR, 5, 0, "/data", 5);
  refused();
  begin_broker();
  WORDS(WS_TAG_STDIO, 2, 2, 2);
  refused();
  begin();
  WORDS(WS_TAG_KIND, WS_KIND_BROKER);
  WORDS(WS_TAG_ENGINE, WS_ENGINE_CRANELIFT);
  limits(64);
  refused();
}

static void name(uint32_t count, uint32_t family, size_t entries, const char *host) {
  uint8_t payload[512];
  size_t len = sizeof count;
  memcpy(payload, &count, sizeof count);
  for (size_t i = 0; i < entries; i++, len += WS_NAME_ADDRESS) {
    memset(payload + len, 0, WS_NAME_ADDRESS);
    memcpy(payload + len, &family, sizeof family);
  }
  memcpy(payload + len, host, strlen(host));
  field(WS_TAG_NAME, payload, len + strlen(host));
}

static void test_component_network(void) {
  char longest[WS_SPEC_MAX_HOST + 2];
  memset(longest, 'a', sizeof longest);
  longest[WS_SPEC_MAX_HOST + 1] = 0;
  begin_run();
  WORDS(WS_TAG_FORM, WS_FORM_COMPONENT);
  WORDS(WS_TAG_BROKER, 4);
  WORDS(WS_TAG_RESOLVER, 5);
  name(2, 6, 2, "host.example");
  name(0, 4, 0, longest + 1);
  accepted();
  CHECK(spec.broker == 4 && spec.resolver == 5 && spec.name_count == 2 && spec.names[0].count == 2);
  CHECK(spec.names[0].host.len == 12 && memcmp(spec.names[0].host.bytes, "host.example", 12) == 0);
  ws_spec_clear(&spec);
  static const struct {
    uint32_t count, family;
    size_t entries;
    const char *host;
  } wrong[] = {{1, 4, 0, "a"},  {1, 5, 1, "a"}, {1, 4, 1, ""}, {UINT32_MAX, 4, 1, "a"},
               {13, 4, 12, "a"}};
  for (size_t i = 0; i <= sizeof wrong / sizeof *wrong; i++) {
    begin_run();
    WORDS(WS_TAG_FORM, WS_FORM_COMPONENT);
    if (i < sizeof wrong / sizeof *wrong)
      name(wrong[i].count, wrong[i].family, wrong[i].entries, wrong[i].host);
    else
      name(0, 4, 0, longest);
    refused();
  }
  const uint32_t networks[] = {WS_TAG_BROKER, WS_TAG_RESOLVER};
  for (size_t i = 0; i < 2; i++) { /* a module has none */
    begin_run();
    WORDS(networks[i], 4);
    refused();
  }
  begin_run(); /* the rules are not for the worker */
  WORDS(WS_TAG_FORM, WS_FORM_COMPONENT);
  rule(1, 3, 3, 4, 32, 1, 65535);
  refused();
}

int main(void) {
  test_broker();
  test_component_network();
  test_smallest();
  test_strings();
  test_preopens();
  test_filters();
  test_numbers();
  test_presence();
  test_frame();
  ws_spec_clear(&spec);
  printf("%d failures\n", failures);
  return failures != 0;
}
