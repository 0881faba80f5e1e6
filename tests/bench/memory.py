"""Memory of sleeping processes, from the kernel's own account (smaps_rollup)."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .driver import Runner, stop
from .measure import Sample


@dataclass(frozen=True)
class Added:
    """KiB.

    each: what one more sleeping worker costs: the growth of the zygote's and all workers' PSS
    together, divided by the workers.  private: pages that one worker shares with nobody.
    zygote: its PSS while it is alone.
    """

    each: Sample
    private: Sample
    zygote: Sample


def of_workers(runner: Runner, module: Path, count: int) -> Added:
    """Starts `count` workers whose guest sleeps, looks, and ends them.

    No other zygote may be running: pages of the library that outsiders share blur what is whose.
    Raises PermissionError: a worker is not dumpable, so that only root may look.
    """
    pid = runner.zygote.pid
    assert pid is not None, "the zygote has been closed"
    alone = _kib(pid, "Pss")
    # The first fork unshares pages of the zygote's once and for all: not a price of each worker.
    stop(runner.start_sleeper(module))
    workers = []
    try:
        totals = [_kib(pid, "Pss")]
        for _ in range(count):
            workers.append(runner.start_sleeper(module))
            totals.append(_kib(pid, "Pss") + sum(_kib(one.pid, "Pss") for one in workers))
        steps = [after - before for before, after in pairwise(totals)]
        private = [
            _kib(one.pid, "Private_Dirty") + _kib(one.pid, "Private_Clean") for one in workers
        ]
    finally:
        for worker in workers:
            stop(worker)
    return Added(Sample.of(steps), Sample.of(private), Sample.of([alone]))


def of_commands(argv: Sequence[str], count: int) -> Sample:
    """The same growth for commands that print a line and then sleep."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        totals = []
        for _ in range(count + 1):
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            running.append(child)
            if child.stdout is None or not child.stdout.readline():
                raise RuntimeError(f"{argv[0]} ended before it slept")
            totals.append(sum(_kib(one.pid, "Pss") for one in running))
    finally:
        for child in running:
            with child:
                child.send_signal(signal.SIGKILL)
    # The first one pays for the pages of the program file that all the others share.
    return Sample.of([after - before for before, after in pairwise(totals)])


def _kib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return float(rest.split()[0])
    raise RuntimeError(f"the kernel tells no {field} of process {pid}")
