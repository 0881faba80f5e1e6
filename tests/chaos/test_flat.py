"""The daemon's memory and descriptors stay as they are, whatever has come and gone.

WASISUP_SOAK: how many runs of mixed kinds (2,000).
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.chaos import Service, Wire, subreaper
from support.command import SAFETY_NET

RUNS = int(os.environ.get("WASISUP_SOAK", "2000"))
CLIENTS = 8
KIB = 1024
# What may come beside runs: caches of SQLite, 2 MiB each, and what the allocator rounds up.
SLACK = 8 << 20
# The write-ahead log of the records, which is emptied beside the runs.
LOG = 256 << 20
# Descriptors that come and go by themselves: a spare worker's, a connection that has just ended.
FEW = 4


class Load:
    """Requests over a few connections, each with one under way: sends, and counts the answers."""

    def __init__(self, daemon: Service) -> None:
        self.daemon = daemon
        self.wires = [Wire(daemon.socket) for _ in range(CLIENTS)]

    def close(self) -> None:
        for wire in self.wires:
            wire.close()

    def send(self, requests: Iterator[tuple[Any, int]]) -> int:
        """Sends all of (body, expected status) to POST /v1/runs; returns how many."""
        poller = select.poll()
        waiting: dict[int, tuple[Wire, int]] = {}

        def next_on(wire: Wire) -> None:
            for body, status in requests:
                wire.send("POST", "/v1/runs", body)
                waiting[wire.socket.fileno()] = (wire, status)
                return

        count = 0
        for wire in self.wires:
            poller.register(wire.socket, select.POLLIN)
            next_on(wire)
        while waiting:
            ready = poller.poll(SAFETY_NET * 1000)
            assert ready, "no answer"
            for fd, _ in ready:
                wire, expected = waiting.pop(fd)
                status, answer = wire.receive()
                assert status == expected, answer
                count += 1
                next_on(wire)
        return count


class Usage:
    """The daemon's memory (PSS, bytes), descriptors and threads, once nothing is under way."""

    def __init__(self, daemon: Service) -> None:
        settle(daemon)
        rows = Path(f"/proc/{daemon.pid}/smaps_rollup").read_text().splitlines()
        sizes = {row.split(":")[0]: int(row.split()[1]) * KIB for row in rows[1:]}
        self.memory = sizes["Pss"]
        self.descriptors = daemon.descriptors()
        self.threads = len(os.listdir(f"/proc/{daemon.pid}/task"))


def settle(daemon: Service) -> None:
    """Waits until no run is alive."""
    with daemon.client() as client:
        for state in ("queued", "starting", "running"):
            for run in client.runs(state=state):
                client.wait(run.id)


@pytest.fixture
def daemon(base_env: dict[str, str], room: Path, guests) -> Iterator[Service]:
    """One that has done everything once."""
    (room / "stdio.wasm").write_bytes(guests.c("stdio").read_bytes())
    config = '[records]\nsize = "64MiB"\n[log]\nlevel = "warning"\nformat = "json"\n'
    with subreaper() as left:
        with Service(base_env, room) as made:
            made.stop()
            made.config.write_text(f'state = "{made.state}"\n{config}')
            made.start(listen=False)
            yield made
        assert left() == []


