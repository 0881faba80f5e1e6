"""Attacks on the broker by its own language: messages, descriptors and floods of a hostile worker.

The broker is the real one behind all its walls; the test is in its worker's place. After each
attack it either serves the next honest request or has ended, and nothing of what it was sent stays
with it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from support import brokers
from support.brokers import BIND, CONNECT, LISTEN, MAGIC, SENDTO, SOCKET, VERSION, Broker, Rule

from .driver import BROKER_ENDS

EBADMSG, ENOSYS, EBADF, ENOTSOCK, EINVAL, EINPROGRESS = 74, 38, 9, 88, 22, 115
EAFNOSUPPORT, ESOCKTNOSUPPORT, EOPNOTSUPP = 97, 94, 95
HERE = "127.0.0.1"
SOME_TIME = 5.0
ON_OBJECTS = {"connect": CONNECT, "bind": BIND, "listen": LISTEN, "send": SENDTO}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0)) as made:
        yield made


@pytest.fixture
def broker(hostile_core: str, listener: socket.socket) -> Iterator[Broker]:
    """One that allows the listener's port."""
    port = listener.getsockname()[1]
    with brokers.running(hostile_core, Rule(HERE, port, port)) as running:
        yield running


def head(
    call: int, length: int = 0, *words: int, magic: int = MAGIC, version: int = VERSION
) -> bytes:
    """struct net_request."""
    padded = (*words, *[0] * (4 - len(words)))
    return struct.pack("<IIIIiiii", magic, version, call & 0xFFFFFFFF, length, *padded)


def serves(broker: Broker, listener: socket.socket) -> None:
    """An honest request is answered as it should be."""
    fd = broker.tcp()
    address = brokers.sockaddr(HERE, listener.getsockname()[1])
    assert broker.ask(CONNECT, fd, address) == -EINPROGRESS
    listener.accept()[0].close()


ADDRESS = brokers.sockaddr(HERE, 1)
MALFORMED = {
    **{f"{size} bytes": head(CONNECT)[:size] for size in (1, 4, 8, 16, 31)},
    "another magic": head(SOCKET, 0, 2, 1, magic=MAGIC ^ 1),
    "version 0": head(SOCKET, 0, 2, 1, version=0),
    "the next version": head(SOCKET, 0, 2, 1, version=VERSION + 1),
    "an address longer than the message": head(CONNECT, 17) + ADDRESS,
    "an address as long as anything": head(CONNECT, 0xFFFFFFFF) + ADDRESS,
    "an address whose length wraps": head(CONNECT, 0xFFFFFFF0) + ADDRESS,
    "an address longer than any": head(CONNECT, 129) + ADDRESS + bytes(200),
    "a datagram longer than any": head(SENDTO, 16) + ADDRESS + bytes(65537),
    "a message longer than any": head(SENDTO, 16) + ADDRESS + bytes(100_000),
    "nothing but noise": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_malformed(broker: Broker, listener: socket.socket, message: bytes) -> None:
    """It is answered with an error, with a descriptor and without, and the next is served."""
    assert broker.say(message) == -EBADMSG
    with socket.socket() as sent:
        assert broker.say(message, [sent.fileno()]) == -EBADMSG
    serves(broker, listener)
    assert not broker.denied()


@pytest.mark.parametrize("call", [0, 6, 7, 255, 1 << 16, -1, 1 << 31])
def test_unknown_call(broker: Broker, listener: socket.socket, call: int) -> None:
    """There are five calls."""
    fd = broker.tcp()
    assert broker.say(head(call, 16) + ADDRESS, [fd]) == -ENOSYS
    assert broker.say(head(call, 16) + ADDRESS) < 0
    serves(broker, listener)


def _file() -> int:
    return os.memfd_create("file")


def _directory() -> int:
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


def _path() -> int:
    return os.open("/", os.O_PATH)


def _pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _of(family: int, kind: int, protocol: int = 0) -> Callable[[], int]:
    return lambda: socket.socket(family, kind, protocol).detach()


def _listening() -> int:
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"\0wasisup-broker-{os.getpid()}")
    made.listen()
    return made.detach()


def _pair() -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    return theirs.detach()


NO_SOCKETS = {
    "a file": (_file, ENOTSOCK),
    "a directory": (_directory, ENOTSOCK),
    "a path": (_path, EBADF),
    "a pipe": (_pipe, ENOTSOCK),
    "an epoll instance": (lambda: select.epoll().fileno(), ENOTSOCK),
    "an event": (lambda: os.eventfd(0), ENOTSOCK),
    "a process": (lambda: os.pidfd_open(os.getpid()), ENOTSOCK),
    "a Unix stream": (_of(socket.AF_UNIX, socket.SOCK_STREAM), EAFNOSUPPORT),
    "a Unix datagram socket": (_of(socket.AF_UNIX, socket.SOCK_DGRAM), EAFNOSUPPORT),
    "a Unix listener": (_listening, EAFNOSUPPORT),
    "an end of a pair": (_pair, EAFNOSUPPORT),
    "netlink": (_of(socket.AF_NETLINK, socket.SOCK_RAW), EAFNOSUPPORT),
    "multipath TCP": (_of(socket.AF_INET, socket.SOCK_STREAM, 262), ESOCKTNOSUPPORT),
    "UDP-Lite": (_of(socket.AF_INET, socket.SOCK_DGRAM, 136), ESOCKTNOSUPPORT),
    "raw IP": (_of(socket.AF_INET, socket.SOCK_RAW, 255), ESOCKTNOSUPPORT),
}


