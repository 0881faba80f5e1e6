#include "base/record.h"

#include <string.h>
#include <time.h>

void ws_record_denial(struct ws_record *record, enum ws_denial_kind kind, uint32_t wasi_errno,
                      const char *path, size_t path_len) {
  if (!record)
    return;
  record->denials_total++;
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

void ws_record_outcome(struct ws_record *record, enum ws_outcome outcome, uint32_t code,
                       const char *text, size_t text_len) {
  if (!record || record->outcome != WS_OUTCOME_NONE)
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
  record->outcome = outcome;
  record->phase = WS_PHASE_DONE;
}
