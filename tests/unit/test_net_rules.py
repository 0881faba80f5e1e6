"""Which addresses and ports grants make reachable: rules, against an oracle without an order."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasisup.policies.addresses import PUBLIC, kind_of, ranges
from wasisup.policies.network import HOST, parse_net
from wasisup.supervisor.errors import SetupError, UsageError
from wasisup.supervisor.network import NetPlan, plan

# The test's own list, one an RFC; what lies in none of them is public.
SPECIAL = [
    ip_network(text)
    for text in """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12
    192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
    ::/128 ::1/128 ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b:1::/48 100::/64 2001::/23 2001::/32
    2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    ::/8 100::/8 200::/7 400::/6 800::/5 1000::/4 4000::/3 6000::/3 8000::/3 a000::/3 c000::/3
    e000::/4 f000::/5 f800::/6 fe00::/9
    """.split()
]
NAT64 = ip_network("64:ff9b::/96")
SIX_TO_FOUR = ip_network("2002::/16")
EMBEDDED = [
    ip_network((int(outer.network_address) | int(inner.network_address) << shift, bits))
    for outer, shift in ((NAT64, 0), (SIX_TO_FOUR, 80))
    for inner in SPECIAL
    if inner.version == 4
    for bits in [outer.prefixlen + inner.prefixlen]
]
ALL = SPECIAL + EMBEDDED


def home(address: Any) -> Any:
    """The narrowest special range that holds the address, or None for a public one."""
    inside = [one for one in ALL if one.version == address.version and address in one]
    narrowest = max(inside, key=lambda one: one.prefixlen, default=None)
    if address in NAT64 and (narrowest is None or narrowest.prefixlen < 96):
        return None
    return narrowest


def is_open(grants: list[str], action: str, protocol: str, address: Any, port: int) -> bool:
    """What the documentation says, grant by grant."""
    for text in grants:
        grant = parse_net(text)
        assert not isinstance(grant, str)
        if (grant.action, grant.protocol) != (action, protocol):
            continue
        if not grant.low <= port <= grant.high:
            continue
        network = ip_network(grant.host)
        if action == "listen":
            every = network.network_address.is_unspecified
            if network.version == address.version and (every or address in network):
                return True
        elif network.version == address.version and address in network:
            special = home(address)
            if special is None or network.subnet_of(special):
                return True
    return False


def decide(planned: NetPlan, action: str, protocol: str, address: Any, port: int) -> bool:
    """What the broker does with the rules."""
    packed = address.packed.ljust(16, b"\0")
    for rule in planned.rules:
        shift = 128 - rule.prefix
        same = int.from_bytes(packed) >> shift == int.from_bytes(rule.address) >> shift
        if (
            rule.family == address.version
            and rule.actions & {"connect": 1, "listen": 2}[action]
            and rule.protocol & {"tcp": 1, "udp": 2}[protocol]
            and rule.low <= port <= rule.high
            and same
        ):
            return rule.allow
    return False


def no_lookup(*_: object) -> list[Any]:
    raise AssertionError("nothing is to be looked up")


def plan_of(*texts: str, lookup: Any = no_lookup) -> NetPlan:
    grants = [parse_net(text) for text in texts]
    return plan([one for one in grants if not isinstance(one, str)], HOST in grants, lookup)


def networks() -> st.SearchStrategy[str]:
    """Networks on, in, around and beside the special ranges, and any others."""

    def near(one: Any, bits: int, up: bool) -> Any:
        if up:
            return one.supernet(new_prefix=max(0, one.prefixlen - bits))
        prefix = min(one.max_prefixlen, one.prefixlen + bits)
        return ip_network((int(one.network_address) | 1 << one.max_prefixlen - prefix, prefix)
                          ) if prefix > one.prefixlen else one  # fmt: skip

    four = st.builds(
        lambda number, prefix: ip_network(f"{IPv4Address(number)}/{prefix}", strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    )
    six = st.builds(
        lambda number, prefix: ip_network(f"{IPv6Address(number)}/{prefix}", strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    )
    pool = st.sampled_from([*ALL, NAT64, SIX_TO_FOUR])
    return st.one_of(st.builds(near, pool, st.integers(0, 9), st.booleans()), four, six)


def as_grant(protocol: str, network: Any, low: int, high: int) -> str:
    host = f"[{network}]" if network.version == 6 else str(network)
    return f"{protocol}:{host}:{low}-{high}"


PORTS = st.sampled_from([1, 2, 79, 80, 81, 443, 65535])
PROTOCOLS = st.sampled_from(["tcp", "udp"])
GRANT = st.builds(
    lambda protocol, network, one, other: as_grant(
        protocol, network, min(one, other), max(one, other)
    ),
    PROTOCOLS,
    networks(),
    PORTS,
    PORTS,
)
LISTEN = st.builds(
    lambda protocol, address, port: f"listen:{protocol}:{address}:{port}",
    PROTOCOLS,
    st.sampled_from(["0.0.0.0", "127.0.0.1", "[::]", "[::1]", "10.1.1.1"]),
    PORTS,
)


def sound(texts: list[str]) -> list[str]:
    """Without those that the language refuses (no public part, the unspecified address)."""
    kept = []
    for text in texts:
        try:
            parse_net(text)
        except ValueError:
            continue
        kept.append(text)
    return kept


@given(data=st.data(), texts=st.lists(st.one_of(GRANT, LISTEN), min_size=1, max_size=5))
def test_rules_say_what_the_grants_do(data: Any, texts: list[str]) -> None:
    """Whatever is granted together, each address and port is decided as by each grant alone."""
    grants = sound(texts)
    planned = plan_of(*grants)
    hosts = [parse_net(text).host for text in grants]  # type: ignore[union-attr]
    edges = [ip_network(host) for host in hosts] + ALL + [NAT64, SIX_TO_FOUR]
    for _ in range(8):
        network = data.draw(st.sampled_from(edges))
        first, last = int(network.network_address), int(network.broadcast_address)
        at = data.draw(
            st.one_of(st.sampled_from([first, last, first - 1, last + 1]), st.integers(first, last))
        )
        kind = IPv4Address if network.version == 4 else IPv6Address
        address = kind(min(max(at, 0), 2**network.max_prefixlen - 1))
        action = data.draw(st.sampled_from(["connect", "connect", "listen"]))
        protocol, port = data.draw(PROTOCOLS), data.draw(PORTS)
        wanted = is_open(grants, action, protocol, address, port)
        assert decide(planned, action, protocol, address, port) == wanted, (grants, address)


def test_two_grants_with_ports_of_their_own() -> None:
    """What is named of a private range keeps its port, beside a wide grant of another."""
    planned = plan_of("tcp:0.0.0.0/0:443", "tcp:10.0.0.0/8:80", "udp:10.1.0.0/16:53")
    for protocol, address, port, wanted in (
        ("tcp", "93.184.215.14", 443, True),
        ("tcp", "93.184.215.14", 80, False),
        ("tcp", "10.1.2.3", 80, True),
        ("tcp", "10.1.2.3", 443, False),
        ("udp", "10.1.2.3", 53, True),
        ("udp", "10.2.2.3", 53, False),
        ("udp", "93.184.215.14", 53, False),
    ):
        found = decide(planned, "connect", protocol, ip_address(address), port)
        assert found == wanted, (protocol, address, port)
        assert not decide(planned, "listen", protocol, ip_address(address), port)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # AWS, Azure, Google, and those who copy them
        "169.254.170.2",  # AWS, of containers
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure's host
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
    ],
)
def test_metadata_of_clouds(address: str) -> None:
    """No wide grant and no name leads to a cloud's metadata; their own address does."""
    wanted = ip_address(address)
    wide = plan_of("tcp:0.0.0.0/0:*", "tcp:[::/0]:*", "udp:0.0.0.0/0:*", "udp:[::/0]:*")
    assert not decide(wide, "connect", "tcp", wanted, 80)
    assert not decide(wide, "connect", "udp", wanted, 80)
    with pytest.raises(UsageError, match="no public address"):
        plan_of("tcp:metadata.example:80", lookup=answers(address))
    host = f"[{address}]" if ":" in address else address
    assert decide(plan_of(f"tcp:{host}:80"), "connect", "tcp", wanted, 80)


