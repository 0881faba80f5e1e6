"""What the filters of a component with a network, and of its broker, admit: by number, by option.

The lists are written out here once more.  Whoever changes the table of policies/syscalls.py has to
come by, and say what the call is good for to an attacker.
"""

from __future__ import annotations

import pytest

from wasisup.policies import syscalls
from wasisup.runtime import filters

from . import verdicts
from .steps import names, number
from .test_sweep import ARGUMENTS, COMPONENT_ARGUMENTS, EVERY_NUMBER, PAST_EVERY_FILTER

# What the network adds to a component, and what it was before.  By their own condition, the first
# four only reach the broker (3), or nobody that the socket is not connected to.
OF_THE_NETWORK = {
    *("sendmsg", "recvmsg", "sendto", "close"),
    *("accept4", "getpeername", "getsockname", "getsockopt", "recvfrom", "setsockopt", "shutdown"),
}
OF_A_BROKER = {
    *("bind", "clock_gettime", "close", "connect", "exit_group", "fcntl", "getsockname"),
    *("getsockopt", "listen", "recvmsg", "rt_sigreturn", "sendmsg", "sendto", "setsockopt"),
    *("shutdown", "socket"),
}
# How a call has to look to get through; any other call as in test_sweep.
NETWORK_ARGUMENTS = {
    **COMPONENT_ARGUMENTS,
    "sendmsg": (3,),
    "recvmsg": (3,),
    "getsockopt": (-1, 1, 4),
    "setsockopt": (-1, 1, 2),
    "socket": (2, 1, 0),
}
BROKER_ARGUMENTS = {
    **NETWORK_ARGUMENTS,
    "fcntl": (-1, 4),
    "getsockopt": (-1, 1, 39),
    "setsockopt": (-1, 41, 26),
}

GRANTS = ("", "-reading", "-directories")
PROFILES = [
    f"run-{engine}-component{grants}-network"
    for engine in ("cranelift", "pulley")
    for grants in GRANTS
]
# (level, option), by name in the kernel's headers.
READ = {
    "SO_TYPE": (1, 3),
    "SO_ERROR": (1, 4),
    "SO_SNDBUF": (1, 7),
    "SO_RCVBUF": (1, 8),
    "SO_KEEPALIVE": (1, 9),
    "SO_ACCEPTCONN": (1, 30),
    "SO_DOMAIN": (1, 39),
    "TCP_KEEPIDLE": (6, 4),
    "TCP_KEEPINTVL": (6, 5),
    "TCP_KEEPCNT": (6, 6),
    "IP_TTL": (0, 2),
    "IPV6_UNICAST_HOPS": (41, 16),
}
WRITTEN = {
    "SO_REUSEADDR": (1, 2),
    "SO_SNDBUF": (1, 7),
    "SO_RCVBUF": (1, 8),
    "SO_KEEPALIVE": (1, 9),
    "TCP_NODELAY": (6, 1),
    "TCP_KEEPIDLE": (6, 4),
    "TCP_KEEPINTVL": (6, 5),
    "TCP_KEEPCNT": (6, 6),
    "IP_TTL": (0, 2),
    "IPV6_UNICAST_HOPS": (41, 16),
}
ANSWERED = {"IPV6_V6ONLY": (41, 26)}  # setsockopt says that all is well, and does nothing
OF_THE_BROKER = {"SO_DOMAIN": (1, 39), "SO_TYPE": (1, 3), "SO_PROTOCOL": (1, 38)}
# IPPROTO_IP, SOL_SOCKET, TCP, UDP, IPv6, ICMPv6, UDP-Lite, raw and all of include/linux/socket.h
LEVELS = sorted({0, 1, 2, 6, 17, 41, 58, 132, 136, 255, 256, *range(257, 300), 0xFFFFFFFF})
OPTIONS = [*range(256), 1024, 0x7FFFFFFF, 0xFFFFFFFF]
HIGH = 1 << 32


