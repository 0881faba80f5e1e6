/* The broker: makes a worker's network calls for it, as far as the rules of its launch allow.
 *
 * It is in the host's network namespace, has no capability, no file and no name, and holds one
 * descriptor of the worker at a time.  One request after the other: what it looked at cannot change
 * before it acts, for nobody else can make these calls on a socket of the worker.
 *
 * Sockets do not block here, unless a worker turns that flag off again in the wrong moment, and then
 * it is its own broker that waits.  */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/rights.h"
#include "network/network.h"

enum { WASI_EACCES = 2 }; /* what denials are told by: wasi/types.h of preview 1 */

/* A request, taken apart. */
struct ask {
  const struct broker *broker;
  struct net_request head;
  const uint8_t *address, *data;
  size_t data_len;
  int fd;
  int domain;                /* of the socket that came along */
  enum ws_protocol protocol; /* likewise */
};

static int deny(const struct ask *a, enum ws_action action, enum ws_protocol protocol,
                const struct net_address *address) {
  char text[NET_TEXT];
  size_t len = net_rule_text(text, action, protocol, address);
  ws_record_denial(a->broker->record, WS_DENIAL_NETWORK, WASI_EACCES, text, len);
  return -EACCES;
}

static int result_of(long r) { return r < 0 ? -errno : (int)r; }

/* A datagram socket hears whom it may send to, and with no such rule nobody: the kernel gives it a port
 * of every address at its first write already, whether that is carried out or not.  The worker cannot
 * undo it; a bind to an address that may be listened at does. */
static int hear_peers_only(int fd, struct net_rules rules, int domain) {
  static struct sock_filter filter[BPF_MAXINSNS];
  const size_t len = net_rules_filter(rules, domain, filter);
  const struct sock_fprog program = {.len = (unsigned short)len, .filter = filter};
  if (!len) {
    errno = ENOBUFS;
    return -1;
  }
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static int make_socket(const struct ask *a, int *made) {
  const struct net_request *h = &a->head;
  const int one = 1, type = h->type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (h->domain != AF_INET && h->domain != AF_INET6)
    return -EAFNOSUPPORT;
  if (type != SOCK_STREAM && type != SOCK_DGRAM)
    return -ESOCKTNOSUPPORT;
  if (h->protocol && h->protocol != (type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP))
    return -EPROTONOSUPPORT;
  ws_cleanup_fd int fd = socket(h->domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, h->protocol);
  /* WASI has no socket for both families, and the rules know none either.  The worker's filter keeps
   * it that way. */
  if (fd < 0 || (h->domain == AF_INET6 &&
                 setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) < 0))
    return -errno;
  if (type == SOCK_DGRAM && hear_peers_only(fd, a->broker->rules, h->domain) < 0)
    return -errno;
  *made = ws_steal(&fd);
  return 0;
}

static int option(int fd, int name, int *value) {
  socklen_t len = sizeof *value;
  return getsockopt(fd, SOL_SOCKET, name, value, &len);
}

/* The descriptor is the worker's word: it can be anything at all. */
static int look_at_socket(struct ask *a) {
  int type, protocol;
  if (a->fd < 0)
    return -EBADF;
  if (option(a->fd, SO_DOMAIN, &a->domain) < 0 || option(a->fd, SO_TYPE, &type) < 0 ||
      option(a->fd, SO_PROTOCOL, &protocol) < 0)
    return -errno;
  if (a->domain != AF_INET && a->domain != AF_INET6)
    return -EAFNOSUPPORT;
  if (type == SOCK_STREAM && protocol == IPPROTO_TCP)
    a->protocol = WS_PROTOCOL_TCP;
  else if (type == SOCK_DGRAM && protocol == IPPROTO_UDP)
    a->protocol = WS_PROTOCOL_UDP;
  else
    return -ESOCKTNOSUPPORT;
  return 0;
}

/* The destination of a connect or sendto, when it is allowed: as the socket takes it. */
static int destination(const struct ask *a, struct sockaddr_storage *to, socklen_t *len) {
  struct net_address address;
  int r = net_address_read(&address, a->address, a->head.address_len);
  if (r < 0)
    return r;
  net_address_as_destination(&address);
  if (!net_rules_allow(a->broker->rules, WS_ACTION_CONNECT, a->protocol, &address))
    return deny(a, WS_ACTION_CONNECT, a->protocol, &address);
  *len = net_address_write(&address, a->domain, to);
  return *len ? 0 : -EAFNOSUPPORT;
}

static bool is_unspec(const struct ask *a) {
  sa_family_t family = AF_INET;
  if (a->head.address_len >= sizeof family)
    memcpy(&family, a->address, sizeof family);
  return family == AF_UNSPEC;
}

