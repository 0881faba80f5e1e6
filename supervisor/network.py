"""What network grants come to: rules on addresses and ports for the broker, and a table of names.

A name is resolved here, before the run, and only what it resolved to can be reached: a guest sees
no resolver, and whoever has the say over a name has it once.  Addresses that are not public
(policies/addresses.py: private, loopback, link-local with the clouds' metadata, ...) are reached
only by a grant that names them: by address or by a CIDR within such a range; `localhost` names
loopback.  So a name cannot lead into a private network, whatever it resolves to, and a wide CIDR
means its public part.

The rules are ordered, the first that matches an address and port counts, and what none matches is
denied:

1. Sockets to listen on.
2. For each range of the table, the narrowest first: what is granted of it, then, if it is special,
   its denial.  So an address has been decided on before any wider range is looked at.
"""

from ..policies.addresses import PUBLIC, kind_of, ranges
from ..policies.network import HOST, LAST_PORT, format_net, is_name
from .errors import SetupError, UsageError
from .model import Shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
    from typing import Any

    from .model import ListenGrant, NetGrant, RunRequest

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network
    Lookup = Callable[..., Iterable[tuple[Any, ...]]]

# Bits of a rule's fields (runtime/core/spec/spec.h).
CONNECT, LISTEN = 1, 2
TCP, UDP, BOTH = 1, 2, 3

_ACTIONS = {"connect": CONNECT, "listen": LISTEN}
_PROTOCOLS = {"tcp": TCP, "udp": UDP}
# Far more than anybody writes by hand; some table of a program's has to be that long, too.
MOST_RULES = 4096


class NetRule(Shape):
    """One rule of a broker's.

    allow: or deny.  actions, protocol: bits.  family: 4 or 6.  prefix: bits of the address that
    count.  address: 16 bytes, an IPv4 address in the first four.  low, high: ports, both included.
    """

    __slots__ = ("allow", "actions", "protocol", "family", "prefix", "address", "low", "high")

    def __init__(
        self,
        *,
        allow: bool,
        actions: int,
        protocol: int,
        family: int,
        prefix: int,
        address: bytes,
        low: int,
        high: int,
    ) -> None:
        self.allow = allow
        self.actions = actions
        self.protocol = protocol
        self.family = family
        self.prefix = prefix
        self.address = address
        self.low = low
        self.high = high


class NetPlan(Shape):
    """What a run's network comes to.

    rules: the broker's, in order; empty: no network at all.  names: what the guest may look up,
    with the addresses that are its to reach: (family, 16 bytes).  live: the host's whole network,
    where look-ups are answered during the run.
    """

    __slots__ = ("rules", "names", "live")

    def __init__(
        self,
        rules: "Sequence[NetRule]" = (),
        names: "dict[str, list[tuple[int, bytes]]] | None" = None,
        live: bool = False,
    ) -> None:
        self.rules = list(rules)
        self.names = {} if names is None else names
        self.live = live


def plan(
    grants: "Sequence[NetGrant]", host: bool = False, lookup: "Lookup | None" = None
) -> NetPlan:
    """The rules and names of `grants`, or of the host's whole network.

    lookup: socket.getaddrinfo, or what stands in for it.  It may take seconds, so a server calls
    this in a thread.  Raises SetupError for a name that cannot be resolved; UsageError for one that
    has no public address, and for grants that are too many.
    """
    if host:
        every = [
            NetRule(
                allow=True,
                actions=CONNECT | LISTEN,
                protocol=BOTH,
                family=family,
                prefix=0,
                address=bytes(16),
                low=0,
                high=LAST_PORT,
            )
            for family in (4, 6)
        ]
        return NetPlan(every, live=True)
    names = resolve(grants, lookup)
    rules = [_listening(grant) for grant in grants if grant.action == "listen"]
    reached = [
        (network, grant)
        for grant in grants
        if grant.action == "connect"
        for network in _networks(grant, names)
    ]
    for family in (4, 6):
        rules += _connecting(family, [one for one in reached if one[0].version == family])
    rules = _once_each(rules)
    if len(rules) > MOST_RULES:
        raise UsageError(
            f"--net: the grants come to {len(rules)} rules, and the most is {MOST_RULES}",
            "a CIDR stands for many addresses, a range like 8000-8010 for many ports",
        )
    table: dict[str, list[tuple[int, bytes]]] = {
        name: [(address.version, _left(address)) for address in found]
        for name, found in names.items()
    }
    return NetPlan(rules, table)


def give_module(request: "RunRequest") -> None:
    """What a module of WASI preview 1 has of its grants: sockets that listen already.

    In place, and no more the second time: a `listen:tcp` grant of one port becomes one of
    `request.listens`, as if --tcplisten had said it.  What stays in `request.net` is of no use to
    the module; see `useless`.
    """
    left = []
    for grant in request.net:
        listener = as_listener(grant)
        if listener is None:
            left.append(grant)
        elif listener not in request.listens:
            request.listens.append(listener)
    request.net = left


def as_listener(grant: "NetGrant") -> "ListenGrant | None":
    """The socket that a grant means to a module of WASI preview 1; None: none."""
    from .model import ListenGrant

    if grant.action == "listen" and grant.protocol == "tcp" and grant.low == grant.high:
        return ListenGrant(grant.host, grant.low)
    return None


def useless(request: "RunRequest") -> "list[str]":
    """The grants that a module of WASI preview 1 has no way to use, as they are written."""
    found = [format_net(grant) for grant in request.net if as_listener(grant) is None]
    return [*found, HOST] if request.net_host else found


def described(plan: NetPlan) -> "dict[str, list[str]]":
    """The addresses that each name of the plan stands for, as text."""
    from ipaddress import ip_address

    return {
        name: [str(ip_address(packed[:4] if family == 4 else packed)) for family, packed in found]
        for name, found in plan.names.items()
    }


