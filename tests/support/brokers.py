"""A broker by itself: the real one behind all its walls, with the test in its worker's place."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from wasisup.runtime import filters, record, spec, zygote

MAGIC, VERSION = 0x4B4F5242, 1
SOCKET, CONNECT, BIND, LISTEN, SENDTO = 1, 2, 3, 4, 5
TO_CONNECT, TO_LISTEN = 1, 2
TCP, UDP = 1, 2
PATIENCE = 10.0
_TOO_MANY = -errno.ETOOMANYREFS
_PROGRAMS: dict[str, bytes] = {}


@dataclass(frozen=True)
class Rule:
    """A rule, as supervisor/network.py would make it; host: an address."""

    host: str
    low: int = 1
    high: int = 65535
    actions: int = TO_CONNECT
    protocol: int = TCP
    prefix: int | None = None
    allow: bool = True

    @property
    def family(self) -> int:
        return 6 if ":" in self.host else 4

    @property
    def address(self) -> bytes:
        return _packed(self.host).ljust(16, b"\0")


@dataclass(frozen=True)
class _Wire:
    allow: bool
    actions: int
    protocol: int
    family: int
    prefix: int
    address: bytes
    low: int
    high: int


def wire(rule: Rule) -> _Wire:
    """The rule as the encoder of launch specs takes it."""
    prefix = (128 if rule.family == 6 else 32) if rule.prefix is None else rule.prefix
    return _Wire(
        rule.allow,
        rule.actions,
        rule.protocol,
        rule.family,
        prefix,
        rule.address,
        rule.low,
        rule.high,
    )


def sockaddr(host: str, port: int, *, family: int | None = None) -> bytes:
    """struct sockaddr_in or sockaddr_in6; family: what it says it is, when that is another one."""
    six = ":" in host
    number = (socket.AF_INET6 if six else socket.AF_INET) if family is None else family
    head = struct.pack("<H", number) + struct.pack(">H", port)
    if six:
        return head + bytes(4) + _packed(host) + bytes(4)
    return head + _packed(host) + bytes(8)


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


@dataclass
class Broker:
    """socket: the worker's end."""

    zygote: zygote.Zygote
    worker: zygote.Worker
    socket: socket.socket
    page: int
    made: list[int] = field(default_factory=list)
    status: int | None = None

    def ask(
        self,
        call: int,
        fd: int | None = None,
        address: bytes = b"",
        data: bytes = b"",
        *,
        domain: int = 0,
        kind: int = 0,
        protocol: int = 0,
        backlog: int = 0,
    ) -> int:
        """The result of one call: a socket's descriptor for SOCKET, which `close` closes."""
        head = struct.pack(
            "<IIIIiiii", MAGIC, VERSION, call, len(address), domain, kind, protocol, backlog
        )
        return self.say(head + address + data, [] if fd is None else [fd])

    def say(self, message: bytes, fds: Sequence[int] = ()) -> int:
        """The answer to any message at all."""
        result = _TOO_MANY
        deadline = time.monotonic() + PATIENCE
        # All of this user's descriptors on their way count, those of other tests, too.
        while result == _TOO_MANY and time.monotonic() < deadline:
            socket.send_fds(self.socket, [message], list(fds))
            answer, received, _, _ = socket.recv_fds(self.socket, 100, 8)
            self.made += received
            magic, version, result, zero = struct.unpack("<IIiI", answer)
        assert (magic, version, zero) == (MAGIC, VERSION, 0)
        assert len(received) == (1 if received and result == 0 else 0)
        return received[0] if received else int(result)

    def tcp(self, *, domain: int = socket.AF_INET) -> int:
        """A new TCP socket."""
        return self.ask(SOCKET, domain=domain, kind=socket.SOCK_STREAM)

    def udp(self, *, domain: int = socket.AF_INET) -> int:
        """A new UDP socket."""
        return self.ask(SOCKET, domain=domain, kind=socket.SOCK_DGRAM)

    def read(self) -> record.RunRecord:
        """Its record, as it is now."""
        return record.read(self.page)

    def denied(self) -> list[str]:
        """What was denied, as values of --net."""
        assert all(denial.kind == "network" for denial in self.read().denials)
        return [denial.path for denial in self.read().denials]

    def end(self) -> record.RunRecord:
        """Closes the worker's end, waits for the broker's and answers its record."""
        self.socket.close()
        if self.status is None:
            if not select.select([self.worker.pidfd], [], [], PATIENCE)[0]:
                signal.pidfd_send_signal(self.worker.pidfd, signal.SIGKILL)
            os.close(self.worker.pidfd)
            _, status, _ = os.wait4(self.worker.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return self.read()

    def close(self) -> None:
        """Ends everything; does nothing the second time."""
        if self.page >= 0:
            self.end()
            self.zygote.close()
            for fd in (*self.made, self.page):
                os.close(fd)
            self.page = -1


def start(core: str, rules: Sequence[Rule], identity: tuple[int, int] | None = None) -> Broker:
    """Starts the broker of `core` with these rules; it is ready."""
    if "broker" not in _PROGRAMS:
        _PROGRAMS["broker"] = filters.build("broker-none", 1)
    launcher = zygote.start_brokers(core)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page = record.create()
    try:
        writer = spec.SpecWriter(spec.KIND_BROKER, "cranelift")
        writer.broker(theirs.fileno())
        for rule in rules:
            writer.rule(wire(rule))
        writer.limits(
            memory=0,
            cpu_ns=10**10,
            fds=1 << 16,
            file_size=0,
            output=0,
            fuel=None,
            table_elements=0,
            data_overhead=16 << 20,
        )
        writer.filter(1, _PROGRAMS["broker"])
        if identity is not None:
            writer.identity(*identity, [])
        worker = launcher.launch(writer.encode(), page, writer.fds, None, 0)
    finally:
        theirs.close()
    ours.settimeout(PATIENCE)
    made = Broker(launcher, worker, ours, page)
    hello = ours.recv(100)
    ours.setblocking(True)  # a property of the end itself, which the worker is to share
    if hello != struct.pack("<II", MAGIC, VERSION):
        made.end()
        raise RuntimeError(f"no broker: {made.read().step}: {made.read().message}")
    return made


@contextmanager
def running(core: str, *rules: Rule, identity: tuple[int, int] | None = None) -> Iterator[Broker]:
    """A broker for as long as the `with` lasts."""
    broker = start(core, rules, identity)
    try:
        yield broker
    finally:
        broker.close()
