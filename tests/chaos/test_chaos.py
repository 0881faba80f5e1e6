"""SIGKILL of daemon, zygote, workers and clients at random instants, while clients run guests.

WASISUP_CHAOS: how many of them; WASISUP_CHAOS_SEED: for other random numbers.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.chaos import Service, Wire, role, subreaper
from support.command import SAFETY_NET
from support.processes import children

KILLS = int(os.environ.get("WASISUP_CHAOS", "40"))
SEED = os.environ.get("WASISUP_CHAOS_SEED", "1")
CLIENTS = 4
OTHER_USER = 65534
# Where what was killed is all that a run had, there is nothing left but to say so.
INTERFERED = ("the compiler was killed by signal 9", "had just begun, which was ended, too")
TARGETS = {"daemon": 3, "zygote": 3, "worker": 4, "client": 2}


class Chaos:
    """The daemon, its clients, and what these were told."""

    def __init__(self, service: Service, path: str) -> None:
        self.service = service
        self.path = path
        self.random = random.Random(SEED)
        self.told: dict[str, list[str] | None] = {}
        self.said: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.recorded = 0  # runs, when the daemon was killed for the last time
        self.back: list[float] = []  # seconds from a kill to the first answer
        self.clients: list[subprocess.Popen[bytes]] = []
        self._count = 0
        self._reader, self._writer = os.pipe()
        self._rest = b""
        self._poller = select.poll()
        self._poller.register(self._reader, select.POLLIN)

    def add_client(self) -> None:
        self._count += 1
        other = os.getuid() == 0 and self._count % 2 == 0
        uid = str(OTHER_USER if other else os.getuid())
        words = ["-m", "support.chaos_client", f"c{self._count}", self.path]
        self.clients.append(
            subprocess.Popen(
                [sys.executable, *words, str(self.service.folder), uid],
                env={**self.service.env, "PYTHONPATH": str(Path(__file__).parents[1])},
                stdin=subprocess.PIPE,
                stdout=self._writer,
                cwd="/",
            )
        )

    def hear(self, reports: int, milliseconds: float = SAFETY_NET * 1000) -> None:
        """Takes in at least so many reports, or those of so long."""
        while reports > 0 and self._poller.poll(milliseconds):
            *lines, self._rest = (self._rest + os.read(self._reader, 1 << 16)).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            reports -= len(lines)

    def _take(self, report: dict[str, Any]) -> None:
        self.said[next(iter(report))] += 1
        words = report.get("failed", "")
        interfered = any(words.endswith(end) for end in INTERFERED)
        if "wrong" in report or "refused" in report or ("failed" in report and not interfered):
            self.wrong.append(json.dumps(report))
        run = report.get("run")
        if run is None:
            return
        before = self.told.get(run)
        if before is not None and report["end"] != before:
            self.wrong.append(f"{run} ended as {before}, then as {report['end']}")
        self.told[run] = report["end"] or before

    def kill_something(self) -> str:
        """Kills at a random instant; returns what."""
        self.hear(self.random.randrange(12))
        self.hear(1, self.random.uniform(0, 15))
        target = self.random.choices(list(TARGETS), list(TARGETS.values()))[0]
        getattr(self, f"kill_{target}")()
        return target

    def kill_daemon(self) -> None:
        began = time.monotonic()
        assert self.service.kill() == set()
        self.recorded = rows(self.service)
        self.service.start(listen=False)
        with Wire(self.path) as wire:
            assert wire.ask("GET", "/v1/healthz")[0] == 200
        self.back.append(time.monotonic() - began)

    def kill_zygote(self) -> None:
        for pid in children(self.service.pid):
            self._kill_child(pid, "zygote")  # or one that is about to take its place

    def kill_worker(self) -> None:
        workers = self.service.workers()
        if workers:
            self._kill_child(self.random.choice(workers), "worker")

    def _kill_child(self, pid: int, what: str) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # With the descriptor in hand: what it is now is what is killed.
            if pid in children(self.service.pid) and role(pid) == what:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended by itself
        finally:
            os.close(pidfd)

    def kill_client(self) -> None:
        client = self.clients.pop(self.random.randrange(len(self.clients)))
        client.kill()
        self.end_client(client)
        self.add_client()

    def end_clients(self) -> None:
        for client in self.clients:
            assert client.stdin is not None
            client.stdin.close()
        for client in self.clients:
            pidfd = os.pidfd_open(client.pid)
            self._poller.register(pidfd, select.POLLIN)
            ended = False
            while not ended:
                ready = [fd for fd, _ in self._poller.poll(SAFETY_NET * 1000)]
                assert ready, "a client does not end"
                ended = pidfd in ready
                if self._reader in ready:
                    self.hear(1)
            self._poller.unregister(pidfd)
            os.close(pidfd)
            self.end_client(client)
            assert client.returncode == 0
        self.hear(1, 0)
        os.close(self._reader)
        os.close(self._writer)

    @staticmethod
    def end_client(client: subprocess.Popen[bytes]) -> None:
        client.wait(SAFETY_NET)
        assert client.stdin is not None
        client.stdin.close()


@pytest.fixture
def listener(room: Path) -> Iterator[socket.socket]:
    """A socket that outlives every daemon: who connects while there is none waits for the next."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(room / "listener"))
        os.chmod(room / "listener", 0o666)
        made.listen(512)
        yield made