def mixed(daemon: Service, count: int) -> Iterator[tuple[Any, int]]:
    """Bodies of POST /v1/runs of every kind, and the status that each has to get."""
    module = {"path": str(daemon.folder / "stdio.wasm")}
    kinds: list[tuple[dict[str, Any], int]] = [
        ({"args": ["exit", "0"], "wait": True}, 200),
        ({"args": ["both"], "wait": True, "labels": {"kind": "both"}}, 200),
        ({"args": ["exit", "3"], "wait": True}, 200),
        ({"args": ["both"]}, 201),
        ({"args": ["trap"], "wait": True}, 200),
        ({"args": ["cat"], "stdin": "hello", "wait": True}, 200),
        ({"args": ["pour", "20000"], "wait": True}, 200),
        ({"args": ["pour", "100000"], "wait": True, "quotas": {"output": "10KiB"}}, 200),
        ({"args": ["exit", "0"], "wait": True, "dirs": [
            {"guest": "/in", "path": str(daemon.folder), "read_only": True}]}, 200),
        ({"args": ["exit", "0"], "policy": "nobody-has-this"}, 422),
    ]  # fmt: skip
    # Now and then what costs more: output in files, and a limit in time.
    rare: list[tuple[dict[str, Any], int]] = [
        ({"args": ["pour", "200000"], "wait": True}, 200),
        ({"args": ["spin"], "wait": True, "quotas": {"timeout": "5ms"}}, 200),
    ]
    for at in range(count):
        body, status = rare[at // 50 % 2] if at % 50 == 49 else kinds[at % len(kinds)]
        yield {"module": module, **body}, status


def test_runs(daemon, capsys):
    """Thousands of runs of mixed kinds cost no memory and no descriptor that stays."""
    load = Load(daemon)
    try:
        # Until every cache has what it will have.
        load.send(mixed(daemon, max(500, min(RUNS // 4, 3000))))
        before = Usage(daemon)
        began = time.monotonic()
        count = load.send(mixed(daemon, RUNS))
        seconds = time.monotonic() - began
        after = Usage(daemon)
        log = (daemon.state / "records.db-wal").stat().st_size
    finally:
        load.close()
    with capsys.disabled():
        print(
            f"\nflat: {count} runs, {count / seconds:.0f}/s; "
            f"memory {before.memory / KIB / KIB:.1f} -> {after.memory / KIB / KIB:.1f} MiB, "
            f"descriptors {before.descriptors} -> {after.descriptors}"
        )
    assert log <= LOG
    assert after.descriptors <= before.descriptors + FEW
    assert after.threads <= before.threads + 2
    assert after.memory <= before.memory + SLACK


def check_flat(daemon: Service, once: Callable[[], None], rounds: int) -> None:
    """Does it a few times, and then as many more: nothing may be left of the latter."""
    for _ in range(max(20, rounds // 10)):
        once()
    before = Usage(daemon)
    for _ in range(rounds):
        once()
    after = Usage(daemon)
    assert after.descriptors <= before.descriptors + FEW
    # Four requests and more each: what stays of one is more than a few KiB.
    assert after.memory <= before.memory + rounds * 8 * KIB


def test_connections(daemon):
    """Connections that come and go, silent, half-way through a request, or after one."""
    kinds = [b"", b"GET /v1/heal", b"POST /v1/runs HTTP/1.1\r\ncontent-length: 100\r\n\r\n{"]

    def once() -> None:
        for start in kinds:
            with Wire(daemon.socket) as wire:
                wire.socket.sendall(start)
        with Wire(daemon.socket) as wire:
            assert wire.ask("GET", "/v1/healthz")[0] == 200

    check_flat(daemon, once, 500)


def test_failing_requests(daemon):
    """Requests that are refused, with descriptors that nobody takes."""
    module = {"path": str(daemon.folder / "stdio.wasm")}
    bodies: list[tuple[Any, int]] = [
        ({"module": {"path": "/nowhere.wasm"}}, 404),
        ({"module": {"fd": 7}}, 422),
        ({"module": module, "nonsense": 1}, 422),
        ({"module": module, "stdin": {"fd": 0, "open": True}}, 422),
        ({"module": module, "dirs": [{"guest": "/d", "fd": 0}]}, 422),
        ({"module": {"base64": ""}}, 422),
    ]
    with Wire(daemon.socket) as wire, open("/dev/null", "rb") as given:

        def once() -> None:
            for body, status in bodies:
                wire.send("POST", "/v1/runs", body, [given.fileno()])
                found, answer = wire.receive()
                assert found == status, answer

        check_flat(daemon, once, 500)


def test_subscribers(daemon):
    """Those who listen to events or follow logs and go away in the middle."""
    module = {"path": str(daemon.folder / "stdio.wasm")}
    with Wire(daemon.socket) as wire:
        status, run = wire.ask("POST", "/v1/runs", {"module": module, "args": ["spin"]})
        assert status == 201

        def once() -> None:
            for target in ("/v1/events", f"/v1/runs/{run['id']}/logs?follow=1", "/v1/events"):
                with Wire(daemon.socket) as listener:
                    listener.send("GET", target)
                    assert listener.socket.recv(12) == b"HTTP/1.1 200"

        for _ in range(20):
            once()
        before = daemon.descriptors()
        for _ in range(200):
            once()
        assert wire.ask("GET", "/v1/healthz")[0] == 200
        assert daemon.descriptors() <= before + FEW
        assert wire.ask("DELETE", f"/v1/runs/{run['id']}")[0] == 200
