"""The command line of the benchmark: measures everything, prints the table, writes the JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import components, machine, peers, questions, serve, service
from .machine import file_system_of
from .questions import Effort, Setting
from .table import Row, markdown, verdict

QUESTIONS: dict[str, Callable[[Setting], list[Row]]] = {
    "latency": questions.latency,
    "files": questions.files,
    "compute": questions.compute,
    "memory": questions.sleeping,
    "command": questions.command,
    "components": components.start,
    "network": components.network,
    "service-latency": service.latency,
    "service-load": service.load,
    "service-sleeping": service.sleeping,
    "service-cost": service.cost,
    "serve": serve.requests,
}


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark; `argv` without the program's name, None for the process's own."""
    options = _options(argv)
    asked = options.only or list(QUESTIONS)
    with tempfile.TemporaryDirectory(prefix="wasisup-bench-") as folder:
        # A cache of its own: the first run is always a compile, and the user's is left alone.
        os.environ["WASISUP_CACHE_DIR"] = f"{folder}/cache"
        with tempfile.TemporaryDirectory(prefix="wasisup-bench-", dir=_room()) as room:
            facts, rows = _measure(asked, options.quick, Path(folder), Path(room))
    for name, value in facts.items():
        print(f"- {name}: {value}")
    print(f"\n{markdown(rows)}\n\nMedians (first to third quartile); ratio: wasisup / peer.")
    print(verdict(rows))
    if options.json:
        report = {"machine": facts, "rows": [row.as_dict() for row in rows]}
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")


def _measure(
    asked: list[str], quick: bool, folder: Path, room: Path
) -> tuple[dict[str, str], list[Row]]:
    wasmtime = peers.Wasmtime(folder)
    facts = machine.facts(room, wasmtime.binary)
    rows: list[Row] = []
    setting = Setting(
        wasmtime=wasmtime,
        folder=folder,
        room=room,
        env=_environment(),
        effort=questions.QUICK if quick else Effort(),
    )
    for name in asked:
        start = time.monotonic()
        rows += QUESTIONS[name](setting)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return facts, rows


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: figures are rough")
    parser.add_argument("--json", metavar="FILE", help="write machine facts and rows there too")
    parser.add_argument(
        "--only", action="append", choices=list(QUESTIONS), help="measure this alone; repeatable"
    )
    return parser.parse_args(argv)


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "WASISUP_CACHE_DIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _room() -> str | None:
    """Where the file calls happen: in memory if possible.

    A disk's own time would hide the price of the calls.
    """
    shared = Path("/dev/shm")
    if os.access(shared, os.W_OK | os.X_OK) and file_system_of(shared) == "tmpfs":
        return str(shared)
    return None
