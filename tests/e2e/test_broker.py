"""The broker by itself, behind all its walls: what it does for its worker, and what it refuses.

Every address is the loopback device's, or one that no packet leaves for: what is denied never
comes to a system call.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from support import brokers
from support.brokers import BIND, CONNECT, LISTEN, SENDTO, SOCKET, Rule, sockaddr
from support.processes import children
from wasisup.runtime import engine, record, spec, zygote
from wasisup.supervisor.model import WALLS

INPROGRESS, ACCES, BADF, AFNOSUPPORT, NOTSOCK, BADMSG = -115, -13, -9, -97, -88, -74
ADDRINUSE, OPNOTSUPP, SOCKTNOSUPPORT, NETUNREACH = -98, -95, -94, -101


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(5)
        yield made


def port_of(made: socket.socket) -> int:
    return int(made.getsockname()[1])


def core() -> str:
    return engine.find_core()


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return port_of(made)


def test_a_connection(server: socket.socket) -> None:
    """To the address and port that are granted, and data goes both ways without the broker."""
    port = port_of(server)
    with brokers.running(core(), Rule("127.0.0.1", port, port)) as broker:
        fd = broker.tcp()
        assert broker.ask(CONNECT, fd, sockaddr("127.0.0.1", port)) == INPROGRESS
        connection, _ = server.accept()
        with connection:
            os.write(fd, b"question")
            assert connection.recv(100) == b"question"
        assert broker.denied() == []


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.2", "127.0.0.2"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("::ffff:127.0.0.2", "127.0.0.2"),
        ("169.254.169.254", "169.254.169.254"),
        ("255.255.255.255", "255.255.255.255"),
        ("64:ff9b::7f00:1", "[64:ff9b::7f00:1]"),
    ],
)
def test_another_address_is_denied(server: socket.socket, host: str, said: str) -> None:
    """With the very words that would grant it, for a stream and for a datagram."""
    port = port_of(server)
    domain = socket.AF_INET6 if ":" in host else socket.AF_INET
    with brokers.running(core(), Rule("127.0.0.1", port, port, protocol=3)) as broker:
        address = sockaddr(host, port)
        assert broker.ask(CONNECT, broker.tcp(domain=domain), address) == ACCES
        datagram = broker.udp(domain=domain)
        assert broker.ask(CONNECT, datagram, address) == ACCES
        assert broker.ask(SENDTO, datagram, address, b"data") == ACCES
        assert broker.denied() == [f"tcp:{said}:{port}", f"udp:{said}:{port}"]
        assert [denial.count for denial in broker.read().denials] == [1, 2]


def test_ports_and_protocols_are_granted_one_by_one(server: socket.socket) -> None:
    """Not the next port, and not UDP for TCP."""
    port = port_of(server)
    with brokers.running(core(), Rule("127.0.0.1", port, port)) as broker:
        assert broker.ask(CONNECT, broker.tcp(), sockaddr("127.0.0.1", port - 1)) == ACCES
        assert broker.ask(CONNECT, broker.udp(), sockaddr("127.0.0.1", port)) == ACCES


def test_this_host_is_loopback(server: socket.socket) -> None:
    """0.0.0.0 leads to 127.0.0.1 in Linux: who may not go there may not go there."""
    port = port_of(server)
    with brokers.running(core(), Rule("127.0.0.1", port, port)) as broker:
        assert broker.ask(CONNECT, broker.tcp(), sockaddr("0.0.0.0", port)) == INPROGRESS
        assert broker.ask(CONNECT, broker.tcp(), sockaddr("0.1.2.3", port)) == INPROGRESS
    with brokers.running(core(), Rule("192.0.2.0", prefix=24)) as broker:
        assert broker.ask(CONNECT, broker.tcp(), sockaddr("0.0.0.0", port)) == ACCES
        assert broker.denied() == [f"tcp:127.0.0.1:{port}"]


def test_a_mapped_address_is_the_other_family_s(server: socket.socket) -> None:
    """::ffff:127.0.0.1 is judged as 127.0.0.1; an IPv6 socket has no way there in any case."""
    port = port_of(server)
    with brokers.running(core(), Rule("127.0.0.1", port, port)) as broker:
        fd = broker.tcp(domain=socket.AF_INET6)
        assert broker.ask(CONNECT, fd, sockaddr("::ffff:127.0.0.1", port)) == NETUNREACH
    with brokers.running(core(), Rule("::", prefix=0)) as broker:
        fd = broker.tcp(domain=socket.AF_INET6)
        assert broker.ask(CONNECT, fd, sockaddr("::ffff:127.0.0.1", port)) == ACCES


def test_datagrams() -> None:
    """Sent to the address that is granted, and answered from there; AF_UNSPEC lets go of a peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        port = port_of(peer)
        rule = Rule("127.0.0.1", port, port, protocol=brokers.UDP)
        with brokers.running(core(), rule) as broker:
            fd = broker.udp()
            assert broker.ask(BIND, fd, sockaddr("0.0.0.0", 0)) == 0
            assert broker.ask(SENDTO, fd, sockaddr("127.0.0.1", port), b"ping") == 4
            data, where = peer.recvfrom(100)
            assert data == b"ping"
            peer.sendto(b"pong", where)
            with socket.socket(fileno=os.dup(fd)) as ours:
                ours.settimeout(5)
                assert ours.recv(100) == b"pong"
            assert broker.ask(CONNECT, fd, sockaddr("127.0.0.1", port)) == 0
            assert broker.ask(CONNECT, fd, sockaddr("0.0.0.0", 0, family=0)) == 0
            large = bytes(65507)
            assert broker.ask(SENDTO, fd, sockaddr("127.0.0.1", port), large) == len(large)
            assert broker.denied() == []


