"""An address that changes while the call with it is on its way: what is checked is what is used.

One thread makes the call again and again, another changes the address in the same memory all the
time, between one that a rule allows and one that none does, byte after byte, so that there are
mixes of both as well. Whoever is not allowed counts who comes.

WASISUP_RACE: how many tries.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product

import pytest

from support.brokers import TCP, UDP, Rule, sockaddr

from .driver import BROKER_ENDS, SANITIZED, Core, Setting

TRIES = int(os.environ.get("WASISUP_RACE", "10000"))
HOSTS = "127.0.0.1", "127.0.0.2"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ATTEMPTS = 200


@dataclass
class Course:
    """Listeners on every mix of two addresses; only the first is allowed."""

    allowed: socket.socket
    port: int
    other_port: int
    forbidden: list[socket.socket]
    came: int = 0
    ending: threading.Event = field(default_factory=threading.Event)

    def serve(self) -> None:
        """Takes whoever comes to the allowed one until `ending`."""
        take: Callable[[], object] = (
            self._accept if self.allowed.type == socket.SOCK_STREAM else self._receive
        )
        while select.select([self.allowed], [], [], 0.02)[0] or not self.ending.is_set():
            try:
                take()
                self.came += 1
            except BlockingIOError:
                continue

    def _accept(self) -> None:
        connection, _ = self.allowed.accept()
        with connection:  # a reset: no port is left waiting for its end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def _receive(self) -> None:
        assert self.allowed.recv(64) == b"race"


def _mixes(port: int, other: int) -> list[tuple[str, int]]:
    """Every address that bytes of both make: two hosts, four ports."""
    bytes_ = [(a & 0xFF00) | (b & 0xFF) for a, b in product((port, other), repeat=2)]
    return [(host, mix) for host in HOSTS for mix in dict.fromkeys(bytes_)]


@contextmanager
def course(kind: int) -> Iterator[Course]:
    """Everything bound, on ports of which all are free."""
    for attempt in range(_ATTEMPTS):
        with ExitStack() as held:
            made = {}
            port = 20000 + (os.getpid() * 7 + attempt * 517) % 10000
            other = port ^ 0x0503
            try:
                for address in _mixes(port, other):
                    listener = made[address] = held.enter_context(
                        socket.socket(socket.AF_INET, kind)
                    )
                    listener.bind(address)
                    if kind == socket.SOCK_STREAM:
                        listener.listen(4096)
            except OSError:
                continue
            allowed = made.pop(("127.0.0.1", port))
            allowed.setblocking(False)
            running = Course(allowed, port, other, list(made.values()))
            thread = threading.Thread(target=running.serve)
            thread.start()
            try:
                yield running
            finally:
                running.ending.set()
                thread.join()
            return
    raise RuntimeError("no two ports are free together")


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's threads make calls that no filter admits")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_address_changes_on_its_way(core: Core, kind: int) -> None:
    """Of all the tries none gets to where no rule leads, and some get to where one does."""
    tries = TRIES // 2
    with course(kind) as running:
        protocol = TCP if kind == socket.SOCK_STREAM else UDP
        rule = Rule("127.0.0.1", running.port, running.port, protocol=protocol)
        one = sockaddr("127.0.0.1", running.port).hex()
        other = sockaddr("127.0.0.2", running.other_port).hex()
        setting = Setting(
            "run-cranelift-component-network",
            component=True,
            rules=(rule,),
            cpu_ns=300_000_000_000,
        )
        result = core.run([f"race {int(kind)} {tries} @{one} @{other}"], setting)
        assert result.record.outcome == "exit", result
        assert not select.select(running.forbidden, [], [], 0)[0]
    found = re.search(rb"^refused (\d+), another error (\d+)$", result.output, re.MULTILINE)
    assert found, result
    refused, passed = int(found[1]), result.steps[0].result
    assert refused, "nothing ever changed"
    assert passed, "nothing was ever allowed"
    assert 0 < running.came <= passed
    assert result.broker is not None
    assert sum(denial.count for denial in result.broker.denials) == refused
    assert result.broker_status in BROKER_ENDS
