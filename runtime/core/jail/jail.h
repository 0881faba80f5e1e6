/* The Linux wall around one worker: one file a wall, and enter.c, which is the order.
 *
 * Every function here runs in the worker, after the fork, before the first byte of the guest's
 * artifact is looked at.  Each returns 0 or a negative errno with the error filled; the worker then
 * reports it and leaves, so nothing needs to be undone: the process is the transaction.  */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/record.h"
#include "spec/spec.h"

/* What can be put up before the launch is known; see jail_prepare. */
struct jail_base {
  int lifeline;         /* the zygote's socket: its peer is the supervisor */
  uint32_t clone_walls; /* walls that clone3 put up: NAMESPACES, NETWORK, CGROUP */
  bool own_user_namespace;
  bool for_broker; /* of a zygote in the host's network: it launches brokers, and nothing else */
  uid_t outer_uid; /* ids to map into the new user namespace */
  gid_t outer_gid;
  int empty; /* a mount namespace that holds nothing, for launches that need nothing; -1: none */
};

struct jail {
  struct jail_base base;
  const struct ws_spec *spec;
  struct ws_record *record;
  int *fds; /* descriptors that came with the launch, by spec index; owned by the jail */
  uint32_t fd_count;

  /* Filled by jail_enter. */
  int stdio[3];                        /* 0, 1, 2 or -1 */
  int preopens[WS_SPEC_MAX_PREOPENS];  /* in the order of the spec */
  bool artifact_is_mapped;             /* set by the worker: it needs no path to load it */
  int broker, resolver;                /* the network's; -1 without */
  int module, output, description;     /* compile workers; else -1 */
  /* Of a component: answers a system call that the filter did not admit, in its place, when it is one
   * of the network's; NULL: every such call ends the run.  Runs in a signal handler. */
  bool (*answer)(long number, const long args[6], long *result);
  char artifact_path[64];              /* run workers: where the artifact can be opened */
};

/* The part that depends on no launch.  A worker that is forked ahead does it while it waits. */
int jail_prepare(struct jail_base *base, struct ws_error *e);

/* Every wall but seccomp.  Afterwards the descriptors have their final numbers, and the WASI context
 * can be made from them. */
int jail_enter(struct jail *jail, struct ws_error *e);

/* The filter of stage 1: the artifact can be loaded (or the module compiled), and no more. */
int jail_seal_loading(struct jail *jail, struct ws_error *e);

/* The filter of stage 2, for the guest's life. */
int jail_seal_guest(struct jail *jail, struct ws_error *e);

/* Whether the launch accepted by name that `wall` is missing. */
static inline bool jail_may_miss(const struct jail *jail, uint32_t wall) {
  return (jail->spec->allow_missing & wall) != 0;
}

/* Whether what runs has threads: a component's WASI does, a module's does not. */
static inline bool jail_has_threads(const struct jail *jail) {
  return jail->spec->kind == WS_KIND_RUN && jail->spec->form == WS_FORM_COMPONENT;
}

/* --- what the opener gives up, too; each is documented where it is defined --- */
int jail_securebits(struct ws_error *e);
int jail_drop_bounding_set(struct ws_error *e);
int jail_drop_capabilities(struct ws_error *e);
int jail_no_way_back(int lifeline, struct ws_error *e);
int jail_lifeline(int socket, struct ws_error *e);

/* --- one function a wall; each is documented where it is defined --- */
int jail_session(const struct jail *jail, struct ws_error *e);
int jail_map_ids(uid_t uid, gid_t gid, struct ws_error *e);
int jail_make_empty(struct ws_error *e);
int jail_threads(const struct jail *jail, struct ws_error *e);
int jail_mounts(struct jail *jail, struct ws_error *e);
int jail_anonymity(const struct jail_base *base, struct ws_error *e);
int jail_identity(const struct jail *jail, struct ws_error *e);
int jail_privileges(const struct jail *jail, struct ws_error *e);
int jail_open_preopens(struct jail *jail, struct ws_error *e);
int jail_descriptors(struct jail *jail, struct ws_error *e);
int jail_rlimits(const struct jail *jail, struct ws_error *e);
int jail_signals(const struct jail *jail, struct ws_error *e);
int jail_landlock(struct jail *jail, struct ws_error *e);
int jail_seccomp(struct jail *jail, int stage, struct ws_error *e);