def test_who_may_send_nowhere_hears_nothing() -> None:
    """A datagram socket that nobody granted a peer gets an address, so that the denial has one to
    name; but whatever comes in is dropped."""
    with brokers.running(core(), Rule("127.0.0.1", 80, 80)) as broker:
        fd = broker.udp()
        assert broker.ask(BIND, fd, sockaddr("0.0.0.0", 0)) == 0
        with (
            socket.socket(fileno=os.dup(fd)) as ours,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ):
            other.connect(("127.0.0.1", port_of(ours)))
            other.send(b"psst")
            with pytest.raises(BlockingIOError):
                ours.recv(100, socket.MSG_DONTWAIT)


def test_listening() -> None:
    """At the address and port that are granted: bind, listen, and a connection comes in."""
    port = free_port()
    rule = Rule("127.0.0.1", port, port, actions=brokers.TO_LISTEN)
    with brokers.running(core(), rule) as broker:
        fd = broker.tcp()
        assert broker.ask(BIND, fd, sockaddr("127.0.0.1", port)) == 0
        assert broker.ask(LISTEN, fd, backlog=5) == 0
        assert broker.ask(LISTEN, fd, backlog=9) == 0
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            with socket.socket(fileno=os.dup(fd)) as listener:
                accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(100) == b"hello"
        assert broker.denied() == []


