/* What main.c and the zygote say to each other.  */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* Where a zygote's children live: workers in a network namespace with nothing in it, brokers in the
 * host's. */
enum zygote_kind { ZYGOTE_OF_WORKERS, ZYGOTE_OF_BROKERS };

/* Says hello (with `start_error` when `start_result` is negative) and serves until the supervisor
 * closes its end.  `stay`: many runs are coming, so that preparing for the next one pays.  Returns
 * the process's exit status; workers never return. */
int zygote_serve(enum zygote_kind kind, int socket, bool stay, int start_result, struct ws_error *start_error);

/* The engine release this core is built for. */
const char *zygote_engine_release(void);
