#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/record.h"
#include "engine/engine.h"
#include "jail/jail.h"
#include "network/network.h"
#include "spec/spec.h"
#include "wasi/wasi.h"

/* Exit statuses when nothing but the process is looked at; the record says more. */
enum { STATUS_SETUP = 125, STATUS_INVALID = 126 };

static struct ws_record *record;

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Leaves without atexit handlers and without tearing the instance down: the kernel does it. */
static _Noreturn void leave(int status) { _exit(status); }

static _Noreturn void fail_setup(const struct ws_error *e) {
  if (record) {
    record->err = (uint32_t)e->err;
    memcpy(record->step, e->step, sizeof record->step);
    ws_record_outcome(record, WS_OUTCOME_SETUP, (uint32_t)e->err, e->detail, strlen(e->detail));
  }
  leave(STATUS_SETUP);
}

/* The engine gives up (a failed allocation, a broken invariant) by calling abort, whose usual steps
 * the filter does not admit.  The library finds this definition before the C library's. */
__attribute__((visibility("default"))) void abort(void) {
  if (record && record->outcome == WS_OUTCOME_COMPILED)
    leave(0); /* only the description failed */
  void *probe = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool short_of_memory = probe == MAP_FAILED;
  ws_record_outcome(record, short_of_memory ? WS_OUTCOME_MEMORY : WS_OUTCOME_ABORT, 0, NULL, 0);
  leave(short_of_memory ? 137 : 134);
}

/* Ends the run from inside a WASI function: proc_exit, proc_raise, the output quota. */
__attribute__((noreturn)) static void finish(void *arg, enum ws_outcome outcome, uint32_t code) {
  (void)arg;
  engine_note_usage();
  ws_record_outcome(record, outcome, code, NULL, 0);
  if (outcome == WS_OUTCOME_EXIT)
    leave(code > 255 ? 255 : (int)code);
  leave(outcome == WS_OUTCOME_RAISED ? 128 + (int)(code & 127) : 153);
}

static void map_record(int fd) {
  struct stat st;
  if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < WS_RECORD_SIZE)
    leave(STATUS_SETUP);
  void *at = mmap(NULL, WS_RECORD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED)
    leave(STATUS_SETUP);
  record = at;
  record->magic = WS_RECORD_MAGIC;
  record->version = WS_RECORD_VERSION;
  record->phase = WS_PHASE_SETUP;
  record->t_setup_ns = now_ns();
}

/* Copied out of the memfd: what is decoded cannot change under the decoder. */
static int read_spec(int fd, uint32_t fd_count, struct ws_spec *spec, struct ws_error *e) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return ws_fail(e, errno, "launch spec", "fstat");
  if (st.st_size <= 0 || st.st_size > WS_SPEC_MAX_BYTES)
    return ws_fail(e, EMSGSIZE, "launch spec", "%lld bytes", (long long)st.st_size);
  uint8_t *bytes = malloc((size_t)st.st_size);
  if (!bytes)
    return ws_fail(e, ENOMEM, "launch spec", "%lld bytes", (long long)st.st_size);
  ssize_t n = pread(fd, bytes, (size_t)st.st_size, 0);
  if (n != st.st_size)
    return ws_fail(e, n < 0 ? errno : EIO, "launch spec", "reading");
  return ws_spec_decode(spec, bytes, (size_t)n, fd_count, e); /* strings point into `bytes` */
}

static struct wasi_ctx *make_wasi(const struct jail *j, struct ws_error *e) {
  const struct ws_spec *s = j->spec;
  static struct wasi_preopen preopens[WS_SPEC_MAX_PREOPENS];
  for (size_t i = 0; i < s->preopen_count; i++)
    preopens[i] = (struct wasi_preopen){
        .kind = s->preopens[i].source == WS_SOURCE_LISTENER ? WASI_PREOPEN_LISTENER : WASI_PREOPEN_DIR,
        .fd = j->preopens[i],
        .read_only = (s->preopens[i].flags & WS_PREOPEN_READ_ONLY) != 0,
        .name = s->preopens[i].name.bytes,
        .name_len = s->preopens[i].name.len,
    };
  struct wasi_config config = {
      .args = s->args,
      .arg_count = s->arg_count,
      .env = s->env,
      .env_count = s->env_count,
      .stdio = {j->stdio[0], j->stdio[1], j->stdio[2]},
      .preopens = preopens,
      .preopen_count = s->preopen_count,
      .max_fds = (uint32_t)s->limits.fds,
      .max_output = s->limits.output,
      .clock_resolution_ns = s->clock_resolution_ns,
      .record = record,
      .finish = finish,
  };
  struct wasi_ctx *wasi = wasi_ctx_new(&config);
  if (!wasi)
    ws_fail(e, errno, "wasi", "%zu preopens, %u descriptors", s->preopen_count, config.max_fds);
  return wasi;
}

/* A component's preopens are opened by the library, by path: through the new root, or by the
 * descriptor where there is no mount namespace.  Ours are closed then. */
static int make_component_wasi(const struct jail *j, const struct engine_run *run,
                               struct ws_error *e) {
  static struct engine_preopen preopens[WS_SPEC_MAX_PREOPENS];
  const struct ws_spec *s = j->spec;
  for (size_t i = 0; i < s->preopen_count; i++) {
    struct engine_preopen *p = &preopens[i];
    if (s->preopens[i].source == WS_SOURCE_LISTENER)
      return ws_fail(e, EOPNOTSUPP, "wasi", "a component takes no listening socket as a preopen");
    p->name = s->preopens[i].name;
    p->read_only = (s->preopens[i].flags & WS_PREOPEN_READ_ONLY) != 0;
    if (j->base.clone_walls & WS_WALL_NAMESPACES)
      snprintf(p->path, sizeof p->path, "/%zu", i);
    else
      snprintf(p->path, sizeof p->path, "/proc/self/fd/%d", j->preopens[i]);
  }
  int r = engine_component_prepare(run, j->stdio, preopens, s->preopen_count, e);
  for (size_t i = 0; i < s->preopen_count && !r; i++)
    close(j->preopens[i]);
  return r;
}