def test_listening_elsewhere_is_denied() -> None:
    """At every address of the machine, at another port, or without an address at all."""
    port = free_port()
    rule = Rule("127.0.0.1", port, port, actions=brokers.TO_LISTEN)
    with brokers.running(core(), rule, Rule("127.0.0.1")) as broker:
        fd = broker.tcp()
        assert broker.ask(BIND, fd, sockaddr("0.0.0.0", port)) == ACCES
        assert broker.ask(BIND, fd, sockaddr("127.0.0.1", 0)) == ACCES
        assert broker.ask(BIND, fd, sockaddr("127.0.0.2", port)) == ACCES
        assert broker.ask(LISTEN, fd) == ACCES
        # The source of a connection, which then listens.
        assert broker.ask(BIND, fd, sockaddr("0.0.0.0", 0)) == 0
        with socket.socket(fileno=os.dup(fd)) as ours:
            own = port_of(ours)
        assert broker.ask(LISTEN, fd) == ACCES
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", own), timeout=5)
        assert broker.ask(LISTEN, broker.udp()) == OPNOTSUPP
        assert broker.denied() == [
            f"listen:tcp:0.0.0.0:{port}",
            "listen:tcp:127.0.0.1:*",
            f"listen:tcp:127.0.0.2:{port}",
            "listen:tcp:0.0.0.0:*",
            f"listen:tcp:0.0.0.0:{own}",
        ]


def test_errors_of_the_kernel_come_back() -> None:
    """As they are: they are not the broker's denials."""
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        brokers.running(core(), Rule("127.0.0.1", actions=3)) as broker,
    ):
        fd = broker.tcp()
        assert broker.ask(BIND, fd, sockaddr("127.0.0.1", port_of(taken))) == ADDRINUSE
        assert broker.ask(CONNECT, fd, sockaddr("127.0.0.1", port)) == INPROGRESS
        assert broker.denied() == []


def test_only_sockets_of_two_kinds(server: socket.socket) -> None:
    """No raw, Unix, netlink, packet or multipath socket is made, nor one handed over used."""
    port = port_of(server)
    address = sockaddr("127.0.0.1", port)
    with brokers.running(core(), Rule("0.0.0.0", prefix=0, actions=3, protocol=3)) as broker:
        for domain in (1, 16, 17, 31, 38, 40, 44):
            assert broker.ask(SOCKET, domain=domain, kind=1) == AFNOSUPPORT
        for kind in (0, 3, 4, 5, 6, 10, 15):
            assert broker.ask(SOCKET, domain=2, kind=kind) == SOCKTNOSUPPORT
        for kind, protocol in ((1, 262), (1, 132), (1, 17), (2, 6), (2, 1), (2, 136)):
            assert broker.ask(SOCKET, domain=2, kind=kind, protocol=protocol) == -93
        ours, theirs = socket.socketpair()
        with ours, theirs, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            assert broker.ask(CONNECT, ours.fileno(), address) == AFNOSUPPORT
            assert broker.ask(CONNECT, netlink.fileno(), address) == AFNOSUPPORT
        assert broker.ask(CONNECT, broker.page, address) == NOTSOCK
        assert broker.ask(CONNECT, None, address) == BADF
        assert (
            broker.ask(CONNECT, broker.tcp(), sockaddr("127.0.0.1", port, family=1)) == AFNOSUPPORT
        )
        assert (
            broker.ask(CONNECT, broker.tcp(), sockaddr("127.0.0.1", port, family=0)) == AFNOSUPPORT
        )
        assert broker.ask(CONNECT, broker.tcp(), b"\2") == -22
        assert broker.ask(SENDTO, broker.tcp(), address, b"fast") == OPNOTSUPP


def test_a_socket_that_blocks_is_made_not_to(server: socket.socket) -> None:
    """A connect to where nobody answers would hold the broker, and does not."""
    port = port_of(server)
    with brokers.running(core(), Rule("127.0.0.1", port, port)) as broker:
        fd = broker.tcp()
        os.set_blocking(fd, True)
        assert broker.ask(CONNECT, fd, sockaddr("127.0.0.1", port)) == INPROGRESS
        assert not os.get_blocking(fd)


