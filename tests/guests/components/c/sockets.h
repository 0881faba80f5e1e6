/* wasi:sockets 0.2.12 and the streams below it, imported by hand: the canonical ABI's flat
 * signatures.  A result that does not fit a register is written where the last argument points. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef int32_t handle;

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name))) extern

#define TCP "wasi:sockets/tcp@0.2.12"
#define UDP "wasi:sockets/udp@0.2.12"
#define LOOKUP "wasi:sockets/ip-name-lookup@0.2.12"
#define POLL "wasi:io/poll@0.2.12"
#define STREAMS "wasi:io/streams@0.2.12"

/* ip-socket-address as arguments: its case, then the larger case's eleven numbers. */
#define ADDRESS int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, \
                int32_t, int32_t, int32_t
#define FLAT(a) (a)[0], (a)[1], (a)[2], (a)[3], (a)[4], (a)[5], (a)[6], (a)[7], (a)[8], (a)[9], \
                (a)[10], (a)[11]

/* ip-socket-address in memory. */
struct address {
  u8 is_v6;
  union {
    struct {
      u16 port;
      u8 octets[4];
    } v4;
    struct {
      u16 port;
      uint32_t flow;
      u16 groups[8];
      uint32_t scope;
    } v6;
  };
};
_Static_assert(sizeof(struct address) == 32, "the canonical ABI's layout");

/* result<_, error-code> */
struct done {
  u8 failed, code;
};
/* result<tuple<handle...>, error-code> */
struct handles {
  u8 failed;
  union {
    u8 code;
    handle h[3];
  };
};
/* result<ip-socket-address, error-code> */
struct whereabouts {
  u8 failed;
  union {
    u8 code;
    struct address address;
  };
};
/* result<u64, stream-error or error-code> */
struct counted {
  u8 failed;
  union {
    u8 code;
    struct {
      u8 closed;
      handle error;
    } stream;
    uint64_t count;
  };
};
/* result<list, stream-error or error-code>; without the list, result<_, stream-error> */
struct listed {
  u8 failed;
  union {
    u8 code;
    struct {
      u8 closed;
      handle error;
    } stream;
    struct {
      void *data;
      uint32_t length;
    };
  };
};
/* result<option<ip-address>, error-code> */
struct looked_up {
  u8 failed;
  union {
    u8 code;
    struct {
      u8 some;
      struct {
        u8 is_v6;
        union {
          u8 octets[4];
          u16 groups[8];
        };
      } address;
    };
  };
};
struct incoming {
  u8 *data;
  uint32_t length;
  struct address from;
};
struct outgoing {
  const void *data;
  uint32_t length;
  u8 some;
  struct address to;
};
_Static_assert(sizeof(struct incoming) == 40 && sizeof(struct outgoing) == 44, "the ABI's layout");

IMPORT("wasi:sockets/instance-network@0.2.12", "instance-network") handle network(void);
IMPORT("wasi:sockets/tcp-create-socket@0.2.12", "create-tcp-socket")
void tcp_create(int32_t family, struct handles *);
IMPORT(TCP, "[method]tcp-socket.start-connect")
void tcp_start_connect(handle, handle net, ADDRESS, struct done *);
IMPORT(TCP, "[method]tcp-socket.finish-connect") void tcp_finish_connect(handle, struct handles *);
IMPORT(TCP, "[method]tcp-socket.start-bind")
void tcp_start_bind(handle, handle net, ADDRESS, struct done *);
IMPORT(TCP, "[method]tcp-socket.finish-bind") void tcp_finish_bind(handle, struct done *);
IMPORT(TCP, "[method]tcp-socket.start-listen") void tcp_start_listen(handle, struct done *);
IMPORT(TCP, "[method]tcp-socket.finish-listen") void tcp_finish_listen(handle, struct done *);
IMPORT(TCP, "[method]tcp-socket.accept") void tcp_accept(handle, struct handles *);
IMPORT(TCP, "[method]tcp-socket.local-address") void tcp_local(handle, struct whereabouts *);
IMPORT(TCP, "[method]tcp-socket.remote-address") void tcp_remote(handle, struct whereabouts *);
IMPORT(TCP, "[method]tcp-socket.shutdown") void tcp_shutdown(handle, int32_t how, struct done *);
IMPORT(TCP, "[method]tcp-socket.subscribe") handle tcp_subscribe(handle);
IMPORT(TCP, "[resource-drop]tcp-socket") void tcp_drop(handle);

