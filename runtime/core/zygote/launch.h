/* Forking workers.  */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "zygote/messages.h"

/* A worker that was forked ahead of its request and waits for it. */
struct spare {
  pid_t pid; /* 0: none */
  int pidfd, socket;
};

struct zygote {
  int socket;
  bool stay;       /* serves many runs: keeps a spare worker */
  bool privileged; /* may make namespaces without a user namespace */
  uint32_t walls;  /* what clone3 will be able to put up */
  uid_t uid;
  gid_t gid;
  struct spare spare;
};

/* Starts the worker of `r`: the spare when there is one that fits, a new one otherwise.  Returns its
 * pid and an owned pidfd, or a negative errno. */
pid_t zygote_launch(struct zygote *z, struct request *r, int *pidfd, struct ws_error *e);

/* Forks the next spare.  Without one the next launch is slower, and nothing else. */
void zygote_make_spare(struct zygote *z);
