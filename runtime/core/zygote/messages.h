/* Requests and answers of the zygote's conversation, and the descriptors that come with them.  */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "spec/spec.h"
#include "zygote/protocol.h"

/* One request; its descriptors are owned until zygote_request_close. */
struct request {
  struct zygote_request head;
  int fds[WS_SPEC_MAX_FDS];
  uint32_t fd_count;
};

/* Answers 1 with a request, 0 at the end of the conversation, a negative errno on failure: EBADMSG
 * for a request that is none (the conversation can go on), others for the socket itself.  A request
 * without descriptors is the news that the spare was taken. */
int zygote_receive(int socket, struct request *r, struct ws_error *e);

/* `fds` stay the caller's; none with `fd_count` 0. */
void zygote_send_answer(int socket, const struct zygote_answer *answer, const int *fds,
                        size_t fd_count);

void zygote_request_close(struct request *r);
