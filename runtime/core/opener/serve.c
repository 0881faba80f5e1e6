/* Requests, one after the other.  Every path is walked and every file is opened by the kernel, with
 * the caller's rights; nothing here decides who may do what.  */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/fd.h"
#include "base/rights.h"
#include "base/sys.h"
#include "opener/opener.h"
#include "opener/protocol.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#endif

static const unsigned ST_VALID_BIT = 0x20; /* the kernel's own, of statfs(2) */

_Static_assert(OPENER_PATH == PATH_MAX, "the kernel's bound, and so readlink's");

struct request {
  struct opener_request message;
  size_t path_len;
  int fd; /* owned; -1: none came */
};

/* Takes every descriptor that came, so that none is lost; how many. */
static size_t collect(struct msghdr *message, int *first) {
  size_t count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      if (count++ == 0)
        *first = fd;
      else
        ws_close(&fd);
    }
  }
  return count;
}

/* 1: a request; 0: the daemon has gone; -EBADMSG: a malformed one; others are fatal. */
static int receive(int socket, struct request *r) {
  static union ws_control control;
  const size_t head = offsetof(struct opener_request, path);
  /* The last byte stays free for the path's NUL. */
  struct iovec iov = {.iov_base = &r->message, .iov_len = sizeof r->message - 1};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  const struct opener_request *m = &r->message;
  ssize_t n;
  r->fd = -1;
  do
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -errno;
  size_t fds = collect(&message, &r->fd);
  if (n == 0)
    return 0;
  if ((size_t)n < head || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
      m->magic != OPENER_MAGIC || m->version != OPENER_VERSION || m->flags)
    return -EBADMSG;
  r->path_len = (size_t)n - head;
  r->message.path[r->path_len] = '\0';
  bool by_path = m->op == OPENER_MODULE || m->op == OPENER_DIRECTORY;
  bool by_fd = m->op == OPENER_LOOK || m->op == OPENER_COPY;
  return (by_path && fds == 0) || (by_fd && fds == 1 && r->path_len == 0) ? 1 : -EBADMSG;
}

static int64_t nanoseconds(struct timespec t) {
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int stat_of(int fd, struct opener_stat *to) {
  struct stat s;
  if (fstat(fd, &s) < 0)
    return -errno;
  *to = (struct opener_stat){.dev = s.st_dev, .ino = s.st_ino, .mode = s.st_mode, .uid = s.st_uid,
                             .gid = s.st_gid, .size = (uint64_t)s.st_size,
                             .mtime_ns = nanoseconds(s.st_mtim), .ctime_ns = nanoseconds(s.st_ctim)};
  return 0;
}

static void name_in_proc(int fd, char name[32]) { snprintf(name, 32, "/proc/self/fd/%d", fd); }

static int look(int fd, struct opener_answer *a, size_t *path_len) {
  char name[32];
  struct statfs fs;
  int flags = fcntl(fd, F_GETFL), r = stat_of(fd, &a->stat);
  if (r < 0)
    return r;
  if (flags < 0 || fstatfs(fd, &fs) < 0)
    return -errno;
  a->open_flags = (uint32_t)flags;
  a->mount_flags = (uint32_t)fs.f_flags & ~ST_VALID_BIT;
  a->fs_type = (uint32_t)fs.f_type;
  name_in_proc(fd, name);
  ssize_t n = readlink(name, a->path, sizeof a->path);
  *path_len = n > 0 && (size_t)n < sizeof a->path ? (size_t)n : 0;
  return 0;
}

/* No link of /proc's is followed: those that a caller means by /proc/self are the caller's own, and
 * here they would be the opener's. */
static int open_place(const struct request *r, uint64_t flags) {
  const struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags,
                               .resolve = RESOLVE_NO_MAGICLINKS};
  const char *path = r->message.path;
  if (path[0] != '/' || memchr(path, '\0', r->path_len))
    return -EINVAL;
  int fd = sys_openat2(AT_FDCWD, path, &how);
  return fd < 0 ? -errno : fd;
}

/* Opens for reading what an O_PATH descriptor stands for, if the caller may. */
static int reopen(int place) {
  char name[32];
  name_in_proc(place, name);
  int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  return fd < 0 ? -errno : fd;
}

static int regular(const struct opener_stat *s) {
  return S_ISREG(s->mode) ? 0 : S_ISDIR(s->mode) ? -EISDIR : -EINVAL;
}

/* The type is known before anything is opened for reading: opening a FIFO or a device has effects.
 * The daemon gets the O_PATH descriptor, which it can close without a word to the file system;
 * closing another one can wait for a FUSE server. */
