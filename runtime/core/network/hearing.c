/* What a datagram socket hears: the rules, once more, as a socket filter (socket(7), SO_ATTACH_FILTER).
 *
 * Whoever may send to an address may hear its answers, and nobody else: the kernel gives a socket a
 * port at its first write, and anybody can send there.  A filter sees the datagram from its UDP header
 * on, and the IP header below it by SKF_NET_OFF.  */
#include <netinet/in.h>
#include <string.h>

#include "network/rules.h"

enum {
  SOURCE_IPV4 = 12, /* in the IP header: RFC 791, RFC 8200 */
  SOURCE_IPV6 = 8,
  LONGEST_RULE = 4 * 3 + 4, /* four words of an address, and the port */
};
static const uint32_t WHOLE = UINT32_MAX;

/* A jump to the end of the rule, whose distance is not known yet. */
enum { TO_THE_NEXT = 0xff };

static uint32_t word_of(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Whether the datagram's source is in the rule's prefix: else on to the next rule. */
static size_t match_address(struct sock_filter *to, const struct ws_rule *rule) {
  const int start = SKF_NET_OFF + (rule->family == 4 ? SOURCE_IPV4 : SOURCE_IPV6);
  size_t n = 0;
  for (int at = 0; at * 8 < rule->prefix; at += 4) {
    const int bits = rule->prefix - at * 8;
    const uint32_t mask = bits >= 32 ? WHOLE : WHOLE << (32 - bits);
    to[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(start + at));
    if (mask != WHOLE)
      to[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask);
    to[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                           word_of(rule->address + at) & mask, 0, TO_THE_NEXT);
  }
  return n;
}

static size_t match_port(struct sock_filter *to, const struct ws_rule *rule) {
  to[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0); /* the source port is first */
  to[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, rule->low, 0, TO_THE_NEXT);
  to[2] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, rule->high, TO_THE_NEXT, 0);
  return 3;
}

static size_t add_rule(struct sock_filter *to, const struct ws_rule *rule) {
  size_t n = match_address(to, rule);
  n += match_port(to + n, rule);
  to[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, rule->allow ? WHOLE : 0);
  for (size_t i = 0; i < n; i++) {
    const uint8_t left = (uint8_t)(n - i - 1);
    if (to[i].jt == TO_THE_NEXT)
      to[i].jt = left;
    if (to[i].jf == TO_THE_NEXT)
      to[i].jf = left;
  }
  return n;
}

size_t net_rules_filter(struct net_rules rules, int domain, struct sock_filter to[BPF_MAXINSNS]) {
  const uint8_t family = domain == AF_INET ? 4 : 6;
  size_t n = 0;
  for (size_t i = 0; i < rules.count; i++) {
    const struct ws_rule *rule = &rules.at[i];
    if (rule->family != family || !(rule->actions & WS_ACTION_CONNECT) ||
        !(rule->protocol & WS_PROTOCOL_UDP))
      continue;
    if (n + LONGEST_RULE + 1 > BPF_MAXINSNS)
      return 0;
    n += add_rule(to + n, rule);
  }
  to[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
  return n;
}
