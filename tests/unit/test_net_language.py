"""The network as people write it: what is understood, and what is said about each slip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasisup.policies.build import Given, build
from wasisup.policies.grants import GrantError
from wasisup.policies.network import HOST, format_net, is_name, parse_net
from wasisup.policies.policy import Policy
from wasisup.supervisor.errors import PolicyError, UsageError
from wasisup.supervisor.model import ListenGrant, NetGrant, RunRequest
from wasisup.supervisor.network import as_listener, give_module, useless


def connect(protocol: str, host: str, low: int, high: int | None = None) -> NetGrant:
    return NetGrant("connect", protocol, host, low, low if high is None else high)


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("tcp:example.org:443", connect("tcp", "example.org", 443)),
        ("udp:8.8.8.8:53", connect("udp", "8.8.8.8", 53)),
        ("tcp:localhost:8000-8010", connect("tcp", "localhost", 8000, 8010)),
        ("tcp:10.0.0.0/8:*", connect("tcp", "10.0.0.0/8", 1, 65535)),
        ("tcp:[2001:db8::/32]:80", connect("tcp", "2001:db8::/32", 80)),
        ("tcp:[::1]:80", connect("tcp", "::1", 80)),
        ("tcp:xn--bcher-kva.de:80", connect("tcp", "xn--bcher-kva.de", 80)),
        ("tcp:my_db.internal:5432", connect("tcp", "my_db.internal", 5432)),
        ("tcp:a1.2b:1", connect("tcp", "a1.2b", 1)),
        ("listen:tcp:127.0.0.1:8080", NetGrant("listen", "tcp", "127.0.0.1", 8080, 8080)),
        ("listen:udp:[::]:*", NetGrant("listen", "udp", "::", 1, 65535)),
        ("host", HOST),
    ],
)
def test_what_is_understood(text: str, grant: NetGrant | str) -> None:
    """Every form, and it is written back as it was."""
    assert parse_net(text) == grant
    assert isinstance(grant, str) or format_net(grant) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("tcp:Example.ORG.:443", "tcp:example.org:443"),
        ("tcp:[2001:DB8:0::1]:080", "tcp:[2001:db8::1]:80"),
        ("tcp:[::ffff:10.0.0.1]:80", "tcp:10.0.0.1:80"),
        ("tcp:[::ffff:10.0.0.0/104]:80", "tcp:10.0.0.0/8:80"),
        ("tcp:8.8.8.8:1-65535", "tcp:8.8.8.8:*"),
        ("tcp:8.8.8.8:5-5", "tcp:8.8.8.8:5"),
    ],
)
def test_what_is_the_same(text: str, same: str) -> None:
    """One spelling for each grant; an IPv4 address by its IPv6 name is that address."""
    assert format_net(parse_net(text)) == same  # type: ignore[arg-type]
    assert parse_net(same) == parse_net(text)


SLIPS = {
    "http://example.org/x": "is a URL; a grant is written like tcp:example.org:80",
    "https://[::1]": "is a URL; a grant is written like tcp:[::1]:443",
    "http://x:99999": "is a URL; a grant is written like tcp:HOST:PORT",
    "tcp://example.org:5": "is a URL; a grant is written like tcp:example.org:5",
    "tcp:example.org": "has no port; write it like tcp:example.org:443, or tcp:example.org:*",
    "tcp:example.org:": "has no port; write it like tcp:example.org:443",
    "tcp:[::1]": "has no port; write it like tcp:[::1]:443",
    "tcp:10.0.0.0/8": "has no port; write it like tcp:10.0.0.0/8:443",
    "tcp:x:0": "there is no port 0; for every port write *",
    "tcp:x:65536": "ports end at 65535",
    "tcp:x:" + "9" * 5000: "ports end at 65535",
    "tcp:x:80-70": "the range is the wrong way round: 70-80",
    "tcp:x:80,443": "'80,443' is no port",
    "tcp:x:http": "'http' is no port",
    "tcp:x:-1": "'' is no port",
    "tcp:x:٣": "'٣' is no port",
    "tcp:10.0.0.1/8:80": "the range is tcp:10.0.0.0/8:80, the one address tcp:10.0.0.1:80",
    "tcp:[2001:db8::1/32]:80": "the range is tcp:[2001:db8::/32]:80",
    "tcp:10.0.0.0/33:80": "a prefix has at most 32 bits",
    "tcp:10.0.0.0/x:80": "'x' is no length of a prefix",
    "tcp:10.0.0.0/255.0.0.0:80": "'255.0.0.0' is no length of a prefix",
    "tcp:[::1]/128:80": "the prefix goes inside of the brackets: tcp:[::1/128]:80",
    "tcp:2001:db8::1:80": "an IPv6 address goes in brackets: tcp:[2001:db8::1]:80",
    "tcp:2001:db8::1": "an IPv6 address goes in brackets: tcp:[2001:db8::1]:PORT",
    "tcp:::1:80": "an IPv6 address goes in brackets: tcp:[::1]:80",
    "tcp:[::1:80": "the bracket is not closed",
    "tcp:[example.org]:80": "brackets are for IPv6 addresses: tcp:example.org:80",
    "tcp:[fe80::1%eth0]:80": "without its zone",
    "tcp:[1::2::3]:80": "'1::2::3' is no IPv6 address",
    "tcp:a:b:80": "has too many parts",
    "tcp::80": "names no host; write it like tcp:HOST:80",
    "tcp:127.1:80": "'127.1' is no IPv4 address",
    "tcp:0x7f000001:80": "'0x7f000001' is no IPv4 address",
    "tcp:2130706433:80": "'2130706433' is no IPv4 address",
    "tcp:127.0.0.01:80": "'127.0.0.01' is no IPv4 address",
    "tcp:256.0.0.1:80": "'256.0.0.1' is no IPv4 address",
    "tcp:x.0x1:80": "'x.0x1' is no IPv4 address",
    "tcp:*:80": "write tcp:0.0.0.0/0:80 and tcp:[::/0]:80",
    "tcp:*.example.org:80": "each name is granted by itself",
    "tcp:example.org/x:80": "nothing but a port follows a name: tcp:example.org:80",
    "tcp:me@example.org:80": "no user belongs here: tcp:example.org:80",
    "tcp:bücher.de:80": "names are ASCII: tcp:xn--bcher-kva.de:80",
    "tcp:-x.org:80": "'-x.org' is no name of a host",
    "tcp:a..b:80": "'a..b' is no name of a host",
    "tcp:" + "a" * 64 + ":80": "is no name of a host",
    "tcp:" + "a." * 127 + "b:80": "is no name of a host",
    "tcp:a b:80": "there is a space",
    "tcp:a\n:80": "there is a space or a control character",
    "tcp:a\0:80": "there is a space or a control character",
    "tcp:0.0.0.0:80": "this machine is tcp:127.0.0.1:80, every public address tcp:0.0.0.0/0:80",
    "tcp:[::]:80": "this machine is tcp:[::1]:80, every public address tcp:[::/0]:80",
    "tcp:0.0.0.0/32:80": "nobody has this address",
    "tcp:224.0.0.0/3:80": "no address in there is public",
    "tcp:[fe00::/8]:80": "no address in there is public",
    "listen:tcp:example.org:80": "listens on an address, and 'example.org' is none",
    "listen:tcp:localhost:80": "'localhost' is none: listen:tcp:127.0.0.1:80",
    "listen:tcp:10.0.0.0/8:80": "listens on one address, or on all: listen:tcp:0.0.0.0:80",
    "listen:tcp:[fe80::/10]:80": "listens on one address, or on all: listen:tcp:[::]:80",
    "listen:tcp:0.0.0.0:0": "there is no port 0",
    "listen:0.0.0.0:80": "which protocol: listen:tcp:0.0.0.0:80, or listen:udp:0.0.0.0:80",
    "listen:listen:tcp:0.0.0.0:80": "`listen` comes once, and first: listen:tcp:0.0.0.0:80",
    "tcp:listen:0.0.0.0:80": "has too many parts",
    "listen": "is not whole",
    "tcp": "is not whole",
    "TCP:x:80": "the protocol is in small letters: tcp:x:80",
    "HOST": "write 'host', in small letters",
    "example.org:443": "which protocol: tcp:example.org:443, or udp:example.org:443",
    "8080": "is no grant",
    "": "it is empty",
    "*": "is no grant",
    "host:*": "which protocol",
}


@pytest.mark.parametrize("text", SLIPS)
def test_slips(text: str) -> None:
    """Each is an error that says what would have been right."""
    with pytest.raises(GrantError) as caught:
        parse_net(text)
    assert SLIPS[text] in str(caught.value)


PARTS = st.lists(
    st.sampled_from(
        ["tcp", "udp", "listen", "host", ":", "::", "[", "]", "/", "8", "*", "-", "0.0.0.0", "::1",
         "a.b", "10.0.0.0", "255", "65536", "%", ".", " ", "é", "://", "@", "ffff"]
    ),
    max_size=9,
).map("".join)  # fmt: skip


@given(st.one_of(st.text(max_size=40), PARTS, PARTS.map("tcp:".__add__)))
def test_any_text(text: str) -> None:
    """A grant that can be written back and is then the same, or a GrantError."""
    try:
        grant = parse_net(text)
    except GrantError:
        return
    if not isinstance(grant, str):
        assert parse_net(format_net(grant)) == grant
        assert 1 <= grant.low <= grant.high <= 65535
        assert not is_name(grant.host) or grant.action == "connect"


# --- from flags and policies to a request ---


def request(policy: Policy | None = None, **flags: list[str]) -> RunRequest:
    given = {key: [Given(text, f"--{key}") for text in texts] for key, texts in flags.items()}
    return build("m.wasm", [], given, policy, {}).request


def policy_with(**values: list[str] | bool) -> Policy:
    made = Policy("p", "/p.toml")
    for key, value in values.items():
        if isinstance(value, bool):
            made.forbidden.append(key)
        else:
            made.values[key] = [Given(text, f"p.toml: {key}", from_policy=True) for text in value]
    return made


def test_a_policys_come_first() -> None:
    """Lists add up, and `host` from either is everything."""
    policy = policy_with(net=["tcp:a.example:1"])
    made = request(policy, net=["udp:b.example:2"])
    assert [format_net(grant) for grant in made.net] == ["tcp:a.example:1", "udp:b.example:2"]
    assert not made.net_host
    assert request(policy, net=["host"]).net_host
    assert request(policy_with(net=["host"])).net_host
    assert not request().net_host


def test_a_slip_says_where_it_stands() -> None:
    """The flag, or the policy's file and key."""
    with pytest.raises(UsageError, match=r"^--net: 'x:80' does not say which protocol"):
        request(net=["x:80"])
    with pytest.raises(PolicyError, match=r"^p\.toml: net: 'tcp:x' has no port"):
        request(policy_with(net=["tcp:x"]))


