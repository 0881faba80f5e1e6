#include "base/record.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* A component's runtime has threads, and each of them can be interrupted by a signal that has
 * something to report, also while it is reporting itself.  A thread is told by the address of a
 * variable of its own: asking for its number would be a system call. */
static _Thread_local char here;
static _Atomic(char *) denying;   /* the thread that writes a denial */
static _Atomic(char *) reporting; /* the thread that writes the outcome */

/* A few milliseconds: whoever holds it writes some bytes, and may have been interrupted. */
enum { PATIENCE = 1 << 22 };

/* True when this thread has it now; false when a handler interrupted its own thread, or the holder
 * does not come back. */
static int hold(_Atomic(char *) *lock) {
  for (int i = 0; i < PATIENCE; i++) {
    char *holder = NULL;
    if (atomic_compare_exchange_weak(lock, &holder, &here))
      return 1;
    if (holder == &here)
      return 0;
    __builtin_ia32_pause();
  }
  return 0;
}

static void count_denial(struct ws_record *record, enum ws_denial_kind kind, uint32_t wasi_errno,
                         const char *path, size_t path_len) {
  if (path_len > WS_RECORD_PATH)
    path_len = WS_RECORD_PATH;
  uint32_t used = record->denial_count;
  if (used > WS_RECORD_DENIALS)
    return;
  for (uint32_t i = 0; i < used; i++) {
    struct ws_denial *d = &record->denials[i];
    if (d->kind == (uint32_t)kind && d->path_len == path_len && memcmp(d->path, path, path_len) == 0) {
      d->count++;
      return;
    }
  }
  if (used == WS_RECORD_DENIALS)
    return;
  struct ws_denial *d = &record->denials[used];
  d->kind = kind;
  d->count = 1;
  d->wasi_errno = wasi_errno;
  d->path_len = (uint32_t)path_len;
  if (path_len)
    memcpy(d->path, path, path_len);
  record->denial_count = used + 1;
}

void ws_record_denial(struct ws_record *record, enum ws_denial_kind kind, uint32_t wasi_errno,
                      const char *path, size_t path_len) {
  if (!record)
    return;
  __atomic_add_fetch(&record->denials_total, 1, __ATOMIC_RELAXED);
  if (!hold(&denying))
    return; /* counted, and not named */
  count_denial(record, kind, wasi_errno, path, path_len);
  atomic_store(&denying, NULL);
}

static uint32_t outcome_of(struct ws_record *record) {
  return __atomic_load_n(&record->outcome, __ATOMIC_ACQUIRE);
}

/* Whoever comes second and in another thread waits until the first is done: it is about to end the
 * process.  A handler that interrupts the first's own thread goes on in its place. */
static int may_report(struct ws_record *record) {
  char *first = NULL;
  if (outcome_of(record) != WS_OUTCOME_NONE)
    return 0;
  if (atomic_compare_exchange_strong(&reporting, &first, &here) || first == &here)
    return 1;
  for (int i = 0; i < PATIENCE && outcome_of(record) == WS_OUTCOME_NONE; i++)
    __builtin_ia32_pause();
  return 0;
}

void ws_record_outcome(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                       const char *text, size_t text_len) {
  if (!record || !may_report(record))
    return;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  record->t_done_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  if (text) {
    if (text_len > WS_RECORD_MESSAGE)
      text_len = WS_RECORD_MESSAGE;
    memcpy(record->message, text, text_len);
    record->message_len = (uint32_t)text_len;
  }
  record->code = code;
  record->phase = WS_PHASE_DONE;
  __atomic_store_n(&record->outcome, (uint32_t)outcome, __ATOMIC_RELEASE);
}
