/* The WASI of a component: the library's, given what the launch granted.
 *
 * stdout and stderr go through callbacks: the output quota and the count are ours, the same as for
 * modules (wasi/stream.c).  Everything is made before the first filter is on.  */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/component.h"

/* One thread for the runtime's own work; the guest is on the process's first one.  Threads that
 * block come and go on demand, as many as the launch allows. */
#define RUNTIME_THREADS "1"
/* A stack is writable memory, all of which counts from the start: the usual 2 MiB would be most of
 * what the host may use. */
#define THREAD_STACK "524288"
/* A heap for each thread would be 64 MiB of address space, and a page or two of each. */
enum { HEAPS = 2 };

static const char STEP[] = "wasi";
static wasi_config_t *config;

static struct {
  const struct engine_run *run;
  pthread_mutex_t lock; /* the runtime may write from any of its threads */
} output = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int wait_for_room(int fd) {
  struct pollfd watched = {.fd = fd, .events = POLLOUT};
  int n = TEMP_FAILURE_RETRY(ppoll(&watched, 1, NULL, NULL));
  return n < 0 ? -errno : 0;
}

/* Writes it all: the library takes a part for an error. */
static int write_all(int fd, const uint8_t *bytes, size_t size) {
  struct ws_record *record = output.run->record;
  while (size) {
    ssize_t n = TEMP_FAILURE_RETRY(write(fd, bytes, size));
    if (n < 0) {
      int r = errno == EAGAIN ? wait_for_room(fd) : -errno;
      if (r)
        return r;
      continue;
    }
    record->output_bytes += (uint64_t)n;
    bytes += n;
    size -= (size_t)n;
  }
  return 0;
}

/* What fits is written, and the first byte beyond ends the run. */
static int put(int fd, const uint8_t *bytes, size_t size) {
  uint64_t most = output.run->spec->limits.output;
  if (fd < 0)
    return -EBADF;
  pthread_mutex_lock(&output.lock);
  uint64_t room = most == WS_UNLIMITED ? UINT64_MAX : most - output.run->record->output_bytes;
  size_t fits = size < room ? size : (size_t)room;
  int r = write_all(fd, bytes, fits);
  if (r == 0 && fits < size)
    output.run->finish(NULL, WS_OUTCOME_OUTPUT, 0);
  pthread_mutex_unlock(&output.lock);
  return r;
}

static ssize_t on_write(void *fd, uint8_t *bytes, size_t size) {
  int r = put((int)(intptr_t)fd, bytes, size);
  return r ? r : (ssize_t)size;
}

int engine_component_print(const char *text, size_t size) {
  return put(STDOUT_FILENO, (const uint8_t *)text, size);
}

/* NUL-terminated copies; the strings of a spec hold no NUL. */
static char **copies(const struct ws_bytes *items, size_t count) {
  char **all = calloc(count + 1, sizeof *all);
  for (size_t i = 0; all && i < count; i++)
    if (!(all[i] = strndup(items[i].bytes, items[i].len)))
      return NULL;
  return all;
}

static int set_strings(const struct ws_spec *s, struct ws_error *e) {
  char **args = copies(s->args, s->arg_count), **names = copies(s->env, s->env_count);
  char **values = calloc(s->env_count + 1, sizeof *values);
  if (!args || !names || !values)
    return ws_fail(e, ENOMEM, STEP, "%zu arguments, %zu variables", s->arg_count, s->env_count);
  for (size_t i = 0; i < s->env_count; i++) {
    char *equals = strchr(names[i], '=');
    if (!equals)
      return ws_fail(e, EINVAL, STEP, "variable %zu has no value", i);
    *equals = 0;
    values[i] = equals + 1;
  }
  if (!engine.wasi_config_set_argv(config, s->arg_count, args))
    return ws_fail(e, EILSEQ, STEP, "a component takes only arguments that are UTF-8");
  if (!engine.wasi_config_set_env(config, s->env_count, names, values))
    return ws_fail(e, EILSEQ, STEP, "a component takes only variables that are UTF-8");
  return 0; /* the library has copies of its own; these live as long as the process */
}

static int set_preopen(const struct engine_preopen *p, struct ws_error *e) {
  char path[64];
  memcpy(path, p->path, sizeof path);
  char *name = strndup(p->name.bytes, p->name.len);
  errno = 0;
  if (!name || !engine.wasi_config_preopen_dir(config, path, name, !p->read_only))
    return ws_fail(e, errno ? errno : EINVAL, STEP, "opening %.*s", (int)p->name.len, p->name.bytes);
  free(name);
  return 0;
}

int engine_component_prepare(const struct engine_run *run, const int stdio[3],
                             const struct engine_preopen *preopens, size_t count,
                             struct ws_error *e) {
  setenv("TOKIO_WORKER_THREADS", RUNTIME_THREADS, 1);
  setenv("RUST_MIN_STACK", THREAD_STACK, 1);
  mallopt(M_ARENA_MAX, HEAPS);
  output.run = run;
  config = engine.wasi_config_new();
  /* All of it, as far as the library is concerned: the walls decide, and name what they refuse. */
  engine.wasi_config_inherit_network(config);
  engine.wasi_config_inherit_stdin(config); /* a closed one is a hole: jail/descriptors.c */
  engine.wasi_config_set_stdout_custom(config, on_write, (void *)(intptr_t)stdio[1], NULL);
  engine.wasi_config_set_stderr_custom(config, on_write, (void *)(intptr_t)stdio[2], NULL);
  int r = engine_component_allow_sockets(config, e);
  if (!r)
    r = set_strings(run->spec, e);
  for (size_t i = 0; i < count && !r; i++)
    r = set_preopen(&preopens[i], e);
  return r;
}

wasi_config_t *engine_component_take_wasi(void) { return config; }