IMPORT("wasi:sockets/udp-create-socket@0.2.12", "create-udp-socket")
void udp_create(int32_t family, struct handles *);
IMPORT(UDP, "[method]udp-socket.start-bind")
void udp_start_bind(handle, handle net, ADDRESS, struct done *);
IMPORT(UDP, "[method]udp-socket.finish-bind") void udp_finish_bind(handle, struct done *);
IMPORT(UDP, "[method]udp-socket.local-address") void udp_local(handle, struct whereabouts *);
IMPORT(UDP, "[method]udp-socket.stream")
void udp_stream(handle, int32_t some, ADDRESS, struct handles *);
IMPORT(UDP, "[method]incoming-datagram-stream.receive")
void udp_receive(handle, uint64_t most, struct listed *);
IMPORT(UDP, "[method]incoming-datagram-stream.subscribe") handle udp_in_subscribe(handle);
IMPORT(UDP, "[method]outgoing-datagram-stream.check-send") void udp_check(handle, struct counted *);
IMPORT(UDP, "[method]outgoing-datagram-stream.send")
void udp_send(handle, const struct outgoing *, uint32_t count, struct counted *);
IMPORT(UDP, "[resource-drop]udp-socket") void udp_drop(handle);
IMPORT(UDP, "[resource-drop]incoming-datagram-stream") void udp_in_drop(handle);
IMPORT(UDP, "[resource-drop]outgoing-datagram-stream") void udp_out_drop(handle);

IMPORT(LOOKUP, "resolve-addresses")
void resolve(handle net, const char *name, uint32_t length, struct handles *);
IMPORT(LOOKUP, "[method]resolve-address-stream.resolve-next-address")
void resolve_next(handle, struct looked_up *);
IMPORT(LOOKUP, "[method]resolve-address-stream.subscribe") handle resolve_subscribe(handle);
IMPORT(LOOKUP, "[resource-drop]resolve-address-stream") void resolve_drop(handle);

IMPORT(POLL, "[method]pollable.block") void pollable_block(handle);
IMPORT(POLL, "[resource-drop]pollable") void pollable_drop(handle);
IMPORT(STREAMS, "[method]input-stream.blocking-read")
void stream_read(handle, uint64_t most, struct listed *);
IMPORT(STREAMS, "[method]output-stream.check-write") void stream_check(handle, struct counted *);
IMPORT(STREAMS, "[method]output-stream.write")
void stream_write(handle, const void *, uint32_t length, struct listed *);
IMPORT(STREAMS, "[method]output-stream.subscribe") handle stream_subscribe(handle);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void stream_write_and_flush(handle, const void *, uint32_t length, struct listed *);
IMPORT(STREAMS, "[resource-drop]input-stream") void input_drop(handle);
IMPORT(STREAMS, "[resource-drop]output-stream") void output_drop(handle);
IMPORT("wasi:io/error@0.2.12", "[resource-drop]error") void error_drop(handle);

/* Where the host puts lists that it returns; whoever receives one frees it. */
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size,
                                                                size_t alignment, size_t size) {
  (void)old_size, (void)alignment; /* malloc's alignment is the ABI's largest, 8 */
  void *made = size ? realloc(old, size) : (void *)alignment;
  if (!made) abort();
  return made;
}

static const char *const ERROR_CODES[] = {
    "unknown",           "access-denied",        "not-supported",       "invalid-argument",
    "out-of-memory",     "timeout",              "concurrency-conflict", "not-in-progress",
    "would-block",       "invalid-state",        "new-socket-limit",    "address-not-bindable",
    "address-in-use",    "remote-unreachable",   "connection-refused",  "connection-reset",
    "connection-aborted", "datagram-too-large",  "name-unresolvable",   "temporary-resolver-failure",
    "permanent-resolver-failure"};
enum { WOULD_BLOCK = 8 };

/* Waits for what a subscription says, which it drops. */
static void wait_for(handle pollable) {
  pollable_block(pollable);
  pollable_drop(pollable);
}
