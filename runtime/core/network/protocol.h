/* What a worker and its broker say to each other: SOCK_SEQPACKET, descriptor 3 of both.
 *
 * A worker with a network cannot make a socket, connect, bind, listen or send to an address: it asks
 * its broker, a second process of the run that lives in the host's network and holds the rules.  The
 * object of a call goes along as a descriptor (SCM_RIGHTS), and so does a socket that was made.  The
 * broker reads a copy that the kernel made of the message: nobody can change an address under its
 * eyes.
 *
 * Request: struct net_request, `address_len` bytes of a struct sockaddr, then what to send.  Answer:
 * struct net_answer.  One answer to each request, in their order.  Before the first, once all its
 * walls stand, the broker says struct net_hello, to the supervisor, which has not handed the other
 * end to the worker yet.  Mirrored in runtime/network.py.  */
#pragma once

#include <stdint.h>

#define NET_MAGIC 0x4b4f5242u /* "BROK" */
#define NET_VERSION 1u

enum {
  NET_FD = 3,          /* the socket, in both */
  NET_RESOLVER_FD = 4, /* a worker's resolver, when it has one */
  NET_MAX_ADDRESS = 128,  /* struct sockaddr_storage */
  NET_MAX_DATA = 65536, /* no datagram is longer */
};

enum net_call { NET_SOCKET = 1, NET_CONNECT = 2, NET_BIND = 3, NET_LISTEN = 4, NET_SENDTO = 5 };

struct net_request {
  uint32_t magic, version;
  uint32_t call;        /* net_call */
  uint32_t address_len; /* connect, bind, sendto */
  int32_t domain;       /* socket */
  int32_t type;         /* socket */
  int32_t protocol;     /* socket */
  int32_t backlog;      /* listen */
};

struct net_answer {
  uint32_t magic, version;
  int32_t result; /* of the call: at least 0, or minus an errno; a socket comes as a descriptor */
  uint32_t zero;
};

struct net_hello {
  uint32_t magic, version;
};

/* The resolver's conversation, only where everything is granted (--net host): a request is a host name,
 * 1 to WS_SPEC_MAX_HOST bytes, and nothing else.  The answer: u32 count, then count x (u32 family 4 or
 * 6, 16 bytes); none for a name that has no address. */
enum { NET_MAX_ADDRESSES = 64 };
