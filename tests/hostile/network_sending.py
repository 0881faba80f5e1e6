"""Attacks by sending to somewhere, and by waiting for others to come."""

from __future__ import annotations

from .network_shapes import (
    BROKER,
    DENIED,
    INVALID,
    MSG_DONTWAIT,
    MSG_FASTOPEN,
    NO_FAMILY,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    UNREACHABLE,
    Attack,
    attack,
)
from .shapes import HARMLESS, Expectation, NotTried, Trapped, fails
from .steps import call, out, result, text, words, zeros

# --- datagrams, and sending to somewhere ---


def _send(
    name: str,
    socket: str,
    address: str,
    *,
    denied: str = "",
    flags: int = 0,
    net: Expectation = DENIED,
    closed: Expectation = DENIED,
) -> Attack:
    size = 28 if ":" in address else 16
    return attack(
        f"send: {name}",
        socket,
        call("sendto", result(0), text("knock"), 5, flags, f"@<{address}>", size),
        closed=closed,
        net=net,
        bare=HARMLESS,
        denied=denied,
    )


def _message(to: str, size: int) -> str:
    return words(to, size, words(text("knock"), 5), 1, 0, 0, 0)


NO_FAST_OPEN = fails("EOPNOTSUPP")
_SENDS = (
    _send("by UDP to the port of TCP", UDP4, "127.0.0.1|port", denied="udp:127.0.0.1:<port>"),
    _send("by UDP to another port", UDP4, "127.0.0.1|other-port", denied="udp:127.0.0.1:"),
    _send("by UDP to this host", UDP4, "0.0.0.0|port", denied="udp:127.0.0.1:<port>"),
    _send("by UDP over IPv6", UDP6, "::1|port", denied="udp:[::1]:<port>"),
    _send("by UDP, IPv4 as IPv6", UDP6, "::ffff:127.0.0.1|port", denied="udp:127.0.0.1:<port>"),
    _send("to a name server", UDP4, "127.0.0.53|53", denied="udp:127.0.0.53:53"),
    _send("by TCP to the allowed one", TCP4, "127.0.0.1|port", net=NO_FAST_OPEN),
    _send("by TCP to another port", TCP4, "127.0.0.1|other-port", net=NO_FAST_OPEN),
    _send("fast open", TCP4, "127.0.0.1|other-port", flags=MSG_FASTOPEN, net=NO_FAST_OPEN),
    _send(
        "fast open to the allowed one", TCP4, "127.0.0.1|port", flags=MSG_FASTOPEN, net=NO_FAST_OPEN
    ),
    attack(
        "send: fast open to nobody",
        TCP4,
        call("sendto", result(0), text("knock"), 5, MSG_FASTOPEN, 0, 0),
        closed=NO_FAST_OPEN,
        net=NO_FAST_OPEN,
    ),
    attack(
        "send: connect by UDP to the port of TCP",
        UDP4,
        call("connect", result(0), "@<127.0.0.1|port>", 16),
        closed=DENIED,
        net=DENIED,
        bare=UNREACHABLE,
        denied="udp:127.0.0.1:<port>",
    ),
    attack(
        "send: by UDP to nobody",
        UDP4,
        call("sendto", result(0), text("knock"), 5, 0, 0, 0),
        closed=NotTried("there is no socket"),
        net=fails("EDESTADDRREQ"),
        bare=fails("EDESTADDRREQ"),
    ),
    attack(
        "send: a datagram that is too long",
        UDP4,
        call("sendto", result(0), zeros(65537), 65537, 0, "@<127.0.0.1|port>", 16),
        closed=fails("EMSGSIZE"),
        net=fails("EMSGSIZE"),
    ),
    attack(
        "send: more than there is memory",
        UDP4,
        call("sendto", result(0), zeros(16), -1, 0, "@<127.0.0.1|port>", 16),
        closed=fails("EMSGSIZE"),
        net=fails("EMSGSIZE"),
    ),
    attack(
        "send: to a family that is none",
        UDP4,
        call("sendto", result(0), text("knock"), 5, 0, "@0000<port>", 16),
        closed=NO_FAMILY,
        net=NO_FAMILY,
    ),
    *(
        attack(
            f"send: {name}",
            socket,
            call(name, result(0), arguments, *rest),
            closed=Trapped(name),
            net=Trapped(name),
        )
        for socket in (UDP4,)
        for name, arguments, *rest in (
            ("sendmsg", _message("@<127.0.0.1|port>", 16), 0),
            ("sendmmsg", _message("@<127.0.0.1|port>", 16), 1, 0),
            ("recvmsg", words(0, 0, words(zeros(8), 8), 1, zeros(64), 64, 0), MSG_DONTWAIT),
            ("recvmmsg", words(0, 0, words(zeros(8), 8), 1, 0, 0, 0), 1, MSG_DONTWAIT, 0),
        )
    ),
    attack(
        "send: a message on a connection, with fast open",
        TCP4,
        call("sendmsg", result(0), _message("@<127.0.0.1|other-port>", 16), MSG_FASTOPEN),
        closed=Trapped("sendmsg"),
        net=Trapped("sendmsg"),
    ),
    *(
        attack(
            f"send: {name}", TCP4, call(name, *arguments), net=Trapped(name), closed=Trapped(name)
        )
        for name, *arguments in (
            ("splice", 0, 0, result(0), 0, 16, 0),
            ("sendfile", result(0), 0, 0, 16),
            ("vmsplice", result(0), words(zeros(8), 8), 1, 0),
        )
    ),
    attack(
        "send: a socket of the broker's, by itself",
        # NET_SOCKET of network/protocol.h; the socket gets the lowest number that is free
        call(
            "sendmsg",
            BROKER,
            words(
                0,
                0,
                words("@42524f4b0100000001000000000000000200000001000000" + "00" * 8, 32),
                1,
                0,
                0,
                0,
            ),
            0,
        ),
        call("recvmsg", BROKER, words(0, 0, words(out(16), 16), 1, zeros(64), 64, 0), 0),
        call("connect", 4, "@<127.0.0.1|other-port>", 16),
        closed=Trapped("sendmsg"),
        net=DENIED,
        bare=DENIED,  # Landlock's: the socket is in the host's network
        denied="tcp:127.0.0.1:<other-port>",
    ),
    attack(
        "send: a datagram socket of the broker's, by itself",
        call(
            "sendmsg",
            BROKER,
            words(
                0,
                0,
                words("@42524f4b0100000001000000000000000200000002000000" + "00" * 8, 32),
                1,
                0,
                0,
                0,
            ),
            0,
        ),
        call("recvmsg", BROKER, words(0, 0, words(out(16), 16), 1, zeros(64), 64, 0), 0),
        call("sendto", 4, text("knock"), 5, 0, "@<127.0.0.1|port>", 16),
        closed=Trapped("sendmsg"),
        net=DENIED,
        bare=NotTried("only the filter keeps a datagram socket of the broker's"),
        denied="udp:127.0.0.1:<port>",
    ),
)


