#include "wasi/context.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "wasi/clock.h"

uint32_t wasi_deny(struct wasi_ctx *ctx, enum ws_denial_kind kind, uint32_t err, const char *path,
                   size_t len) {
  ws_record_denial(ctx->config.record, kind, err, path != NULL ? path : "", len);
  return err;
}

/* Total length with terminators, as args_sizes_get reports it; false: over 32 bits. */
static bool total_bytes(const struct ws_bytes *items, size_t count, uint32_t *total) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    if (items[i].len >= UINT32_MAX) {
      return false;
    }
    sum += items[i].len + 1;
    if (sum > UINT32_MAX) {
      return false;
    }
  }
  *total = (uint32_t)sum;
  return count <= UINT32_MAX / 4;
}

/* Rights of stdio are what works on it without lseek, fstat or fcntl; no FD_SEEK and FD_TELL is
 * also how guests' isatty tells a terminal from another character device. */
static uint32_t add_stdio(struct wasi_ctx *ctx, uint32_t number, int fd) {
  struct wasi_desc *desc = wasi_desc_new(
      WASI_KIND_STDIO, fd, isatty(fd) ? W_FILETYPE_CHARACTER_DEVICE : W_FILETYPE_UNKNOWN);
  if (desc == NULL) {
    return W_NOMEM;
  }
  desc->output = number != 0;
  uint64_t rights = number == 0 ? W_RIGHT_FD_READ : W_RIGHT_FD_WRITE;
  rights |= W_RIGHT_FD_FDSTAT_SET_FLAGS | W_RIGHT_FD_FILESTAT_GET | W_RIGHT_POLL_FD_READWRITE;
  uint32_t err = wasi_table_put(&ctx->table, number, desc, rights, 0);
  if (err != W_SUCCESS) {
    free(desc);
  }
  return err;
}

static uint32_t add_preopen(struct wasi_ctx *ctx, uint32_t number, const struct wasi_preopen *from,
                            struct wasi_root *root) {
  bool dir = from->kind == WASI_PREOPEN_DIR;
  *root = (struct wasi_root){
      .name = from->name, .name_len = from->name_len, .read_only = from->read_only};
  struct wasi_desc *desc =
      wasi_desc_new(dir ? WASI_KIND_DIR : WASI_KIND_LISTENER, from->fd,
                    dir ? W_FILETYPE_DIRECTORY : W_FILETYPE_SOCKET_STREAM);
  if (desc == NULL) {
    return W_NOMEM;
  }
  desc->preopen = true;
  desc->root = dir ? root : NULL;
  uint64_t rights = dir ? WASI_RIGHTS_DIR
                        : W_RIGHT_SOCK_ACCEPT | W_RIGHT_FD_FDSTAT_SET_FLAGS |
                              W_RIGHT_FD_FILESTAT_GET | W_RIGHT_POLL_FD_READWRITE;
  uint64_t inheriting = dir ? WASI_RIGHTS_DIR | WASI_RIGHTS_FILE : WASI_RIGHTS_SOCKET;
  uint32_t err = wasi_table_put(&ctx->table, number, desc, rights, inheriting);
  if (err != W_SUCCESS) {
    free(desc);
  }
  return err;
}

static uint32_t fill_table(struct wasi_ctx *ctx, const struct wasi_config *config) {
  for (uint32_t i = 0; i < 3; i++) {
    uint32_t err = config->stdio[i] < 0 ? W_SUCCESS : add_stdio(ctx, i, config->stdio[i]);
    if (err != W_SUCCESS) {
      return err;
    }
  }
  for (size_t i = 0; i < config->preopen_count; i++) {
    uint32_t err = add_preopen(ctx, 3 + (uint32_t)i, &config->preopens[i], &ctx->roots[i]);
    if (err != W_SUCCESS) {
      return err;
    }
  }
  return W_SUCCESS;
}

static int out_of_range(struct wasi_ctx *ctx, const struct wasi_config *config) {
  if (config->finish == NULL) {
    return EINVAL;
  }
  if (config->max_fds < 3 || config->preopen_count > config->max_fds - 3) {
    return EMFILE;
  }
  if (!total_bytes(config->args, config->arg_count, &ctx->args_bytes) ||
      !total_bytes(config->env, config->env_count, &ctx->env_bytes)) {
    return E2BIG;
  }
  return 0;
}

struct wasi_ctx *wasi_ctx_new(const struct wasi_config *config) {
  struct wasi_ctx *ctx = calloc(1, sizeof *ctx);
  if (ctx == NULL) {
    return NULL;
  }
  int err = out_of_range(ctx, config);
  if (err != 0) {
    free(ctx);
    errno = err;
    return NULL;
  }
  ctx->config = *config;
  ctx->config.preopens = NULL;
  wasi_clock_init(ctx);
  ctx->roots = calloc(config->preopen_count ? config->preopen_count : 1, sizeof *ctx->roots);
  if (ctx->roots == NULL || !wasi_table_init(&ctx->table, config->max_fds) ||
      fill_table(ctx, config) != W_SUCCESS) {
    wasi_ctx_delete(ctx);
    errno = ENOMEM;
    return NULL;
  }
  return ctx;
}

void wasi_ctx_delete(struct wasi_ctx *ctx) {
  if (ctx == NULL) {
    return;
  }
  wasi_table_free(&ctx->table);
  free(ctx->roots);
  free(ctx);
}
