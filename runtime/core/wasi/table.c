#include "wasi/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wasi/context.h"
#include "wasi/errno.h"

#define FIRST_SIZE 16u

bool wasi_table_init(struct wasi_table *table, uint32_t limit) {
  uint32_t size = limit < FIRST_SIZE ? limit : FIRST_SIZE;
  *table = (struct wasi_table){.limit = limit, .size = size};
  table->entries = calloc(size ? size : 1, sizeof *table->entries);
  return table->entries != NULL;
}

static bool grow(struct wasi_table *table, uint32_t wanted) {
  if (wanted <= table->size) {
    return true;
  }
  if (wanted > table->limit) {
    return false;
  }
  uint64_t size = (uint64_t)table->size * 2;
  size = size < wanted ? wanted : size;
  size = size > table->limit ? table->limit : size;
  struct wasi_entry *entries = realloc(table->entries, size * sizeof *entries);
  if (entries == NULL) {
    return false;
  }
  memset(entries + table->size, 0, (size - table->size) * sizeof *entries);
  table->entries = entries;
  table->size = (uint32_t)size;
  return true;
}

struct wasi_desc *wasi_desc_new(enum wasi_kind kind, int fd, uint8_t filetype) {
  struct wasi_desc *desc = malloc(sizeof *desc);
  if (desc != NULL) {
    *desc = (struct wasi_desc){.fd = fd, .kind = (uint8_t)kind, .filetype = filetype};
  }
  return desc;
}

/* Stdio stays open on the host: a run without directories is not allowed close(2), and the
 * descriptor is the user's terminal or pipe, which the process gives back when it ends. */
static uint32_t drop(struct wasi_desc *desc, bool with_stdio) {
  if (--desc->refs > 0) {
    return W_SUCCESS;
  }
  int err = 0;
  if (desc->kind != WASI_KIND_STDIO || with_stdio) {
    err = close(desc->fd) == 0 || errno == EINTR ? 0 : errno;
  }
  free(desc);
  return err ? wasi_errno(err) : W_SUCCESS;
}

void wasi_table_free(struct wasi_table *table) {
  for (uint32_t i = 0; table->entries != NULL && i < table->size; i++) {
    if (table->entries[i].desc != NULL) {
      drop(table->entries[i].desc, true);
    }
  }
  free(table->entries);
  *table = (struct wasi_table){0};
}

static uint32_t lowest_free(struct wasi_table *table) {
  uint32_t number = table->first_free;
  while (number < table->size && table->entries[number].desc != NULL) {
    number++;
  }
  table->first_free = number;
  return number;
}

bool wasi_table_has_room(struct wasi_table *table) {
  return grow(table, lowest_free(table) + 1);
}

uint32_t wasi_table_put(struct wasi_table *table, uint32_t number, struct wasi_desc *desc,
                        uint64_t rights, uint64_t inheriting) {
  if (number >= table->limit || !grow(table, number + 1) || table->entries[number].desc != NULL) {
    return W_MFILE;
  }
  desc->refs++;
  table->entries[number] =
      (struct wasi_entry){.desc = desc, .rights = rights, .inheriting = inheriting};
  return W_SUCCESS;
}

uint32_t wasi_table_add(struct wasi_table *table, struct wasi_desc *desc, uint64_t rights,
                        uint64_t inheriting, uint32_t *number) {
  *number = lowest_free(table);
  return wasi_table_put(table, *number, desc, rights, inheriting);
}

uint32_t wasi_table_close(struct wasi_table *table, uint32_t number) {
  struct wasi_entry *entry = wasi_table_get(table, number);
  if (entry == NULL) {
    return W_BADF;
  }
  struct wasi_desc *desc = entry->desc;
  *entry = (struct wasi_entry){0};
  if (number < table->first_free) {
    table->first_free = number;
  }
  return drop(desc, false);
}

uint32_t wasi_table_renumber(struct wasi_table *table, uint32_t from, uint32_t to) {
  struct wasi_entry *source = wasi_table_get(table, from);
  struct wasi_entry *target = wasi_table_get(table, to);
  if (source == NULL || target == NULL) {
    return W_BADF;
  }
  if (from == to) {
    return W_SUCCESS;
  }
  struct wasi_desc *old = target->desc;
  *target = *source;
  *source = (struct wasi_entry){0};
  if (from < table->first_free) {
    table->first_free = from;
  }
  drop(old, false);
  return W_SUCCESS;
}

static uint32_t check_kind(const struct wasi_desc *desc, enum wasi_want want) {
  bool file = desc->kind == WASI_KIND_FILE, dir = desc->kind == WASI_KIND_DIR;
  switch (want) {
  case WASI_WANT_DIR:
    return dir ? W_SUCCESS : file ? W_NOTDIR : W_BADF;
  case WASI_WANT_FILE:
    return file ? W_SUCCESS : W_BADF;
  case WASI_WANT_SEEKABLE:
    return file ? W_SUCCESS : dir ? W_BADF : W_SPIPE;
  case WASI_WANT_STREAM:
    return dir || desc->kind == WASI_KIND_LISTENER ? W_BADF : W_SUCCESS;
  case WASI_WANT_SYNC:
    return file || dir ? W_SUCCESS : W_BADF;
  case WASI_WANT_ANY:
    break;
  }
  return W_SUCCESS;
}

uint32_t wasi_lookup(struct wasi_ctx *ctx, uint32_t number, enum wasi_want want, uint64_t rights,
                     const char *who, struct wasi_entry **out) {
  struct wasi_entry *entry = wasi_table_get(&ctx->table, number);
  if (entry == NULL) {
    return W_BADF;
  }
  uint32_t err = check_kind(entry->desc, want);
  if (err != W_SUCCESS) {
    return err;
  }
  if ((entry->rights & rights) != rights) {
    /* Stdio of the wrong direction is EBADF, as everywhere: no flag could grant it. */
    if (entry->desc->kind == WASI_KIND_STDIO && (rights & (W_RIGHT_FD_READ | W_RIGHT_FD_WRITE))) {
      return W_BADF;
    }
    return wasi_deny(ctx, WS_DENIAL_RIGHTS, W_NOTCAPABLE, who, strlen(who));
  }
  *out = entry;
  return W_SUCCESS;
}
