"""Taking samples fairly: peers by turns, what warms up thrown away, medians and quartiles kept."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# One measurement: names of figures -> values.  Guests that time several things return several.
Measurement = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Sample:
    """The middle and the middle half of many measurements of one thing, all in one unit."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Raises statistics.StatisticsError for no values at all."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


def by_turns(
    peers: Mapping[str, Measurement], rounds: int, warm_up: int = 1, *, rotate: bool = True
) -> dict[str, dict[str, Sample]]:
    """Measures every peer `rounds` times, one after the other, A B C A B C.

    Whatever disturbs the machine for a while then disturbs all of them.  Each round starts with
    another peer (unless not to `rotate`): none always runs in the wake of the same one.  The first
    `warm_up` rounds are thrown away.  Returns peer -> figure -> Sample.
    """
    values = values_by_turns(peers, rounds, warm_up, rotate=rotate)
    return {
        name: {figure: Sample.of(every) for figure, every in figures.items()}
        for name, figures in values.items()
    }


def values_by_turns(
    peers: Mapping[str, Measurement],
    rounds: int,
    warm_up: int = 1,
    *,
    rotate: bool = True,
    block: int = 1,
) -> dict[str, dict[str, list[float]]]:
    """As by_turns; peer -> figure -> every value.

    block: how often a peer is measured in a row before it is the next one's turn.
    """
    values: dict[str, dict[str, list[float]]] = {name: {} for name in peers}
    names = list(peers)
    for index in range(-warm_up, rounds):
        turn = index % len(names) if rotate else 0
        for name in names[turn:] + names[:turn]:
            for _ in range(block):
                taken = peers[name]()
                if index >= 0:
                    for figure, value in taken.items():
                        values[name].setdefault(figure, []).append(value)
    return values


def command_ms(argv: list[str], env: Mapping[str, str]) -> float:
    """Milliseconds from the spawn of a command to its end, with nothing but /dev/null to talk to.

    posix_spawn and waitpid and no more, so that little of it is this process's own doing.  Raises
    RuntimeError when the command does not end with 0.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter_ns()
    pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    end = time.perf_counter_ns()
    if status:
        raise RuntimeError(f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}")
    return (end - start) / 1e6
