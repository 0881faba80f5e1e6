"""Attacks by making sockets and connecting them."""

from __future__ import annotations

from .network_shapes import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    BROKER,
    CONNECTS,
    DENIED,
    DGRAM,
    INVALID,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    NO_FAMILY,
    NO_TYPE,
    RAW,
    STREAM,
    TCP4,
    TCP6,
    UNREACHABLE,
    Attack,
    attack,
)
from .shapes import HARMLESS, Expectation, NotTried, fails
from .steps import call, result, words, zeros

# --- sockets of other kinds ---

_FAMILIES = {
    "Unix": (AF_UNIX, STREAM, 0),
    "netlink": (16, RAW, 0),
    "key management": (15, RAW, 2),
    "packet": (17, RAW, 0x300),
    "CAN": (29, RAW, 1),
    "TIPC": (30, STREAM, 0),
    "Bluetooth": (31, RAW, 1),
    "crypto": (38, 5, 0),
    "NFC": (39, RAW, 0),
    "virtio": (40, STREAM, 0),
    "kernel connections": (41, DGRAM, 0),
    "IPC router": (42, DGRAM, 0),
    "shared memory": (43, STREAM, 0),
    "express data path": (44, RAW, 0),
    "a family that is none": (99, STREAM, 0),
    "a negative family": (-1, STREAM, 0),
}
_TYPES = {
    "raw ICMP": (AF_INET, RAW, 1),
    "raw IP": (AF_INET, RAW, 255),
    "raw ICMPv6": (AF_INET6, RAW, 58),
    "ping": (AF_INET, DGRAM, 1),
    "MPTCP": (AF_INET, STREAM, 262),
    "SCTP": (AF_INET, STREAM, 132),
    "SCTP messages": (AF_INET, 5, 132),
    "DCCP": (AF_INET, 6, 33),
    "UDP-Lite": (AF_INET, DGRAM, 136),
    "a stream of UDP": (AF_INET, STREAM, IPPROTO_UDP),
    "the old packet type": (AF_INET, 10, 0x300),
    "a type that is none": (AF_INET, 99, 0),
    "a type with other flags": (AF_INET, STREAM | 0x100, 0),
}

_SOCKETS = (
    *(
        attack(
            f"a socket: {name}",
            call("socket", *arguments),
            closed=NO_FAMILY,
            net=NO_FAMILY,
            bare=NotTried("not in a namespace") if name == "virtio" else HARMLESS,
        )
        for name, arguments in _FAMILIES.items()
    ),
    *(
        attack(f"a socket: {name}", call("socket", *arguments), closed=NO_TYPE, net=NO_TYPE)
        for name, arguments in _TYPES.items()
    ),
    attack("socketpair", call("socketpair", AF_UNIX, STREAM, 0, zeros(8))),
    attack("io_uring", call("io_uring_setup", 8, zeros(120))),
    attack("an event loop of the old kind", call("io_setup", 8, words(0))),
)


# --- connecting ---


def _connect(
    name: str,
    address: str,
    *,
    denied: str = "",
    socket: str = TCP4,
    size: str | int = 0,
    net: Expectation = DENIED,
    closed: Expectation = DENIED,
    bare: Expectation = UNREACHABLE,
    reaches: bool = False,
) -> Attack:
    size = size or (28 if ":" in address else 16)
    return attack(
        f"connect: {name}",
        socket,
        call("connect", result(0), f"@<{address}>", size),
        closed=closed,
        net=net,
        bare=bare,
        denied=denied,
        reaches=reaches,
    )


def _in6(host: bytes, port: str, scope: int) -> str:
    return "@0a00" + port + "00000000" + host.hex() + scope.to_bytes(4, "little").hex()


