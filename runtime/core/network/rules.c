#include "network/rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};

int net_address_read(struct net_address *address, const uint8_t *bytes, size_t len) {
  sa_family_t family;
  *address = (struct net_address){0};
  if (len < sizeof family)
    return -EINVAL;
  memcpy(&family, bytes, sizeof family);
  if (family == AF_INET) {
    struct sockaddr_in in;
    if (len < sizeof in)
      return -EINVAL;
    memcpy(&in, bytes, sizeof in);
    address->family = 4;
    address->port = ntohs(in.sin_port);
    memcpy(address->bytes, &in.sin_addr, 4);
    return 0;
  }
  if (family != AF_INET6)
    return -EAFNOSUPPORT;
  struct sockaddr_in6 in6;
  if (len < sizeof in6)
    return -EINVAL;
  memcpy(&in6, bytes, sizeof in6);
  address->port = ntohs(in6.sin6_port);
  address->scope = in6.sin6_scope_id;
  address->mapped = memcmp(&in6.sin6_addr, MAPPED, sizeof MAPPED) == 0;
  address->family = address->mapped ? 4 : 6;
  if (address->mapped)
    memcpy(address->bytes, in6.sin6_addr.s6_addr + sizeof MAPPED, 4);
  else
    memcpy(address->bytes, &in6.sin6_addr, 16);
  return 0;
}

socklen_t net_address_write(const struct net_address *address, int domain,
                            struct sockaddr_storage *to) {
  memset(to, 0, sizeof *to);
  if (domain == AF_INET && address->family == 4 && !address->mapped) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    memcpy(&in.sin_addr, address->bytes, 4);
    memcpy(to, &in, sizeof in);
    return sizeof in;
  }
  if (domain != AF_INET6 || (address->family == 4 && !address->mapped))
    return 0;
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(address->port),
                             .sin6_scope_id = address->scope};
  if (address->mapped) {
    memcpy(&in6.sin6_addr, MAPPED, sizeof MAPPED);
    memcpy(in6.sin6_addr.s6_addr + sizeof MAPPED, address->bytes, 4);
  } else {
    memcpy(&in6.sin6_addr, address->bytes, 16);
  }
  memcpy(to, &in6, sizeof in6);
  return sizeof in6;
}

static size_t size_of(const struct net_address *address) { return address->family == 4 ? 4 : 16; }

bool net_address_is_unspecified(const struct net_address *address) {
  for (size_t i = 0; i < size_of(address); i++)
    if (address->bytes[i])
      return false;
  return true;
}

void net_address_as_destination(struct net_address *address) {
  if (address->family == 4 && address->bytes[0] == 0)
    memcpy(address->bytes, (uint8_t[]){127, 0, 0, 1}, 4);
  else if (address->family == 6 && net_address_is_unspecified(address))
    address->bytes[15] = 1;
}

static bool in_prefix(const struct ws_rule *rule, const struct net_address *address) {
  size_t whole = rule->prefix / 8, bits = rule->prefix % 8;
  if (rule->family != address->family || memcmp(rule->address, address->bytes, whole) != 0)
    return false;
  return !bits || ((rule->address[whole] ^ address->bytes[whole]) >> (8 - bits)) == 0;
}

bool net_rules_allow(struct net_rules rules, enum ws_action action, enum ws_protocol protocol,
                     const struct net_address *address) {
  for (size_t i = 0; i < rules.count; i++) {
    const struct ws_rule *rule = &rules.at[i];
    if (!(rule->actions & action) || !(rule->protocol & protocol) || !in_prefix(rule, address))
      continue;
    if (address->port) {
      if (address->port >= rule->low && address->port <= rule->high)
        return rule->allow;
    } else if (!rule->allow || (rule->low <= 1 && rule->high == UINT16_MAX)) {
      return rule->allow;
    }
  }
  return false;
}

bool net_rules_have(struct net_rules rules, enum ws_action action, enum ws_protocol protocol) {
  for (size_t i = 0; i < rules.count; i++)
    if (rules.at[i].allow && (rules.at[i].actions & action) && (rules.at[i].protocol & protocol))
      return true;
  return false;
}

/* A text under construction.  Not snprintf and inet_ntop: a signal handler writes these, on a stack
 * that somebody else gave it. */
struct text {
  char *at;
  size_t len;
};

static void put(struct text *t, const char *words) {
  while (*words && t->len < NET_TEXT)
    t->at[t->len++] = *words++;
}

static void put_number(struct text *t, unsigned value, unsigned base) {
  char digits[12];
  size_t at = sizeof digits - 1;
  digits[at] = 0;
  do
    digits[--at] = "0123456789abcdef"[value % base];
  while (value /= base);
  put(t, digits + at);
}

static void put_ipv4(struct text *t, const uint8_t *bytes) {
  for (int i = 0; i < 4; i++) {
    if (i)
      put(t, ".");
    put_number(t, bytes[i], 10);
  }
}

/* RFC 5952: the longest run of at least two zero groups, the first of equals, becomes "::". */
static void put_ipv6(struct text *t, const uint8_t *bytes) {
  unsigned groups[8];
  int run = 0, best = -1, most = 1;
  for (int i = 0; i < 8; i++) {
    groups[i] = (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
    run = groups[i] ? 0 : run + 1;
    if (run > most) {
      most = run;
      best = i - run + 1;
    }
  }
  for (int i = 0; i < 8; i++) {
    if (i == best) {
      put(t, "::");
      i += most - 1;
      continue;
    }
    if (i && i != best + most)
      put(t, ":");
    put_number(t, groups[i], 16);
  }
}

size_t net_rule_text(char text[NET_TEXT], enum ws_action action, enum ws_protocol protocol,
                     const struct net_address *address) {
  struct text t = {text, 0};
  put(&t, action == WS_ACTION_LISTEN ? "listen:" : "");
  put(&t, protocol == WS_PROTOCOL_UDP ? "udp:" : "tcp:");
  if (address->family == 4) {
    put_ipv4(&t, address->bytes);
  } else {
    put(&t, "[");
    put_ipv6(&t, address->bytes);
    put(&t, "]");
  }
  put(&t, ":");
  if (address->port)
    put_number(&t, address->port, 10);
  else
    put(&t, "*");
  return t.len;
}