# --- listening ---


def _bind(name: str, socket: str, address: str, denied: str) -> Attack:
    return attack(
        f"bind: {name}",
        socket,
        call("bind", result(0), f"@<{address}>", 28 if ":" in address else 16),
        closed=DENIED,
        net=DENIED,
        denied=denied,
    )


SOURCE = call("bind", result(0), "@<0.0.0.0|0>", 16)
LISTEN = call("listen", result(0), 8)
_LISTENS = (
    _bind("a port", TCP4, "127.0.0.1|free-port", "listen:tcp:127.0.0.1:<free-port>"),
    _bind("a port of every address", TCP4, "0.0.0.0|free-port", "listen:tcp:0.0.0.0:<free-port>"),
    _bind("a port that is taken", TCP4, "127.0.0.1|port", "listen:tcp:127.0.0.1:<port>"),
    _bind("a port of root's", TCP4, "127.0.0.1|80", "listen:tcp:127.0.0.1:80"),
    _bind("any port of an address", TCP4, "127.0.0.1|0", "listen:tcp:127.0.0.1:*"),
    _bind("a port of IPv6", TCP6, "::|free-port", "listen:tcp:[::]:<free-port>"),
    _bind("IPv4 as IPv6", TCP6, "::ffff:0.0.0.0|free-port", "listen:tcp:0.0.0.0:<free-port>"),
    _bind("a port of UDP", UDP4, "127.0.0.1|free-port", "listen:udp:127.0.0.1:<free-port>"),
    _bind("any address's port of UDP", UDP4, "0.0.0.0|free-port", "listen:udp:0.0.0.0:<free-port>"),
    _bind("a group", UDP4, "224.0.0.251|5353", "listen:udp:224.0.0.251:5353"),
    attack(
        "listen: without an address",
        TCP4,
        LISTEN,
        closed=DENIED,
        net=DENIED,
        bare=HARMLESS,
        denied="listen:tcp:0.0.0.0:*",
    ),
    attack(
        "listen: where connections come from",
        TCP4,
        SOURCE,
        LISTEN,
        closed=DENIED,
        net=DENIED,
        denied="listen:tcp:0.0.0.0:",
    ),
    attack(
        "listen: where connections of IPv6 come from",
        TCP6,
        call("bind", result(0), "@<::|0>", 28),
        LISTEN,
        closed=DENIED,
        net=DENIED,
        denied="listen:tcp:[::]:",
    ),
    attack(
        "listen: on a connection",
        TCP4,
        call("connect", result(0), "@<127.0.0.1|port>", 16),
        LISTEN,
        closed=DENIED,
        net=DENIED,
        denied="listen:tcp:",
        reaches=True,
    ),
    attack(
        "listen: on a connection that is over",
        TCP4,
        call("connect", result(0), "@<127.0.0.1|port>", 16),
        call("shutdown", result(0), 2),
        LISTEN,
        closed=DENIED,
        net=DENIED,
        denied="listen:tcp:",
        reaches=True,
    ),
    attack(
        "listen: for datagrams",
        UDP4,
        LISTEN,
        closed=DENIED,
        net=fails("EOPNOTSUPP"),
        bare=fails("EOPNOTSUPP"),
    ),
    attack(
        "listen: the broker's own",
        call("listen", BROKER, 8),
        closed=DENIED,
        net=NO_FAMILY,
        bare=fails("EINVAL", "EBADF"),
    ),
    attack(
        "accept: on a fresh socket",
        TCP4,
        call("accept4", result(0), 0, 0, 0),
        closed=Trapped("accept4"),
        net=INVALID,
        bare=INVALID,
    ),
    attack(
        "accept: on a socket that may not listen",
        TCP4,
        SOURCE,
        LISTEN,
        call("accept4", result(0), 0, 0, 0),
        closed=Trapped("accept4"),
        net=INVALID,
        bare=NotTried("it would wait there, in a network of its own"),
        denied="listen:tcp:0.0.0.0:",
    ),
    attack(
        "accept: on the broker's",
        call("accept4", BROKER, 0, 0, 0),
        closed=Trapped("accept4"),
        net=fails("EINVAL", "EOPNOTSUPP"),
        bare=fails("EINVAL", "EOPNOTSUPP"),
    ),
    attack("accept: by the old call", TCP4, call("accept", result(0), 0, 0), bare=HARMLESS),
)

ATTACKS = (*_SENDS, *_LISTENS)
