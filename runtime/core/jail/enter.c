/* The order in which the walls go up, and why.  Nothing else is in this file.  */
#include "jail/jail.h"

int jail_prepare(struct jail_base *b, struct ws_error *e) {
  int r;
  /* Die with the supervisor, before anything exists that could outlive it. */
  if ((r = jail_lifeline(b->lifeline, e)))
    return r;
  /* A user namespace has no ids until they are mapped, and mounts need ids. */
  if (b->own_user_namespace && (r = jail_map_ids(b->outer_uid, b->outer_gid, e)))
    return r;
  /* While the capabilities for it are there: host name, securebits, bounding set. */
  return jail_anonymity(b, e);
}

int jail_enter(struct jail *j, struct ws_error *e) {
  int r;
  /* Out of the supervisor's process group, while stdio can still be told from other descriptors. */
  if ((r = jail_session(j, e)))
    return r;
  /* While the host's /proc can be written to, with the capabilities for it. */
  if ((r = jail_threads(j, e)))
    return r;
  /* Mounts need the capabilities that the next steps give up, and the host's tree to copy from: the
   * mount namespace is the one that clone3 did not make. */
  if ((r = jail_mounts(j, e)))
    return r;
  /* The caller's uid, no capabilities: before any path is opened, so that each open below is
   * judged by what the caller may do. */
  if ((r = jail_identity(j, e)))
    return r;
  /* no_new_privs is what lets an ordinary user load Landlock rules and filters; a change of uid
   * resets the dumpable flag and the death signal, so they are set (again) after it, while the
   * lifeline is still there to be looked at. */
  if ((r = jail_privileges(j, e)))
    return r;
  /* Through the new root, as the caller. */
  if ((r = jail_open_preopens(j, e)))
    return r;
  /* All that the guest may hold has its number now: everything else is closed, whatever it is. */
  if ((r = jail_descriptors(j, e)))
    return r;
  /* Handlers and the CPU timer: their system calls are not admitted later. */
  if ((r = jail_signals(j, e)))
    return r;
  /* After the descriptors are in place: the bound is on their numbers. */
  if ((r = jail_rlimits(j, e)))
    return r;
  /* Needs the preopens' descriptors, and system calls that the filter will not admit. */
  return jail_landlock(j, e);
}

/* Last: from here on only loading is possible. */
int jail_seal_loading(struct jail *j, struct ws_error *e) { return jail_seccomp(j, 1, e); }

/* Stacked on the first: from here on no memory becomes executable. */
int jail_seal_guest(struct jail *j, struct ws_error *e) { return jail_seccomp(j, 2, e); }
