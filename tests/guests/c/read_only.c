/* Every function of preview 1 that concerns files, on the preopen 3: prints its name and errno.
 *
 * Below 3 are expected: `file` (with "content"), `dir/`, and `link` -> `file`. */
#include <stdio.h>
#include <string.h>
#include <wasi/api.h>

#define SAY(name, call) printf("%s %d\n", name, (int)(call))

static __wasi_fd_t open_path(const char *path, __wasi_oflags_t flags, __wasi_rights_t rights,
                             int *err) {
  __wasi_fd_t fd = 0;
  *err = __wasi_path_open(3, 1, path, flags, rights, rights, 0, &fd);
  return fd;
}

static void reads(__wasi_fd_t fd) {
  static uint8_t buf[4096];
  __wasi_iovec_t in = {buf, sizeof buf};
  __wasi_size_t n;
  __wasi_filesize_t at;
  __wasi_filestat_t st;
  __wasi_fdstat_t fs;
  SAY("fd_read", __wasi_fd_read(fd, &in, 1, &n));
  printf("%.*s\n", (int)n, buf);
  SAY("fd_pread", __wasi_fd_pread(fd, &in, 1, 0, &n));
  SAY("fd_seek", __wasi_fd_seek(fd, 0, __WASI_WHENCE_SET, &at));
  SAY("fd_tell", __wasi_fd_tell(fd, &at));
  SAY("fd_filestat_get", __wasi_fd_filestat_get(fd, &st));
  SAY("fd_fdstat_get", __wasi_fd_fdstat_get(fd, &fs));
  SAY("fd_fdstat_set_flags", __wasi_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_APPEND));
  SAY("fd_advise", __wasi_fd_advise(fd, 0, 0, __WASI_ADVICE_WILLNEED));
  SAY("fd_readdir", __wasi_fd_readdir(3, buf, sizeof buf, 0, &n));
  SAY("path_filestat_get", __wasi_path_filestat_get(3, 1, "link", &st));
  SAY("path_readlink", __wasi_path_readlink(3, "link", buf, sizeof buf, &n));
}

static void writes_to(const char *what, __wasi_fd_t fd) {
  __wasi_ciovec_t out = {(const uint8_t *)"x", 1};
  __wasi_size_t n;
  printf("-- %s\n", what);
  SAY("fd_sync", __wasi_fd_sync(fd));
  SAY("fd_datasync", __wasi_fd_datasync(fd));
  SAY("fd_write", __wasi_fd_write(fd, &out, 1, &n));
  SAY("fd_pwrite", __wasi_fd_pwrite(fd, &out, 1, 0, &n));
  SAY("fd_allocate", __wasi_fd_allocate(fd, 0, 100));
  SAY("fd_filestat_set_size", __wasi_fd_filestat_set_size(fd, 0));
  SAY("fd_filestat_set_times", __wasi_fd_filestat_set_times(fd, 0, 0, __WASI_FSTFLAGS_MTIM_NOW));
}

static void changes(void) {
  int err;
  printf("-- paths\n");
  open_path("file", 0, ~0ull, &err);
  SAY("path_open for writing", err);
  open_path("new", __WASI_OFLAGS_CREAT, ~0ull, &err);
  SAY("path_open creating", err);
  open_path("file", __WASI_OFLAGS_TRUNC, __WASI_RIGHTS_FD_READ, &err);
  SAY("path_open truncating", err);
  open_path("dir", 0, ~0ull, &err);
  SAY("path_open of a directory", err);
  SAY("path_create_directory", __wasi_path_create_directory(3, "new"));
  SAY("path_remove_directory", __wasi_path_remove_directory(3, "dir"));
  SAY("path_unlink_file", __wasi_path_unlink_file(3, "file"));
  SAY("path_unlink_file of none", __wasi_path_unlink_file(3, "new"));
  SAY("path_link", __wasi_path_link(3, 0, "file", 3, "new"));
  SAY("path_rename", __wasi_path_rename(3, "file", 3, "new"));
  SAY("path_rename below", __wasi_path_rename(3, "file", 3, "dir/new"));
  SAY("path_symlink", __wasi_path_symlink("file", 3, "new"));
  SAY("path_symlink with slash", __wasi_path_symlink("file", 3, "new/"));
  SAY("path_filestat_set_times",
      __wasi_path_filestat_set_times(3, 1, "link", 0, 0, __WASI_FSTFLAGS_MTIM_NOW));
  SAY("path_filestat_set_times of the link",
      __wasi_path_filestat_set_times(3, 0, "link", 0, 0, __WASI_FSTFLAGS_MTIM_NOW));
}

int main(void) {
  int err;
  __wasi_rights_t all_but_write = ~(__wasi_rights_t)__WASI_RIGHTS_FD_WRITE;
  __wasi_fd_t file = open_path("link", 0, all_but_write, &err);
  SAY("path_open", err);
  reads(file);
  writes_to("file", file);
  writes_to("directory", 3);
  changes();
  SAY("fd_close", __wasi_fd_close(file));
  return 0;
}