def test_chaos(guests, room, base_env, cache_root, listener, capsys):
    """Whatever is killed: records are complete and true, nothing is left, service is back soon."""
    for name in ("stdio", "append"):
        shutil.copy(guests.c(name), room / f"{name}.wasm")
    (room / "marks").mkdir()
    os.chmod(room / "marks", 0o1777)
    mounts = Path("/proc/self/mounts").read_text()
    scratch = sorted(os.listdir(base_env["TMPDIR"]))
    service = Service(base_env, room, '[limits]\ndrain = "0s"\n', listener=listener)
    killed: Counter[str] = Counter()
    with subreaper() as left:
        service.start(listen=False)
        chaos = Chaos(service, str(room / "listener"))
        try:
            for _ in range(CLIENTS):
                chaos.add_client()
            chaos.hear(CLIENTS * 2)
            for _ in range(KILLS):
                killed[chaos.kill_something()] += 1
            chaos.kill_daemon()
            chaos.end_clients()
            finish(service, str(room / "listener"))
            counted = metric_of_runs(str(room / "listener"))
            service.stop()
        finally:
            for client in chaos.clients:
                client.kill()
                chaos.end_client(client)
            service.kill()
        assert left() == []
    check_records(service, chaos, chaos.recorded + counted)
    check_files(service, chaos)
    assert Path("/proc/self/mounts").read_text() == mounts
    assert sorted(os.listdir(base_env["TMPDIR"])) == scratch
    assert list(cache_root.rglob("tmp-*")) == []
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    assert [line for line in lines if "exception" in line] == []
    assert chaos.wrong == []
    typical = statistics.median(chaos.back)
    assert typical < 1.0 * slowness(), f"back after {chaos.back}"
    with capsys.disabled():
        print(
            f"\nchaos: {sum(killed.values())} kills ({dict(killed)}), {len(chaos.told)} runs told, "
            f"{chaos.said['lost']} answers lost, {chaos.said['failed']} failed; "
            f"back after {typical:.2f} s, at the most {max(chaos.back):.2f} s"
        )


def slowness() -> float:
    """How much longer than usual things take: what an interpreter needs to start, over 0.1 s."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncio, sqlite3"], check=True)
    return max(1.0, (time.monotonic() - began) / 0.1)


def finish(service: Service, path: str) -> None:
    """Kills what the clients left behind."""
    with Wire(path) as wire:
        for state in ("queued", "starting", "running"):
            for run in wire.ask("GET", f"/v1/runs?state={state}")[1]["runs"]:
                status, _ = wire.ask("DELETE", f"/v1/runs/{run['id']}")
                assert status in (200, 409)


def metric_of_runs(path: str) -> int:
    """How many runs this daemon has counted."""
    with Wire(path) as wire:
        wire.send("GET", "/metrics")
        text = wire.receive_text()
    lines = [line for line in text.splitlines() if line.startswith("wasisup_runs_total{")]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def rows(service: Service) -> int:
    with closing(sqlite3.connect(service.state / "records.db")) as database:
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])


def check_records(service: Service, chaos: Chaos, counted: int) -> None:
    """Every run that anybody was told of is there once, has ended, and as it was told."""
    with closing(sqlite3.connect(service.state / "records.db")) as database:
        found = {
            run: (ended, json.loads(document)["outcome"])
            for run, ended, document in database.execute("SELECT id, ended, document FROM runs")
        }
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (len(found),)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert chaos.told.keys() - found.keys() == set()
    assert [run for run, (ended, outcome) in found.items() if not ended or not outcome] == []
    for run, end in chaos.told.items():
        if end is not None:
            outcome = found[run][1]
            assert [outcome["reason"], outcome["status"]] == end, run
    assert counted == len(found)


def check_files(service: Service, chaos: Chaos) -> None:
    """Output in files is that of records, and no guest ran twice."""
    service.start(listen=False)  # what a kill left between two steps goes at the next start
    service.stop()
    with closing(sqlite3.connect(service.state / "records.db")) as database:
        query = "SELECT id FROM runs WHERE log_bytes > 0"
        recorded = {run for (run,) in database.execute(query)}
    files = {name.partition(".")[0] for name in os.listdir(service.state / "logs")}
    assert files - recorded == set()
    sizes = {path.name: path.stat().st_size for path in (service.folder / "marks").iterdir()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 1} == {}
