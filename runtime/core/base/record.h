/* The run record: one shared mapping that the worker writes and the supervisor reads.
 *
 * It is a sealed memfd made by the supervisor.  The worker maps it, closes the descriptor and from
 * then on reports by plain stores: no status pipe has to stay open (or admitted by seccomp) while
 * the guest runs, and what was written survives a SIGKILL of the worker.  The supervisor trusts the
 * kernel's wait status first and reads this page as untrusted, bounded data.
 *
 * The layout is little-endian, naturally aligned, and mirrored in runtime/record.py; a test compares
 * the two (sizes and offsets).  Bump WS_RECORD_VERSION with every change.  */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define WS_RECORD_MAGIC 0x43455257u /* "WREC" */
#define WS_RECORD_VERSION 2u
#define WS_RECORD_SIZE 65536u
#define WS_RECORD_MESSAGE 8192u
#define WS_RECORD_DENIALS 96u
#define WS_RECORD_PATH 240u

enum ws_phase {
  WS_PHASE_NONE = 0,
  WS_PHASE_SETUP = 1,   /* walls are going up */
  WS_PHASE_LOADING = 2, /* walls are up, first filter on, the artifact is being loaded */
  WS_PHASE_RUNNING = 3, /* second filter on, the guest's code may run */
  WS_PHASE_DONE = 4,
};

enum ws_outcome {
  WS_OUTCOME_NONE = 0,
  WS_OUTCOME_EXIT = 1,         /* code: the guest's exit status */
  WS_OUTCOME_TRAP = 2,         /* code: wasmtime_trap_code, or ~0 */
  WS_OUTCOME_SETUP = 3,        /* err, step, message */
  WS_OUTCOME_INVALID = 4,      /* the module cannot be run: message says why */
  WS_OUTCOME_OUTPUT = 5,       /* output quota */
  WS_OUTCOME_CPU_TIME = 6,     /* CPU quota */
  WS_OUTCOME_FILE_SIZE = 7,    /* SIGXFSZ */
  WS_OUTCOME_SYSCALL = 8,      /* code: number of the forbidden system call */
  WS_OUTCOME_MEMORY = 9,       /* initial memory over the quota, or the host side ran out */
  WS_OUTCOME_RAISED = 10,      /* proc_raise; code: Linux signal number */
  WS_OUTCOME_FUEL = 11,        /* fuel used up */
  WS_OUTCOME_ABORT = 12,       /* the engine itself aborted */
  WS_OUTCOME_REJECTED = 13,    /* the artifact is not one of this engine's: compile again */
  WS_OUTCOME_COMPILED = 14,    /* a compile worker finished */
};

/* What was refused.  One kind a flag that could have granted it, so that a hint can name the flag. */
enum ws_denial_kind {
  WS_DENIAL_NO_PREOPEN = 1,   /* the guest looked for preopens and there are none */
  WS_DENIAL_ESCAPE = 2,       /* a path that leaves its preopen; path: as the guest wrote it */
  WS_DENIAL_READ_ONLY = 3,    /* a write below a ::ro preopen; path: preopen name + "/" + path */
  WS_DENIAL_RIGHTS = 4,       /* a right that the descriptor lacks; path: the function's name */
  WS_DENIAL_FDS = 5,          /* EMFILE of the guest's table */
  WS_DENIAL_MEMORY = 6,       /* memory.grow answered -1 */
  WS_DENIAL_SOCKET = 7,       /* a socket call without a socket */
  WS_DENIAL_PERMISSION = 8,   /* the host's own EACCES/EPERM below a preopen */
  WS_DENIAL_SIGNAL = 9,       /* a signal that may not be raised */
  WS_DENIAL_NETWORK = 10,     /* path: the value of --net that would have allowed it */
  WS_DENIAL_NAME = 11,        /* path: a host name that was asked for */
};

struct ws_denial {
  uint32_t kind;
  uint32_t count;
  uint32_t wasi_errno;
  uint32_t path_len;
  char path[WS_RECORD_PATH]; /* bytes as the guest gave them, cut at the end, not NUL-terminated */
};

struct ws_record {
  uint32_t magic;
  uint32_t version;
  uint32_t phase;
  uint32_t outcome;
  uint32_t code;
  uint32_t err;
  uint32_t walls;        /* bit per ws_wall that is up */
  uint32_t landlock_abi;
  uint64_t output_bytes; /* written to stdout and stderr */
  uint64_t fuel_used;
  uint64_t memory_bytes; /* linear memory when the run ended */
  uint64_t t_setup_ns;   /* CLOCK_MONOTONIC at the worker's first instruction */
  uint64_t t_loading_ns; /* ... when every wall stood */
  uint64_t t_running_ns; /* ... when the guest's code was entered */
  uint64_t t_done_ns;
  char step[48];
  uint32_t message_len;
  uint32_t denial_count;   /* entries in use, at most WS_RECORD_DENIALS */
  uint64_t denials_total;  /* all denials, also those that found no room */
  char message[WS_RECORD_MESSAGE];
  struct ws_denial denials[WS_RECORD_DENIALS];
};

_Static_assert(sizeof(struct ws_record) <= WS_RECORD_SIZE, "the record fits its mapping");

/* Walls, as bits of ws_record.walls; the names are those of --allow-missing and `doctor`. */
enum ws_wall {
  WS_WALL_NAMESPACES = 1u << 0, /* mount, pid, ipc, uts, cgroup (and user) */
  WS_WALL_NETWORK = 1u << 1,    /* a network namespace with nothing in it */
  WS_WALL_ROOT = 1u << 2,       /* empty read-only root, bind mounts */
  WS_WALL_IDENTITY = 1u << 3,   /* caller's uid, no capabilities, no_new_privs, not dumpable */
  WS_WALL_RLIMITS = 1u << 4,
  WS_WALL_LANDLOCK = 1u << 5,
  WS_WALL_SECCOMP = 1u << 6,
  WS_WALL_CGROUP = 1u << 7,
  WS_WALL_THREADS = 1u << 8, /* a bound on a component's threads; modules have none */
};

/* Counts one denial; equal (kind, path) pairs share an entry.  Async-signal-safe, for any thread.
 * `record` may be NULL (fuzzers, unit tests): then nothing is kept. */
void ws_record_denial(struct ws_record *record, enum ws_denial_kind kind, uint32_t wasi_errno,
                      const char *path, size_t path_len);

/* Sets the outcome and, when `text` is not NULL, the message (cut to fit).  The first outcome wins,
 * whichever thread it comes from. */
void ws_record_outcome(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                       const char *text, size_t text_len);
