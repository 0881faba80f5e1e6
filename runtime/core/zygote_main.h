/* What main.c and zygote.c say to each other.  */
#pragma once

#include "base/error.h"

/* Says hello (with `start_error` when `start_result` is negative) and serves until the supervisor
 * closes its end.  Returns the process's exit status; workers never return. */
int zygote_serve(int socket, int start_result, struct ws_error *start_error);

/* The engine release this core is built for. */
const char *zygote_engine_release(void);
