/* One worker: from the fork to the guest's end.  */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct worker_launch {
  int *fds; /* [0] the launch spec, [1] the run record, then as the spec names them; owned */
  uint32_t fd_count;
  int lifeline;         /* the zygote's socket */
  uint32_t clone_walls; /* ws_wall bits that clone3 put up */
  bool own_user_namespace;
  uid_t uid; /* ids outside the new user namespace */
  gid_t gid;
};

/* Runs in the new process and never returns. */
_Noreturn void worker_main(struct worker_launch *launch);