def admitted(program: bytes, arguments: dict[str, tuple[int, ...]]) -> set[str]:
    """The names of the calls that get through."""
    tried = [n for n in EVERY_NUMBER if n not in PAST_EVERY_FILTER]
    calls = [
        (
            n,
            *(
                argument % (1 << 64)
                for argument in arguments.get(names().get(n, ""), ARGUMENTS)[:5]
            ),
        )
        for n in tried
    ]
    said = verdicts.ask(program, calls)
    return {
        names().get(n, str(n))
        for n, answer in zip(tried, said, strict=True)
        if answer == verdicts.CARRIED_OUT
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_only_these_calls_get_through(profile: str) -> None:
    """A network adds its calls to those of the same component without one, and no other."""
    without = set(syscalls.admitted(profile.removesuffix("-network")))
    found = admitted(filters.build(profile, 2), NETWORK_ARGUMENTS)
    assert found == without | OF_THE_NETWORK
    assert not found & {"socket", "connect", "bind", "listen", "sendmmsg", "dup2", "dup3"}
    assert found == set(syscalls.admitted(profile))


def test_only_these_calls_of_a_broker_get_through() -> None:
    """A broker has the network's calls and nothing to do anything else with."""
    program = filters.build("broker-none", 1)
    assert admitted(program, BROKER_ARGUMENTS) == OF_A_BROKER


def pairs(program: bytes, call: str, high: int = 0) -> dict[int, set[tuple[int, int]]]:
    """What the kernel says to every option of every level: errno, and for which pairs."""
    every = [(level, option) for level in LEVELS for option in OPTIONS]
    said = verdicts.ask(
        program, [(number(call), 5, level | high, option | high) for level, option in every]
    )
    found: dict[int, set[tuple[int, int]]] = {}
    for pair, answer in zip(every, said, strict=True):
        found.setdefault(answer, set()).add(pair)
    found.pop(verdicts.TRAPPED)
    return found


@pytest.mark.parametrize("high", [0, HIGH], ids=["", "high"])
def test_only_these_options(high: int) -> None:
    """Of all options of all levels a worker reads and sets those that the engine uses."""
    program = filters.build("run-cranelift-component-directories-network", 2)
    wanted = set(READ.values())
    assert pairs(program, "getsockopt", high) == {verdicts.CARRIED_OUT: wanted}
    wanted = set(WRITTEN.values())
    assert pairs(program, "setsockopt", high) == {
        verdicts.CARRIED_OUT: wanted,
        0: set(ANSWERED.values()),
    }
    table = syscalls.rules("run-cranelift-component-network", 2)
    for call, options in (("getsockopt", READ), ("setsockopt", WRITTEN)):
        in_table = {
            (rule.when[0][2], rule.when[1][2])
            for rule in table
            if rule.name == call and rule.errno is None
        }
        assert in_table == set(options.values())


def test_only_these_options_of_a_broker() -> None:
    """It asks what a socket is, makes it one of one family, and deaf."""
    program = filters.build("broker-none", 1)
    assert pairs(program, "getsockopt") == {verdicts.CARRIED_OUT: set(OF_THE_BROKER.values())}
    assert pairs(program, "setsockopt")[verdicts.CARRIED_OUT] <= {
        *ANSWERED.values(),
        (1, 26),  # SO_ATTACH_FILTER
        (1, 27),  # SO_DETACH_FILTER
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_takes_the_broker_s_number(profile: str) -> None:
    """Whatever the call: with 3 in any place where a new number may be asked for, it traps."""
    program = filters.build(profile, 2)
    calls = [
        (number(name), *arguments)
        for high in (0, HIGH, 0xFFFFFFFF * HIGH)
        for name, *arguments in (
            ("close", 3 | high),
            ("dup2", 0, 3 | high),
            ("dup3", 0, 3 | high, 0),
            ("close_range", 3 | high, 3 | high, 0),
            ("close_range", 0, 0xFFFFFFFF, 0),
            ("fcntl", 0, 0 | high, 3),
            *(("sendmsg", fd | high, 0, 0) for fd in (0, 1, 2, 4, 5, 1024)),
            *(("recvmsg", fd | high, 0, 0) for fd in (0, 1, 2, 4, 5, 1024)),
        )
    ]
    assert set(verdicts.ask(program, calls)) == {verdicts.TRAPPED}


@pytest.mark.parametrize("profile", PROFILES)
def test_no_descriptor_gets_other_flags(profile: str) -> None:
    """A worker cannot make a socket block, which its broker would have to wait for."""
    program = filters.build(profile, 2)
    commands = [*range(64), *range(1024, 1064)]
    said = verdicts.ask(program, [(number("fcntl"), 5, command) for command in commands])
    through = [
        command
        for command, answer in zip(commands, said, strict=True)
        if answer != verdicts.TRAPPED
    ]
    assert through == [syscalls.F_GETFL, syscalls.F_DUPFD_CLOEXEC]
