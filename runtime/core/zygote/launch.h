/* Forking workers.  */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "zygote/messages.h"

/* A worker that was forked ahead of its request and waits for it; owned descriptors. */
struct spare {
  pid_t pid;
  int fds[2]; /* its socket, its pidfd */
};

struct zygote {
  int socket;
  bool of_brokers; /* in the host's network, and nothing but brokers is launched */
  bool stay;       /* serves many runs: keeps a spare worker */
  bool privileged; /* may make namespaces without a user namespace */
  uint32_t walls;  /* what clone3 will be able to put up */
  uid_t uid;
  gid_t gid;
  bool has_spare;  /* one waits, and the supervisor knows it */
  int empty;       /* see jail_base */
};

/* Starts the worker of `r`.  Returns its pid and an owned pidfd, or a negative errno. */
pid_t zygote_launch(const struct zygote *z, struct request *r, int *pidfd, struct ws_error *e);

/* Makes the namespace for launches that need no mounts: a descriptor, or -1, and they make their own.
 * Only where workers are in the zygote's user namespace, without which they may not enter it. */
int zygote_make_empty(void);

/* Forks a spare.  A negative errno when there is none: the next launch is slower, and nothing else. */
int zygote_make_spare(const struct zygote *z, struct spare *spare);
