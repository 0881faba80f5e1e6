/* The worker's side of the broker: system calls that the filter did not admit become messages.
 *
 * This is a convenience for the engine, whose network code makes system calls, and not a wall: the
 * filter and the broker are.  All of it runs in signal handlers, in any thread, with all signals
 * blocked.  */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/rights.h"
#include "network/network.h"

enum { WASI_EACCES = 2, KNOWN = 4096, LOWEST_POINTER = 4096 };
enum { TRIES = 2000, PAUSE_NS = 1000000 };

static struct {
  const struct ws_spec *spec;
  struct ws_record *record;
} own;

/* --- one conversation at a time --- */

/* 0 free, 1 taken, 2 taken and waited for (Drepper, "Futexes are tricky").  Who holds it has all
 * signals blocked, so that no handler can come to want it in the same thread. */
static atomic_int lock;

static void futex(int operation, int value, const struct timespec *timeout) {
  syscall(SYS_futex, &lock, operation | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

static void take_lock(void) {
  int seen = 0;
  if (atomic_compare_exchange_strong(&lock, &seen, 1))
    return;
  while (atomic_exchange(&lock, 2) != 0)
    futex(FUTEX_WAIT, 2, NULL);
}

static void give_lock(void) {
  if (atomic_exchange(&lock, 0) == 2)
    futex(FUTEX_WAKE, 1, NULL);
}

/* Sleeping without a system call for it: on a word that nobody wakes. */
static void pause_a_moment(void) {
  static int never;
  const struct timespec moment = {.tv_nsec = PAUSE_NS};
  syscall(SYS_futex, &never, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &moment, NULL, 0);
}

static int send_request(struct msghdr *message, int fd) {
  union ws_control control = {0};
  ws_attach_fd(message, &control, fd);
  ssize_t n;
  do
    n = sendmsg(NET_FD, message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

static long receive_answer(bool wants_socket) {
  union ws_control control;
  struct net_answer answer = {0};
  struct iovec iov = {.iov_base = &answer, .iov_len = sizeof answer};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t n;
  int fd = -1;
  do
    n = recvmsg(NET_FD, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n != sizeof answer || answer.magic != NET_MAGIC || answer.version != NET_VERSION)
    return -ENETDOWN; /* the broker has ended */
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
      c->cmsg_len >= CMSG_LEN(sizeof fd))
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
  if (answer.result < 0 || !wants_socket)
    return answer.result;
  return fd >= 0 ? fd : -EMFILE; /* the kernel drops a descriptor that finds no number */
}

/* The kernel reads `address` and `data`: pointers that lead nowhere come back as its error. */
static long ask(const struct net_request *head, int fd, const void *address, const void *data,
                size_t data_len) {
  struct iovec iov[3] = {{.iov_base = (void *)head, .iov_len = sizeof *head},
                         {.iov_base = (void *)address, .iov_len = head->address_len},
                         {.iov_base = (void *)data, .iov_len = data_len}};
  long result = 0;
  take_lock();
  for (int i = 0; i < TRIES; i++) {
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 3};
    result = send_request(&message, fd);
    if (result == 0)
      result = receive_answer(head->call == NET_SOCKET);
    /* The kernel counts the descriptors of all of the user's processes that are on their way. */
    if (result != -ETOOMANYREFS)
      break;
    pause_a_moment();
  }
  give_lock();
  return result == -EPIPE || result == -ECONNRESET ? -ENETDOWN : result;
}

/* --- without a broker --- */

/* A socket cannot be denied as such: only what is done with it tells which grant is missing.  So the
 * guest gets a descriptor that is none, and what it is taken for is kept here.  It behaves like a
 * socket up to the first call with an address. */
static struct {
  uint8_t domain, protocol;
  bool bound;
} known[KNOWN];

static bool is_known(int fd) { return fd >= 0 && fd < KNOWN && known[fd].protocol; }

static long stand_in(int domain, int type, int protocol) {
  type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (domain != AF_INET && domain != AF_INET6)
    return -EAFNOSUPPORT;
  if ((type != SOCK_STREAM && type != SOCK_DGRAM) ||
      (protocol && protocol != (type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP)))
    return -EPROTONOSUPPORT;
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0)
    return -errno;
  if (fd < KNOWN) {
    known[fd].domain = (uint8_t)domain;
    known[fd].protocol = type == SOCK_STREAM ? WS_PROTOCOL_TCP : WS_PROTOCOL_UDP;
    known[fd].bound = false;
  }
  return fd;
}

static enum ws_protocol protocol_of(int fd) {
  return is_known(fd) && known[fd].protocol == WS_PROTOCOL_UDP ? WS_PROTOCOL_UDP : WS_PROTOCOL_TCP;
}

static long deny(enum ws_action action, int fd, const struct net_address *address) {
  char text[NET_TEXT];
  size_t len = net_rule_text(text, action, protocol_of(fd), address);
  ws_record_denial(own.record, WS_DENIAL_NETWORK, WASI_EACCES, text, len);
  return -EACCES;
}

static long deny_address(enum ws_action action, int fd, const void *bytes, size_t len) {
  struct net_address address;
  if ((uintptr_t)bytes < LOWEST_POINTER)
    return -EFAULT;
  int r = net_address_read(&address, bytes, len);
  if (r < 0)
    return r;
  if (action == WS_ACTION_CONNECT)
    net_address_as_destination(&address);
  else if (!address.port && net_address_is_unspecified(&address)) {
    /* The source of a connection: what is denied is that one. */
    if (is_known(fd))
      known[fd].bound = true;
    return 0;
  }
  return deny(action, fd, &address);
}

static long deny_listen(int fd) {
  struct net_address any = {.family = is_known(fd) && known[fd].domain == AF_INET6 ? 6 : 4};
  return deny(WS_ACTION_LISTEN, fd, &any);
}

/* Unspecified until it is bound; then any port will do. */
static long stand_in_name(int fd, uint8_t *to, uint32_t *room) {
  struct sockaddr_storage name;
  if ((uintptr_t)to < LOWEST_POINTER || (uintptr_t)room < LOWEST_POINTER)
    return -EFAULT;
  struct net_address address = {.family = known[fd].domain == AF_INET6 ? 6 : 4,
                                .port = known[fd].bound ? IPPORT_USERRESERVED : 0};
  socklen_t len = net_address_write(&address, known[fd].domain, &name);
  memcpy(to, &name, *room < len ? *room : len);
  *room = len;
  return 0;
}

/* A value that every option can have. */
static long stand_in_option(uint8_t *to, uint32_t *room) {
  const int value = 64; /* also a hop limit, also a size */
  if ((uintptr_t)to < LOWEST_POINTER || (uintptr_t)room < LOWEST_POINTER)
    return -EFAULT;
  *room = *room < sizeof value ? *room : sizeof value;
  memcpy(to, &value, *room);
  return 0;
}

static bool answer_for_stand_in(long number, const long args[6], long *result) {
  const int fd = (int)args[0];
  if (own.spec->broker != WS_SPEC_NO_FD || !is_known(fd))
    return false;
  switch (number) {
  case SYS_getsockname: *result = stand_in_name(fd, (uint8_t *)args[1], (uint32_t *)args[2]); break;
  case SYS_getsockopt: *result = stand_in_option((uint8_t *)args[3], (uint32_t *)args[4]); break;
  case SYS_setsockopt: *result = 0; break;
  case SYS_getpeername:
  case SYS_recvfrom:
  case SYS_shutdown: *result = -ENOTCONN; break;
  default: return false;
  }
  return true;
}

/* --- the calls --- */

static long on_address(enum net_call call, int fd, const void *address, size_t len, const void *data,
                       size_t data_len) {
  struct net_request head = {.magic = NET_MAGIC, .version = NET_VERSION, .call = call,
                             .address_len = (uint32_t)len};
  if (len > NET_MAX_ADDRESS)
    return -EINVAL;
  if (data_len > NET_MAX_DATA)
    return -EMSGSIZE;
  if (fd < 0)
    return -EBADF;
  if (own.spec->broker != WS_SPEC_NO_FD)
    return ask(&head, fd, address, data, data_len);
  return deny_address(call == NET_BIND ? WS_ACTION_LISTEN : WS_ACTION_CONNECT, fd, address, len);
}

static long on_socket(int domain, int type, int protocol) {
  struct net_request head = {.magic = NET_MAGIC, .version = NET_VERSION, .call = NET_SOCKET,
                             .domain = domain, .type = type, .protocol = protocol};
  if (own.spec->broker == WS_SPEC_NO_FD)
    return stand_in(domain, type, protocol);
  return ask(&head, -1, NULL, NULL, 0);
}

static long on_listen(int fd, int backlog) {
  struct net_request head = {.magic = NET_MAGIC, .version = NET_VERSION, .call = NET_LISTEN,
                             .backlog = backlog};
  if (fd < 0)
    return -EBADF;
  return own.spec->broker == WS_SPEC_NO_FD ? deny_listen(fd) : ask(&head, fd, NULL, NULL, 0);
}

bool network_answer(long number, const long args[6], long *result) {
  const int fd = (int)args[0], saved = errno;
  const void *second = (const void *)args[1];
  switch (number) {
  case SYS_socket:
    *result = on_socket((int)args[0], (int)args[1], (int)args[2]);
    break;
  case SYS_connect:
    *result = on_address(NET_CONNECT, fd, second, (unsigned)args[2], NULL, 0);
    break;
  case SYS_bind:
    *result = on_address(NET_BIND, fd, second, (unsigned)args[2], NULL, 0);
    break;
  case SYS_listen:
    *result = on_listen(fd, (int)args[1]);
    break;
  case SYS_sendto: /* with an address, or with a flag that the filter does not admit */
    *result = args[4] ? on_address(NET_SENDTO, fd, (const void *)args[4], (unsigned)args[5], second,
                                   (size_t)args[2])
                      : -EOPNOTSUPP;
    break;
  default: {
    bool answered = answer_for_stand_in(number, args, result);
    errno = saved;
    return answered;
  }
  }
  errno = saved;
  return true;
}

/* --- names --- */

static int from_table(const char *host, uint8_t (*to)[WS_NAME_ADDRESS], int most) {
  size_t len = strlen(host);
  len -= len > 1 && host[len - 1] == '.'; /* says only that it is complete */
  for (size_t i = 0; i < own.spec->name_count; i++) {
    const struct ws_name *name = &own.spec->names[i];
    if (len != name->host.len || strncasecmp(host, name->host.bytes, name->host.len) != 0)
      continue;
    int count = name->count < (uint32_t)most ? (int)name->count : most;
    memcpy(to, name->addresses, (size_t)count * sizeof *to);
    return count;
  }
  return 0;
}

/* Asks the supervisor.  One question after the other: threads that wait here are made for that. */
static int from_resolver(const char *host, uint8_t (*to)[WS_NAME_ADDRESS], int most) {
  static atomic_flag asking = ATOMIC_FLAG_INIT;
  static uint8_t answer[4 + NET_MAX_ADDRESSES * WS_NAME_ADDRESS];
  uint32_t count = 0;
  while (atomic_flag_test_and_set(&asking))
    pause_a_moment();
  ssize_t n = send(NET_RESOLVER_FD, host, strlen(host), MSG_NOSIGNAL);
  if (n >= 0)
    do
      n = recv(NET_RESOLVER_FD, answer, sizeof answer, 0);
    while (n < 0 && errno == EINTR);
  if (n >= (ssize_t)sizeof count)
    memcpy(&count, answer, sizeof count);
  if (count > ((size_t)n - sizeof count) / sizeof *to)
    count = 0;
  count = count < (uint32_t)most ? count : (uint32_t)most;
  memcpy(to, answer + sizeof count, count * sizeof *to);
  atomic_flag_clear(&asking);
  return n < (ssize_t)sizeof count ? -1 : (int)count;
}

int network_resolve(const char *host, uint8_t (*to)[WS_NAME_ADDRESS], int most) {
  size_t len = strlen(host);
  int found = 0;
  if (!own.spec || len == 0 || len > WS_SPEC_MAX_HOST)
    return 0;
  found = from_table(host, to, most);
  if (found == 0 && own.spec->resolver != WS_SPEC_NO_FD)
    return from_resolver(host, to, most);
  if (found == 0)
    ws_record_denial(own.record, WS_DENIAL_NAME, WASI_EACCES, host, len);
  return found;
}

void network_prepare(const struct ws_spec *spec, struct ws_record *record) {
  own.spec = spec;
  own.record = record;
}
