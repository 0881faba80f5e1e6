/* WASI preview 1 by raw imports, without a libc in between.
 *
 * Structure layouts are those of the specification's witx files, written out by hand so that a
 * mistake in a libc cannot hide a mistake in the host.  With -DUNSTABLE the same sources speak the
 * older `wasi_unstable`, whose filestat, whence and subscription differ.  */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef UNSTABLE
#define WASI "wasi_unstable"
enum { WHENCE_CUR = 0, WHENCE_END = 1, WHENCE_SET = 2 };
#else
#define WASI "wasi_snapshot_preview1"
enum { WHENCE_SET = 0, WHENCE_CUR = 1, WHENCE_END = 2 };
#endif

typedef uint32_t u32;
typedef uint64_t u64;

struct vec { void *buf; u32 len; };

struct fdstat { uint8_t type; uint16_t flags; u64 rights, inheriting; };

#ifdef UNSTABLE
struct filestat { u64 dev, ino; uint8_t type; u32 nlink; u64 size, atim, mtim, ctim; };
struct subscription {
  u64 userdata;
  uint8_t tag;
  union {
    struct { u64 identifier; u32 id; u64 timeout, precision; uint16_t flags; } clock;
    u32 fd;
  } u;
};
_Static_assert(sizeof(struct filestat) == 56, "unstable filestat");
_Static_assert(sizeof(struct subscription) == 56, "unstable subscription");
#else
struct filestat { u64 dev, ino; uint8_t type; u64 nlink, size, atim, mtim, ctim; };
struct subscription {
  u64 userdata;
  uint8_t tag;
  union {
    struct { u32 id; u64 timeout, precision; uint16_t flags; } clock;
    u32 fd;
  } u;
};
_Static_assert(sizeof(struct filestat) == 64, "filestat");
_Static_assert(sizeof(struct subscription) == 48, "subscription");
#endif

struct event { u64 userdata; uint16_t error; uint8_t type; u64 nbytes; uint16_t flags; };
struct prestat { uint8_t tag; u32 name_len; };
struct dirent { u64 next, ino; u32 namlen; uint8_t type; };

_Static_assert(sizeof(struct fdstat) == 24, "fdstat");
_Static_assert(sizeof(struct event) == 32, "event");
_Static_assert(sizeof(struct dirent) == 24, "dirent");

enum { TAG_CLOCK = 0, TAG_READ = 1, TAG_WRITE = 2 };
enum { O_CREATE = 1, O_DIRECTORY = 2, O_EXCL = 4, O_TRUNC = 8 };
enum { FD_APPEND = 1, FD_DSYNC = 2, FD_NONBLOCK = 4, FD_RSYNC = 8, FD_SYNC = 16 };
enum { FOLLOW = 1 };
enum { ATIM = 1, ATIM_NOW = 2, MTIM = 4, MTIM_NOW = 8 };

#define R(bit) ((u64)1 << (bit))
enum {
  FD_DATASYNC_BIT = 0, FD_READ_BIT = 1, FD_SEEK_BIT = 2, FD_SET_FLAGS_BIT = 3, FD_SYNC_BIT = 4,
  FD_TELL_BIT = 5, FD_WRITE_BIT = 6, FD_ADVISE_BIT = 7, FD_ALLOCATE_BIT = 8, FD_READDIR_BIT = 14,
  FD_FILESTAT_GET_BIT = 21, FD_SET_SIZE_BIT = 22, FD_SET_TIMES_BIT = 23,
};
#define ALL_RIGHTS (R(29) - 1)
#define FILE_RIGHTS (R(0) | R(1) | R(2) | R(3) | R(4) | R(5) | R(6) | R(7) | R(8) | R(21) | R(22) | R(23) | R(27))
#define READ_RIGHTS (FILE_RIGHTS & ~(R(0) | R(6) | R(8) | R(22)))