def test_nonsense_is_answered_and_survived(server: socket.socket) -> None:
    """Messages that are none, and more descriptors than one: each answered, none kept."""
    port = port_of(server)
    with brokers.running(core(), Rule("127.0.0.1", port, port)) as broker:
        own = f"/proc/{broker.worker.pid}/fd"
        before = len(os.listdir(own)) if os.geteuid() == 0 else 0
        good = struct.pack("<IIIIiiii", brokers.MAGIC, brokers.VERSION, CONNECT, 16, 0, 0, 0, 0)
        good += sockaddr("127.0.0.1", port)
        for message in (b"x", good[:-1], bytes(len(good)), b"\xff" * 70000, good + bytes(70000)):
            assert broker.say(message) == BADMSG
        fd = broker.tcp()
        assert broker.say(good, [fd, broker.page, *[fd] * 200]) in (INPROGRESS, NOTSOCK)
        assert broker.say(good, [broker.page, fd]) == NOTSOCK
        for _ in range(300):
            assert broker.say(b"x", [fd] * 3) == BADMSG
        assert broker.tcp() >= 0
        # It answers before it closes, but serves one after the other.
        assert broker.say(b"x") == BADMSG
        if os.geteuid() == 0:
            assert len(os.listdir(own)) == before


def test_it_has_every_wall_but_one() -> None:
    """No capability, its caller's ids, an empty root, limits, Landlock, seccomp; the host's net."""
    identity = (65534, 65534) if os.geteuid() == 0 else None
    with brokers.running(core(), Rule("127.0.0.1"), identity=identity) as broker:
        walls = set(broker.read().walls)
        assert walls >= set(WALLS) - {"network", "cgroup", "threads"}
        assert "network" not in walls
        with open(f"/proc/{broker.worker.pid}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
        assert int(status["CapAmb"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert status["Uid"].split()[0] == str(65534 if identity else os.getuid())
        assert status["NSpid"].split()[-1] == "1"
        if os.geteuid() == 0:
            assert os.readlink(f"/proc/{broker.worker.pid}/ns/net") == os.readlink(
                "/proc/self/ns/net"
            )
            assert os.listdir(f"/proc/{broker.worker.pid}/root") == []


def test_it_ends_with_its_worker() -> None:
    """When the other end is closed; and by a signal it ends, and the worker's side sees that."""
    before = children(os.getpid())
    with brokers.running(core(), Rule("127.0.0.1")) as broker:
        broker.end()
        assert broker.status == 0
    with brokers.running(core(), Rule("127.0.0.1")) as broker:
        signal.pidfd_send_signal(broker.worker.pidfd, signal.SIGKILL)
        assert broker.socket.recv(100) == b""
    assert children(os.getpid()) == before


def test_in_the_host_s_network_nothing_but_brokers_runs() -> None:
    """The zygote of brokers launches no worker, and that of workers no broker."""
    kinds = ((spec.KIND_RUN, True), (spec.KIND_COMPILE, True), (spec.KIND_BROKER, False))
    for kind, of_brokers in kinds:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        page, something = record.create(), os.memfd_create("something")
        start = zygote.start_brokers(core()) if of_brokers else _workers()
        with start as launcher, ours, theirs:
            writer = spec.SpecWriter(kind, "cranelift")
            if kind == spec.KIND_RUN:
                writer.artifact(something)
            elif kind == spec.KIND_COMPILE:
                writer.module(something)
                writer.output(something, something)
            else:
                writer.broker(theirs.fileno())
            writer.limits(
                memory=0,
                cpu_ns=None,
                fds=16,
                file_size=0,
                output=0,
                fuel=None,
                table_elements=0,
                data_overhead=1 << 24,
            )
            worker = launcher.launch(writer.encode(), page, writer.fds, None, 0)
            _, status = os.waitpid(worker.pid, 0)
            os.close(worker.pidfd)
        found = record.read(page)
        os.close(page)
        os.close(something)
        assert os.waitstatus_to_exitcode(status) == 125
        assert (found.outcome, found.step, found.errno) == ("setup", "launch spec", 1)


def _workers() -> zygote.Zygote:
    return zygote.start(core(), engine.find_library(), engine.ENGINE_RELEASE, ("cranelift",))
