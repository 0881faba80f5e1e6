"""The question about the server (l): what a request costs that a fresh worker answers."""

from __future__ import annotations

import contextlib
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support.command import SAFETY_NET, command_path

from . import peers
from .measure import Sample, by_turns, values_by_turns
from .questions import CLI, Setting
from .service_load import Client
from .table import Row

_CLIENTS = 16
_REQUEST = b"GET /a/path?with=query HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\n\r\n"
_BODY = b"\r\n\r\nhello, world\n"
_SPAWNED = f"the same server spawning {CLI}"


def requests(setting: Setting) -> list[Row]:
    """(l) Requests one after the other, and from 16 clients at once.

    The peer is the same server, which spawns the command for each request in place of a worker.
    """
    module = peers.guest("page")
    with _servers(setting, module) as (ours, theirs), Client(ours) as here, Client(theirs) as there:
        taken = values_by_turns(
            {"ours": lambda: {"ms": _once_ms(here)}, CLI: lambda: {"ms": _once_ms(there)}},
            setting.effort.serve_requests,
            warm_up=5,
        )
        runs = setting.effort.serve_runs
        busy = by_turns(
            {
                "ours": lambda: {"each": _many_ms(ours, runs)},
                CLI: lambda: {"each": _many_ms(theirs, max(_CLIENTS, runs // 3))},
            },
            setting.effort.service_rounds,
        )
    values = {name: figures["ms"] for name, figures in taken.items()}
    slowest = {
        name: [statistics.quantiles(every, n=100, method="inclusive")[98]]
        for name, every in values.items()
    }
    mine, other = busy["ours"]["each"], busy[CLI]["each"]
    return [
        _row("serve-latency-p50", "p50 of a request", *_samples(values)),
        _row("serve-latency-p99", "p99 of a request", *_samples(slowest)),
        _row(
            "serve-throughput",
            f"time for each request from {_CLIENTS} clients at once",
            mine,
            other,
            f"{1000 / mine.median:.0f} and {1000 / other.median:.0f} requests a second",
        ),
    ]


def _samples(values: dict[str, list[float]]) -> tuple[Sample, Sample]:
    return Sample.of(values["ours"]), Sample.of(values[CLI])


def _row(key: str, what: str, ours: Sample, peer: Sample, note: str = "") -> Row:
    return Row(
        key=key,
        group="l",
        what=f"wasisup serve, a fresh worker each: {what}",
        unit="ms",
        ours=ours,
        peer_name=_SPAWNED,
        peer=peer,
        note=note,
    )


@contextlib.contextmanager
def _servers(setting: Setting, module: Path) -> Iterator[tuple[str, str]]:
    """The sockets of both."""
    folder = setting.folder / "serve"
    folder.mkdir(mode=0o700)
    ours, theirs = str(folder / "ours"), str(folder / "theirs")
    # As who it is: the peer does not become anybody else either.
    user = ["--user", "root"] if os.geteuid() == 0 else []
    spawned = setting.wasmtime.argv(module)
    peer = str(Path(__file__).resolve().parent / "serve_peer.py")
    with (
        _serving([command_path(), "serve", *user, "--listen", f"unix:{ours}", module], setting),
        _serving([sys.executable, peer, theirs, *spawned], setting),
    ):
        yield ours, theirs


@contextlib.contextmanager
def _serving(argv: list[str | Path], setting: Setting) -> Iterator[None]:
    """A server, from the line with which it says that it serves.  Raises RuntimeError."""
    with subprocess.Popen(
        argv,
        env=setting.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            if b"serving" not in process.stdout.readline():
                raise RuntimeError(f"{argv} does not serve")
            yield
        finally:
            process.terminate()
            process.wait(SAFETY_NET)


def _once_ms(client: Client) -> float:
    start = time.perf_counter_ns()
    answer = client.ask(_REQUEST)
    end = time.perf_counter_ns()
    _check(answer)
    return (end - start) / 1e6


def _many_ms(path: str, runs: int) -> float:
    """Milliseconds a request, of `runs` by clients that each wait for an answer and ask again."""
    clients = [Client(path) for _ in range(_CLIENTS)]
    by_fd = {one.socket.fileno(): one for one in clients}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    start = time.perf_counter_ns()
    for one in clients:
        one.socket.sendall(_REQUEST)
    asked, done = _CLIENTS, 0
    while done < runs:
        for fd, _ in poll.poll():
            one = by_fd[fd]
            answer = one.answer()
            if asked < runs:
                one.socket.sendall(_REQUEST)
                asked += 1
            _check(answer)
            done += 1
    end = time.perf_counter_ns()
    poll.close()
    for one in clients:
        one.socket.close()
    return (end - start) / 1e6 / runs


def _check(answer: bytes) -> None:
    """Raises RuntimeError unless it is the guest's page."""
    if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(_BODY):
        raise RuntimeError(f"another answer: {answer!r}")
