/* Landlock: the granted directories once more, as rules on inodes (landlock(7)).
 *
 * As far as the kernel goes: file rights by its ABI, TCP from ABI 4, scopes of signals and abstract
 * sockets from ABI 6.  No ABI at all means a missing wall.  */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "jail/jail.h"

/* Numbers of linux/landlock.h up to ABI 6; older headers lack the later ones. */
enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };
#define FS(bit) (1ull << (bit))
enum {
  FS_EXECUTE = 0, FS_WRITE_FILE = 1, FS_READ_FILE = 2, FS_READ_DIR = 3, FS_REMOVE_DIR = 4,
  FS_REMOVE_FILE = 5, FS_MAKE_DIR = 7, FS_MAKE_REG = 8, FS_MAKE_SYM = 12,
  FS_LAST_ABI1 = 12, FS_REFER = 13, FS_TRUNCATE = 14, FS_IOCTL_DEV = 15,
};
enum { NET_BIND_TCP = 1, NET_CONNECT_TCP = 2, SCOPE_ABSTRACT_UNIX = 1, SCOPE_SIGNAL = 2 };

struct ruleset_attr {
  uint64_t handled_access_fs, handled_access_net, scoped;
};

struct path_beneath {
  uint64_t allowed_access;
  int32_t parent_fd;
} __attribute__((packed));

static const uint64_t READ = FS(FS_READ_FILE) | FS(FS_READ_DIR);
/* No sockets, FIFOs or devices are made, nothing is executed, no device gets an ioctl. */
static const uint64_t WRITE = FS(FS_WRITE_FILE) | FS(FS_REMOVE_DIR) | FS(FS_REMOVE_FILE) |
                              FS(FS_MAKE_DIR) | FS(FS_MAKE_REG) | FS(FS_MAKE_SYM) | FS(FS_REFER) |
                              FS(FS_TRUNCATE);

static uint64_t handled_fs(int abi) {
  uint64_t rights = FS(FS_LAST_ABI1 + 1) - 1;
  if (abi >= 2)
    rights |= FS(FS_REFER);
  if (abi >= 3)
    rights |= FS(FS_TRUNCATE);
  if (abi >= 5)
    rights |= FS(FS_IOCTL_DEV);
  return rights;
}

/* The kernel refuses rights that it does not know, by the size of what it is given. */
static size_t attr_size(int abi) {
  if (abi >= 6)
    return sizeof(struct ruleset_attr);
  return abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
}

static int allow(int ruleset, int fd, uint64_t rights, struct ws_error *e) {
  struct path_beneath rule = {.allowed_access = rights, .parent_fd = fd};
  if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0)
    return ws_fail(e, errno, "landlock", "rule for descriptor %d", fd);
  return 0;
}

static int allow_granted(const struct jail *j, int ruleset, uint64_t handled, struct ws_error *e) {
  int r = 0;
  for (size_t i = 0; i < j->spec->preopen_count && !r; i++) {
    const struct ws_preopen_spec *p = &j->spec->preopens[i];
    if (p->source == WS_SOURCE_LISTENER)
      continue;
    uint64_t rights = p->flags & WS_PREOPEN_READ_ONLY ? READ : READ | WRITE;
    r = allow(ruleset, j->preopens[i], rights & handled, e);
  }
  if (r || !j->artifact_path[0])
    return r;
  ws_cleanup_fd int artifact = open(j->artifact_path, O_PATH | O_CLOEXEC);
  if (artifact < 0)
    return ws_fail(e, errno, "landlock", "opening the artifact");
  return allow(ruleset, artifact, FS(FS_READ_FILE), e);
}

int jail_landlock(struct jail *j, struct ws_error *e) {
  int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
  if (abi < 1) {
    if (jail_may_miss(j, WS_WALL_LANDLOCK))
      return 0;
    return ws_fail(e, errno, "landlock", "this kernel offers no Landlock");
  }
  struct ruleset_attr attr = {
      .handled_access_fs = handled_fs(abi),
      /* A broker is there to connect: its rules are finer than Landlock's. */
      .handled_access_net = abi >= 4 && j->spec->kind != WS_KIND_BROKER ? NET_BIND_TCP | NET_CONNECT_TCP : 0,
      .scoped = abi >= 6 ? SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL : 0,
  };
  ws_cleanup_fd int ruleset =
      (int)syscall(SYS_landlock_create_ruleset, &attr, attr_size(abi), 0);
  if (ruleset < 0)
    return ws_fail(e, errno, "landlock", "creating the ruleset (ABI %d)", abi);
  int r = allow_granted(j, ruleset, attr.handled_access_fs, e);
  if (r)
    return r;
  if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
    return ws_fail(e, errno, "landlock", "restricting");
  j->record->landlock_abi = (uint32_t)abi;
  j->record->walls |= WS_WALL_LANDLOCK;
  return 0;
}