_CONNECTS = (
    _connect("the one that is allowed", "127.0.0.1|port", net=CONNECTS, reaches=True),
    _connect("another port", "127.0.0.1|other-port", denied="tcp:127.0.0.1:<other-port>"),
    _connect("another address", "127.0.0.2|port", denied="tcp:127.0.0.2:<port>"),
    _connect("port 0", "127.0.0.1|0", denied="tcp:127.0.0.1:*"),
    _connect("this host", "0.0.0.0|port", net=CONNECTS, reaches=True),
    _connect(
        "another port of this host", "0.0.0.0|other-port", denied="tcp:127.0.0.1:<other-port>"
    ),
    _connect("this network", "0.1.2.3|other-port", denied="tcp:127.0.0.1:<other-port>"),
    _connect("IPv6", "::1|port", socket=TCP6, denied="tcp:[::1]:<port>"),
    _connect("this host by IPv6", "::|port", socket=TCP6, denied="tcp:[::1]:<port>"),
    _connect(
        "the allowed one as IPv6",
        "::ffff:127.0.0.1|port",
        socket=TCP6,
        net=fails("ENETUNREACH", "EADDRNOTAVAIL"),
    ),
    _connect(
        "another port as IPv6",
        "::ffff:127.0.0.1|other-port",
        socket=TCP6,
        denied="tcp:127.0.0.1:<other-port>",
    ),
    _connect(
        "another port of this host as IPv6",
        "::ffff:0.0.0.0|other-port",
        socket=TCP6,
        denied="tcp:127.0.0.1:<other-port>",
    ),
    _connect(
        "IPv4 as IPv6 of an old kind",
        "::127.0.0.1|port",
        socket=TCP6,
        denied="tcp:[::7f00:1]:<port>",
    ),
    _connect(
        "IPv4 as a translator's", "64:ff9b::7f00:1|port", socket=TCP6, denied="tcp:[64:ff9b::"
    ),
    _connect("the allowed one, from IPv6", "127.0.0.1|port", socket=TCP6, net=NO_FAMILY),
    _connect(
        "the allowed one as IPv6, from IPv4",
        "::ffff:127.0.0.1|port",
        net=NO_FAMILY,
        size=28,
    ),
    _connect("a cloud's metadata", "169.254.169.254|80", denied="tcp:169.254.169.254:80"),
    _connect("the internet", "192.0.2.1|port", denied="tcp:192.0.2.1:<port>"),
    _connect("everybody", "255.255.255.255|port", denied="tcp:255.255.255.255:<port>"),
    _connect("a group", "224.0.0.1|port", denied="tcp:224.0.0.1:<port>"),
    _connect("a group of IPv6", "ff02::1|port", socket=TCP6, denied="tcp:[ff02::1]:<port>"),
    attack(
        "connect: a neighbour by scope",
        TCP6,
        call("connect", result(0), _in6(b"\xfe\x80" + bytes(13) + b"\1", "0050", 1), 28),
        closed=DENIED,
        net=DENIED,
        bare=UNREACHABLE,
        denied="tcp:[fe80::1]:80",
    ),
    attack(
        "connect: IPv6 with a scope that means nothing",
        TCP6,
        call("connect", result(0), _in6(bytes(15) + b"\1", "0050", 7), 28),
        closed=DENIED,
        net=DENIED,
        bare=UNREACHABLE,
        denied="tcp:[::1]:80",
    ),
    *(
        attack(
            f"connect: {size} bytes of address",
            TCP4,
            call("connect", result(0), "@<127.0.0.1|port>" + "00" * 200, size),
            closed=INVALID,
            net=INVALID,
            bare=UNREACHABLE,
        )
        for size in (0, 1, 2, 8, 15, 129, 1 << 16, -1, 1 << 31)
    ),
    attack(
        "connect: more bytes than there is address",
        TCP4,
        call("connect", result(0), "@<127.0.0.1|port>" + "00" * 200, 128),
        closed=DENIED,
        net=CONNECTS,
        bare=UNREACHABLE,
        reaches=True,
    ),
    *(
        attack(
            f"connect: the address of {name}",
            TCP4,
            call("connect", result(0), address, size),
            closed=NO_FAMILY,
            net=NO_FAMILY,
            bare=HARMLESS,
        )
        for name, address, size in (
            ("nothing", "@0000<port>", 16),
            ("a Unix socket", "@<unix>", "<unix-size>"),
            ("an abstract socket", "@<abstract>", "<abstract-size>"),
            ("netlink", "@1000" + "00" * 10, 12),
            ("a virtual machine", "@2800" + "00" * 14, 16),
            ("a family that is none", "@ffff" + "00" * 14, 16),
        )
    ),
    attack(
        "connect: an address that is nowhere",
        TCP4,
        call("connect", result(0), 0, 16),
        closed=fails("EFAULT"),
        net=fails("EFAULT"),
        bare=fails("EFAULT"),
    ),
    attack(
        "connect: an address in the kernel",
        TCP4,
        call("connect", result(0), 0xFFFFFFFF81000000, 16),
        closed=NotTried("the handler reads it itself, and the worker ends there"),
        net=fails("EFAULT"),
        bare=fails("EFAULT"),
    ),
    *(
        attack(
            f"connect: {name} as the socket",
            call("connect", fd, "@<127.0.0.1|port>", 16),
            closed=NotTried("nothing is a socket there"),
            net=fails(error),
            bare=HARMLESS,
        )
        for name, fd, error in (
            ("nothing", -1, "EBADF"),
            ("a number that is free", 9, "EBADF"),
            ("stdin", 0, "ENOTSOCK"),
            ("the worker's own end", BROKER, "EAFNOSUPPORT"),
        )
    ),
    attack(
        "connect: the allowed one, and then another",
        TCP4,
        call("connect", result(0), "@<127.0.0.1|port>", 16),
        call("connect", result(0), "@<127.0.0.1|other-port>", 16),
        closed=DENIED,
        net=DENIED,
        bare=UNREACHABLE,
        denied="tcp:127.0.0.1:<other-port>",
        reaches=True,
    ),
    attack(
        "connect: the allowed one, break it off, and then another",
        TCP4,
        call("connect", result(0), "@<127.0.0.1|port>", 16),
        call("shutdown", result(0), 2),
        call("connect", result(0), "@<127.0.0.1|other-port>", 16),
        closed=DENIED,
        net=DENIED,
        bare=UNREACHABLE,
        denied="tcp:127.0.0.1:<other-port>",
        reaches=True,
    ),
    attack(
        "connect: nobody, to have a fresh socket again",
        TCP4,
        call("connect", result(0), "@<127.0.0.1|port>", 16),
        call("connect", result(0), zeros(16), 16),
        closed=NO_FAMILY,
        net=NO_FAMILY,
        bare=HARMLESS,
        reaches=True,
    ),
    attack(
        "connect: a socket of both families",
        TCP6,
        call("setsockopt", result(0), IPPROTO_IPV6, 26, words(0), 4),
        call("connect", result(0), "@<::ffff:127.0.0.1|port>", 28),
        closed=DENIED,
        net=fails("ENETUNREACH", "EADDRNOTAVAIL"),
        bare=UNREACHABLE,
    ),
)


ATTACKS = (*_SOCKETS, *_CONNECTS)
