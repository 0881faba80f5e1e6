/* The words of WAVE: what the parser is made of, without any type of a value.
 *
 * Each function skips white space and comments before it looks.  A `take` that returns false has taken
 * nothing, unless it says otherwise.  */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "engine/wave.h"

struct wave_cursor {
  const char *text;
  size_t len, at;
  struct wave_error *error;
};

/* Fills the error, unless there is one already; false, always. */
__attribute__((format(printf, 2, 3))) bool wave_fail(struct wave_cursor *c, const char *format, ...);

bool wave_at_end(struct wave_cursor *c);
bool wave_ahead(struct wave_cursor *c, char wanted);
bool wave_take(struct wave_cursor *c, char wanted);
/* As wave_take, and fails with words. */
bool wave_expect(struct wave_cursor *c, char wanted);
/* A comma, or (not taken) `end`; fails with words. */
bool wave_separator(struct wave_cursor *c, char end);
/* A whole word, e.g. "true". */
bool wave_take_word(struct wave_cursor *c, const char *word);
/* What can be a number, NUL-terminated; false when there is none or it has no room. */
bool wave_take_number(struct wave_cursor *c, char *out, size_t size);
/* A kebab-case name, without the % that may stand before it. */
bool wave_take_label(struct wave_cursor *c, struct ws_bytes *out);
bool wave_is(const struct ws_bytes *label, const char *name, size_t len);
/* "text": its bytes in UTF-8, the caller's to free; NULL after wave_fail. */
char *wave_take_string(struct wave_cursor *c, size_t *len);
/* 'x'; false after wave_fail. */
bool wave_take_char(struct wave_cursor *c, uint32_t *out);
