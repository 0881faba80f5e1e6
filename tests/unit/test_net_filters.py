"""What the filters of a component with a network, and of its broker, say to the network's calls."""

from __future__ import annotations

import socket

import pyseccomp
import pytest

from support import bpf
from wasisup.policies import syscalls
from wasisup.runtime import filters

WORKERS = [
    f"run-{engine}-component{grants}-network"
    for engine in ("cranelift", "pulley")
    for grants in ("", "-reading", "-directories")
]
STAGES = [(profile, stage) for profile in WORKERS for stage in (1, 2)]
HIGH = 1 << 32  # what the kernel does not look at in an int
FASTOPEN = 0x20000000


@pytest.fixture(scope="module")
def programs() -> dict[tuple[str, int], bytes]:
    return {(profile, stage): filters.build(profile, stage) for profile, stage in STAGES}


@pytest.fixture(scope="module")
def broker() -> bytes:
    return filters.build("broker-none", 1)


def answer(program: bytes, name: str, *args: int) -> int:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
    return bpf.evaluate(program, number, args)


@pytest.mark.parametrize("place", STAGES)
def test_the_broker_s_socket_stays_where_it_is(
    programs: dict[tuple[str, int], bytes], place: tuple[str, int]
) -> None:
    """No close of 3, whatever the register's upper half; nothing takes its number either."""
    program = programs[place]
    for fd in (3, 3 | HIGH, 3 | 0xFFFFFFFF << 32):
        assert answer(program, "close", fd) == bpf.TRAP
    for fd in (0, 2, 4, 7, 1000, 0xFFFFFFFF, HIGH | 4):
        assert answer(program, "close", fd) == bpf.ALLOW
    for name in (
        "dup",
        "dup2",
        "dup3",
        "close_range",
        "pidfd_getfd",
        "io_uring_setup",
        "socketpair",
    ):
        for args in ((0, 3, 0), (3, 3, 3), (4, 3, 0)):
            assert answer(program, name, *args) == bpf.TRAP, name
    f_dupfd = 0
    assert answer(program, "fcntl", 4, f_dupfd, 3) == bpf.TRAP


@pytest.mark.parametrize("place", STAGES)
def test_messages_go_to_the_broker_alone(
    programs: dict[tuple[str, int], bytes], place: tuple[str, int]
) -> None:
    """sendmsg can carry an address and descriptors: on 3 it carries them to the broker."""
    program = programs[place]
    for name in ("sendmsg", "recvmsg"):
        assert answer(program, name, 3, 0x1000, 0) == bpf.ALLOW
        for fd in (0, 1, 2, 4, 5, 0xFFFFFFFF, HIGH | 4):
            assert answer(program, name, fd, 0x1000, 0) == bpf.TRAP
    assert answer(program, "sendmmsg", 3, 0x1000, 1, 0) == bpf.TRAP
    assert answer(program, "recvmmsg", 3, 0x1000, 1, 0) == bpf.TRAP


@pytest.mark.parametrize("place", STAGES)
def test_no_call_says_where_to(
    programs: dict[tuple[str, int], bytes], place: tuple[str, int]
) -> None:
    """An address traps, also one whose pointer has only upper bits; so does fast open."""
    program = programs[place]
    assert answer(program, "sendto", 5, 0x1000, 10, 0x4000, 0, 0) == bpf.ALLOW
    for pointer in (1, 0x7FFF00000000, HIGH, 0xFFFFFFFFFFFFFFFF):
        assert answer(program, "sendto", 5, 0x1000, 10, 0, pointer, 16) == bpf.TRAP
    for flags in (FASTOPEN, FASTOPEN | 0x4000, FASTOPEN | HIGH):
        assert answer(program, "sendto", 5, 0x1000, 10, flags, 0, 0) == bpf.TRAP
    for name in ("socket", "connect", "bind", "listen", "accept"):
        for args in ((0, 0, 0), (2, 1, 0), (3, 0x1000, 16)):
            assert answer(program, name, *args) == bpf.TRAP, name


