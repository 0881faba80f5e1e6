/* Quotas that the kernel keeps for a single process (getrlimit(2)).  */
#include <errno.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "jail/jail.h"

static int set(int resource, const char *name, uint64_t value, struct ws_error *e) {
  struct rlimit now;
  rlim_t want = value == WS_UNLIMITED ? RLIM_INFINITY : (rlim_t)value;
  if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
    return ws_fail(e, errno, "rlimits", "reading %s", name);
  if (now.rlim_max != RLIM_INFINITY && (want == RLIM_INFINITY || want > now.rlim_max))
    want = now.rlim_max; /* the caller's own hard limit is never raised */
  struct rlimit limit = {.rlim_cur = want, .rlim_max = want};
  if (setrlimit((__rlimit_resource_t)resource, &limit) < 0)
    return ws_fail(e, errno, "rlimits", "%s to %llu", name, (unsigned long long)want);
  return 0;
}

static uint64_t sum(uint64_t a, uint64_t b) {
  return a == WS_UNLIMITED || b == WS_UNLIMITED || a + b < a ? WS_UNLIMITED : a + b;
}

/* Descriptors in use after jail_descriptors: stdio, the network's, preopens, the artifact that the
 * engine opens. */
static uint64_t base_fds(const struct jail *j) { return 3 + 2 + j->spec->preopen_count + 8; }

/* RLIMIT_FSIZE holds for every descriptor.  A stdout that is appended to a large file must not end
 * the run at its first line: there the limit is the file's size and what may be added to it. */
static uint64_t file_size(const struct jail *j) {
  const struct ws_limits *l = &j->spec->limits;
  uint64_t limit = l->file_size;
  for (int i = 1; i < 3; i++) {
    struct stat st;
    if (j->stdio[i] < 0 || fstat(j->stdio[i], &st) < 0 || !S_ISREG(st.st_mode))
      continue;
    uint64_t wanted = sum((uint64_t)st.st_size, l->output);
    limit = wanted > limit ? wanted : limit;
  }
  return limit;
}

/* Where threads are counted with all of the user's processes no number would be right: threads.c has
 * another bound then. */
static int processes(const struct jail *j, struct ws_error *e) {
  if (!jail_has_threads(j))
    return set(RLIMIT_NPROC, "RLIMIT_NPROC", 0, e);
  return j->base.own_user_namespace ? set(RLIMIT_NPROC, "RLIMIT_NPROC", j->spec->threads, e) : 0;
}

int jail_rlimits(const struct jail *j, struct ws_error *e) {
  const struct ws_limits *l = &j->spec->limits;
  /* The exact CPU limit is the timer's (signals.c).  This one counts whole seconds and cannot be
   * caught: it stands behind the timer, one second later. */
  uint64_t cpu = l->cpu_ns == WS_UNLIMITED ? WS_UNLIMITED : (l->cpu_ns + 999999999u) / 1000000000u + 1;
  int run = j->spec->kind == WS_KIND_RUN;
  uint64_t data = sum(l->memory, l->data_overhead);
#ifdef __SANITIZE_ADDRESS__
  data = WS_UNLIMITED; /* the sanitizer's shadow alone is terabytes of writable reservation */
#endif
  int r = set(RLIMIT_CORE, "RLIMIT_CORE", 0, e);
  if (!r)
    r = set(RLIMIT_CPU, "RLIMIT_CPU", cpu, e);
  if (!r)
    r = set(RLIMIT_FSIZE, "RLIMIT_FSIZE", run ? file_size(j) : l->file_size, e);
  /* RLIMIT_AS would count the engine's reservation of address space; RLIMIT_DATA counts only what
   * becomes writable. */
  if (!r)
    r = set(RLIMIT_DATA, "RLIMIT_DATA", data, e);
  if (!r)
    r = set(RLIMIT_NOFILE, "RLIMIT_NOFILE", base_fds(j) + l->fds, e);
  if (!r)
    r = set(RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", 0, e);
  if (!r)
    r = set(RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 0, e);
  if (!r && j->spec->kind != WS_KIND_COMPILE) /* the compiler's threads count as processes */
    r = processes(j, e);
  if (!r)
    j->record->walls |= WS_WALL_RLIMITS;
  return r;
}
