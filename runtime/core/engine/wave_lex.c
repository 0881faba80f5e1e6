#include "engine/wave_lex.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool wave_fail(struct wave_cursor *c, const char *format, ...) {
  va_list ap;
  if (c->error->what[0])
    return false; /* the innermost one says most */
  va_start(ap, format);
  vsnprintf(c->error->what, sizeof c->error->what, format, ap);
  va_end(ap);
  c->error->at = c->at;
  return false;
}

static void skip(struct wave_cursor *c) {
  for (;;) {
    while (c->at < c->len && memchr(" \t\r\n", c->text[c->at], 4))
      c->at++;
    if (c->len - c->at < 2 || memcmp(c->text + c->at, "//", 2) != 0)
      return;
    while (c->at < c->len && c->text[c->at] != '\n')
      c->at++;
  }
}

bool wave_at_end(struct wave_cursor *c) {
  skip(c);
  return c->at == c->len;
}

bool wave_ahead(struct wave_cursor *c, char wanted) {
  skip(c);
  return c->at < c->len && c->text[c->at] == wanted;
}

bool wave_take(struct wave_cursor *c, char wanted) {
  bool there = wave_ahead(c, wanted);
  c->at += there;
  return there;
}

bool wave_expect(struct wave_cursor *c, char wanted) {
  return wave_take(c, wanted) || wave_fail(c, "%c is expected", wanted);
}

bool wave_separator(struct wave_cursor *c, char end) {
  return wave_take(c, ',') || wave_ahead(c, end) || wave_fail(c, ", or %c is expected", end);
}

