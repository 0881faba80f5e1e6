/* Every preview 1 function, as the tables in functions.c list them. */
#pragma once

#include <stdint.h>

#include "wasi/wasi.h"

/* One declaration a function: the tables give the parameters, each definition their meaning. */
#define WASI_CALL(name) \
  uint32_t wasi_##name(struct wasi_ctx *ctx, const struct wasi_memory *mem, const uint64_t *args)

WASI_CALL(args_get);
WASI_CALL(args_sizes_get);
WASI_CALL(environ_get);
WASI_CALL(environ_sizes_get);
WASI_CALL(clock_res_get);
WASI_CALL(clock_time_get);
WASI_CALL(fd_advise);
WASI_CALL(fd_allocate);
WASI_CALL(fd_close);
WASI_CALL(fd_datasync);
WASI_CALL(fd_fdstat_get);
WASI_CALL(fd_fdstat_set_flags);
WASI_CALL(fd_fdstat_set_rights);
WASI_CALL(fd_filestat_get);
WASI_CALL(fd_filestat_set_size);
WASI_CALL(fd_filestat_set_times);
WASI_CALL(fd_pread);
WASI_CALL(fd_prestat_get);
WASI_CALL(fd_prestat_dir_name);
WASI_CALL(fd_pwrite);
WASI_CALL(fd_read);
WASI_CALL(fd_readdir);
WASI_CALL(fd_renumber);
WASI_CALL(fd_seek);
WASI_CALL(fd_sync);
WASI_CALL(fd_tell);
WASI_CALL(fd_write);
WASI_CALL(path_create_directory);
WASI_CALL(path_filestat_get);
WASI_CALL(path_filestat_set_times);
WASI_CALL(path_link);
WASI_CALL(path_open);
WASI_CALL(path_readlink);
WASI_CALL(path_remove_directory);
WASI_CALL(path_rename);
WASI_CALL(path_symlink);
WASI_CALL(path_unlink_file);
WASI_CALL(poll_oneoff);
WASI_CALL(proc_exit);
WASI_CALL(proc_raise);
WASI_CALL(random_get);
WASI_CALL(sched_yield);
WASI_CALL(sock_accept);
WASI_CALL(sock_recv);
WASI_CALL(sock_send);
WASI_CALL(sock_shutdown);

/* Where `wasi_unstable` has another layout or another order of numbers. */
WASI_CALL(fd_filestat_get_unstable);
WASI_CALL(fd_seek_unstable);
WASI_CALL(path_filestat_get_unstable);
WASI_CALL(poll_oneoff_unstable);
