#include "spec/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is left to read; every take_* checks before it moves. */
struct cursor {
  const uint8_t *at;
  size_t left;
};

static const char STEP[] = "launch spec";

static int take(struct cursor *c, void *out, size_t size) {
  if (c->left < size)
    return 0;
  memcpy(out, c->at, size);
  c->at += size;
  c->left -= size;
  return 1;
}

static int take_u32(struct cursor *c, uint32_t *out) { return take(c, out, sizeof *out); }

static int take_u64(struct cursor *c, uint64_t *out) { return take(c, out, sizeof *out); }

/* The rest of the payload as a string; none of ours may hold a NUL. */
static int take_string(struct cursor *c, struct ws_bytes *out) {
  if (memchr(c->at, 0, c->left))
    return 0;
  out->bytes = (const char *)c->at;
  out->len = c->left;
  c->at += c->left;
  c->left = 0;
  return 1;
}

static int take_fd(struct cursor *c, uint32_t fd_count, uint32_t *out) {
  return take_u32(c, out) && (*out == WS_SPEC_NO_FD || (*out >= 2 && *out < fd_count));
}

static int take_required_fd(struct cursor *c, uint32_t fd_count, uint32_t *out) {
  return take_fd(c, fd_count, out) && *out != WS_SPEC_NO_FD;
}

static int preopen(struct ws_spec *s, struct cursor *c, uint32_t fd_count) {
  if (s->preopen_count == WS_SPEC_MAX_PREOPENS)
    return 0;
  struct ws_preopen_spec *p = &s->preopens[s->preopen_count];
  uint32_t zero;
  if (!take_u32(c, &p->source) || p->source > WS_SOURCE_LISTENER)
    return 0;
  if (!take_fd(c, fd_count, &p->fd_index) || !take_u32(c, &p->flags) || !take_u32(c, &zero))
    return 0;
  if ((p->fd_index == WS_SPEC_NO_FD) != (p->source == WS_SOURCE_TMPFS) || zero != 0)
    return 0;
  if ((p->flags & ~(uint32_t)WS_PREOPEN_READ_ONLY) || !take_u64(c, &p->size) ||
      !take_string(c, &p->name))
    return 0;
  s->preopen_count++;
  return 1;
}

static int filter(struct ws_spec *s, struct cursor *c) {
  uint32_t stage;
  if (!take_u32(c, &stage) || stage < 1 || stage > 2 || s->filter[stage - 1].filter)
    return 0;
  size_t each = sizeof(struct sock_filter);
  if (c->left == 0 || c->left % each || c->left / each > BPF_MAXINSNS)
    return 0;
  /* Copied: instructions in the message need not be aligned for the kernel's structure. */
  struct sock_filter *copy = malloc(c->left);
  if (!copy)
    return 0;
  memcpy(copy, c->at, c->left);
  s->filter[stage - 1] = (struct sock_fprog){.len = (unsigned short)(c->left / each), .filter = copy};
  c->at += c->left;
  c->left = 0;
  return 1;
}

static int limits(struct ws_spec *s, struct cursor *c) {
  struct ws_limits *l = &s->limits;
  return take_u64(c, &l->memory) && take_u64(c, &l->cpu_ns) && take_u64(c, &l->fds) &&
         take_u64(c, &l->file_size) && take_u64(c, &l->output) && take_u64(c, &l->fuel) &&
         take_u64(c, &l->table_elements) && take_u64(c, &l->data_overhead);
}

static int identity(struct ws_spec *s, struct cursor *c) {
  s->has_identity = 1;
  if (!take_u32(c, &s->uid) || !take_u32(c, &s->gid))
    return 0;
  while (c->left) {
    if (s->group_count == WS_SPEC_MAX_GROUPS || !take_u32(c, &s->groups[s->group_count]))
      return 0;
    s->group_count++;
  }
  return 1;
}

static int name(struct ws_spec *s, struct cursor *c) {
  struct ws_name *n = &s->names[s->name_count];
  if (s->name_count == WS_SPEC_MAX_NAMES || !take_u32(c, &n->count) ||
      n->count > c->left / WS_NAME_ADDRESS)
    return 0;
  n->addresses = c->at;
  for (uint32_t i = 0; i < n->count; i++) {
    uint32_t family;
    uint8_t address[16];
    if (!take_u32(c, &family) || (family != 4 && family != 6) || !take(c, address, sizeof address))
      return 0;
  }
  s->name_count++;
  return c->left >= 1 && c->left <= WS_SPEC_MAX_HOST && take_string(c, &n->host);
}

