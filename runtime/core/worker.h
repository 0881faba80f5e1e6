/* One worker: from the fork to the guest's end.  */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "jail/jail.h"

/* What a worker does before it knows its launch; an error is kept for the launch's record. */
struct worker {
  struct jail_base base;
  struct ws_error prepared; /* err 0 and an empty step: all is well */
};

void worker_prepare(struct worker *worker);

/* Runs the launch and never returns.  fds: [0] the launch spec, [1] the run record, then as the spec
 * names them; owned from here on. */
_Noreturn void worker_main(struct worker *worker, int *fds, uint32_t fd_count);
