/* Preopens are opened through the new root; then every descriptor gets its final number and all
 * others are closed.
 *
 * Final numbers: 0, 1, 2 stdio (or /dev/null's stand-in), then the sockets to the broker (3) and to
 * the resolver (4), where there are any, the preopens in order, and what a compile worker reads and
 * writes.  The filters of workers and brokers know number 3.  */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/sys.h"
#include "jail/jail.h"

static const char STEP[] = "descriptors";

static int open_directory(const char *path, int dirfd) {
  int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  /* A directory that may be searched but not listed is still a preopen, without fd_readdir. */
  if (fd < 0 && errno == EACCES)
    fd = openat(dirfd, path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  return fd;
}

int jail_open_preopens(struct jail *j, struct ws_error *e) {
  const struct ws_spec *s = j->spec;
  for (size_t i = 0; i < s->preopen_count; i++) {
    const struct ws_preopen_spec *p = &s->preopens[i];
    char path[32];
    if (p->source == WS_SOURCE_LISTENER) {
      j->preopens[i] = ws_steal(&j->fds[p->fd_index]);
      continue;
    }
    if (j->base.clone_walls & WS_WALL_NAMESPACES) {
      snprintf(path, sizeof path, "/%zu", i);
      j->preopens[i] = open_directory(path, AT_FDCWD);
    } else if (p->source == WS_SOURCE_DIR) { /* only with --allow-missing=namespaces */
      j->preopens[i] = open_directory(".", j->fds[p->fd_index]);
    } else {
      return ws_fail(e, EOPNOTSUPP, STEP, "scratch space needs the namespaces wall");
    }
    if (j->preopens[i] < 0)
      return ws_fail(e, errno, STEP, "opening %.*s", (int)p->name.len, p->name.bytes);
  }
  return 0;
}

/* Everything is parked above the final numbers first, so that moving one down never hits another. */
struct layout {
  int parked[WS_SPEC_MAX_FDS + 8];
  int count;
  int above; /* no final number is as high */
};

static int add(struct layout *l, int fd, int *final, struct ws_error *e) {
  int high = fcntl(fd, F_DUPFD_CLOEXEC, l->above);
  if (high < 0)
    return ws_fail(e, errno, STEP, "moving descriptor %d above %d", fd, l->above);
  *final = l->count;
  l->parked[l->count++] = high;
  return 0;
}

/* A closed stdio number must not be taken by something else: the engine writes its last words to
 * descriptor 2.  A sealed empty memfd takes nothing and gives nothing. */
static int make_hole(struct ws_error *e) {
  ws_cleanup_fd int hole = memfd_create("closed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (hole < 0 || fcntl(hole, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_WRITE) < 0)
    return ws_fail(e, errno, STEP, "memfd");
  return ws_steal(&hole);
}

static int add_stdio(struct jail *j, struct layout *l, struct ws_error *e) {
  for (int i = 0; i < 3; i++) {
    uint32_t index = j->spec->stdio[i];
    int fd = index == WS_SPEC_NO_FD ? make_hole(e) : j->fds[index];
    int r = fd < 0 ? fd : add(l, fd, &j->stdio[i], e);
    if (r)
      return r;
    if (index == WS_SPEC_NO_FD)
      j->stdio[i] = -1;
  }
  return 0;
}

static int add_optional(struct jail *j, struct layout *l, uint32_t index, int *final,
                        struct ws_error *e) {
  *final = -1;
  return index == WS_SPEC_NO_FD ? 0 : add(l, j->fds[index], final, e);
}

int jail_descriptors(struct jail *j, struct ws_error *e) {
  const struct ws_spec *s = j->spec;
  /* stdio, broker and resolver, preopens, and the three of a compile worker or the artifact */
  struct layout l = {.above = (int)(3 + 2 + s->preopen_count + 3)};
  int r = add_stdio(j, &l, e);
  if (!r)
    r = add_optional(j, &l, s->broker, &j->broker, e);
  if (!r)
    r = add_optional(j, &l, s->resolver, &j->resolver, e);
  for (size_t i = 0; i < s->preopen_count && !r; i++)
    r = add(&l, j->preopens[i], &j->preopens[i], e);
  if (!r)
    r = add_optional(j, &l, s->module, &j->module, e);
  if (!r)
    r = add_optional(j, &l, s->output, &j->output, e);
  if (!r)
    r = add_optional(j, &l, s->description, &j->description, e);
  int artifact = -1; /* without a mount namespace the artifact has to stay open to be found */
  if (!r && !(j->base.clone_walls & WS_WALL_NAMESPACES)) {
    r = add_optional(j, &l, s->artifact, &artifact, e);
    if (artifact >= 0)
      snprintf(j->artifact_path, sizeof j->artifact_path, "/proc/self/fd/%d", artifact);
  }
  if (r)
    return r;
  for (int i = 0; i < l.count; i++)
    if (dup3(l.parked[i], i, O_CLOEXEC) < 0)
      return ws_fail(e, errno, STEP, "dup3 to %d", i);
  if (sys_close_range((unsigned)l.count, ~0u) < 0)
    return ws_fail(e, errno, STEP, "close_range from %d", l.count);
  for (uint32_t i = 0; i < j->fd_count; i++)
    j->fds[i] = -1;
  j->base.lifeline = j->base.empty = -1;
  return 0;
}