static int rule(struct ws_spec *s, struct cursor *c) {
  struct ws_rule *r = &s->rules[s->rule_count];
  if (s->rule_count == WS_SPEC_MAX_RULES || !take(c, r, sizeof *r))
    return 0;
  s->rule_count++;
  return r->allow <= 1 && r->actions >= 1 && r->actions <= 3 && r->protocol >= 1 &&
         r->protocol <= 3 && (r->family == 4 || r->family == 6) &&
         r->prefix <= (r->family == 4 ? 32 : 128) && r->low <= r->high && !r->zero[0] &&
         !r->zero[1] && !r->zero[2] && !r->zero_end;
}

static int append(struct ws_bytes *list, size_t *count, struct cursor *c) {
  return take_string(c, &list[(*count)++]);
}

static int field(struct ws_spec *s, uint16_t tag, struct cursor *c, uint32_t fd_count) {
  switch (tag) {
  case WS_TAG_KIND: return take_u32(c, &s->kind) && s->kind <= WS_KIND_BROKER;
  case WS_TAG_ENGINE: return take_u32(c, &s->engine) && s->engine <= WS_ENGINE_PULLEY;
  case WS_TAG_ARG: return append(s->args, &s->arg_count, c);
  case WS_TAG_ENV: return append(s->env, &s->env_count, c);
  case WS_TAG_PREOPEN: return preopen(s, c, fd_count);
  case WS_TAG_STDIO:
    return take_fd(c, fd_count, &s->stdio[0]) && take_fd(c, fd_count, &s->stdio[1]) &&
           take_fd(c, fd_count, &s->stdio[2]);
  case WS_TAG_ARTIFACT: return take_required_fd(c, fd_count, &s->artifact);
  case WS_TAG_FILTER: return filter(s, c);
  case WS_TAG_LIMITS: return limits(s, c);
  case WS_TAG_INVOKE: return take_string(c, &s->invoke);
  case WS_TAG_IDENTITY: return identity(s, c);
  case WS_TAG_ALLOW_MISSING: return take_u32(c, &s->allow_missing);
  case WS_TAG_UMASK: return take_u32(c, &s->umask) && s->umask <= 0777;
  case WS_TAG_CLOCK_RES: return take_u64(c, &s->clock_resolution_ns);
  case WS_TAG_MODULE: return take_required_fd(c, fd_count, &s->module);
  case WS_TAG_OUTPUT:
    return take_required_fd(c, fd_count, &s->output) &&
           take_required_fd(c, fd_count, &s->description);
  case WS_TAG_THREADS: return take_u32(c, &s->threads) && s->threads >= 1 && s->threads <= 256;
  case WS_TAG_FORM: return take_u32(c, &s->form) && s->form <= WS_FORM_COMPONENT;
  case WS_TAG_BROKER: return take_required_fd(c, fd_count, &s->broker);
  case WS_TAG_RESOLVER: return take_required_fd(c, fd_count, &s->resolver);
  case WS_TAG_NAME: return name(s, c);
  case WS_TAG_RULE: return rule(s, c);
  default: return 0;
  }
}

static int repeatable(uint16_t tag) {
  return tag == WS_TAG_ARG || tag == WS_TAG_ENV || tag == WS_TAG_PREOPEN ||
         tag == WS_TAG_FILTER || tag == WS_TAG_NAME || tag == WS_TAG_RULE;
}

/* Reads one field's header and payload bounds. */
static int next_field(struct cursor *c, uint16_t *tag, struct cursor *payload) {
  uint32_t word, length;
  if (!take_u32(c, &word) || !take_u32(c, &length) || length > c->left || word >> 16)
    return 0;
  *tag = (uint16_t)word;
  *payload = (struct cursor){c->at, length};
  c->at += length;
  c->left -= length;
  return 1;
}

static void defaults(struct ws_spec *s) {
  memset(s, 0, sizeof *s);
  s->artifact = s->module = s->output = s->description = WS_SPEC_NO_FD;
  s->broker = s->resolver = WS_SPEC_NO_FD;
  s->stdio[0] = s->stdio[1] = s->stdio[2] = WS_SPEC_NO_FD;
  s->umask = 022;
  s->threads = 1;
}

