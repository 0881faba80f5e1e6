"""Memory of sleeping processes, from the kernel's own account (smaps_rollup)."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
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
    alone = kib(pid, "Pss")
    # The first fork unshares pages of the zygote's once and for all: not a price of each worker.
    stop(runner.start_sleeper(module))
    workers = []
    try:
        totals = [kib(pid, "Pss")]
        for _ in range(count):
            workers.append(runner.start_sleeper(module))
            totals.append(kib(pid, "Pss") + sum(kib(one.pid, "Pss") for one in workers))
        steps = [after - before for before, after in pairwise(totals)]
        private = [kib(one.pid, "Private_Dirty") + kib(one.pid, "Private_Clean") for one in workers]
    finally:
        for worker in workers:
            stop(worker)
    return Added(Sample.of(steps), Sample.of(private), Sample.of([alone]))


def of_commands(argv: Sequence[str], count: int) -> Sample:
    """The same growth for commands that print a line and then sleep."""
    totals = []
    with contextlib.ExitStack() as held:
        running = []
        for _ in range(count + 1):
            running += held.enter_context(sleeping_commands(argv, 1))
            totals.append(sum(kib(pid, "Pss") for pid in running))
    # The first one pays for the pages of the program file that all the others share.
    return Sample.of([after - before for before, after in pairwise(totals)])


@contextlib.contextmanager
def sleeping_commands(argv: Sequence[str], count: int) -> Iterator[list[int]]:
    """The pids of commands that have printed a line and sleep until the end of the `with`."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            running.append(child)
            if child.stdout is None or not child.stdout.readline():
                raise RuntimeError(f"{argv[0]} ended before it slept")
        yield [child.pid for child in running]
    finally:
        for child in running:
            with child:
                child.send_signal(signal.SIGKILL)


def available() -> float:
    """KiB that the whole machine could still give: MemAvailable."""
    return _field(Path("/proc/meminfo"), "MemAvailable")


def kib(pid: int, field: str) -> float:
    """A line of a process's smaps_rollup.  Raises PermissionError."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), field)


def _field(path: Path, field: str) -> float:
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return float(rest.split()[0])
    raise RuntimeError(f"{path}: there is no {field}")
