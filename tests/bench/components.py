"""The questions about components (j, k): their start, and the network through a broker."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from support import toolchains
from support.command import command_path

from . import peers
from .driver import Runner
from .measure import Sample, by_turns, command_ms
from .questions import CLI, Setting, figures, wait_until_old
from .table import Row

_MIB = 1 << 20


def start(setting: Setting) -> list[Row]:
    """(j) A component by Rust that prints its arguments, from the request or the spawn to the end.

    In one order, as (a): ours comes to a zygote that has had a moment.
    """
    module = toolchains.rust()
    wait_until_old(module)
    words = ("args", "hello")
    theirs = setting.wasmtime.argv(module, *words)
    ours = [command_path(), "run", str(module), *words]
    with Runner() as runner:
        runner.prepare(module)
        taken = by_turns(
            {
                "ours": lambda: {"ms": runner.run_ms(module, *words)},
                CLI: lambda: {"ms": command_ms(theirs, setting.env)},
            },
            setting.effort.latency_rounds,
            warm_up=3,
            rotate=False,
        )
    whole = by_turns(
        {
            "ours": lambda: {"ms": command_ms(ours, setting.env)},
            CLI: lambda: {"ms": command_ms(theirs, setting.env)},
        },
        setting.effort.command_rounds,
        warm_up=3,
    )
    name = f"{CLI} run --allow-precompiled"
    return [
        Row(
            key="component",
            group="j",
            what="a component on a live zygote, all walls, start to exit",
            unit="ms",
            ours=taken["ours"]["ms"],
            peer_name=name,
            peer=taken[CLI]["ms"],
        ),
        Row(
            key="component-command",
            group="j",
            what="wasisup run component.wasm, whole command, cached",
            unit="ms",
            ours=whole["ours"]["ms"],
            peer_name=name,
            peer=whole[CLI]["ms"],
        ),
    ]


def network(setting: Setting) -> list[Row]:
    """(k) Connections and bytes of one component, timed by itself: through a broker that has one
    rule, and by a wasmtime that may do everything."""
    module = toolchains.c()
    wait_until_old(module)
    count, amount = setting.effort.connections, setting.effort.transfer
    with _listener(setting.folder, amount * _MIB) as ports:
        jobs = {
            "connections": (ports["echo"], ["flood"], [str(count)], count),
            "send": (ports["swallow"], ["pump"], [str(amount * _MIB)], amount),
            "receive": (ports["pour"], ["drain"], [], amount),
        }
        rows = []
        for name, (port, before, after, share) in jobs.items():
            address = f"tcp:127.0.0.1:{port}"
            words = ["time", *before, address, *after]
            ours = [command_path(), "run", "--net", address, str(module), *words]
            theirs = setting.wasmtime.argv(module, *words)
            theirs[2:2] = ["-S", "inherit-network"]
            taken = by_turns(
                {
                    "ours": lambda argv=ours, n=share: _per(argv, setting.env, n),
                    CLI: lambda argv=theirs, n=share: _per(argv, setting.env, n),
                },
                setting.effort.network_rounds,
            )
            rows.append(_row(name, taken))
    return rows


def _row(name: str, taken: Mapping[str, Mapping[str, Sample]]) -> Row:
    ours, theirs = taken["ours"]["us"], taken[CLI]["us"]
    rates = [f"{1e6 / sample.median:.0f}" for sample in (ours, theirs)]
    what, unit = {
        "connections": (
            "a connection through the broker: made, a byte each way, closed",
            "a second",
        ),
        "send": ("1 MiB sent over a connection that the broker made", "MiB/s"),
        "receive": ("1 MiB received over such a connection", "MiB/s"),
    }[name]
    return Row(
        key=f"network-{name}",
        group="k",
        what=what,
        unit="µs",
        ours=ours,
        peer_name=f"{CLI} -S inherit-network",
        peer=theirs,
        note=f"{rates[0]} and {rates[1]} {unit}",
    )


def _per(argv: list[str], env: Mapping[str, str], share: int) -> dict[str, float]:
    """Microseconds for each, of what the guest says that all of them took."""
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    )
    return {"us": figures(done.stdout.splitlines()[-1])["ns"] / 1000 / share}


@contextlib.contextmanager
def _listener(folder: Path, amount: int) -> Iterator[dict[str, int]]:
    program = peers.native("listener", folder)
    with subprocess.Popen(
        [program, str(amount)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ports = map(int, process.stdout.readline().split())
            yield dict(zip(("echo", "swallow", "pour"), ports, strict=True))
        finally:
            process.stdin.close()
