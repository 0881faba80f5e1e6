/* Addresses and the rules about them.  Pure: touches nothing but memory.  */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "spec/spec.h"

struct net_address {
  uint8_t family;    /* 4 or 6; an IPv6 address that stands for an IPv4 one is 4 */
  bool mapped;       /* it was ::ffff:a.b.c.d */
  uint16_t port;     /* host order */
  uint32_t scope;    /* sin6_scope_id */
  uint8_t bytes[16]; /* IPv4 in the first four */
};

struct net_rules {
  const struct ws_rule *at;
  size_t count;
};

/* Reads a struct sockaddr of `len` bytes that needs no alignment.  Answers 0, -EINVAL when it is too
 * short, -EAFNOSUPPORT when it is neither AF_INET nor AF_INET6. */
int net_address_read(struct net_address *address, const uint8_t *bytes, size_t len);

/* The struct sockaddr of `address` for a socket of `domain` (AF_INET, AF_INET6); its length, or 0 when
 * such a socket does not take it.  Made from what was checked, and from nothing else. */
socklen_t net_address_write(const struct net_address *address, int domain,
                            struct sockaddr_storage *to);

/* "This host", as a destination, is the loopback address: in Linux for 0.0.0.0 and ::, and the rest of
 * 0.0.0.0/8 has no other meaning (RFC 1122 3.2.1.3). */
void net_address_as_destination(struct net_address *address);

bool net_address_is_unspecified(const struct net_address *address);

/* Whether the first rule that matches allows it; without one, nothing is.  Port 0, "any port", needs
 * a rule for every port. */
bool net_rules_allow(struct net_rules rules, enum ws_action action, enum ws_protocol protocol,
                     const struct net_address *address);

/* Whether anything at all can come of `action` with that protocol. */
bool net_rules_have(struct net_rules rules, enum ws_action action, enum ws_protocol protocol);

/* A filter for a datagram socket of `domain` (AF_INET, AF_INET6) that lets in what comes from where it
 * may be sent to.  Answers how many instructions it has, or 0 when they have no room. */
size_t net_rules_filter(struct net_rules rules, int domain, struct sock_filter to[BPF_MAXINSNS]);

enum { NET_TEXT = 80 };

/* The value of --net that would allow it, without a NUL: "tcp:192.0.2.1:80", "udp:[2001:db8::1]:53",
 * "listen:tcp:0.0.0.0:*".  Answers its length. */
size_t net_rule_text(char text[NET_TEXT], enum ws_action action, enum ws_protocol protocol,
                     const struct net_address *address);
