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
 * for a request that is none (the conversation can go on), others for the socket itself. */
int zygote_receive(int socket, struct request *r, struct ws_error *e);

/* Hands a request with its descriptors on; the caller's copies stay open. */
int zygote_forward(int socket, const struct request *r);

/* `pidfd` stays the caller's; -1 when there is none. */
void zygote_send_answer(int socket, const struct zygote_answer *answer, int pidfd);

void zygote_request_close(struct request *r);