@pytest.mark.parametrize(
    ("key", "flag", "text"),
    [
        ("net", "net", "tcp:x:80"),
        ("net", "net", "host"),
        ("net", "tcplisten", "127.0.0.1:80"),
        ("tcplisten", "net", "listen:tcp:127.0.0.1:80"),
        ("tcplisten", "net", "host"),
        ("tcplisten", "tcplisten", "127.0.0.1:80"),
    ],
)
def test_a_policy_without_network(key: str, flag: str, text: str) -> None:
    """`net = false` refuses both flags; `tcplisten = false` listening sockets by either."""
    with pytest.raises(UsageError, match=f"allows none \\({key} = false") as caught:
        request(policy_with(**{key: False}), **{flag: [text]})
    assert caught.value.hint == f"leave out --{flag}, or choose another policy"


def test_a_policy_without_listening_sockets() -> None:
    """It says nothing about connections."""
    assert request(policy_with(tcplisten=False), net=["tcp:x:80"]).net


# --- what a module of preview 1 has of it ---


def test_a_modules_sockets() -> None:
    """One address and one port is --tcplisten; the rest stays, and is of no use."""
    texts = [
        "listen:tcp:127.0.0.1:8080",
        "listen:tcp:[::1]:80-81",
        "listen:udp:127.0.0.1:53",
        "tcp:x:80",
        "listen:tcp:[::]:443",
    ]
    made = request(net=texts, tcplisten=["127.0.0.1:8080"])
    assert useless(made) == ["listen:tcp:[::1]:80-81", "listen:udp:127.0.0.1:53", "tcp:x:80"]
    for _ in range(2):
        give_module(made)
        assert made.listens == [ListenGrant("127.0.0.1", 8080), ListenGrant("::", 443)]
        assert [format_net(grant) for grant in made.net] == useless(made)
    assert as_listener(connect("tcp", "127.0.0.1", 80)) is None
    assert useless(request(net=["host"])) == ["host"]