static int prepare_wasi(const struct jail *j, struct engine_run *run, struct ws_error *e) {
  if (j->spec->form == WS_FORM_COMPONENT)
    return make_component_wasi(j, run, e);
  run->wasi = make_wasi(j, e);
  return run->wasi ? 0 : -EINVAL; /* the error is filled */
}

#ifdef WASISUP_HOSTILE
/* Test builds only: native code in the guest's place, behind both filters. */
int hostile_main(int argc, char **argv);

static int run_payload(const struct ws_spec *s) {
  static char *argv[64];
  int argc = 0;
  for (size_t i = 0; i < s->arg_count && i < 63; i++)
    argv[argc++] = strndup(s->args[i].bytes, s->args[i].len);
  record->phase = WS_PHASE_RUNNING;
  int status = hostile_main(argc, argv);
  ws_record_outcome(record, WS_OUTCOME_EXIT, (uint32_t)status, NULL, 0);
  return status;
}
#endif

/* A small artifact is copied when it is loaded, so that no mount has to be made for it; a large one is
 * mapped from its file. */
enum { MAPPED_ARTIFACT = 1 << 20 };

static void map_artifact(struct jail *j, struct engine_run *run) {
  struct stat st;
  if (j->spec->artifact == WS_SPEC_NO_FD ||
      fstat(j->fds[j->spec->artifact], &st) < 0 || st.st_size <= 0 || st.st_size > MAPPED_ARTIFACT)
    return;
  void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, j->fds[j->spec->artifact], 0);
  if (at == MAP_FAILED)
    return;
  run->artifact = at;
  run->artifact_size = (size_t)st.st_size;
  j->artifact_is_mapped = true;
}

static int run_guest(struct jail *j, struct engine_run *run, struct ws_error *e) {
  run->artifact_path = j->artifact_path;
  if (engine_load(run) < 0)
    return STATUS_INVALID;
  if (jail_seal_guest(j, e) < 0)
    fail_setup(e);
#ifdef WASISUP_HOSTILE
  return run_payload(j->spec);
#else
  return engine_execute(run);
#endif
}

static int run_broker(const struct jail *j) {
  const struct broker broker = {.rules = {j->spec->rules, j->spec->rule_count}, .record = record};
  record->phase = WS_PHASE_RUNNING;
  return broker_serve(&broker);
}

/* What each kind of worker needs before its walls go up; a broker needs nothing. */
static int prepare_engine(const struct ws_spec *spec, struct ws_error *e) {
  if (spec->kind == WS_KIND_COMPILE) {
    /* The compiler's thread pool asks for the number of cores in ways that need a file system. */
    char threads[16];
    snprintf(threads, sizeof threads, "%u", spec->threads);
    setenv("RAYON_NUM_THREADS", threads, 1);
  }
  return spec->kind == WS_KIND_BROKER
             ? 0
             : engine_prepare(spec->engine, spec->limits.fuel != WS_UNLIMITED, e);
}

/* Who launches brokers is in the host's network, where nothing else may ever run. */
static int check_kind(const struct worker *w, const struct ws_spec *spec, struct ws_error *e) {
  if ((spec->kind == WS_KIND_BROKER) == w->base.for_broker)
    return 0;
  return ws_fail(e, EPERM, "launch spec", "this zygote launches %s",
                 w->base.for_broker ? "nothing but brokers" : "no brokers");
}

void worker_prepare(struct worker *w) {
  prctl(PR_SET_NAME, w->base.for_broker ? "wasisup-broker" : "wasisup-worker", 0, 0, 0);
  w->prepared = (struct ws_error){0};
  jail_prepare(&w->base, &w->prepared);
}

void worker_main(struct worker *w, int *fds, uint32_t fd_count) {
  static struct ws_spec spec;
  static struct jail jail;
  struct ws_error e = {0};
  map_record(fds[1]);
  record->walls = w->base.clone_walls;
  if (w->prepared.step[0])
    fail_setup(&w->prepared);
  if (read_spec(fds[0], fd_count, &spec, &e) < 0)
    fail_setup(&e);
  jail = (struct jail){
      .base = w->base, .spec = &spec, .record = record, .fds = fds, .fd_count = fd_count};
  if (check_kind(w, &spec, &e) < 0)
    fail_setup(&e);
  if (spec.form == WS_FORM_COMPONENT) {
    network_prepare(&spec, record);
    jail.answer = network_answer;
  }
  if (prepare_engine(&spec, &e) < 0)
    fail_setup(&e);
  struct engine_run run = {.spec = &spec, .record = record, .finish = finish};
  map_artifact(&jail, &run);
  if (jail_enter(&jail, &e) < 0)
    fail_setup(&e);
  if (spec.kind == WS_KIND_RUN && prepare_wasi(&jail, &run, &e) < 0)
    fail_setup(&e);
  if (jail_seal_loading(&jail, &e) < 0)
    fail_setup(&e);
  record->t_loading_ns = now_ns();
  record->phase = WS_PHASE_LOADING;
  if (spec.kind == WS_KIND_BROKER)
    for (int status = run_broker(&jail);;) /* as signals.c leaves, for AddressSanitizer's sake */
      syscall(SYS_exit_group, status);
  if (spec.kind == WS_KIND_COMPILE)
    leave(engine_compile(&spec, record, jail.module, jail.output, jail.description));
  leave(run_guest(&jail, &run, &e));
}