def test_wide_grants_mean_their_public_part() -> None:
    """0.0.0.0/0 reaches no private address, 10.0.0.0/7 only 11.0.0.0/8; NAT64 of public ones is."""
    every = plan_of("tcp:0.0.0.0/0:80", "tcp:[::/0]:80")
    for address, wanted in (
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("64:ff9b::8.8.8.8", True),
        ("2002:808:808::1", True),
        ("64:ff9b::10.0.0.1", False),
        ("2002:7f00:1::1", False),
        ("2001:0:7f00:1::1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("200::1", False),
    ):
        assert decide(every, "connect", "tcp", ip_address(address), 80) == wanted, address
    seven = plan_of("tcp:10.0.0.0/7:80")
    assert decide(seven, "connect", "tcp", ip_address("11.0.0.1"), 80)
    assert not decide(seven, "connect", "tcp", ip_address("10.0.0.1"), 80)


@given(
    st.one_of(
        st.integers(0, 2**32 - 1).map(IPv4Address),
        st.integers(0, 2**128 - 1).map(IPv6Address),
        st.sampled_from(ALL).map(lambda one: one.network_address),
    )
)
def test_public_is_public_to_others_too(address: Any) -> None:
    """What the table takes for public, Python's ipaddress does; it knows fewer special ones."""
    network = ip_network(address)
    if kind_of(network)[1] == PUBLIC:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
        if address.version == 6:
            inner = address.sixtofour
            assert inner is None or kind_of(ip_network(inner))[1] == PUBLIC


def test_the_table_agrees_with_itself() -> None:
    """Narrow before wide, and a last range that holds everything."""
    for family in (4, 6):
        prefixes = [one.prefixlen for one, _ in ranges(family)]
        assert prefixes == sorted(prefixes, reverse=True)
        assert prefixes[-1] == 0


# --- names ---


def answers(*addresses: str) -> Any:
    """A getaddrinfo that knows one answer for every name."""

    def lookup(host: str, port: object, family: int, kind: int) -> list[Any]:
        assert (port, family, kind) == (None, 0, socket.SOCK_STREAM)
        found = []
        for text in addresses:
            six = ":" in text
            where = (text, 0, 0, 0) if six else (text, 0)
            found.append((socket.AF_INET6 if six else socket.AF_INET, kind, 6, "", where))
        return found

    return lookup


def fails(code: int) -> Any:
    def lookup(*_: object) -> list[Any]:
        raise socket.gaierror(code, "no luck")

    return lookup


def test_names_lead_to_what_they_resolve_to() -> None:
    """All addresses of a name, at the granted port, and the table for the guest's look-ups."""
    lookup = answers("93.184.215.14", "2606:2800::1", "::ffff:8.8.4.4", "93.184.215.14")
    planned = plan_of("tcp:Example.ORG.:443", "udp:example.org:53", lookup=lookup)
    assert planned.names == {
        "example.org": [
            (4, ip_address("93.184.215.14").packed.ljust(16, b"\0")),
            (6, ip_address("2606:2800::1").packed),
            (4, ip_address("8.8.4.4").packed.ljust(16, b"\0")),
        ]
    }
    for address in ("93.184.215.14", "2606:2800::1", "8.8.4.4"):
        assert decide(planned, "connect", "tcp", ip_address(address), 443)
        assert decide(planned, "connect", "udp", ip_address(address), 53)
        assert not decide(planned, "connect", "tcp", ip_address(address), 53)
    assert not decide(planned, "connect", "tcp", ip_address("93.184.215.15"), 443)
    assert not planned.live


def test_a_name_is_resolved_once() -> None:
    """Two grants of a name mean the same addresses, whatever a resolver makes of two questions."""
    asked = []

    def lookup(host: str, *rest: object) -> list[Any]:
        asked.append(host)
        found: list[Any] = answers(f"8.8.8.{len(asked)}")(host, *rest)
        return found

    planned = plan_of("tcp:a.example:1", "tcp:a.example:2", "tcp:b.example:1", lookup=lookup)
    assert asked == ["a.example", "b.example"]
    assert len(planned.rules) == 3


def test_private_answers_are_left_out() -> None:
    """Of public and private answers the public ones remain, for rules and look-ups both."""
    lookup = answers("10.0.0.1", "8.8.8.8", "::1", "fe80::1%1")
    planned = plan_of("tcp:mixed.example:80", lookup=lookup)
    assert planned.names == {"mixed.example": [(4, bytes([8, 8, 8, 8]).ljust(16, b"\0"))]}
    assert not decide(planned, "connect", "tcp", ip_address("10.0.0.1"), 80)


def test_only_private_answers() -> None:
    """An error that names what it found and the flag to grant it by."""
    with pytest.raises(UsageError) as caught:
        plan_of("tcp:db.internal:5432", lookup=answers("10.0.0.7", "fd00::7"))
    assert caught.value.message == (
        "--net tcp:db.internal:5432: 'db.internal' has no public address, only 10.0.0.7 (private),"
        " fd00::7 (private)"
    )
    assert caught.value.hint == (
        "such addresses are granted by themselves: --net tcp:10.0.0.7:5432"
    )


def test_localhost_is_loopback_by_name() -> None:
    """localhost names loopback, and nobody is asked what it is."""
    for name in ("localhost", "LOCALHOST", "app.localhost"):
        planned = plan_of(f"tcp:{name}:8080")
        assert [family for family, _ in planned.names[name.lower()]] == [4, 6]
        for address in ("127.0.0.1", "::1"):
            assert decide(planned, "connect", "tcp", ip_address(address), 8080)
        assert not decide(planned, "connect", "tcp", ip_address("127.0.0.2"), 8080)


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (socket.EAI_NONAME, "there is no host 'x.example'", None),
        (socket.EAI_AGAIN, "'x.example' cannot be resolved: no luck", "is there a network"),
    ],
)
def test_names_that_cannot_be_resolved(code: int, message: str, hint: str | None) -> None:
    """No such name, or nobody to ask, is an error before the run."""
    with pytest.raises(SetupError) as caught:
        plan_of("udp:x.example:53", lookup=fails(code))
    assert caught.value.message == f"--net udp:x.example:53: {message}"
    assert caught.value.step == "resolve"
    assert caught.value.hint is None if hint is None else hint in str(caught.value.hint)


def test_the_whole_network_of_the_host() -> None:
    """`host`: every address, port and listener, and look-ups during the run."""
    planned = plan_of("host", "tcp:name.example:80")
    assert planned.live
    assert not planned.names
    for address in ("127.0.0.1", "169.254.169.254", "8.8.8.8", "::1", "fe80::1"):
        for action in ("connect", "listen"):
            assert decide(planned, action, "tcp", ip_address(address), 0)
            assert decide(planned, action, "udp", ip_address(address), 65535)


def test_nothing_granted() -> None:
    """No grant, no rule."""
    assert plan_of() == NetPlan()


def test_too_many_rules() -> None:
    """A table of rules has an end, and the error says how to be brief."""
    with pytest.raises(UsageError, match="the most is 4096") as caught:
        plan_of(*(f"tcp:8.8.8.8:{port}" for port in range(1, 4099)))
    assert "8000-8010" in str(caught.value.hint)
