/* An empty read-only root that holds the granted directories as bind mounts, and nothing else.
 *
 * Layout of the new root: /0, /1, ... one entry a preopen (in the order of the spec), /artifact
 * the compiled module.  Guest names never become host paths.
 *
 * A launch that needs none of them enters a mount namespace that the zygote of root made once, with an
 * empty root that nobody can write to, and shares it with others like it: making one, and taking it
 * apart, is a third of a short run.  */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/sys.h"
#include "jail/jail.h"

static const char STEP[] = "mounts";

/* For a descriptor that belongs to another mount namespace the kernel refuses to clone its mount
 * (EINVAL).  The same object is found again by its path in this namespace, and only accepted when
 * it is the same inode of the same file system. */
static int reopen_here(int fd, struct ws_error *e) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0)
    return ws_fail(e, errno, STEP, "reading %s", link);
  path[n] = 0;
  ws_cleanup_fd int again = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (again < 0)
    return ws_fail(e, errno, STEP, "%s", path);
  struct stat had, has;
  if (fstat(fd, &had) < 0 || fstat(again, &has) < 0)
    return ws_fail(e, errno, STEP, "%s", path);
  if (had.st_dev != has.st_dev || had.st_ino != has.st_ino)
    return ws_fail(e, ESTALE, STEP, "%s is another file than the one handed over", path);
  return ws_steal(&again);
}

/* A detached bind mount of what `fd` names.  `attributes` are set on it and every mount below. */
static int bind_mount(int fd, uint64_t attributes, struct ws_error *e) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE;
  ws_cleanup_fd int tree = sys_open_tree(fd, "", flags);
  if (tree < 0 && errno == EINVAL) {
    ws_cleanup_fd int here = reopen_here(fd, e);
    if (here < 0)
      return here;
    tree = sys_open_tree(here, "", flags);
  }
  if (tree < 0)
    return ws_fail(e, errno, STEP, "open_tree");
  struct mount_attr attr = {.attr_set = attributes};
  if (sys_mount_setattr(tree, AT_RECURSIVE, &attr) < 0)
    return ws_fail(e, errno, STEP, "mount_setattr");
  return ws_steal(&tree);
}

/* A detached tmpfs.  It belongs to the caller (who has to be able to write there) with `j`, and to
 * whoever makes it without. */
static int tmpfs(const struct jail *j, uint64_t size, const char *mode, unsigned attributes,
                 struct ws_error *e) {
  char text[32], inodes[32];
  ws_cleanup_fd int fs = sys_fsopen("tmpfs");
  if (fs < 0)
    return ws_fail(e, errno, STEP, "fsopen tmpfs");
  snprintf(text, sizeof text, "%llu", (unsigned long long)size);
  /* Empty files take kernel memory that `size` does not count: a page each at the most. */
  snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)(size / 4096 > 256 ? size / 4096 : 256));
  if (sys_fsconfig(fs, FSCONFIG_SET_STRING, "size", text) < 0 ||
      sys_fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", inodes) < 0 ||
      sys_fsconfig(fs, FSCONFIG_SET_STRING, "mode", mode) < 0)
    return ws_fail(e, errno, STEP, "tmpfs size %s mode %s", text, mode);
  if (j && j->spec->has_identity) {
    snprintf(text, sizeof text, "%u", j->spec->uid);
    int bad = sys_fsconfig(fs, FSCONFIG_SET_STRING, "uid", text) < 0;
    snprintf(text, sizeof text, "%u", j->spec->gid);
    if (bad || sys_fsconfig(fs, FSCONFIG_SET_STRING, "gid", text) < 0)
      return ws_fail(e, errno, STEP, "tmpfs owner %u:%u", j->spec->uid, j->spec->gid);
  }
  if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
    return ws_fail(e, errno, STEP, "tmpfs create");
  int mounted = sys_fsmount(fs, attributes);
  return mounted < 0 ? ws_fail(e, errno, STEP, "fsmount tmpfs") : mounted;
}

static const uint64_t PLAIN = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/* Everything is cloned before the new root is attached: over "/", it would be part of the clone of a
 * granted "/". */
struct mounts {
  int artifact;
  int preopens[WS_SPEC_MAX_PREOPENS]; /* -1: a listener */
};

