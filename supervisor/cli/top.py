"""`wasisup top`: the live runs, what they use, and how near they are to their quotas."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...policies.units import format_duration, format_size
from .. import wire
from . import asking
from .term import out, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ..client.sync import Client

BY_NAME = {"cpu": "c", "cpu-time": "p", "time": "t", "memory": "m", "output": "o"}
_KEYS = "sort by: c CPU   p CPU time   t time   m memory   o output      q quit"
_BAR = 12  # characters


class Row:
    """A live run.  load: processors that it kept busy since the last look."""

    def __init__(self, stats: wire.Stats, run: wire.Run | None, load: float) -> None:
        self.stats: wire.Stats = stats
        self.run: wire.Run | None = run
        self.load: float = load


# By the key that sorts by it: the column's head, and what is sorted by, the most first.
_SORTS: dict[str, tuple[str, Callable[[Row], float]]] = {
    "c": ("CPU", lambda row: row.load),
    "p": ("CPU TIME", lambda row: row.stats.cpu_ns),
    "t": ("TIME", lambda row: row.stats.wall_ns),
    "m": ("MEMORY", lambda row: row.stats.rss),
    "o": ("OUTPUT", lambda row: row.stats.output),
}


class Looks:
    """Looks at the daemon's runs, one after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._runs: dict[str, wire.Run] = {}
        self._before: dict[str, int] = {}
        self._at = 0

    def take(self, sort: str) -> list[Row]:
        """The live runs now."""
        found = self._client.stats()
        now = time.monotonic_ns()
        if any(one.id not in self._runs for one in found):
            live = self._client.runs(state="running", limit=wire.MAX_LIMIT)
            self._runs = {run.id: run for run in live}
        passed = now - self._at if self._at else 0
        rows = []
        for one in found:
            used = one.cpu_ns - self._before.get(one.id, one.cpu_ns)
            load = used / passed if passed else 0.0
            rows.append(Row(one, self._runs.get(one.id), load))
        self._before = {one.id: one.cpu_ns for one in found}
        self._at = now
        return sorted(rows, key=_SORTS[sort][1], reverse=True)


def top(socket: str | None, sort: str, seconds: float) -> None:
    """Shows the live runs until somebody has seen enough; without a terminal, once."""
    with asking.connect(socket) as client:
        looks = Looks(client)
        if sys.stdout is None or not sys.stdout.isatty():
            _once(looks.take(BY_NAME[sort]))
        else:
            _live(client, looks, BY_NAME[sort], seconds)


def _once(rows: list[Row]) -> None:
    lines = [
        (
            row.stats.id[: asking.SHORT],
            row.stats.state,
            _module(row),
            f"{format_duration(row.stats.cpu_ns)} / {format_duration(row.stats.quotas.cpu_time)}",
            f"{format_duration(row.stats.wall_ns)} / {format_duration(row.stats.quotas.timeout)}",
            f"{format_size(row.stats.rss)} / {format_size(row.stats.quotas.memory)}",
            f"{format_size(row.stats.output)} / {format_size(row.stats.quotas.output)}",
        )
        for row in rows
    ]
    heads = ("RUN", "STATE", "MODULE", "CPU TIME", "TIME", "MEMORY", "OUTPUT")
    for line in table([heads, *lines]):
        out(line)


def _live(client: Client, looks: Looks, sort: str, seconds: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def show() -> Group:
        rows, info = looks.take(sort), client.info()
        head = f"{info.running} running, {info.queued} queued; wasisup {info.version}"
        return Group(Text(head), _drawn(rows, sort), Text(_KEYS, style="dim"))

    with _keys() as key, Live(show(), screen=True, auto_refresh=False) as live:
        while True:
            pressed = key(seconds)
            if pressed == "q":
                return
            if pressed in _SORTS:
                sort = pressed
            live.update(show(), refresh=True)


def _drawn(rows: list[Row], sort: str) -> Table:
    from rich import box
    from rich.table import Table

    heads = ["RUN", "MODULE", "USER", "CPU", "CPU TIME", "TIME", "MEMORY", "OUTPUT"]
    drawn = Table(box=box.SIMPLE_HEAD, expand=True)
    for head in heads:
        style = "reverse" if head == _SORTS[sort][0] else "bold"
        # Others may be cut; by a run's id it is killed.
        least = asking.SHORT if head == "RUN" else None
        drawn.add_column(head, header_style=style, min_width=least, no_wrap=head == "RUN")
    for row in rows:
        stats, quotas = row.stats, row.stats.quotas
        drawn.add_row(
            stats.id[: asking.SHORT],
            _module(row),
            "" if row.run is None else asking.user_name(row.run.uid),
            f"{row.load * 100:.0f} %",
            _bar(stats.cpu_ns, quotas.cpu_time, format_duration),
            _bar(stats.wall_ns, quotas.timeout, format_duration),
            _bar(stats.rss, quotas.memory, format_size),
            _bar(stats.output, quotas.output, format_size),
        )
    return drawn


def _bar(used: int, quota: int | None, show: Callable[[int | None], str]) -> RenderableType:
    """How much of a quota is used, as a bar with the figures beside it."""
    from rich.bar import Bar
    from rich.console import Group
    from rich.text import Text

    if quota is None:
        return Text(show(used))
    part = min(1.0, used / quota)
    colour = "green" if part < 0.7 else "yellow" if part < 0.9 else "red"
    bar = Bar(size=1.0, begin=0.0, end=part, width=_BAR, color=colour, bgcolor="grey23")
    return Group(Text(f"{show(used)} / {show(quota)}"), bar)


def _module(row: Row) -> str:
    from ..model import printable

    return "" if row.run is None else printable(asking.module_of(row.run))


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key; without a keyboard it only waits."""
    if sys.stdin is None or not sys.stdin.isatty():

        def sleep(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield sleep
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            return ""
        return os.read(fd, 1).decode("latin-1") or "q"  # nothing: the terminal has gone

    tty.setcbreak(fd)
    try:
        yield key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
