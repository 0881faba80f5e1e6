"""Attacks by socket and by IPC: every listener and key that is named here exists outside."""

from __future__ import annotations

import socket
import struct

from .shapes import HARMLESS, Attack, Expectation, NotTried, attack, fails
from .steps import call, data, out, result, text, words, zeros

UNREACHABLE = fails(
    "ENETUNREACH",
    "EACCES",
    "EPERM",
    "EAFNOSUPPORT",
    "ENETDOWN",
    "EADDRNOTAVAIL",
    "ECONNREFUSED",
    "EBADF",
)
UNKNOWN = fails("ENOENT", "ECONNREFUSED", "EPERM", "EACCES")
NO = fails("EPERM", "EAFNOSUPPORT", "EACCES", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")
STREAM, DGRAM, RAW = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM), int(socket.SOCK_RAW)
AF_INET, AF_INET6, AF_UNIX, AF_NETLINK = 2, 10, 1, 16
AF_PACKET, AF_ALG, AF_VSOCK = 17, 38, 40


def connect(
    name: str, family: int, kind: int, address: str, size: str | int, bare: Expectation
) -> Attack:
    """socket and connect; the filter stops the first."""
    return attack(
        f"connect to {name}",
        call("socket", family, kind, 0),
        call("connect", result(0), address, size),
        bare=bare,
    )


def inet(host: str, port: int) -> str:
    """sockaddr_in of a fixed address."""
    return data(
        struct.pack("<H", AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)
    )


_SOCKETS = (
    connect("a listener of the host", AF_INET, STREAM, "@<tcp>", 16, UNREACHABLE),
    connect("the internet", AF_INET, STREAM, inet("192.0.2.1", 80), 16, UNREACHABLE),
    connect("a name server", AF_INET, DGRAM, inet("127.0.0.53", 53), 16, UNREACHABLE),
    connect(
        "IPv6",
        AF_INET6,
        STREAM,
        data(struct.pack("<H", AF_INET6) + b"\x00\x50" + bytes(19) + b"\1" + bytes(4)),
        28,
        UNREACHABLE,
    ),
    connect("a Unix socket", AF_UNIX, STREAM, "@<unix>", "<unix-size>", UNKNOWN),
    connect(
        "a Unix socket by ..",
        AF_UNIX,
        STREAM,
        data(struct.pack("<H", AF_UNIX) + b"/0/../listen.sock\0"),
        20,
        UNKNOWN,
    ),
    connect("an abstract socket", AF_UNIX, STREAM, "@<abstract>", "<abstract-size>", UNKNOWN),
    attack(
        "send to an abstract socket",
        call("socket", AF_UNIX, DGRAM, 0),
        call(
            "sendto", result(0), text("knock"), 5, 0, "@<abstract-dgram>", "<abstract-dgram-size>"
        ),
        bare=UNKNOWN,
    ),
    attack(
        "send to a UDP port",
        call("socket", AF_INET, DGRAM, 0),
        call("sendto", result(0), text("knock"), 5, 0, "@<udp>", 16),
        bare=UNREACHABLE,
    ),
    attack(
        "listen",
        call("socket", AF_INET, STREAM, 0),
        call("bind", result(0), inet("0.0.0.0", 0), 16),
        call("listen", result(0), 1),
        bare=HARMLESS,
    ),
    attack("netlink", call("socket", AF_NETLINK, RAW, 0), bare=HARMLESS),
    attack("netlink audit", call("socket", AF_NETLINK, RAW, 9), bare=HARMLESS),
    attack(
        "vsock",
        call("socket", AF_VSOCK, STREAM, 0),
        bare=NotTried("older kernels do not namespace it"),
    ),
    attack("packet", call("socket", AF_PACKET, RAW, 0x300), bare=NO),
    attack("raw", call("socket", AF_INET, RAW, 1), bare=NO),
    attack("crypto socket", call("socket", AF_ALG, 5, 0), bare=HARMLESS),
    attack("socketpair", call("socketpair", AF_UNIX, STREAM, 0, zeros(8)), bare=HARMLESS),
    attack(
        "receive a descriptor",
        call("recvmsg", 0, words(0, 0, words(zeros(8), 8), 1, zeros(64), 64, 0), 0),
        bare=fails("ENOTSOCK"),
    ),
    attack(
        "send a descriptor",
        call("sendmsg", 1, words(0, 0, words(zeros(8), 8), 1, zeros(64), 0, 0), 0),
        bare=fails("ENOTSOCK"),
    ),
    attack("accept", call("accept4", 0, 0, 0, 0), bare=fails("ENOTSOCK")),
)

_IPC = (
    attack(
        "shared memory of the host",
        call("shmget", "<shm-key>", 0, 0),
        bare=fails("ENOENT", "ENOSYS"),
    ),
    attack(
        "shared memory by number",
        call("shmat", "<shm-id>", 0, 0o10000),
        bare=fails("EINVAL", "EIDRM", "ENOSYS"),
    ),
    attack(
        "remove shared memory",
        call("shmctl", "<shm-id>", 0, 0),
        bare=fails("EINVAL", "EIDRM", "ENOSYS"),
    ),
    attack(
        "semaphores of the host", call("semget", "<shm-key>", 0, 0), bare=fails("ENOENT", "ENOSYS")
    ),
    attack("messages of the host", call("msgget", "<shm-key>", 0), bare=fails("ENOENT", "ENOSYS")),
    attack(
        "receive a message",
        call("msgrcv", "<msg-id>", zeros(64), 32, 0, 0o4000),
        bare=fails("EINVAL", "EIDRM", "ENOSYS"),
    ),
    attack(
        "a POSIX queue of the host",
        call("mq_open", text("<queue>"), 2, 0, 0),
        bare=fails("ENOENT", "ENOSYS", "EACCES"),
    ),
    attack(
        "remove a POSIX queue",
        call("mq_unlink", text("<queue>")),
        bare=fails("ENOENT", "ENOSYS", "EACCES"),
    ),
    attack(
        "a key in the keyring",
        call("add_key", text("user"), text("planted"), text("x"), 1, -3),
        bare=NotTried("keyrings are not in a namespace"),
    ),
    attack(
        "a key of the host",
        call("request_key", text("user"), text("<key>"), 0, 0),
        bare=NotTried("keyrings are not in a namespace"),
    ),
    attack(
        "read a key",
        call("keyctl", 11, "<key-id>", out(64), 64),
        bare=NotTried("keyrings are not in a namespace"),
    ),
)

ATTACKS = (*_SOCKETS, *_IPC)
