/* The broker's handler of messages: everything that a worker can say, about real sockets.
 *
 * Input: a byte that says which descriptor comes along, then the message.  The process has a network
 * of its own where the machine lets it; the rules grant one port of the loopback device, and whatever
 * a socket comes to be connected or bound to has to be what they say.  */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "network/network.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { PORT = 9 };

#define REQUIRE(condition)                                                                        \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);              \
      abort();                                                                                    \
    }                                                                                             \
  } while (0)

static const struct ws_rule RULES[] = {
    {.allow = 1, .actions = 3, .protocol = 3, .family = 4, .prefix = 32, .address = {127, 0, 0, 1},
     .low = PORT, .high = PORT},
    {.allow = 1, .actions = 1, .protocol = 2, .family = 6, .prefix = 128, .address = {[15] = 1},
     .low = PORT, .high = PORT},
};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
    fprintf(stderr, "no network of its own: the loopback device is the machine's\n");
  return 0;
}

/* A new one each time: what an input finds does not depend on those before it. */
static int descriptor(uint8_t which) {
  switch (which % 8) {
  case 0: return socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  case 1: return socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  case 2: return socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  case 3: return socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  case 4: return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  case 5: return dup(STDERR_FILENO);
  default: return -1;
  }
}

static void check_peer(int fd) {
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;
  struct net_address a;
  if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
      net_address_read(&a, (const uint8_t *)&peer, len) == 0)
    REQUIRE(a.port == PORT && (a.family == 4 ? a.bytes[0] == 127 && a.bytes[3] == 1
                                             : a.bytes[15] == 1));
}

/* Bound to the one port, or to one that nobody chose. */
static void check_name(int fd) {
  struct sockaddr_storage name;
  socklen_t len = sizeof name;
  struct net_address a;
  if (getsockname(fd, (struct sockaddr *)&name, &len) == 0 &&
      net_address_read(&a, (const uint8_t *)&name, len) == 0)
    REQUIRE(a.port == 0 || a.port == PORT || a.port >= 1024);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct ws_record record;
  struct broker broker = {.rules = {RULES, sizeof RULES / sizeof *RULES}, .record = &record};
  if (size < 1)
    return -1;
  int fd = descriptor(data[0]), made = -1;
  uint8_t *copy = malloc(size - 1 ? size - 1 : 1);
  REQUIRE(copy);
  memcpy(copy, data + 1, size - 1);
  record.denial_count = 0;
  struct net_answer answer = broker_handle(&broker, copy, size - 1, fd, &made);
  free(copy);
  REQUIRE(answer.magic == NET_MAGIC && answer.version == NET_VERSION && answer.zero == 0);
  REQUIRE(made == -1 || answer.result == 0);
  REQUIRE(record.denial_count <= 1 && (record.denial_count == 0 || answer.result == -EACCES));
  if (fd >= 0) {
    check_peer(fd);
    check_name(fd);
    close(fd);
  }
  if (made >= 0)
    close(made);
  return 0;
}

/* Makes a request of it again after a mutation, so that most inputs come to a call. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  struct net_request head;
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 == 0 || max_size < 1 + sizeof head + 28)
    return size;
  if (size < 1 + sizeof head + 28) {
    memset(data + size, 0, 1 + sizeof head + 28 - size);
    size = 1 + sizeof head + 28;
  }
  memcpy(&head, data + 1, sizeof head);
  head.magic = NET_MAGIC;
  head.version = NET_VERSION;
  head.call = 1 + head.call % 5;
  head.domain = head.domain % 16;
  head.type = head.type & (SOCK_NONBLOCK | SOCK_CLOEXEC | 7);
  head.address_len = head.address_len % 4 ? 28 - 12 * (head.address_len % 2) : head.address_len;
  memcpy(data + 1, &head, sizeof head);
  if (seed % 3) {
    const sa_family_t families[] = {AF_INET, AF_INET6};
    memcpy(data + 1 + sizeof head, &families[seed % 2], sizeof *families);
  }
  return size;
}