def resolve(
    grants: "Iterable[NetGrant]", lookup: "Lookup | None" = None
) -> "dict[str, list[Address]]":
    """The addresses that each name in `grants` makes reachable, in the resolver's order.

    Raises SetupError, UsageError.
    """
    names: dict[str, list[Address]] = {}
    for grant in grants:
        if grant.action == "connect" and is_name(grant.host) and grant.host not in names:
            names[grant.host] = _resolve(grant, lookup)
    return names


def _resolve(grant: "NetGrant", lookup: "Lookup | None") -> "list[Address]":
    from ipaddress import ip_address, ip_network

    if grant.host == "localhost" or grant.host.endswith(".localhost"):
        # RFC 6761, 6.3: loopback, whatever a resolver says.
        return [ip_address("127.0.0.1"), ip_address("::1")]
    found: list[Address] = []
    for text in _ask(grant, lookup):
        address = ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        found.append(address if mapped is None else mapped)
    found = list(dict.fromkeys(found))
    public = [one for one in found if kind_of(ip_network(one))[1] == PUBLIC]
    if not public:
        raise UsageError(*_none_public(grant, found))
    return public


def _ask(grant: "NetGrant", lookup: "Lookup | None") -> "list[str]":
    import _socket

    if lookup is None:
        lookup = _socket.getaddrinfo
    try:
        answers = lookup(grant.host, None, 0, _socket.SOCK_STREAM)
    except OSError as error:
        unknown = error.errno in (_socket.EAI_NONAME, getattr(_socket, "EAI_NODATA", 0))
        raise SetupError(
            f"--net {format_net(grant)}: "
            + (
                f"there is no host {grant.host!r}"
                if unknown
                else f"{grant.host!r} cannot be resolved: {error.strerror or error}"
            ),
            None if unknown else "names are resolved before the run: is there a network, and DNS?",
            step="resolve",
        ) from error
    return [
        str(address[0])
        for family, _, _, _, address in answers
        if family in (_socket.AF_INET, _socket.AF_INET6)
    ]


def _none_public(grant: "NetGrant", found: "Sequence[Address]") -> "tuple[str, str | None]":
    """What is wrong with a name that leads nowhere public, and how to name the place."""
    from ipaddress import ip_network

    from .model import NetGrant

    where = f"--net {format_net(grant)}"
    if not found:
        return f"{where}: {grant.host!r} has no address", None
    shown = ", ".join(f"{one} ({kind_of(ip_network(one))[1]})" for one in found[:4])
    named = NetGrant(grant.action, grant.protocol, str(found[0]), grant.low, grant.high)
    return (
        f"{where}: {grant.host!r} has no public address, only {shown}",
        f"such addresses are granted by themselves: --net {format_net(named)}",
    )


def _networks(grant: "NetGrant", names: "dict[str, list[Address]]") -> "list[Network]":
    from ipaddress import ip_network

    if is_name(grant.host):
        return [ip_network(address) for address in names[grant.host]]
    return [ip_network(grant.host)]


def _listening(grant: "NetGrant") -> NetRule:
    """The unspecified address stands for all of its family's."""
    from ipaddress import ip_network

    address = ip_network(grant.host)
    every = "0.0.0.0/0" if address.version == 4 else "::/0"
    return _allow(grant, ip_network(every) if address.is_unspecified else address)


def _connecting(family: int, reached: "Sequence[tuple[Network, NetGrant]]") -> "list[NetRule]":
    """The rules for what is reached in one family; see the module's beginning."""
    placed = [(network, grant, kind_of(network)[0]) for network, grant in reached]
    rules: list[NetRule] = []
    pending = list(placed)
    for range_, what in ranges(family):
        if what == PUBLIC:
            # The public part of everything: also of what a special range around this one holds.
            for network, grant, _ in placed:
                narrow = _both(network, range_)
                if narrow is not None:
                    rules.append(_allow(grant, narrow))
            pending = [one for one in pending if one[2] != range_]
            continue
        rules += [_allow(grant, network) for network, grant, home in pending if home == range_]
        pending = [one for one in pending if one[2] != range_]
        # A denial is of use only where a wider grant is still to come.
        if any(_both(network, range_) is not None for network, _, _ in pending):
            rules.append(_deny(range_))
    return rules


def _both(one: "Network", other: "Network") -> "Network | None":
    """What two networks have in common: the narrower, or nothing."""
    narrow, wide = (one, other) if one.prefixlen >= other.prefixlen else (other, one)
    return narrow if narrow.network_address in wide else None


def _allow(grant: "NetGrant", network: "Network") -> NetRule:
    return NetRule(
        allow=True,
        actions=_ACTIONS[grant.action],
        protocol=_PROTOCOLS[grant.protocol],
        family=network.version,
        prefix=network.prefixlen,
        address=_left(network.network_address),
        low=grant.low,
        high=grant.high,
    )


def _deny(network: "Network") -> NetRule:
    return NetRule(
        allow=False,
        actions=CONNECT,
        protocol=BOTH,
        family=network.version,
        prefix=network.prefixlen,
        address=_left(network.network_address),
        low=0,
        high=LAST_PORT,
    )


def _left(address: "Address") -> bytes:
    return address.packed.ljust(16, b"\0")


def _once_each(rules: "Iterable[NetRule]") -> "list[NetRule]":
    """Without those that an equal one comes before: they never decide anything."""
    found: dict[tuple[Any, ...], NetRule] = {}
    for rule in rules:
        found.setdefault(tuple(getattr(rule, name) for name in NetRule.__slots__), rule)
    return list(found.values())
