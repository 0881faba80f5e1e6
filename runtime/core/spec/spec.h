/* The launch spec: everything a worker is told, as one bounded message in a sealed memfd.
 *
 * Layout, little-endian: 8 bytes magic "WSUPSPC1", u32 total length, u32 number of fields, then the
 * fields: u16 tag, u16 zero, u32 payload length, payload.  Unknown tags, a scalar given twice, a
 * length that lies, a string with a NUL in it: all refused.  The encoder is runtime/spec.py.
 *
 * Descriptors travel beside it (SCM_RIGHTS) and are named by index; index 0 is this memfd, index 1
 * the run record.  WS_SPEC_NO_FD stands for "none".  */
#pragma once

#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/bytes.h"

#define WS_SPEC_MAGIC "WSUPSPC1"
#define WS_SPEC_MAX_BYTES (4u << 20)
#define WS_SPEC_MAX_ARGS 65536u
#define WS_SPEC_MAX_PREOPENS 128u
#define WS_SPEC_MAX_GROUPS 1024u
#define WS_SPEC_MAX_FDS 200u
#define WS_SPEC_MAX_RULES 8192u
#define WS_SPEC_MAX_NAMES 4096u
#define WS_SPEC_MAX_HOST 253u /* RFC 1035 2.3.4, without the last dot */
#define WS_SPEC_NO_FD 0xffffffffu
#define WS_UNLIMITED UINT64_MAX

enum ws_spec_tag {
  WS_TAG_KIND = 1,       /* u32: ws_kind */
  WS_TAG_ENGINE = 2,     /* u32: ws_engine_kind */
  WS_TAG_ARG = 3,        /* bytes, repeatable, argv[0] first */
  WS_TAG_ENV = 4,        /* bytes "K=V", repeatable */
  WS_TAG_PREOPEN = 5,    /* u32 source (ws_preopen_source), u32 fd index, u32 flags, u32 zero, u64 size, guest name */
  WS_TAG_STDIO = 7,      /* 3 x u32 fd index */
  WS_TAG_ARTIFACT = 8,   /* u32 fd index: the compiled module (run) */
  WS_TAG_FILTER = 9,     /* u32 stage (1 or 2), then struct sock_filter[] */
  WS_TAG_LIMITS = 10,    /* u64 x 8: memory, cpu_ns, fds, file_size, output, fuel, table_elements, data_overhead */
  WS_TAG_INVOKE = 11,    /* bytes: export to call instead of _start */
  WS_TAG_IDENTITY = 12,  /* u32 uid, u32 gid, then u32 supplementary groups */
  WS_TAG_ALLOW_MISSING = 13, /* u32: bits of ws_wall that may be missing */
  WS_TAG_UMASK = 14,     /* u32 */
  WS_TAG_CLOCK_RES = 15, /* u64 nanoseconds */
  WS_TAG_MODULE = 16,    /* u32 fd index: wasm bytes to compile (compile) */
  WS_TAG_OUTPUT = 17,    /* u32 fd index for the artifact, u32 fd index for the description (compile) */
  WS_TAG_THREADS = 18,   /* u32: compiler threads, or all threads of a component's worker, 1 to 256 */
  WS_TAG_FORM = 19,      /* u32: ws_form of what a run worker loads; a core module unless given */
  WS_TAG_BROKER = 20,    /* u32 fd index: a run worker's end to its broker; the broker's end to it */
  WS_TAG_RESOLVER = 21,  /* u32 fd index: where a run worker asks for names that no table holds */
  WS_TAG_NAME = 22,      /* u32 n, n x (u32 family 4 or 6, 16 bytes), then the host name; repeatable */
  WS_TAG_RULE = 23,      /* struct ws_rule, repeatable (broker); the first that matches counts */
};

enum ws_kind { WS_KIND_RUN = 0, WS_KIND_COMPILE = 1, WS_KIND_BROKER = 2 };
enum ws_form { WS_FORM_MODULE = 0, WS_FORM_COMPONENT = 1 };
enum ws_engine_kind { WS_ENGINE_CRANELIFT = 0, WS_ENGINE_PULLEY = 1 };
enum ws_preopen_source { WS_SOURCE_DIR = 0, WS_SOURCE_TMPFS = 1, WS_SOURCE_LISTENER = 2 };
enum ws_preopen_flags { WS_PREOPEN_READ_ONLY = 1 };

struct ws_limits {
  uint64_t memory;         /* bytes of each linear memory (store limiter); RLIMIT_DATA adds data_overhead */
  uint64_t cpu_ns;         /* WS_UNLIMITED: none; likewise below */
  uint64_t fds;            /* guest descriptors, stdio and preopens included */
  uint64_t file_size;      /* bytes */
  uint64_t output;         /* bytes to stdout and stderr */
  uint64_t fuel;           /* WS_UNLIMITED: fuel is not metered, and the artifact must be one without */
  uint64_t table_elements; /* of each table */
  uint64_t data_overhead;  /* bytes of writable memory for engine and host beside the guest's */
};

struct ws_preopen_spec {
  uint32_t source, fd_index, flags;
  uint64_t size; /* tmpfs: bytes */
  struct ws_bytes name;
};

/* What a broker lets its worker do; without a rule that matches, nothing. */
enum ws_action { WS_ACTION_CONNECT = 1, WS_ACTION_LISTEN = 2 };
enum ws_protocol { WS_PROTOCOL_TCP = 1, WS_PROTOCOL_UDP = 2 };

struct ws_rule {
  uint8_t allow;    /* 0 or 1 */
  uint8_t actions;  /* bits of ws_action */
  uint8_t protocol; /* bits of ws_protocol */
  uint8_t family;   /* 4 or 6 */
  uint8_t prefix;   /* bits of the address that count */
  uint8_t zero[3];
  uint8_t address[16]; /* IPv4 in the first four */
  uint16_t low, high;  /* ports, both included */
  uint32_t zero_end;
};

/* One address in a name's field. */
enum { WS_NAME_ADDRESS = 20 };

struct ws_name {
  struct ws_bytes host;
  const uint8_t *addresses; /* count x (u32 family, 16 bytes), not aligned */
  uint32_t count;
};

/* All strings point into `bytes`, which the caller keeps alive. */
struct ws_spec {
  uint32_t kind, engine, form;
  struct ws_bytes *args, *env;
  size_t arg_count, env_count;
  struct ws_preopen_spec preopens[WS_SPEC_MAX_PREOPENS];
  size_t preopen_count;
  uint32_t stdio[3];
  uint32_t artifact, module, output, description;
  struct sock_fprog filter[2]; /* stage 1 and 2; point into aligned copies owned by the spec */
  struct ws_limits limits;
  struct ws_bytes invoke; /* len 0: none */
  int has_identity;
  uint32_t uid, gid;
  uint32_t groups[WS_SPEC_MAX_GROUPS];
  size_t group_count;
  uint32_t allow_missing;
  uint32_t umask;
  uint64_t clock_resolution_ns;
  uint32_t threads;
  uint32_t broker, resolver; /* fd indexes */
  struct ws_name *names;
  size_t name_count;
  struct ws_rule *rules;
  size_t rule_count;
  uint64_t seen; /* bit per tag; the decoder's own */
};

/* Decodes `bytes` (len bytes) against `fd_count` descriptors.  Touches nothing but memory.
 * Returns 0, or a negative errno with `e` filled; after failure ws_spec_clear is still right. */
int ws_spec_decode(struct ws_spec *spec, const uint8_t *bytes, size_t len, uint32_t fd_count,
                   struct ws_error *e);
void ws_spec_clear(struct ws_spec *spec);