@pytest.mark.parametrize("what", [w for w in NO_SOCKETS if os.geteuid() == 0 or w != "raw IP"])
def test_descriptors_that_are_none_of_its_sockets(
    broker: Broker, listener: socket.socket, what: str
) -> None:
    """Nothing is done with them, whatever the call, and they are closed."""
    make, error = NO_SOCKETS[what]
    keep: list[object] = []
    if what == "an epoll instance":
        poll = select.epoll()
        keep.append(poll)
        fd = os.dup(poll.fileno())
    else:
        fd = make()
    try:
        for call in ON_OBJECTS.values():
            address = b"" if call == LISTEN else brokers.sockaddr(HERE, listener.getsockname()[1])
            assert broker.ask(call, fd, address) == -error
    finally:
        os.close(fd)
    assert not broker.denied()
    serves(broker, listener)


def test_its_own_ends(broker: Broker, listener: socket.socket) -> None:
    """Of the conversation the worker has one end, which is no socket to connect."""
    address = brokers.sockaddr(HERE, listener.getsockname()[1])
    for call in ON_OBJECTS.values():
        own = broker.socket.fileno()
        assert broker.ask(call, own, b"" if call == LISTEN else address) == -EAFNOSUPPORT
    serves(broker, listener)


@pytest.mark.parametrize("count", [2, 3, 10, 253])
def test_several_descriptors(broker: Broker, listener: socket.socket, count: int) -> None:
    """The first is what the call is about; none of the others is, nor stays open over there."""
    address = brokers.sockaddr(HERE, listener.getsockname()[1])
    reader, writer = os.pipe()
    fd = broker.tcp()
    request = head(CONNECT, len(address)) + address
    assert broker.say(request, [writer, *[fd] * (count - 1)]) == -ENOTSOCK
    os.close(writer)
    assert select.select([reader], [], [], SOME_TIME)[0], "somebody holds it open"
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert not select.select([listener], [], [], 0)[0]
    serves(broker, listener)


@pytest.mark.parametrize("call", [SOCKET, LISTEN, 99])
def test_descriptors_that_no_call_wants(broker: Broker, listener: socket.socket, call: int) -> None:
    """They are closed, a thousand times."""
    reader, writer = os.pipe()
    for _ in range(1000):
        answer = broker.say(head(call, 0, 99, 1), [writer, writer])
        assert answer < 0
    os.close(writer)
    assert select.select([reader], [], [], SOME_TIME)[0], "somebody holds it open"
    os.close(reader)
    serves(broker, listener)


def test_thousands_of_sockets(broker: Broker, listener: socket.socket) -> None:
    """It keeps none of those that it makes: its own bound is never met."""
    for _ in range(3000):
        os.close(broker.tcp())
        broker.made.pop()
    serves(broker, listener)


# --- a worker that does not listen to the answers ---


@contextmanager
def flooded(core: str, message: bytes, fds: Callable[[Broker], list[int]]) -> Iterator[Broker]:
    """A broker that was sent `message` until neither it nor the kernel took any more."""
    with brokers.running(core, Rule(HERE, 1, 1)) as broker:
        broker.socket.setblocking(False)
        poll = select.poll()
        poll.register(broker.socket, select.POLLOUT)
        while poll.poll(200):
            try:
                socket.send_fds(broker.socket, [message], fds(broker))
            except OSError as error:
                # It has ended, or there is no room: for a message, or for this user's descriptors.
                if error.errno not in ENDS_A_FLOOD:
                    raise
                break
        broker.socket.setblocking(True)
        yield broker


ENDS_A_FLOOD = {errno.EPIPE, errno.ECONNRESET, errno.EAGAIN, errno.ETOOMANYREFS}
FLOODS: dict[str, tuple[bytes, Callable[[Broker], list[int]]]] = {
    "of nonsense": (b"x", lambda _: []),
    "of sockets": (head(SOCKET, 0, 2, 1), lambda _: []),
    "of descriptors": (b"x", lambda _: [0] * 253),
    "of its own end": (b"x", lambda broker: [broker.socket.fileno()]),
    "of its own end, many times": (b"x", lambda broker: [broker.socket.fileno()] * 253),
}


@pytest.mark.parametrize("what", FLOODS)
def test_flood(hostile_core: str, what: str) -> None:
    """A broker ends whose worker is gone, or does not listen: in no case does it wait for it.

    With the worker's own end on its way to the broker, that end would never be closed.
    """
    with flooded(hostile_core, *FLOODS[what]) as broker:
        broker.socket.close()
        assert select.select([broker.worker.pidfd], [], [], SOME_TIME)[0], "it is still there"
        broker.end()
        assert broker.status in BROKER_ENDS


