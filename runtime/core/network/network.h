/* The network of a component: its broker, and the worker's side of the conversation.  */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/record.h"
#include "network/protocol.h"
#include "network/rules.h"
#include "spec/spec.h"

/* --- the broker's process --- */

struct broker {
  struct net_rules rules;
  struct ws_record *record; /* its own: where denials are noted */
};

/* Serves the worker at the other end of NET_FD until that is closed.  All walls stand.  Returns the
 * process's exit status. */
int broker_serve(const struct broker *broker);

/* Carries out one request, or not.  message: untrusted.  fd: what came with it, or -1; stays the
 * caller's.  made: a socket that was made, the caller's, or -1. */
struct net_answer broker_handle(const struct broker *broker, const uint8_t *message, size_t len, int fd,
                                int *made);

/* --- the worker's process --- */

/* Sets up the worker's side: what system calls and names come to from here on.  The spec has to stay.
 * Without a broker everything is denied, and noted in the worker's record. */
void network_prepare(const struct ws_spec *spec, struct ws_record *record);

/* Answers a system call that the filter did not admit, in the signal handler of the thread that made
 * it: the kernel's result (a negative errno on failure) goes to *result.  False when it is none of the
 * network's calls.  Async-signal-safe, for several threads at once, with all signals blocked. */
bool network_answer(long number, const long args[6], long *result);

/* How the worker's getaddrinfo finds addresses.  Writes up to `most` of 20 bytes each (u32 family 4 or
 * 6, 16 bytes) to `to`; answers how many, or -1 when nobody could be asked. */
int network_resolve(const char *host, uint8_t (*to)[WS_NAME_ADDRESS], int most);
