/* The zygote's one conversation: SOCK_SEQPACKET on descriptor 3, one request and one answer a run.
 *
 * Request: struct zygote_request plus `fd_count` descriptors (SCM_RIGHTS): [0] the launch spec's
 * memfd, [1] the run record's memfd, then those the spec names by index.
 * A zygote that stays forks one worker ahead and hands it over: a request can then go straight to
 * the spare's socket, without an answer, and the zygote is told by a request without descriptors.
 * Such a request can also ask for a sign of life, which is an answer with nothing set.
 * Answer: struct zygote_answer plus, when pid > 0, one pidfd.  The worker is the child of the
 * zygote's parent (CLONE_PARENT), which reaps it.  On start the zygote sends one zygote_hello.
 * A zygote of brokers (`wasisup-core brokers`) lives in the host's network, has no library loaded, and
 * is spoken to in the same way: all that it launches is a run's broker.
 * Mirrored in runtime/zygote.py. */
#pragma once

#include <stdint.h>

#define ZYGOTE_MAGIC 0x4f47595au /* "ZYGO" */
#define ZYGOTE_VERSION 3u
#define ZYGOTE_NO_FD 0xffffffffu

enum zygote_news {
  ZYGOTE_TAKEN = 0, /* the spare was taken: fork the next when there is time */
  ZYGOTE_PING = 1,  /* answer, and do nothing */
  ZYGOTE_NOW = 2,   /* there is no spare: fork one at once */
};

struct zygote_hello {
  uint32_t magic, version;
  int32_t err;         /* 0, or errno of what failed at start: then the zygote leaves */
  uint32_t walls;      /* ws_wall bits that clone3 here could put up (namespaces, network) */
  char engine[32];     /* engine release, e.g. "50.0.1" */
  char step[48];
  char detail[256];
};

struct zygote_request {
  uint32_t magic, version;
  uint32_t fd_count;      /* at most WS_SPEC_MAX_FDS */
  uint32_t cgroup_fd;     /* index of a cgroup v2 directory to be born in, or ZYGOTE_NO_FD */
  uint32_t allow_missing; /* ws_wall bits: NAMESPACES and NETWORK matter here */
  uint32_t news;          /* without descriptors: zygote_news */
};

struct zygote_answer {
  uint32_t magic, version;
  int32_t pid; /* 0 when err is set; with err 0, too, this is no answer but news of a spare */
  int32_t err; /* errno */
  char step[48];
  char detail[256];
  int32_t spare; /* news: pid of a worker that waits for a request.  Its socket and its pidfd come
                    with the message.  It is the supervisor's child and leaves when that closes
                    the socket. */
};
