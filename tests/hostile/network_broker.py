"""Attacks on the broker from its worker: its descriptor, its process, and sockets' options."""

from __future__ import annotations

from .network_shapes import (
    AF_INET,
    BROKER,
    DENIED,
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_SETFL,
    F_SETOWN,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    NOBODY_THERE,
    SOL_SOCKET,
    TCP4,
    UDP4,
    attack,
)
from .shapes import HARMLESS, Expectation, NotTried, Trapped, fails
from .steps import call, out, result, words, zeros

STREAM = 1
SIGUSR1, SIGKILL = 10, 9
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206

# Whatever takes the number of the broker's socket for something else, or could.
_REPLACING = {
    "close": call("close", BROKER),
    "close by a number with high bits": call("close", 0x1_0000_0003),
    "close a range": call("close_range", BROKER, BROKER, 0),
    "close everything": call("close_range", 0, 0xFFFFFFFF, 0),
    "make it close itself": call("close_range", 0, 0xFFFFFFFF, 4),
    "dup2": call("dup2", 0, BROKER),
    "dup3": call("dup3", 0, BROKER, 0),
    "dup": call("dup", BROKER),
    "F_DUPFD": call("fcntl", 0, F_DUPFD, BROKER),
    "F_DUPFD with high bits": call("fcntl", 0, 0x1_0000_0000 | F_DUPFD, BROKER),
    "its flags": call("fcntl", BROKER, F_SETFL, 0),
    "its owner": call("fcntl", BROKER, F_SETOWN, "<broker>"),
    "a seal": call("fcntl", BROKER, 1033, 0),
    "a lease": call("fcntl", BROKER, 1024, 0),
    "a pipe": call("pipe2", zeros(8), 0),
    "a file": call("openat2", -100, "@2f00", words(0, 0, 0), 24),
    "an anonymous file's number": call("signalfd4", -1, words(0), 8, 0),
    "a timer's number": call("timerfd_create", 0, 0),
    "a process's number": call("pidfd_open", "<broker>", 0),
    "its descriptors": call("pidfd_getfd", BROKER, 0, 0),
}
# Not admitted in the setting without a network either, but for these, where 3 is nothing special.
_WITHOUT_BROKER = {"close", "close by a number with high bits"}

_DESCRIPTOR = (
    *(
        attack(
            f"the broker's number: {name}",
            step,
            closed=fails("EBADF") if name in _WITHOUT_BROKER else Trapped(),
        )
        for name, step in _REPLACING.items()
    ),
    attack(
        "the broker's number: another for it, and a message there",
        call("fcntl", BROKER, F_DUPFD_CLOEXEC, 0),
        call("sendmsg", result(0), words(0, 0, words(zeros(32), 32), 1, 0, 0, 0), 0),
        closed=Trapped("sendmsg"),
        net=Trapped("sendmsg"),
    ),
    attack(
        "the broker's number: shut down, and asked",
        call("shutdown", BROKER, 2),
        call("socket", AF_INET, STREAM, 0),
        closed=Trapped("shutdown"),
        net=fails("ENETDOWN"),
    ),
    attack(
        "the broker's number: its answers read away",
        call("write", BROKER, zeros(32), 32),
        call("recvfrom", BROKER, out(64), 64, 0, 0, 0),
        TCP4,
        call("connect", result(2), "@<127.0.0.1|other-port>", 16),
        closed=Trapped("recvfrom"),
        net=DENIED,
        denied="tcp:127.0.0.1:<other-port>",
    ),
    attack(
        "the broker's number: nonsense, whose answer the next call gets",
        call("write", BROKER, zeros(32), 32),
        TCP4,
        closed=NotTried("there is no broker"),
        net=fails("EBADMSG"),
    ),
    attack(
        "the broker's number: an end of the conversation that is none",
        call("sendto", BROKER, zeros(1), 0, 0, 0, 0),
        TCP4,
        closed=NotTried("there is no broker"),
        net=fails("ENETDOWN"),
    ),
)


def _option(
    name: str,
    level: int,
    option: int,
    *,
    get: bool = False,
    socket: str = TCP4,
    bare: Expectation = HARMLESS,
) -> tuple[str, tuple[str, ...], Expectation]:
    asked = call(
        "getsockopt" if get else "setsockopt",
        result(0),
        level,
        option,
        words(1),
        words(8) if get else 4,
    )
    return name, (socket, asked), bare


