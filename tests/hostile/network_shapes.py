"""What an attack on the network wall is, and the words that its tables are written in."""

from __future__ import annotations

from dataclasses import dataclass

from .shapes import HARMLESS, TRAPPED, Expectation, fails
from .steps import call

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
STREAM, DGRAM, RAW = 1, 2, 3
BROKER = 3
SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6 = 1, 0, 6, 17, 41
MSG_FASTOPEN, MSG_DONTWAIT = 0x20000000, 0x40
F_DUPFD, F_SETFL, F_SETOWN, F_DUPFD_CLOEXEC = 0, 4, 8, 1030

DENIED = fails("EACCES")
CONNECTS = fails("EINPROGRESS")
NO_FAMILY = fails("EAFNOSUPPORT")
NO_TYPE = fails("ESOCKTNOSUPPORT", "EPROTONOSUPPORT")
INVALID = fails("EINVAL")
# What the worker's own empty network namespace, and Landlock, say to anything.
UNREACHABLE = fails(
    "ENETUNREACH", "EACCES", "EADDRNOTAVAIL", "ECONNREFUSED", "EINVAL", "EAFNOSUPPORT"
)
NOBODY_THERE = fails("ESRCH", "EPERM", "EINVAL", "EBADF", "EACCES", "ENOENT")


@dataclass(frozen=True)
class Attack:
    """One attack: steps for payload.c, what they must come to, and what the report must say.

    denied: values of --net that the refusals are reported as, by their beginnings; of whichever of
    the two records it is.  reaches: whether the allowed listener gets a connection by it.
    """

    name: str
    steps: tuple[str, ...]
    closed: Expectation = TRAPPED
    net: Expectation = TRAPPED
    bare: Expectation = HARMLESS
    denied: tuple[str, ...] = ()
    reaches: bool = False


def attack(
    name: str,
    *steps: str,
    closed: Expectation = TRAPPED,
    net: Expectation = TRAPPED,
    bare: Expectation = HARMLESS,
    denied: str = "",
    reaches: bool = False,
) -> Attack:
    return Attack(name, steps, closed, net, bare, tuple(denied.split()), reaches)


TCP4 = call("socket", AF_INET, STREAM, 0)
TCP6 = call("socket", AF_INET6, STREAM, 0)
UDP4 = call("socket", AF_INET, DGRAM, 0)
UDP6 = call("socket", AF_INET6, DGRAM, 0)
