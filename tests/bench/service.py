"""The questions about the daemon (f to i): what a run costs whoever asks over its socket."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from support.command import command_path

from . import memory, peers
from .measure import Sample, by_turns, command_ms, values_by_turns
from .questions import CLI, Setting, wait_until_old
from .service_load import Client, Service, Spawner, check, request, served
from .table import Row

_PRINTED = "hello, world\n"
_CLIENTS = 16
_BLOCK = 20  # requests in a row, then as many spawns
_LIST_ROUNDS = 9
_MOST_PEERS = 50  # sleeping commands; each one more costs the same


def latency(setting: Setting) -> list[Row]:
    """(f) One request after the other on one connection, beside one spawn after the other.

    In blocks, as a service's requests and a shell's commands come: each finds the caches as its own
    kind left them.  And strictly by turns: between any two of one kind the other took the caches,
    and the processors had a rest.
    """
    spawner = _spawner(setting)
    requests = setting.effort.service_requests
    with _client(setting, "latency") as (_, client):
        by_path, by_digest = _requests(client)
        ours = {
            "ours": lambda: {"ms": _ask_ms(client, by_path)},
            "by digest": lambda: {"ms": _ask_ms(client, by_digest)},
        }
        theirs = {name: lambda: {"ms": spawner.once_ms()} for name in (CLI, f"{CLI} again")}
        in_blocks = values_by_turns(
            {CLI: theirs[CLI], **ours}, max(2, requests // _BLOCK), block=_BLOCK
        )
        # The peer comes before each of ours, so that none finds the daemon in the wake of another.
        turns = [CLI, "ours", f"{CLI} again", "by digest"]
        strictly = values_by_turns(
            {name: {**ours, **theirs}[name] for name in turns}, requests, warm_up=5, rotate=False
        )
    return [
        *_latency_rows("", f"in blocks of {_BLOCK}", in_blocks, goal=1 / 3, goal_text="<= 1/3"),
        *_latency_rows("-turns", "strictly by turns", strictly),
    ]


def load(setting: Setting) -> list[Row]:
    """(g) As many runs as go through with 16 clients, beside 16 commands kept running."""
    spawner = _spawner(setting)
    runs = setting.effort.service_runs
    with _client(setting, "load") as (service, client):
        by_path, _ = _requests(client)

        def ours() -> dict[str, float]:
            before = service.spent()
            each = served(service.socket, by_path, _PRINTED, runs, _CLIENTS)
            return {"each": each, **_parts(before, service.spent(), runs)}

        taken = by_turns(
            {"ours": ours, CLI: lambda: _kept_busy(spawner, max(_CLIENTS, runs // 3), _CLIENTS)},
            setting.effort.service_rounds,
        )
    mine, theirs = taken["ours"], taken[CLI]
    rates = [f"{1000 / figures['each'].median:.0f}" for figures in (mine, theirs)]
    return [
        Row(
            key="service-throughput",
            group="g",
            what=f"the same from {_CLIENTS} clients at once, time for each run",
            unit="ms",
            ours=mine["each"],
            peer_name=f"{_CLIENTS} {CLI} at once",
            peer=theirs["each"],
            goal=0.2,
            goal_text="<= 1/5",
            note=f"{rates[0]} and {rates[1]} runs a second",
        ),
        _processor_row("service-load-cpu", "g", "processor time of such a run", mine, theirs),
    ]


def sleeping(setting: Setting) -> list[Row]:
    """(h) Many runs that sleep: their memory, and how fast the daemon tells of them meanwhile."""
    module, count = peers.guest("sleeper"), setting.effort.service_sleepers
    body = {"module": {"path": str(module)}, "quotas": {"timeout": "1h"}}
    with _client(setting, "sleeping") as (service, client):
        # The first fork unshares pages of the zygote's once and for all.
        _start_sleepers(service, client, body, 1)
        _kill_all(service, client)
        before = _Footprint.of(service)
        began = time.monotonic()
        _start_sleepers(service, client, body, count)
        note = f"{count} started in {time.monotonic() - began:.1f} s"
        added = _Footprint.of(service).since(before, count)
        listed = [_list_ms(client, count) for _ in range(_LIST_ROUNDS)]
        shown = [_ps_ms(service, setting) for _ in range(_LIST_ROUNDS)]
        _kill_all(service, client)
        nothing = [_ps_ms(service, setting) for _ in range(_LIST_ROUNDS)]
    return [
        _memory_row(added, setting.wasmtime.argv(module), min(count, _MOST_PEERS), note),
        Row(
            key="service-ps",
            group="h",
            what=f"wasisup ps while {count} runs are alive",
            unit="ms",
            ours=Sample.of(shown),
            peer_name="while none is",
            peer=Sample.of(nothing),
            others={"GET /v1/runs alone": Sample.of(listed)},
        ),
    ]


def cost(setting: Setting) -> list[Row]:
    """(i) What one run after the other takes of the processors, and what stays of it in memory."""
    spawner = _spawner(setting)
    runs = max(10, setting.effort.service_runs // 4)
    with _client(setting, "cost") as (service, client):
        by_path, _ = _requests(client)

        def ours() -> dict[str, float]:
            before = service.spent()
            for _ in range(runs):
                check(client.ask(by_path), _PRINTED)
            return _parts(before, service.spent(), runs)

        ours()
        before = service.memory()
        taken = by_turns(
            {"ours": ours, CLI: lambda: _kept_busy(spawner, max(10, runs // 4), 1)},
            setting.effort.service_rounds,
            warm_up=0,
        )
        after = service.memory()
    what = "processor time of a run, one after the other"
    return [
        _processor_row("service-serial-cpu", "i", what, taken["ours"], taken[CLI]),
        Row(
            key="service-rss",
            group="i",
            what=f"resident memory of the daemon after {runs * setting.effort.service_rounds} runs",
            unit="MiB",
            ours=Sample.of([after / (1 << 20)]),
            peer_name="before them",
            peer=Sample.of([before / (1 << 20)]),
        ),
    ]


# --- runs ---


@contextlib.contextmanager
def _client(setting: Setting, name: str) -> Iterator[tuple[Service, Client]]:
    """A daemon of the question's own, and a connection to it."""
    with Service(setting.env, setting.folder / name) as service, Client(service.socket) as client:
        yield service, client