_OPTIONS = (
    _option("fast open", IPPROTO_TCP, 30),
    _option("fast open for those who come", IPPROTO_TCP, 23),
    _option("repair", IPPROTO_TCP, 19, bare=fails("EPERM")),
    _option(
        "another protocol above",
        IPPROTO_TCP,
        31,
        bare=fails("ENOENT", "EFAULT", "EINVAL", "EPERM", "ENOTCONN"),
    ),
    _option("MD5 signatures", IPPROTO_TCP, 14, bare=fails("EINVAL", "ENOPROTOOPT")),
    _option("a way for it to go", IPPROTO_IP, 4),
    _option("somebody else's address", IPPROTO_IP, 19, bare=fails("EPERM")),
    _option("an address that is not here", IPPROTO_IP, 15),
    _option("a group", IPPROTO_IP, 35, socket=UDP4, bare=fails("EINVAL", "ENODEV")),
    _option("headers of its own", IPPROTO_IP, 3, bare=fails("ENOPROTOOPT")),
    _option("another family", IPPROTO_IPV6, 1, socket=call("socket", 10, 1, 0)),
    _option("a device", SOL_SOCKET, 25, bare=HARMLESS),
    _option("a mark", SOL_SOCKET, 36, bare=fails("EPERM")),
    _option("a port together", SOL_SOCKET, 15),
    _option("lingering", SOL_SOCKET, 13),
    _option("a program", SOL_SOCKET, 26, bare=fails("EINVAL", "EFAULT", "EPERM")),
    _option("everybody", SOL_SOCKET, 6, socket=UDP4),
    _option("more memory than there may be", SOL_SOCKET, 33, bare=fails("EPERM")),
    _option("who is there", SOL_SOCKET, 17, get=True),
    _option("who is there, as a descriptor", SOL_SOCKET, 77, get=True),
    _option("a level with high bits", 0x1_0000_0000 | IPPROTO_TCP, 30),
)

_PEER = call("getsockopt", BROKER, SOL_SOCKET, 77, out(4), words(4))  # SO_PEERPIDFD

_PROCESS = (
    *(
        attack(f"the broker: {name}", call(name, *arguments), bare=NOBODY_THERE)
        for name, *arguments in (
            ("kill", "<broker>", SIGKILL),
            ("tkill", "<broker>", SIGKILL),
            ("tgkill", "<broker>", "<broker>", SIGKILL),
            ("pidfd_open", "<broker>", 0),
            ("process_vm_readv", "<broker>", words(out(64), 64), 1, words("$", 64), 1, 0),
            ("process_vm_writev", "<broker>", words(zeros(64), 64), 1, words("$", 64), 1, 0),
            ("kcmp", "<broker>", "<broker>", 0, 0, 0),
            ("prlimit64", "<broker>", 7, words(0, 0), 0),
        )
    ),
    *(
        attack(
            f"the broker: ptrace, {name}",
            call("ptrace", request, "<broker>", 0, 0),
            bare=NOBODY_THERE,
        )
        for name, request in (("attach", PTRACE_ATTACH), ("seize", PTRACE_SEIZE))
    ),
    # The other end was made by the supervisor, which is who the kernel names as the peer.
    attack(
        "the broker: a descriptor of its maker's, by the next number",
        _PEER,
        call("pidfd_getfd", 4, 0, 0),
        closed=Trapped("getsockopt"),
        net=Trapped("getsockopt"),
        bare=NOBODY_THERE,
    ),
    attack(
        "the broker: a signal to its maker",
        _PEER,
        call("pidfd_send_signal", 4, SIGUSR1, 0, 0),
        closed=Trapped("getsockopt"),
        net=Trapped("getsockopt"),
        bare=NOBODY_THERE,
    ),
)

ATTACKS = (
    *_DESCRIPTOR,
    *(
        # Without a network there is no socket that could take an option: it is not even tried.
        attack(f"an option: {name}", *steps, closed=HARMLESS, net=Trapped(), bare=bare)
        for name, steps, bare in _OPTIONS
    ),
    *_PROCESS,
)