static int do_connect(const struct ask *a) {
  struct sockaddr_storage to = {.ss_family = AF_UNSPEC};
  socklen_t len = sizeof(struct sockaddr_in);
  /* For a datagram socket it takes the peer away; a stream would lose the address it is bound to. */
  if (!(a->protocol == WS_PROTOCOL_UDP && is_unspec(a))) {
    int r = destination(a, &to, &len);
    if (r < 0)
      return r;
  }
  if (fcntl(a->fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
    return -errno;
  return result_of(connect(a->fd, (struct sockaddr *)&to, len));
}

static int do_sendto(const struct ask *a) {
  struct sockaddr_storage to;
  socklen_t len;
  if (a->protocol != WS_PROTOCOL_UDP)
    return -EOPNOTSUPP; /* a stream would be connected by it: fast open */
  int r = destination(a, &to, &len);
  if (r < 0)
    return r;
  return result_of(sendto(a->fd, a->data, a->data_len, MSG_DONTWAIT | MSG_NOSIGNAL,
                          (struct sockaddr *)&to, len));
}

static int do_bind(const struct ask *a) {
  struct net_address address;
  struct sockaddr_storage to;
  int r = net_address_read(&address, a->address, a->head.address_len);
  if (r < 0)
    return r;
  const bool listens = net_rules_allow(a->broker->rules, WS_ACTION_LISTEN, a->protocol, &address);
  const int unused = 0;
  if (!listens) {
    /* Any port of any address is what connecting takes by itself.  Who may connect nowhere gets one,
     * too: what is denied is the connection, which has an address to name. */
    if (address.port || !net_address_is_unspecified(&address))
      return deny(a, WS_ACTION_LISTEN, a->protocol, &address);
  }
  socklen_t len = net_address_write(&address, a->domain, &to);
  if (!len)
    return -EAFNOSUPPORT;
  if (bind(a->fd, (struct sockaddr *)&to, len) < 0)
    return -errno; /* a socket that has another address already keeps its filter there */
  if (a->protocol == WS_PROTOCOL_UDP && listens)
    setsockopt(a->fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused); /* ENOENT: it never was */
  return 0;
}

/* 0 when the address that the socket is bound to may be listened at. */
static int check_bound(const struct ask *a) {
  struct sockaddr_storage bound;
  socklen_t len = sizeof bound;
  struct net_address address;
  if (getsockname(a->fd, (struct sockaddr *)&bound, &len) < 0)
    return -errno;
  int r = net_address_read(&address, (const uint8_t *)&bound, len);
  if (r < 0)
    return r;
  if (!net_rules_allow(a->broker->rules, WS_ACTION_LISTEN, a->protocol, &address))
    return deny(a, WS_ACTION_LISTEN, a->protocol, &address);
  return 0;
}

static int do_listen(const struct ask *a) {
  if (a->protocol != WS_PROTOCOL_TCP)
    return -EOPNOTSUPP;
  int r = check_bound(a);
  if (r < 0)
    return r;
  if (listen(a->fd, a->head.backlog) < 0)
    return -errno;
  /* A connection that its peer broke off meanwhile has let go of its address, and listening has taken
   * another. */
  r = check_bound(a);
  if (r < 0)
    shutdown(a->fd, SHUT_RDWR);
  return r;
}

static int parse(struct ask *a, const uint8_t *message, size_t len) {
  if (len < sizeof a->head)
    return -EBADMSG;
  memcpy(&a->head, message, sizeof a->head);
  size_t rest = len - sizeof a->head;
  if (a->head.magic != NET_MAGIC || a->head.version != NET_VERSION ||
      a->head.address_len > NET_MAX_ADDRESS || a->head.address_len > rest ||
      rest - a->head.address_len > NET_MAX_DATA)
    return -EBADMSG;
  a->address = message + sizeof a->head;
  a->data = a->address + a->head.address_len;
  a->data_len = rest - a->head.address_len;
  return 0;
}

static int carry_out(struct ask *a, int *made) {
  if (a->head.call == NET_SOCKET)
    return make_socket(a, made);
  int r = look_at_socket(a);
  if (r < 0)
    return r;
  switch (a->head.call) {
  case NET_CONNECT: return do_connect(a);
  case NET_BIND: return do_bind(a);
  case NET_LISTEN: return do_listen(a);
  case NET_SENDTO: return do_sendto(a);
  default: return -ENOSYS;
  }
}

struct net_answer broker_handle(const struct broker *broker, const uint8_t *message, size_t len, int fd,
                                int *made) {
  struct ask a = {.broker = broker, .fd = fd};
  *made = -1;
  int r = parse(&a, message, len);
  return (struct net_answer){
      .magic = NET_MAGIC, .version = NET_VERSION, .result = r < 0 ? r : carry_out(&a, made)};
}

/* The one descriptor that came along, or -1; others are closed. */
static int collect(struct msghdr *message) {
  int kept = -1;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
      if (kept < 0)
        kept = fd;
      else
        close(fd);
    }
  }
  return kept;
}

static int answer(const struct net_answer *words, int fd) {
  union ws_control control = {0};
  struct iovec iov = {.iov_base = (void *)words, .iov_len = sizeof *words};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  ws_attach_fd(&message, &control, fd);
  ssize_t n;
  do
    n = sendmsg(NET_FD, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : 0;
}

static int greet(void) {
  const struct net_hello hello = {.magic = NET_MAGIC, .version = NET_VERSION};
  struct iovec iov = {.iov_base = (void *)&hello, .iov_len = sizeof hello};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  return sendmsg(NET_FD, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int broker_serve(const struct broker *broker) {
  static uint8_t bytes[sizeof(struct net_request) + NET_MAX_ADDRESS + NET_MAX_DATA];
  int r = greet();
  while (r == 0) {
    union ws_control control;
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(NET_FD, &message, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) /* the worker has ended; nobody sends an empty message */
      return n < 0;
    ws_cleanup_fd int fd = collect(&message);
    ws_cleanup_fd int made = -1;
    size_t len = message.msg_flags & MSG_TRUNC ? 0 : (size_t)n;
    struct net_answer words = broker_handle(broker, bytes, len, fd, &made);
    r = answer(&words, made);
    /* Too many descriptors of this user are on their way: the worker is told, and may try again. */
    if (r == -ETOOMANYREFS) {
      words.result = r;
      r = answer(&words, -1);
    }
  }
  return 1;
}