static bool in_word(char x) {
  return (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || (x >= '0' && x <= '9') || x == '-';
}

static size_t word_length(const struct wave_cursor *c) {
  size_t n = 0;
  while (c->at + n < c->len && in_word(c->text[c->at + n]))
    n++;
  return n;
}

bool wave_take_word(struct wave_cursor *c, const char *word) {
  skip(c);
  size_t n = word_length(c);
  if (n != strlen(word) || memcmp(c->text + c->at, word, n) != 0)
    return false;
  c->at += n;
  return true;
}

bool wave_take_number(struct wave_cursor *c, char *out, size_t size) {
  skip(c);
  size_t n = 0;
  while (c->at + n < c->len && c->text[c->at + n] && memchr("0123456789+-.eE", c->text[c->at + n], 15))
    n++;
  /* Neither "+1" nor ".5" nor "1." is a number of JSON. */
  const char *text = c->text + c->at, *first = n && text[0] == '-' ? text + 1 : text;
  if (n == 0 || n >= size || first == text + n || *first < '0' || *first > '9' || text[n - 1] == '.')
    return false;
  memcpy(out, text, n);
  out[n] = 0;
  c->at += n;
  return true;
}

bool wave_take_label(struct wave_cursor *c, struct ws_bytes *out) {
  skip(c);
  size_t percent = c->at < c->len && c->text[c->at] == '%';
  struct wave_cursor rest = {.text = c->text, .len = c->len, .at = c->at + percent};
  size_t n = word_length(&rest);
  if (n == 0)
    return false;
  *out = (struct ws_bytes){c->text + rest.at, n};
  c->at = rest.at + n;
  return true;
}

bool wave_is(const struct ws_bytes *label, const char *name, size_t len) {
  return label->len == len && memcmp(label->bytes, name, len) == 0;
}

/* How many bytes the UTF-8 sequence here has, with its value; 0 for what is none (Unicode 15, table
 * 3-7). */
static size_t utf8(const char *text, size_t left, uint32_t *out) {
  const unsigned char *b = (const unsigned char *)text;
  size_t n = b[0] < 0x80 ? 1 : b[0] < 0xc2 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : b[0] < 0xf5 ? 4 : 0;
  if (n == 0 || n > left)
    return 0;
  uint32_t value = n == 1 ? b[0] : b[0] & (0x7fu >> n);
  for (size_t i = 1; i < n; i++) {
    if ((b[i] & 0xc0) != 0x80)
      return 0;
    value = value << 6 | (b[i] & 0x3f);
  }
  bool overlong = (n == 3 && value < 0x800) || (n == 4 && value < 0x10000);
  *out = value;
  return overlong || value > 0x10ffff || (value >= 0xd800 && value < 0xe000) ? 0 : n;
}

/* "{1f600}" after a \u. */
static bool take_unicode(struct wave_cursor *c, uint32_t *out) {
  size_t digits = 0;
  if (c->at >= c->len || c->text[c->at] != '{')
    return wave_fail(c, "{ is expected");
  c->at++;
  for (*out = 0; c->at < c->len && c->text[c->at] != '}'; c->at++, digits++) {
    char x = c->text[c->at];
    uint32_t digit = x >= '0' && x <= '9'   ? (uint32_t)(x - '0')
                     : x >= 'a' && x <= 'f' ? (uint32_t)(x - 'a' + 10)
                     : x >= 'A' && x <= 'F' ? (uint32_t)(x - 'A' + 10)
                                            : 16;
    if (digit > 15 || digits == 6)
      return wave_fail(c, "one to six hexadecimal digits are expected");
    *out = *out << 4 | digit;
  }
  if (c->at >= c->len || digits == 0)
    return wave_fail(c, "one to six hexadecimal digits are expected");
  c->at++;
  if (*out > 0x10ffff || (*out >= 0xd800 && *out < 0xe000))
    return wave_fail(c, "%x is no character", *out);
  return true;
}

static bool take_escape(struct wave_cursor *c, uint32_t *out) {
  static const char names[] = "tnr\"'\\", values[] = "\t\n\r\"'\\";
  const char *found = c->at < c->len && c->text[c->at] ? strchr(names, c->text[c->at]) : NULL;
  if (found) {
    c->at++;
    *out = (unsigned char)values[found - names];
    return true;
  }
  if (c->at >= c->len || c->text[c->at] != 'u')
    return wave_fail(c, "there is no such escape");
  c->at++;
  return take_unicode(c, out);
}

/* One character inside quotes. */
static bool take_inside(struct wave_cursor *c, uint32_t *out) {
  if (c->at >= c->len)
    return wave_fail(c, "the closing quote is missing");
  if (c->text[c->at] == '\\') {
    c->at++;
    return take_escape(c, out);
  }
  size_t n = utf8(c->text + c->at, c->len - c->at, out);
  if (n == 0 || *out == '\n')
    return wave_fail(c, n ? "a line ends in the middle" : "this is not UTF-8");
  c->at += n;
  return true;
}

static size_t encode(uint32_t value, char *out) {
  if (value < 0x80) {
    out[0] = (char)value;
    return 1;
  }
  size_t n = value < 0x800 ? 2 : value < 0x10000 ? 3 : 4;
  for (size_t i = n - 1; i > 0; i--, value >>= 6)
    out[i] = (char)(0x80 | (value & 0x3f));
  out[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | value);
  return n;
}

char *wave_take_string(struct wave_cursor *c, size_t *len) {
  if (!wave_take(c, '"')) {
    wave_fail(c, "a string in double quotes is expected");
    return NULL;
  }
  char *bytes = malloc(c->len - c->at + 1); /* no escape is shorter than what it stands for */
  if (!bytes)
    wave_fail(c, "no memory for the string");
  size_t used = 0;
  while (bytes && !(c->at < c->len && c->text[c->at] == '"')) {
    uint32_t value;
    if (!take_inside(c, &value)) {
      free(bytes);
      return NULL;
    }
    used += encode(value, bytes + used);
  }
  c->at += bytes != NULL;
  *len = used;
  return bytes;
}

bool wave_take_char(struct wave_cursor *c, uint32_t *out) {
  if (!wave_take(c, '\''))
    return wave_fail(c, "a character in single quotes is expected");
  if (c->at < c->len && c->text[c->at] == '\'')
    return wave_fail(c, "a character is expected");
  if (!take_inside(c, out))
    return false;
  if (c->at >= c->len || c->text[c->at] != '\'')
    return wave_fail(c, "' is expected");
  c->at++;
  return true;
}