static int attach(int mount, int root, const char *name, struct ws_error *e) {
  if (sys_move_mount(mount, "", root, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
    return ws_fail(e, errno, STEP, "attaching /%s", name);
  return 0;
}

static int make_preopen(const struct jail *j, size_t i, struct ws_error *e) {
  const struct ws_preopen_spec *p = &j->spec->preopens[i];
  uint64_t attributes = PLAIN | (p->flags & WS_PREOPEN_READ_ONLY ? MOUNT_ATTR_RDONLY : 0);
  if (p->source == WS_SOURCE_TMPFS)
    return tmpfs(j, p->size, "0700", (unsigned)attributes, e);
  return bind_mount(j->fds[p->fd_index], attributes, e);
}

/* Machine code has to be mapped executable, so its mount may not be noexec; Pulley's never is. */
static int make_artifact(const struct jail *j, struct ws_error *e) {
  uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (j->spec->engine == WS_ENGINE_PULLEY)
    attributes |= MOUNT_ATTR_NOEXEC;
  return bind_mount(j->fds[j->spec->artifact], attributes, e);
}

static int make_mounts(const struct jail *j, struct mounts *m, struct ws_error *e) {
  m->artifact = -1;
  for (size_t i = 0; i < j->spec->preopen_count; i++) {
    m->preopens[i] = -1;
    if (j->spec->preopens[i].source == WS_SOURCE_LISTENER)
      continue;
    if ((m->preopens[i] = make_preopen(j, i, e)) < 0)
      return m->preopens[i];
  }
  if (j->spec->artifact != WS_SPEC_NO_FD && !j->artifact_is_mapped &&
      (m->artifact = make_artifact(j, e)) < 0)
    return m->artifact;
  return 0;
}

static int attach_preopen(const struct mounts *m, int root, size_t i, struct ws_error *e) {
  char name[32];
  if (m->preopens[i] < 0)
    return 0;
  snprintf(name, sizeof name, "%zu", i);
  if (mkdirat(root, name, 0700) < 0)
    return ws_fail(e, errno, STEP, "mkdir /%s", name);
  return attach(m->preopens[i], root, name, e);
}

static int attach_artifact(struct jail *j, const struct mounts *m, int root, struct ws_error *e) {
  if (m->artifact < 0)
    return 0;
  if (mknodat(root, "artifact", S_IFREG | 0444, 0) < 0)
    return ws_fail(e, errno, STEP, "mknod /artifact");
  snprintf(j->artifact_path, sizeof j->artifact_path, "/artifact");
  return attach(m->artifact, root, "artifact", e);
}

static int become_root(int root, struct ws_error *e) {
  struct mount_attr attr = {.attr_set = PLAIN | MOUNT_ATTR_RDONLY};
  if (sys_mount_setattr(root, 0, &attr) < 0)
    return ws_fail(e, errno, STEP, "read-only root");
  /* pivot_root(".", "."): the old root ends up mounted over the new one and is detached from there
   * (pivot_root(2), notes), so that no directory for it is needed in the new root. */
  if (fchdir(root) < 0 || sys_pivot_root(".", ".") < 0)
    return ws_fail(e, errno, STEP, "pivot_root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
    return ws_fail(e, errno, STEP, "detaching the old root");
  return 0;
}

/* A mount namespace of this process's own, and in it a root that is not attached yet. */
static int make_root(struct ws_error *e) {
  if (unshare(CLONE_NEWNS) < 0)
    return ws_fail(e, errno, "namespaces", "a mount namespace");
  /* What is mounted here must not travel back to the host. */
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
    return ws_fail(e, errno, STEP, "private propagation");
  return tmpfs(NULL, 1 << 16, "0755", 0, e);
}

static int attach_root(int root, struct ws_error *e) {
  if (sys_move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
    return ws_fail(e, errno, STEP, "attaching the new root");
  return 0;
}

/* Leaves this process in a mount namespace that holds an empty read-only root. */
int jail_make_empty(struct ws_error *e) {
  ws_cleanup_fd int root = make_root(e);
  if (root < 0)
    return root;
  int r = attach_root(root, e);
  return r ? r : become_root(root, e);
}

static bool needs_mounts(const struct jail *j) {
  for (size_t i = 0; i < j->spec->preopen_count; i++)
    if (j->spec->preopens[i].source != WS_SOURCE_LISTENER)
      return true;
  return j->spec->artifact != WS_SPEC_NO_FD && !j->artifact_is_mapped;
}

int jail_mounts(struct jail *j, struct ws_error *e) {
  if (!(j->base.clone_walls & WS_WALL_NAMESPACES)) {
    if (j->spec->artifact != WS_SPEC_NO_FD) /* only with --allow-missing=namespaces */
      snprintf(j->artifact_path, sizeof j->artifact_path, "/proc/self/fd/%d",
               j->fds[j->spec->artifact]);
    return 0;
  }
  if (j->base.empty >= 0 && !needs_mounts(j) && setns(j->base.empty, CLONE_NEWNS) == 0) {
    j->record->walls |= WS_WALL_ROOT;
    return 0;
  }
  struct mounts m;
  int root = make_root(e);
  int r = root < 0 ? root : make_mounts(j, &m, e);
  if (!r)
    r = attach_root(root, e);
  for (size_t i = 0; i < j->spec->preopen_count && !r; i++)
    r = attach_preopen(&m, root, i, e);
  if (!r)
    r = attach_artifact(j, &m, root, e);
  if (!r)
    r = become_root(root, e);
  if (!r)
    j->record->walls |= WS_WALL_ROOT;
  return r; /* the descriptors of the mounts go with all others in jail_descriptors */
}
