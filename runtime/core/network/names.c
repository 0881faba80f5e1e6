/* getaddrinfo(3) and freeaddrinfo(3) for the engine, which finds these definitions before the C
 * library's: a worker has no files to read names from and no network to ask.
 *
 * What is numeric is answered here, and all else by the names of the launch.  Only what the engine
 * asks for: addresses of a host, with a numeric service or none.  */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "network/network.h"

#define EXPORTED __attribute__((visibility("default")))

struct node {
  struct addrinfo info;
  struct sockaddr_storage address;
};

static int port_of(const char *service, uint16_t *port) {
  char *end;
  unsigned long value = service ? strtoul(service, &end, 10) : 0;
  if (service && (!*service || *end || value > UINT16_MAX))
    return EAI_SERVICE;
  *port = (uint16_t)value;
  return 0;
}

static int parse_numeric(const char *host, uint8_t to[WS_NAME_ADDRESS]) {
  uint32_t family = 4;
  memset(to, 0, WS_NAME_ADDRESS);
  if (inet_pton(AF_INET, host, to + sizeof family) != 1) {
    family = 6;
    if (inet_pton(AF_INET6, host, to + sizeof family) != 1)
      return 0;
  }
  memcpy(to, &family, sizeof family);
  return 1;
}

static struct node *make_node(const uint8_t from[WS_NAME_ADDRESS], uint16_t port, int type,
                              int protocol) {
  uint32_t family;
  struct net_address address = {.port = port};
  struct node *node = calloc(1, sizeof *node);
  if (!node)
    return NULL;
  memcpy(&family, from, sizeof family);
  address.family = family == 4 ? 4 : 6;
  memcpy(address.bytes, from + sizeof family, sizeof address.bytes);
  node->info.ai_family = family == 4 ? AF_INET : AF_INET6;
  node->info.ai_socktype = type;
  node->info.ai_protocol = protocol;
  node->info.ai_addrlen = net_address_write(&address, node->info.ai_family, &node->address);
  node->info.ai_addr = (struct sockaddr *)&node->address;
  return node;
}

EXPORTED void freeaddrinfo(struct addrinfo *list) {
  while (list) {
    struct addrinfo *next = list->ai_next;
    free(list); /* the first member of its node */
    list = next;
  }
}

EXPORTED int getaddrinfo(const char *restrict host, const char *restrict service,
                         const struct addrinfo *restrict hints, struct addrinfo **restrict list) {
  static const struct addrinfo none;
  uint8_t found[NET_MAX_ADDRESSES][WS_NAME_ADDRESS];
  uint16_t port;
  struct addrinfo **end = list;
  hints = hints ? hints : &none;
  *list = NULL;
  if (port_of(service, &port))
    return EAI_SERVICE;
  if (!host)
    return EAI_NONAME;
  int count = parse_numeric(host, found[0]);
  if (!count && !(hints->ai_flags & AI_NUMERICHOST))
    count = network_resolve(host, found, NET_MAX_ADDRESSES);
  if (count < 0)
    return EAI_AGAIN;
  for (int i = 0; i < count; i++) {
    struct node *node =
        make_node(found[i], port, hints->ai_socktype ? hints->ai_socktype : SOCK_STREAM,
                  hints->ai_protocol);
    if (!node) {
      freeaddrinfo(*list);
      *list = NULL;
      return EAI_MEMORY;
    }
    if (hints->ai_family != AF_UNSPEC && hints->ai_family != node->info.ai_family) {
      free(node);
      continue;
    }
    *end = &node->info;
    end = &node->info.ai_next;
  }
  return *list ? 0 : EAI_NONAME;
}
