/* Becoming the caller, for good.  */
#include "opener/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/sys.h"
#include "jail/jail.h"
#include "opener/protocol.h"

static const char STEP[] = "become the caller";

struct caller {
  uid_t uid;
  gid_t gid;
  gid_t *groups; /* sorted, each once, without gid */
  size_t group_count;
};

/* The largest number stands for "no change" in setresuid(2): nobody's. */
static int parse_id(const char *word, uint32_t *id) {
  char *end;
  errno = 0;
  unsigned long n = strtoul(word, &end, 10);
  if (*word < '0' || *word > '9' || *end || errno || n >= UINT32_MAX)
    return -1;
  *id = (uint32_t)n;
  return 0;
}

static int compare(const void *a, const void *b) {
  const gid_t *left = a, *right = b;
  return (*left > *right) - (*left < *right);
}

/* What a set of groups lets one do depends neither on its order nor on whether it holds the own gid. */
static size_t as_set(gid_t *groups, size_t n, gid_t own) {
  size_t kept = 0;
  qsort(groups, n, sizeof *groups, compare);
  for (size_t i = 0; i < n; i++)
    if (groups[i] != own && (kept == 0 || groups[i] != groups[kept - 1]))
      groups[kept++] = groups[i];
  return kept;
}

static int parse(struct caller *c, int argc, char **argv) {
  if (argc < 2 || parse_id(argv[0], &c->uid) < 0 || parse_id(argv[1], &c->gid) < 0)
    return -1;
  c->group_count = (size_t)argc - 2;
  c->groups = calloc(c->group_count + 1, sizeof *c->groups);
  if (!c->groups)
    return -1;
  for (size_t i = 0; i < c->group_count; i++)
    if (parse_id(argv[i + 2], &c->groups[i]) < 0)
      return -1;
  c->group_count = as_set(c->groups, c->group_count, c->gid);
  return 0;
}

static bool has_groups(const struct caller *c) {
  int n = getgroups(0, NULL);
  gid_t *now = n < 0 ? NULL : calloc((size_t)n + 1, sizeof *now);
  bool same = false;
  if (now && getgroups(n, now) == n)
    same = as_set(now, (size_t)n, c->gid) == c->group_count &&
           memcmp(now, c->groups, c->group_count * sizeof *now) == 0;
  free(now);
  return same;
}

static bool is_caller(const struct caller *c) {
  uid_t uid[3];
  gid_t gid[3];
  if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0)
    return false;
  for (int i = 0; i < 3; i++)
    if (uid[i] != c->uid || gid[i] != c->gid)
      return false;
  return has_groups(c);
}

/* Some network file systems find a user's credentials in the session keyring: not in the daemon's.
 * Where keys are out of reach altogether there is nothing in it to be found. */
static int leave_keyring(struct ws_error *e) {
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS && errno != EPERM)
    return ws_fail(e, errno, STEP, "KEYCTL_JOIN_SESSION_KEYRING");
  return 0;
}

static int become(const struct caller *c, int socket, struct ws_error *e) {
  int r = jail_securebits(e);
  if (!r)
    r = jail_drop_bounding_set(e);
  if (!r && !is_caller(c)) {
    r = leave_keyring(e);
    if (!r && setgroups(c->group_count, c->groups) < 0)
      r = ws_fail(e, errno, STEP, "setgroups (%zu groups)", c->group_count);
    if (!r && (setresgid(c->gid, c->gid, c->gid) < 0 || setresuid(c->uid, c->uid, c->uid) < 0))
      r = ws_fail(e, errno, STEP, "becoming %u:%u", c->uid, c->gid);
  }
  if (!r)
    r = jail_drop_capabilities(e);
  if (!r && !is_caller(c))
    r = ws_fail(e, EPERM, STEP, "the kernel says that this is not %u:%u", c->uid, c->gid);
  return r ? r : jail_no_way_back(socket, e);
}

/* Nothing of the daemon's but the socket; 0, 1 and 2 lead nowhere, so that no file takes their place. */
static int leave_descriptors(int socket, struct ws_error *e) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0)
    return ws_fail(e, errno, STEP, "open /dev/null");
  for (int fd = 0; fd <= STDERR_FILENO; fd++)
    if (dup2(null, fd) < 0)
      return ws_fail(e, errno, STEP, "dup2 to %d", fd);
  if (sys_close_range((unsigned)socket + 1, ~0u) < 0)
    return ws_fail(e, errno, STEP, "close_range");
  return 0;
}

static int limit(struct ws_error *e) {
  const struct rlimit none = {0};
  umask(077);
  setsid(); /* fails when it leads a group already, which does as well */
  if (setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_NPROC, &none) < 0)
    return ws_fail(e, errno, STEP, "setrlimit");
  if (chdir("/") < 0)
    return ws_fail(e, errno, STEP, "chdir /");
  return 0;
}

static void hello(int socket, const struct ws_error *e) {
  struct opener_hello h = {.magic = OPENER_MAGIC, .version = OPENER_VERSION, .err = e->err};
  memcpy(h.step, e->step, sizeof h.step);
  memcpy(h.detail, e->detail, sizeof h.detail);
  while (send(socket, &h, sizeof h, MSG_NOSIGNAL) < 0 && errno == EINTR)
    ;
}

int opener_main(int socket, int argc, char **argv) {
  struct caller caller = {0};
  struct ws_error e = {0};
  if (parse(&caller, argc, argv) < 0) {
    free(caller.groups);
    return -1;
  }
  int r = leave_descriptors(socket, &e);
  if (!r)
    r = limit(&e);
  if (!r)
    r = become(&caller, socket, &e);
  free(caller.groups);
  if (!r)
    r = opener_filter(&e);
  hello(socket, &e);
  return r ? 1 : opener_serve(socket);
}