#define CALL(name, ...)                                                                   \
  __attribute__((import_module(WASI), import_name(#name))) u32 w_##name(__VA_ARGS__)

CALL(args_get, char **argv, char *buf);
CALL(args_sizes_get, u32 *argc, u32 *bytes);
CALL(environ_get, char **env, char *buf);
CALL(environ_sizes_get, u32 *count, u32 *bytes);
CALL(clock_res_get, u32 id, u64 *out);
CALL(clock_time_get, u32 id, u64 precision, u64 *out);
CALL(fd_advise, u32 fd, u64 offset, u64 len, u32 advice);
CALL(fd_allocate, u32 fd, u64 offset, u64 len);
CALL(fd_close, u32 fd);
CALL(fd_datasync, u32 fd);
CALL(fd_fdstat_get, u32 fd, struct fdstat *out);
CALL(fd_fdstat_set_flags, u32 fd, u32 flags);
CALL(fd_fdstat_set_rights, u32 fd, u64 base, u64 inheriting);
CALL(fd_filestat_get, u32 fd, struct filestat *out);
CALL(fd_filestat_set_size, u32 fd, u64 size);
CALL(fd_filestat_set_times, u32 fd, u64 atim, u64 mtim, u32 flags);
CALL(fd_pread, u32 fd, const struct vec *iov, u32 n, u64 offset, u32 *out);
CALL(fd_prestat_get, u32 fd, struct prestat *out);
CALL(fd_prestat_dir_name, u32 fd, char *buf, u32 len);
CALL(fd_pwrite, u32 fd, const struct vec *iov, u32 n, u64 offset, u32 *out);
CALL(fd_read, u32 fd, const struct vec *iov, u32 n, u32 *out);
CALL(fd_readdir, u32 fd, void *buf, u32 len, u64 cookie, u32 *out);
CALL(fd_renumber, u32 from, u32 to);
CALL(fd_seek, u32 fd, int64_t offset, u32 whence, u64 *out);
CALL(fd_sync, u32 fd);
CALL(fd_tell, u32 fd, u64 *out);
CALL(fd_write, u32 fd, const struct vec *iov, u32 n, u32 *out);
CALL(path_create_directory, u32 fd, const char *path, u32 len);
CALL(path_filestat_get, u32 fd, u32 flags, const char *path, u32 len, struct filestat *out);
CALL(path_filestat_set_times, u32 fd, u32 flags, const char *path, u32 len, u64 atim, u64 mtim,
     u32 fst);
CALL(path_link, u32 fd, u32 flags, const char *old, u32 old_len, u32 new_fd, const char *new_path,
     u32 new_len);
CALL(path_open, u32 fd, u32 flags, const char *path, u32 len, u32 oflags, u64 base, u64 inheriting,
     u32 fdflags, u32 *out);
CALL(path_readlink, u32 fd, const char *path, u32 len, char *buf, u32 buf_len, u32 *out);
CALL(path_remove_directory, u32 fd, const char *path, u32 len);
CALL(path_rename, u32 fd, const char *old, u32 old_len, u32 new_fd, const char *new_path,
     u32 new_len);
CALL(path_symlink, const char *target, u32 target_len, u32 fd, const char *path, u32 len);
CALL(path_unlink_file, u32 fd, const char *path, u32 len);
CALL(poll_oneoff, const struct subscription *in, struct event *out, u32 n, u32 *count);
__attribute__((import_module(WASI), import_name("proc_exit"))) _Noreturn void w_proc_exit(u32 code);
CALL(proc_raise, u32 sig);
CALL(random_get, void *buf, u32 len);
CALL(sched_yield, void);
#ifndef UNSTABLE
CALL(sock_accept, u32 fd, u32 flags, u32 *out);
#endif
CALL(sock_recv, u32 fd, const struct vec *iov, u32 n, u32 flags, u32 *out, uint16_t *oflags);
CALL(sock_send, u32 fd, const struct vec *iov, u32 n, u32 flags, u32 *out);
CALL(sock_shutdown, u32 fd, u32 how);

static const char *const errno_names[] = {
    "SUCCESS", "2BIG", "ACCES", "ADDRINUSE", "ADDRNOTAVAIL", "AFNOSUPPORT", "AGAIN", "ALREADY",
    "BADF", "BADMSG", "BUSY", "CANCELED", "CHILD", "CONNABORTED", "CONNREFUSED", "CONNRESET",
    "DEADLK", "DESTADDRREQ", "DOM", "DQUOT", "EXIST", "FAULT", "FBIG", "HOSTUNREACH", "IDRM",
    "ILSEQ", "INPROGRESS", "INTR", "INVAL", "IO", "ISCONN", "ISDIR", "LOOP", "MFILE", "MLINK",
    "MSGSIZE", "MULTIHOP", "NAMETOOLONG", "NETDOWN", "NETRESET", "NETUNREACH", "NFILE", "NOBUFS",
    "NODEV", "NOENT", "NOEXEC", "NOLCK", "NOLINK", "NOMEM", "NOMSG", "NOPROTOOPT", "NOSPC",
    "NOSYS", "NOTCONN", "NOTDIR", "NOTEMPTY", "NOTRECOVERABLE", "NOTSOCK", "NOTSUP", "NOTTY",
    "NXIO", "OVERFLOW", "OWNERDEAD", "PERM", "PIPE", "PROTO", "PROTONOSUPPORT", "PROTOTYPE",
    "RANGE", "ROFS", "SPIPE", "SRCH", "STALE", "TIMEDOUT", "TXTBSY", "XDEV", "NOTCAPABLE",
};

/* One observation: "name: ERRNO" or "name: ERRNO value"; the value only where the call worked. */
static u32 say(const char *name, u32 err, const char *format, ...) {
  const char *word = err < sizeof errno_names / sizeof *errno_names ? errno_names[err] : "?";
  printf("%s: %s", name, word);
  if (err == 0 && format) {
    va_list ap;
    va_start(ap, format);
    putchar(' ');
    vprintf(format, ap);
    va_end(ap);
  }
  putchar('\n');
  fflush(stdout);
  return err;
}

#define LEN(s) (s), (u32)strlen(s)

/* A descriptor for `path` below preopen 3, or ~0 after saying why not. */
static u32 open_at(const char *path, u32 oflags, u64 rights, u32 fdflags) {
  u32 fd = ~0u;
  u32 err = w_path_open(3, FOLLOW, LEN(path), oflags, rights, ALL_RIGHTS, fdflags, &fd);
  if (err) say(path, err, NULL);
  return err ? ~0u : fd;
}

/* Makes `path` below preopen 3 with this text. */
static void make_file(const char *path, const char *text) {
  u32 fd = open_at(path, O_CREATE | O_TRUNC, FILE_RIGHTS, 0), n;
  struct vec iov = {(void *)text, (u32)strlen(text)};
  if (fd == ~0u) return;
  w_fd_write(fd, &iov, 1, &n);
  w_fd_close(fd);
}

struct test { const char *name; void (*run)(int argc, char **argv); };

/* argv[1] names the case to run; without one, the names are listed. */
static int run_case(const struct test *tests, int argc, char **argv) {
  for (const struct test *t = tests; t->name; t++) {
    if (argc < 2) {
      puts(t->name);
    } else if (!strcmp(argv[1], t->name)) {
      t->run(argc, argv);
      return 0;
    }
  }
  return argc < 2 ? 0 : 64;
}
