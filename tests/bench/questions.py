"""The questions about runs without a daemon (a to e): each function answers one with its rows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wasisup.runtime.cache import RACY_NS

from . import memory, peers
from .driver import Runner
from .measure import Measurement, by_turns, command_ms
from .table import Row

CLI = "wasmtime"
FILE_CALLS = {
    "write": "write of 4 KiB",
    "read": "read of 4 KiB",
    "create": "create, write 4 KiB, close",
    "stat": "stat of a path",
}
# Rounds inside the guest that take some 100 ms of machine code each.
KERNELS = {"sieve": 25, "matmul": 50, "sha256": 40, "fib": 100, "sort": 15}
# Runs the kernels' guest with these words and returns what it prints.
Host = Callable[..., str]
PULLEY_SHARE = 10  # the interpreter does a tenth of the rounds in about the same time


@dataclass(frozen=True)
class Effort:
    """How often everything is done."""

    latency_rounds: int = 300
    file_rounds: int = 15
    file_calls: int = 8000
    compute_rounds: int = 9
    compute_share: float = 1.0
    sleepers: int = 10
    command_rounds: int = 100
    connections: int = 2000
    transfer: int = 512  # MiB
    network_rounds: int = 9
    service_requests: int = 1000
    service_rounds: int = 7
    service_runs: int = 1000
    service_sleepers: int = 1000
    serve_requests: int = 500
    serve_runs: int = 1000


QUICK = Effort(
    latency_rounds=5,
    file_rounds=2,
    file_calls=200,
    compute_rounds=2,
    compute_share=0.1,
    sleepers=2,
    command_rounds=3,
    connections=20,
    transfer=4,
    network_rounds=2,
    service_requests=10,
    serve_requests=10,
    serve_runs=40,
    service_rounds=2,
    service_runs=48,
    service_sleepers=20,
)


@dataclass(frozen=True)
class Setting:
    """What all of them use.

    folder: private, on a disk.  room: private, for
    the file calls.  env: of the commands.
    """

    wasmtime: peers.Wasmtime
    folder: Path
    room: Path
    env: dict[str, str]
    effort: Effort


def latency(setting: Setting) -> list[Row]:
    """(a) From the request to the end of a hello world.

    In one order: ours on a zygote that has had a moment (while the peer ran), as launches come to
    it, and for comparison once more at once, before it has forked the next worker ahead.
    """
    module = peers.hello()
    argv = setting.wasmtime.argv(module)
    with Runner() as runner:
        runner.prepare(module)
        taken = by_turns(
            {
                "ours": lambda: {"ms": runner.run_ms(module)},
                "again": lambda: {"ms": runner.run_ms(module)},
                CLI: lambda: {"ms": command_ms(argv, setting.env)},
            },
            setting.effort.latency_rounds,
            warm_up=3,
            rotate=False,
        )
    return [
        Row(
            key="latency",
            group="a",
            what="hello world on a live zygote, all walls, start to exit",
            unit="ms",
            ours=taken["ours"]["ms"],
            peer_name="wasmtime run --allow-precompiled",
            peer=taken[CLI]["ms"],
            goal=0.25,
            goal_text="<= 1/4",
            others={"the next one at once": taken["again"]["ms"]},
        )
    ]


def files(setting: Setting) -> list[Row]:
    """(b) File calls, timed by the guest."""
    module = peers.guest("files")
    program = peers.native("files", setting.folder)
    calls, room = str(setting.effort.file_calls), setting.room
    setting.wasmtime.compiled(module)
    with Runner() as runner:
        runner.prepare(module)
        taken = by_turns(
            {
                "ours": lambda: figures(runner.output(module, calls, directory=room)),
                CLI: lambda: figures(setting.wasmtime.output(module, calls, directory=room)),
                "native": lambda: figures(peers.output([str(program), calls], cwd=room)),
            },
            setting.effort.file_rounds,
        )
    return [
        Row(
            key=f"file-{name}",
            group="b",
            what=what,
            unit="µs",
            ours=taken["ours"][name],
            peer_name=CLI,
            peer=taken[CLI][name],
            goal=1.0,
            goal_text="<= 1",
            others={"native": taken["native"][name]},
        )
        for name, what in FILE_CALLS.items()
    ]


def compute(setting: Setting) -> list[Row]:
    """(c) Compute kernels, timed by the guest."""
    module = peers.guest("kernels")
    program = str(peers.native("kernels", setting.folder))
    setting.wasmtime.compiled(module)
    rows = []
    with Runner() as runner, Runner("pulley") as pulley:
        hosts: dict[str, Host] = {
            "ours": lambda *words: runner.output(module, *words),
            CLI: lambda *words: setting.wasmtime.output(module, *words),
            "pulley": lambda *words: pulley.output(module, *words),
            "native": lambda *words: peers.output([program, *words]),
        }
        for name, full in KERNELS.items():
            rounds = max(1, round(full * setting.effort.compute_share))
            rows.append(_kernel(hosts, name, rounds, setting.effort.compute_rounds))
    return rows


def _kernel(hosts: dict[str, Host], name: str, inside: int, rounds: int) -> Row:
    # A fast wrong answer is no answer: all hosts have to print one checksum.
    results = {host: run(name, "1").split()[2] for host, run in hosts.items()}
    if len(set(results.values())) != 1:
        raise RuntimeError(f"{name}: the hosts disagree about the result: {results}")
    few = max(1, inside // PULLEY_SHARE)

    def measurement(host: str) -> Measurement:
        words = (name, str(few if host == "pulley" else inside))
        return lambda: figures(hosts[host](*words))

    taken = by_turns({host: measurement(host) for host in hosts}, rounds)
    return Row(
        key=f"compute-{name}",
        group="c",
        what=f"compute: {name}",
        unit="µs",
        ours=taken["ours"][name],
        peer_name=CLI,
        peer=taken[CLI][name],
        goal=1.1,
        goal_text="about 1",
        others={"native": taken["native"][name], "with Pulley": taken["pulley"][name]},
    )


def sleeping(setting: Setting) -> list[Row]:
    """(d) Memory of a worker that sleeps."""
    module = peers.guest("sleeper")
    argv = setting.wasmtime.argv(module)
    what = "memory of a sleeping worker beyond the zygote (PSS)"
    row = Row("memory", "d", what, "KiB", None, f"a sleeping {CLI} run", None)
    count = setting.effort.sleepers
    try:
        # Without a spare, whose coming and going would be counted as the workers'.
        with Runner(stay=False) as runner:
            runner.prepare(module)
            added = memory.of_workers(runner, module, count)
        row.ours = added.each
        row.others = {"private to it": added.private, "the zygote": added.zygote}
    except PermissionError as error:
        row.note = f"not readable by this user ({error.strerror}): run as root"
    row.peer = memory.of_commands(argv, count)
    return [row]


def command(setting: Setting) -> list[Row]:
    """(e) The whole command, from the shell's point of view."""
    module = peers.hello()
    wait_until_old(module)
    ours = [os.path.join(os.path.dirname(sys.executable), "wasisup"), "run", str(module)]
    bare = [sys.executable, "-c", "pass"]
    theirs = setting.wasmtime.argv(module)
    taken = by_turns(
        {
            "ours": lambda: {"ms": command_ms(ours, setting.env)},
            "bare": lambda: {"ms": command_ms(bare, setting.env)},
            CLI: lambda: {"ms": command_ms(theirs, setting.env)},
        },
        setting.effort.command_rounds,
        warm_up=3,
    )
    return [
        Row(
            key="command",
            group="e",
            what="wasisup run hello.wasm, whole command, cached",
            unit="ms",
            ours=taken["ours"]["ms"],
            peer_name="python -c pass",
            peer=taken["bare"]["ms"],
            goal=3.0,
            goal_text="<= 3",
            others={CLI: taken[CLI]["ms"]},
        )
    ]


def figures(text: str) -> dict[str, float]:
    """The figures in a guest's output: lines of a name and a number."""
    return {words[0]: float(words[1]) for words in map(str.split, text.splitlines())}


def wait_until_old(module: Path) -> None:
    """Until the compile cache trusts the file's times, as it does for all but brand-new files."""
    info = module.stat()
    newest = max(info.st_mtime_ns, info.st_ctime_ns)
    time.sleep(max(0, newest + RACY_NS - time.time_ns()) / 1e9)
