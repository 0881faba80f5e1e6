/* The caller's uid, no capability, no way to regain one.  */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail/jail.h"

static const char STEP[] = "identity";

/* The bounding set ends at the first number that the kernel does not know.  Without CAP_SETPCAP (an
 * ordinary caller without namespaces) the set cannot shrink; no_new_privs makes it moot.  The zygote
 * of root drops it once for all workers; a new user namespace fills it again. */
int jail_drop_bounding_set(struct ws_error *e) {
  int has;
  for (int cap = 0; (has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++)
    if (has && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EPERM)
      return ws_fail(e, errno, STEP, "PR_CAPBSET_DROP %d", cap);
  return 0;
}

/* uid 0 stays powerless by these bits; an ordinary caller has no need of them, and cannot set them. */
int jail_securebits(struct ws_error *e) {
  if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                   SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) < 0 && errno != EPERM)
    return ws_fail(e, errno, STEP, "PR_SET_SECUREBITS");
  return 0;
}

/* What every worker gives up, whoever it will be. */
int jail_anonymity(const struct jail_base *b, struct ws_error *e) {
  if ((b->clone_walls & WS_WALL_NAMESPACES) && sethostname("wasisup", 7) < 0)
    return ws_fail(e, errno, STEP, "sethostname");
  int r = jail_securebits(e);
  return r ? r : jail_drop_bounding_set(e);
}

int jail_drop_capabilities(struct ws_error *e) {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
    return ws_fail(e, errno, STEP, "PR_CAP_AMBIENT_CLEAR_ALL");
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  if (syscall(SYS_capset, &header, none) < 0)
    return ws_fail(e, errno, STEP, "capset");
  struct __user_cap_data_struct left[2] = {{0}};
  if (syscall(SYS_capget, &header, left) < 0)
    return ws_fail(e, errno, STEP, "capget");
  if (left[0].permitted | left[1].permitted | left[0].effective | left[1].effective)
    return ws_fail(e, EPERM, STEP, "capabilities are left: %#x %#x", left[0].permitted,
                   left[1].permitted);
  return 0;
}

/* Root of a user namespace that denies setgroups has the groups of whoever made it, and can neither
 * give them up nor take others: fine when these are the ones that the worker should have. */
static bool same_groups(const struct ws_spec *s) {
  gid_t now[WS_SPEC_MAX_GROUPS];
  int saved = errno, n = getgroups(WS_SPEC_MAX_GROUPS, now);
  errno = saved;
  if (n < 0 || (size_t)n != s->group_count)
    return false;
  for (int i = 0; i < n; i++)
    if (now[i] != s->groups[i])
      return false;
  return true;
}

int jail_identity(const struct jail *j, struct ws_error *e) {
  const struct ws_spec *s = j->spec;
  umask((mode_t)s->umask);
  if (s->has_identity && !j->base.own_user_namespace) {
    if (setgroups(s->group_count, s->groups) < 0 && !same_groups(s))
      return ws_fail(e, errno, STEP, "setgroups (%zu groups)", s->group_count);
    if (setresgid(s->gid, s->gid, s->gid) < 0 || setresuid(s->uid, s->uid, s->uid) < 0)
      return ws_fail(e, errno, STEP, "becoming %u:%u", s->uid, s->gid);
  } else if (s->has_identity && (s->uid != getuid() || s->gid != getgid())) {
    return ws_fail(e, EPERM, STEP, "only root runs workers as somebody else (%u:%u)", s->uid, s->gid);
  }
  return jail_drop_capabilities(e);
}

/* Set after the last change of credentials: each such change clears the death signal, and makes the
 * process dumpable again in some kernels. */
int jail_no_way_back(int lifeline, struct ws_error *e) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return ws_fail(e, errno, STEP, "PR_SET_NO_NEW_PRIVS");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
    return ws_fail(e, errno, STEP, "PR_SET_DUMPABLE");
  return jail_lifeline(lifeline, e);
}

int jail_privileges(const struct jail *j, struct ws_error *e) {
  int r = jail_no_way_back(j->base.lifeline, e);
  if (!r)
    j->record->walls |= WS_WALL_IDENTITY;
  return r;
}