@pytest.mark.parametrize(
    ("level", "option"),
    [
        (socket.SOL_SOCKET, socket.SO_BINDTODEVICE),
        (socket.SOL_SOCKET, 26),  # SO_ATTACH_FILTER
        (socket.SOL_SOCKET, 27),  # SO_DETACH_FILTER
        (socket.SOL_SOCKET, 50),  # SO_ATTACH_BPF
        (socket.SOL_SOCKET, socket.SO_REUSEPORT),
        (socket.SOL_SOCKET, socket.SO_BROADCAST),
        (socket.SOL_SOCKET, socket.SO_MARK),
        (socket.SOL_SOCKET, socket.SO_LINGER),
        (socket.SOL_SOCKET, 60),  # SO_ZEROCOPY
        (socket.IPPROTO_IP, socket.IP_OPTIONS),
        (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP),
        (socket.IPPROTO_IP, socket.IP_MULTICAST_IF),
        (socket.IPPROTO_IP, socket.IP_TRANSPARENT),
        (socket.IPPROTO_IP, 24),  # IP_BIND_ADDRESS_NO_PORT
        (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP),
        (socket.IPPROTO_IPV6, socket.IPV6_RTHDR),
        (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO),
        (socket.IPPROTO_IPV6, 1),  # IPV6_ADDRFORM: the other family's socket
        (socket.IPPROTO_TCP, 30),  # TCP_FASTOPEN_CONNECT
        (socket.IPPROTO_TCP, socket.TCP_FASTOPEN),
        (socket.IPPROTO_TCP, 31),  # TCP_ULP
        (socket.IPPROTO_TCP, 19),  # TCP_REPAIR
        (socket.IPPROTO_TCP, socket.TCP_CONGESTION),
        (socket.IPPROTO_UDP, 103),  # UDP_SEGMENT
    ],
)
def test_options_that_lead_elsewhere(
    programs: dict[tuple[str, int], bytes], level: int, option: int
) -> None:
    """None of them is set, on whatever socket."""
    for program in programs.values():
        assert answer(program, "setsockopt", 5, level, option, 0x1000, 4) == bpf.TRAP


def test_a_socket_stays_of_one_family(programs: dict[tuple[str, int], bytes]) -> None:
    """Setting IPV6_V6ONLY, or clearing it, is answered and not carried out."""
    for program in programs.values():
        for high in (0, HIGH):
            args = (5, 41 | high, 26 | high, 0x1000, 4)
            assert answer(program, "setsockopt", *args) == bpf.ERRNO


def test_without_a_network_every_call_of_it_traps() -> None:
    """So that a handler can name what was denied."""
    for stage in (1, 2):
        program = filters.build("run-cranelift-component", stage)
        for name in (
            *("socket", "connect", "bind", "listen", "accept4", "sendto", "recvfrom", "sendmsg"),
            *("recvmsg", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt"),
        ):
            assert answer(program, name, 3, 0, 0, 0, 0, 0) == bpf.TRAP, name


def test_a_broker_makes_tcp_and_udp(broker: bytes) -> None:
    """And no other kind of socket: neither raw nor Unix nor netlink nor multipath TCP."""
    allowed = set()
    for domain in range(64):
        for kind in range(16):
            for protocol in (0, 1, 6, 17, 58, 132, 136, 255, 262):
                for flags in (0, 0o2004000):
                    if answer(broker, "socket", domain, kind | flags, protocol) == bpf.ALLOW:
                        allowed.add((domain, kind, protocol))
    stream, dgram = (1, (0, 6)), (2, (0, 17))
    assert allowed == {
        (domain, kind, protocol)
        for domain in (socket.AF_INET, socket.AF_INET6)
        for kind, protocols in (stream, dgram)
        for protocol in protocols
    }


def test_a_broker_does_nothing_but_its_work(broker: bytes) -> None:
    """No file, no memory, no process, no signal; messages on its one socket, which stays open."""
    assert syscalls.admitted("broker-none") == [
        *("bind", "clock_gettime", "close", "connect", "exit_group", "fcntl", "getsockname"),
        *("getsockopt", "listen", "recvmsg", "rt_sigreturn", "sendmsg", "sendto", "setsockopt"),
        *("shutdown", "socket"),
    ]
    assert answer(broker, "close", 3) == bpf.TRAP
    assert answer(broker, "sendmsg", 4) == bpf.TRAP
    assert answer(broker, "setsockopt", 4, socket.SOL_SOCKET, 25, 0, 0) == bpf.TRAP
    assert answer(broker, "sendto", 4, 0, 0, FASTOPEN, 0x1000, 16) == bpf.TRAP