static int open_module(const struct request *r, struct opener_answer *a, size_t *path_len) {
  ws_cleanup_fd int place = open_place(r, 0);
  int err = place < 0 ? place : look(place, a, path_len);
  if (!err)
    err = regular(&a->stat);
  if (err)
    return err;
  ws_cleanup_fd int readable = reopen(place);
  return readable < 0 ? readable : ws_steal(&place);
}

static int open_directory(const struct request *r, struct opener_answer *a, size_t *path_len) {
  ws_cleanup_fd int place = open_place(r, O_DIRECTORY);
  int err = place < 0 ? place : look(place, a, path_len);
  if (err)
    return err;
  return faccessat(place, ".", X_OK, AT_EACCESS) < 0 ? -errno : ws_steal(&place);
}

static int make_memfd(void) {
  static const char NAME[] = "wasisup-module";
  int fd = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL)
    fd = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const char *bytes, size_t len) {
  while (len) {
    ssize_t n = write(fd, bytes, len);
    if (n < 0 && errno != EINTR)
      return -errno;
    if (n > 0) {
      bytes += n;
      len -= (size_t)n;
    }
  }
  return 0;
}

/* Up to the end of the file, wherever that has got to meanwhile. */
static int copy_bytes(int from, int to, uint64_t limit) {
  static _Alignas(4096) char buffer[256 << 10]; /* aligned for O_DIRECT */
  uint64_t offset = 0;
  for (;;) {
    ssize_t n = pread(from, buffer, sizeof buffer, (off_t)offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : 0;
    offset += (uint64_t)n;
    if (offset > limit)
      return -EFBIG;
    int r = write_all(to, buffer, (size_t)n);
    if (r < 0)
      return r;
  }
}

static int copy(const struct request *r, struct opener_answer *a, size_t *path_len) {
  const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  int err = look(r->fd, a, path_len);
  if (!err)
    err = regular(&a->stat);
  if (!err && a->stat.size > r->message.limit)
    err = -EFBIG;
  if (err)
    return err;
  ws_cleanup_fd int opened = a->open_flags & O_PATH ? reopen(r->fd) : -1;
  if (a->open_flags & O_PATH && opened < 0)
    return opened;
  ws_cleanup_fd int memfd = make_memfd();
  if (memfd < 0)
    return memfd;
  err = copy_bytes(opened >= 0 ? opened : r->fd, memfd, r->message.limit);
  if (!err)
    err = stat_of(r->fd, &a->after);
  if (!err && fcntl(memfd, F_ADD_SEALS, seals) < 0)
    err = -errno;
  return err ? err : ws_steal(&memfd);
}

static int try_to_send(int socket, const struct opener_answer *a, size_t path_len, int fd) {
  static union ws_control control;
  struct iovec iov = {.iov_base = (void *)a,
                      .iov_len = offsetof(struct opener_answer, path) + path_len};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  ws_attach_fd(&message, &control, fd);
  while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
    if (errno != EINTR)
      return -errno;
  return 0;
}

/* A descriptor can be refused on its way (ETOOMANYREFS): the answer is then that. */
static int send_answer(int socket, struct opener_answer *a, size_t path_len, int fd) {
  int r = try_to_send(socket, a, path_len, fd);
  if (r < 0 && fd >= 0) {
    a->err = -r;
    r = try_to_send(socket, a, path_len, -1);
  }
  return r;
}

/* The descriptor to answer with (LOOK: 0 and none), or a negative errno. */
static int carry_out(const struct request *r, struct opener_answer *a, size_t *path_len) {
  switch (r->message.op) {
  case OPENER_MODULE:
    return open_module(r, a, path_len);
  case OPENER_DIRECTORY:
    return open_directory(r, a, path_len);
  case OPENER_COPY:
    return copy(r, a, path_len);
  default:
    return look(r->fd, a, path_len);
  }
}

int opener_serve(int socket) {
  static struct request request;
  static struct opener_answer answer;
  for (;;) {
    size_t path_len = 0;
    int r = receive(socket, &request);
    if (r == 0 || (r < 0 && r != -EBADMSG)) {
      ws_close(&request.fd);
      return r < 0;
    }
    memset(&answer, 0, offsetof(struct opener_answer, path));
    answer.magic = OPENER_MAGIC;
    answer.version = OPENER_VERSION;
    if (r > 0)
      r = carry_out(&request, &answer, &path_len);
    answer.err = r < 0 ? -r : 0;
    bool bears = r >= 0 && request.message.op != OPENER_LOOK;
    ws_cleanup_fd int made = bears ? r : -1;
    if (send_answer(socket, &answer, path_len, made) < 0) {
      ws_close(&request.fd);
      return 1;
    }
    ws_close(&request.fd);
  }
}
