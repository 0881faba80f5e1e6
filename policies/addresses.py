"""Which addresses are not the public internet's, and so are reached only when they are named.

From IANA's registries of special-purpose addresses (RFC 6890, as of 2025), read strictly: what is
not plainly global unicast is special.  Whatever carries an IPv4 address inside (NAT64, 6to4) is as
special as that.  Of ranges within each other the narrowest says what an address is.
"""

from ipaddress import IPv4Network, IPv6Network, collapse_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Network = IPv4Network | IPv6Network

PUBLIC = ""

_FOUR = {
    "0.0.0.0/0": PUBLIC,
    "0.0.0.0/8": "unspecified",  # RFC 791; Linux connects 0.0.0.0 to itself
    "10.0.0.0/8": "private",  # RFC 1918
    "100.64.0.0/10": "shared (CGNAT)",  # RFC 6598
    "127.0.0.0/8": "loopback",  # RFC 1122
    # Not in the registry: a public address that is a virtual machine's own host, in Azure.
    "168.63.129.16/32": "a cloud platform's",
    "169.254.0.0/16": "link-local",  # RFC 3927; clouds keep their metadata there
    "172.16.0.0/12": "private",  # RFC 1918
    "192.0.0.0/24": "reserved",  # RFC 6890
    "192.0.2.0/24": "documentation",  # RFC 5737
    "192.88.99.0/24": "reserved",  # RFC 7526, once relays of 6to4
    "192.168.0.0/16": "private",  # RFC 1918
    "198.18.0.0/15": "benchmarking",  # RFC 2544
    "198.51.100.0/24": "documentation",  # RFC 5737
    "203.0.113.0/24": "documentation",  # RFC 5737
    "224.0.0.0/4": "multicast",  # RFC 5771
    "240.0.0.0/4": "reserved",  # RFC 1112
    "255.255.255.255/32": "broadcast",  # RFC 919
}

_SIX = {
    "::/0": PUBLIC,
    "::/128": "unspecified",  # RFC 4291
    "::1/128": "loopback",  # RFC 4291
    "::/96": "IPv4-compatible",  # RFC 4291, deprecated there
    "::ffff:0:0/96": "IPv4-mapped",  # RFC 4291; a broker makes IPv4 of it
    "::ffff:0:0:0/96": "IPv4-translated",  # RFC 2765
    "64:ff9b::/96": PUBLIC,  # RFC 6052: what a public IPv4 address is behind NAT64
    "64:ff9b:1::/48": "local NAT64",  # RFC 8215
    "100::/64": "discard-only",  # RFC 6666
    "2001::/23": "reserved",  # RFC 2928: protocols, not hosts
    "2001::/32": "Teredo",  # RFC 4380; the IPv4 address is at the end, where no prefix finds it
    "2001:db8::/32": "documentation",  # RFC 3849
    "3fff::/20": "documentation",  # RFC 9637
    "5f00::/16": "segment routing",  # RFC 9602
    "fc00::/7": "private",  # RFC 4193; clouds keep their metadata there, too
    "fe80::/10": "link-local",  # RFC 4291
    "fec0::/10": "site-local",  # RFC 3879
    "ff00::/8": "multicast",  # RFC 4291
}
# All but global unicast, 2000::/3 (RFC 4291).  Nobody is assigned these; some overlay networks use
# them all the same, such as 200::/7.
_NOT_UNICAST = (
    "::/8 100::/8 200::/7 400::/6 800::/5 1000::/4 4000::/3 6000::/3 8000::/3 a000::/3 c000::/3"
    " e000::/4 f000::/5 f800::/6 fe00::/9"
)
# Where an IPv4 address lies in an IPv6 one: behind these bits.
_EMBEDDINGS = {"64:ff9b::/96": "NAT64", "2002::/16": "6to4"}  # RFC 6052, RFC 3056


def _table() -> "tuple[list[tuple[Network, str]], list[tuple[Network, str]]]":
    four: list[tuple[Network, str]] = [(IPv4Network(text), what) for text, what in _FOUR.items()]
    six: list[tuple[Network, str]] = [(IPv6Network(text), what) for text, what in _SIX.items()]
    six += [(IPv6Network(text), "reserved") for text in _NOT_UNICAST.split()]
    for text, name in _EMBEDDINGS.items():
        outer = IPv6Network(text)
        for inner, what in four:
            if what != PUBLIC:
                shift = 128 - outer.prefixlen - 32
                start = int(outer.network_address) | int(inner.network_address) << shift
                prefix = outer.prefixlen + inner.prefixlen
                six.append((IPv6Network((start, prefix)), f"{name} of {what}"))
    for ranges in (four, six):
        ranges.sort(key=lambda entry: (-entry[0].prefixlen, entry[0].network_address))
    return four, six


# Ranges and what they are (PUBLIC or a word), the narrowest first: the first that holds an address
# or a network decides.  The last of each holds everything.
_RANGES_4, _RANGES_6 = _table()


def ranges(family: int) -> "list[tuple[Network, str]]":
    """The ranges of family 4 or 6."""
    return _RANGES_4 if family == 4 else _RANGES_6


def kind_of(network: "Network") -> "tuple[Network, str]":
    """The narrowest range that holds all of `network`, and what it is; PUBLIC for no special one.

    A network that a special range holds has been named as such; any other one means its public
    part.
    """
    for range_, what in ranges(network.version):
        if network.prefixlen >= range_.prefixlen and network.network_address in range_:
            return range_, what
    raise AssertionError("a range holds everything")


def has_public_part(network: "Network") -> bool:
    """Whether a network that no special range holds has anything beside such ranges in it."""
    inside = [
        (range_, what)
        for range_, what in ranges(network.version)
        if range_.prefixlen >= network.prefixlen and range_.network_address in network
    ]
    if any(what == PUBLIC for _, what in inside):
        return True
    special: list[Any] = [range_ for range_, _ in inside]
    return list(collapse_addresses(special)) != [network]