def test_flood_is_no_other_run_s_business(hostile_core: str, listener: socket.socket) -> None:
    """Descriptors on their way are counted for all of a user's processes: they must not stay so.

    A broker that waited for its worker would hold the next messages, and all that came with them.
    """
    port = listener.getsockname()[1]
    with flooded(hostile_core, b"x", lambda _: []) as broker:
        broker.socket.setblocking(False)
        try:
            for _ in range(240):  # most of its answers, which lets it go on until it waits again
                broker.socket.recv(64)
            select.select([], [], [], 0.2)
            for _ in range(240):
                socket.send_fds(broker.socket, [b"x"], [0] * 253)
        except OSError:
            pass  # it has ended, or there is no room for more: the next run is what this is about
        with brokers.running(hostile_core, Rule(HERE, port, port)) as other:
            serves(other, listener)


# --- nothing comes in without a rule ---


@pytest.mark.parametrize("host", [HERE, "::1"])
def test_datagrams_do_not_come_in_by_themselves(hostile_core: str, host: str) -> None:
    """A socket that may send to nobody hears nobody, however it came by a port."""
    domain = socket.AF_INET6 if ":" in host else socket.AF_INET
    port = 1
    with ExitStack() as held:
        broker = held.enter_context(brokers.running(hostile_core, Rule(host, port, port)))
        stranger = held.enter_context(socket.socket(domain, socket.SOCK_DGRAM))
        named, unnamed = broker.udp(domain=domain), broker.udp(domain=domain)
        anywhere = brokers.sockaddr("::" if ":" in host else "0.0.0.0", 0)
        assert broker.ask(BIND, named, anywhere) == 0
        for fd in (named, unnamed):
            with socket.socket(fileno=os.dup(fd)) as hearing:
                # EDESTADDRREQ; on the way there the kernel gives it a port all the same.
                with pytest.raises(OSError, match="Destination"):
                    hearing.send(b"")
                stranger.sendto(b"from outside", (host, hearing.getsockname()[1]))
                assert not select.select([hearing], [], [], 0.05)[0], hearing.recv(100)


def test_datagrams_come_where_a_rule_lets_them(hostile_core: str) -> None:
    """A socket hears at the address that it may listen at, and one that has another stays deaf."""
    with ExitStack() as held:
        stranger = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        stranger.bind((HERE, 0))
        port = stranger.getsockname()[1] ^ 1
        rule = Rule(HERE, port, port, brokers.TO_LISTEN, brokers.UDP)
        broker = held.enter_context(brokers.running(hostile_core, rule))
        granted = brokers.sockaddr(HERE, port)
        with socket.socket(fileno=os.dup(broker.udp())) as deaf:
            with pytest.raises(OSError, match="Destination"):
                deaf.send(b"")
            assert broker.ask(BIND, deaf.fileno(), granted) == -EINVAL
            stranger.sendto(b"from outside", (HERE, deaf.getsockname()[1]))
            assert not select.select([deaf], [], [], 0.05)[0]
        with socket.socket(fileno=os.dup(broker.udp())) as hearing:
            assert broker.ask(BIND, hearing.fileno(), granted) == 0
            stranger.sendto(b"from outside", (HERE, port))
            assert select.select([hearing], [], [], SOME_TIME)[0]


@pytest.mark.parametrize(
    ("host", "network", "prefix", "others"),
    [
        (HERE, HERE, 32, ["127.0.0.2"]),
        (HERE, "127.0.0.0", 8, []),
        ("127.0.1.5", "127.0.1.0", 25, [HERE, "127.0.1.129"]),
        ("::1", "::1", 128, []),
        ("::1", "::", 64, []),
    ],
)
def test_datagrams_come_from_whom_a_rule_names(
    hostile_core: str, host: str, network: str, prefix: int, others: list[str]
) -> None:
    """Who may be sent to is heard; another port, and another address with that port, is not."""
    domain = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as held:

        def sender(address: str, port: int = 0) -> socket.socket:
            made = held.enter_context(socket.socket(domain, socket.SOCK_DGRAM))
            made.bind((address, port))
            return made

        peer = sender(host)
        port = peer.getsockname()[1]
        rule = Rule(network, port, port, protocol=brokers.UDP, prefix=prefix)
        broker = held.enter_context(brokers.running(hostile_core, rule))
        anywhere = brokers.sockaddr("::" if ":" in host else "0.0.0.0", 0)
        hearing = held.enter_context(socket.socket(fileno=os.dup(broker.udp(domain=domain))))
        assert broker.ask(BIND, hearing.fileno(), anywhere) == 0
        here = (host, hearing.getsockname()[1])
        for stranger in (sender(host), *(sender(other, port) for other in others)):
            stranger.sendto(b"from outside", here)
        peer.sendto(b"an answer", here)  # which comes last, and alone
        assert select.select([hearing], [], [], SOME_TIME)[0]
        assert hearing.recvfrom(100)[0] == b"an answer"
        assert not select.select([hearing], [], [], 0)[0]