def _spawner(setting: Setting) -> Spawner:
    return Spawner(setting.wasmtime.argv(peers.hello()), setting.env, _PRINTED)


def _requests(client: Client) -> tuple[bytes, bytes]:
    """The run of a hello world by path and by digest; it is compiled from here on."""
    module = peers.hello()
    wait_until_old(module)
    by_path = {"module": {"path": str(module)}, "wait": True}
    digest = client.json("POST", "/v1/runs", by_path)["digest"]
    by_digest = {"module": {"digest": digest}, "wait": True}
    return request("POST", "/v1/runs", by_path), request("POST", "/v1/runs", by_digest)


def _ask_ms(client: Client, wanted: bytes) -> float:
    start = time.perf_counter_ns()
    answer = client.ask(wanted)
    end = time.perf_counter_ns()
    check(answer, _PRINTED)
    return (end - start) / 1e6


def _kept_busy(spawner: Spawner, runs: int, at_once: int) -> dict[str, float]:
    before = _spent_here()
    each = spawner.kept_busy(runs, at_once)
    return {"each": each, "sum": (_spent_here() - before) * 1e3 / runs}


def _spent_here() -> float:
    """Seconds of processor time of this process and the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _parts(before: dict[str, int], after: dict[str, int], runs: int) -> dict[str, float]:
    """Milliseconds a run, by who spent them, and their sum."""
    parts = {name: (after[name] - before.get(name, 0)) / 1e6 / runs for name in after}
    return {**parts, "sum": sum(parts.values())}


def _start_sleepers(
    service: Service, client: Client, body: Mapping[str, object], count: int
) -> None:
    wanted = request("POST", "/v1/runs", body)
    runs = [client.created(wanted) for _ in range(count)]
    for run in runs:
        with Client(service.socket) as reader:
            reader.first_line(run)


def _kill_all(service: Service, client: Client) -> None:
    """Kills every run.  Raises RuntimeError when anything of one is left."""
    running = "/v1/runs?state=running&limit=1000"
    while runs := client.json("GET", running)["runs"]:
        for run in runs:
            client.json("DELETE", f"/v1/runs/{run['id']}")
    # The zygote keeps one worker forked ahead, which has no run yet.
    left = service.workers()
    if len(left) > 1:
        raise RuntimeError(f"all runs were killed, and these workers live: {left}")


def _list_ms(client: Client, count: int) -> float:
    wanted = request("GET", "/v1/runs?state=running&limit=1000")
    start = time.perf_counter_ns()
    answer = client.ask(wanted)
    end = time.perf_counter_ns()
    if answer.count(b'"state":"running"') != count:
        raise RuntimeError(f"of {count} running runs the daemon tells otherwise")
    return (end - start) / 1e6


def _ps_ms(service: Service, setting: Setting) -> float:
    argv = [command_path(), "ps", "--socket", service.socket, "-n", "1000"]
    return command_ms(argv, setting.env)


# --- rows ---


def _percentile_99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _latency_rows(
    key: str,
    how: str,
    taken: Mapping[str, Mapping[str, list[float]]],
    goal: float | None = None,
    goal_text: str = "",
) -> list[Row]:
    """The median and the 99th percentile of every single request and spawn."""
    values = {name: figures["ms"] for name, figures in taken.items()}
    slowest = {name: [_percentile_99(every)] for name, every in values.items()}
    return [
        Row(
            key=f"service-latency{key}-{name}",
            group="f",
            what=f"hello world by POST /v1/runs (wait), all walls, {how}: {name}",
            unit="ms",
            ours=Sample.of(part["ours"]),
            peer_name="wasmtime run --allow-precompiled",
            peer=Sample.of(part[CLI]),
            goal=goal,
            goal_text=goal_text,
            others={"by digest": Sample.of(part["by digest"])},
        )
        for name, part in (("p50", values), ("p99", slowest))
    ]


def _processor_row(
    key: str, group: str, what: str, mine: dict[str, Sample], theirs: dict[str, Sample]
) -> Row:
    return Row(
        key=key,
        group=group,
        what=f"{what}, everybody's",
        unit="ms",
        ours=mine["sum"],
        peer_name=CLI,
        peer=theirs["sum"],
        others={name: part for name, part in mine.items() if name not in ("each", "sum")},
    )


@dataclass(frozen=True)
class _Footprint:
    """KiB.

    daemon: resident.  runs: PSS of the zygote and all workers; None where only root may look.
    machine: what the whole machine has in use, the kernel's own part included.
    """

    daemon: float
    runs: float | None
    machine: float

    @classmethod
    def of(cls, service: Service) -> _Footprint:
        """As it is now."""
        runs = None
        try:
            runs = sum(memory.kib(pid, "Pss") for pid in (service.zygote(), *service.workers()))
        except PermissionError:
            pass  # workers are not dumpable, and only root may look into those
        return cls(service.memory() / 1024, runs, -memory.available())

    def since(self, before: _Footprint, count: int) -> _Footprint:
        """What came for each of `count` runs."""
        runs = None
        if self.runs is not None and before.runs is not None:
            runs = (self.runs - before.runs) / count
        return _Footprint(
            (self.daemon - before.daemon) / count, runs, (self.machine - before.machine) / count
        )


def _memory_row(added: _Footprint, argv: list[str], peers_count: int, note: str) -> Row:
    """With the peer's own; by MemAvailable where only root could tell more."""
    free = memory.available()
    with memory.sleeping_commands(argv, peers_count):
        machine = Sample.of([(free - memory.available()) / peers_count])
    row = Row(
        key="service-memory",
        group="h",
        what="memory of a sleeping run: its worker's (PSS) and the daemon's part",
        unit="KiB",
        ours=Sample.of([added.machine]),
        peer_name=f"a sleeping {CLI} run",
        peer=machine,
        others={"the daemon's part": Sample.of([added.daemon])},
        note=note,
    )
    if added.runs is None:
        row.note += "; by MemAvailable: only root sees a worker's own"
        return row
    row.ours = Sample.of([added.runs + added.daemon])
    row.peer = memory.of_commands(argv, peers_count)
    row.others["by MemAvailable"] = Sample.of([added.machine])
    row.others[f"{CLI} by MemAvailable"] = machine
    return row