static int complete(const struct ws_spec *s, struct ws_error *e) {
  uint64_t needs = 1ull << WS_TAG_KIND | 1ull << WS_TAG_ENGINE | 1ull << WS_TAG_LIMITS;
  static const uint64_t of_kind[] = {
      [WS_KIND_RUN] = 1ull << WS_TAG_ARTIFACT,
      [WS_KIND_COMPILE] = 1ull << WS_TAG_MODULE | 1ull << WS_TAG_OUTPUT,
      [WS_KIND_BROKER] = 1ull << WS_TAG_BROKER,
  };
  needs |= of_kind[s->kind];
  if ((s->seen & needs) != needs)
    return ws_fail(e, EINVAL, STEP, "a required field is missing (have %#llx, need %#llx)",
                   (unsigned long long)s->seen, (unsigned long long)needs);
  /* Each to whom it belongs: a broker holds nothing but its end, a module has no network. */
  const uint64_t network = 1ull << WS_TAG_BROKER | 1ull << WS_TAG_RESOLVER | 1ull << WS_TAG_NAME;
  const uint64_t granted = 1ull << WS_TAG_PREOPEN | 1ull << WS_TAG_STDIO | 1ull << WS_TAG_ARTIFACT |
                           1ull << WS_TAG_MODULE | 1ull << WS_TAG_OUTPUT | 1ull << WS_TAG_RESOLVER;
  if ((s->kind == WS_KIND_BROKER && (s->seen & granted)) ||
      (s->kind != WS_KIND_BROKER && s->form != WS_FORM_COMPONENT && (s->seen & network)) ||
      (s->kind != WS_KIND_BROKER && s->rule_count))
    return ws_fail(e, EINVAL, STEP, "fields of another kind of worker (have %#llx)",
                   (unsigned long long)s->seen);
  if (s->limits.fds > 1u << 20)
    return ws_fail(e, EINVAL, STEP, "descriptor quota above 1048576");
  return 0;
}

int ws_spec_decode(struct ws_spec *s, const uint8_t *bytes, size_t len, uint32_t fd_count,
                   struct ws_error *e) {
  defaults(s);
  struct cursor c = {bytes, len};
  uint32_t total, count;
  if (len < 16 || len > WS_SPEC_MAX_BYTES || memcmp(bytes, WS_SPEC_MAGIC, 8) != 0)
    return ws_fail(e, EINVAL, STEP, "not a launch spec (%zu bytes)", len);
  c.at += 8;
  c.left -= 8;
  take_u32(&c, &total);
  take_u32(&c, &count);
  if (total != len || count > 2 * WS_SPEC_MAX_ARGS || count > c.left / 8)
    return ws_fail(e, EINVAL, STEP, "says %u bytes and %u fields, has %zu bytes", total, count, len);
  s->args = calloc(count + 1, sizeof *s->args);
  s->env = calloc(count + 1, sizeof *s->env);
  s->names = calloc(count + 1, sizeof *s->names);
  s->rules = calloc(count + 1, sizeof *s->rules);
  if (!s->args || !s->env || !s->names || !s->rules)
    return ws_fail(e, ENOMEM, STEP, "%u fields", count);
  for (uint32_t i = 0; i < count; i++) {
    uint16_t tag;
    struct cursor payload;
    if (!next_field(&c, &tag, &payload) || tag >= 64)
      return ws_fail(e, EINVAL, STEP, "field %u of %u is cut short or unknown", i, count);
    if (!repeatable(tag) && (s->seen & 1ull << tag))
      return ws_fail(e, EINVAL, STEP, "field with tag %u given twice", tag);
    s->seen |= 1ull << tag;
    if (!field(s, tag, &payload, fd_count) || payload.left)
      return ws_fail(e, EINVAL, STEP, "field %u with tag %u is malformed", i, tag);
  }
  if (c.left)
    return ws_fail(e, EINVAL, STEP, "%zu bytes after the last field", c.left);
  return complete(s, e);
}

void ws_spec_clear(struct ws_spec *s) {
  free(s->args);
  free(s->env);
  free(s->filter[0].filter);
  free(s->filter[1].filter);
  free(s->names);
  free(s->rules);
  s->args = s->env = NULL;
  s->names = NULL;
  s->rules = NULL;
  s->filter[0] = s->filter[1] = (struct sock_fprog){0};
}
