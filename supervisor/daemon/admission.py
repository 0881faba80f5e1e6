"""Which run starts when: a bounded queue that is fair between callers.

Callers take turns, by uid; a caller's own runs start in the order in which they came.  A run waits
while it would exceed how many may run at once, or how much memory may be promised, in total or (the
number only) of its caller.  One that waits for memory is passed over by smaller ones of others, but
only MAX_PASSES times: then nothing else starts until it fits.

Pure logic: no I/O, no event loop, no threads; the clock is a parameter.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from ..errors import WasisupError

MAX_PASSES = 16
_MIN_RETRY_SECONDS = 1
_MAX_RETRY_SECONDS = 60
_NEWEST_WEIGHT = 1 / 8  # of one run's duration in the moving average


class Full(WasisupError):
    """The queue has no room.

    what: "queue", or "share" if only this caller's part of it is full.  retry_after: whole seconds
    after which it is worthwhile to try again, from how long runs took lately.
    """

    def __init__(self, retry_after: int, what: Literal["queue", "share"], limit: int) -> None:
        owner = "the queue" if what == "queue" else "your share of the queue"
        super().__init__(
            f"{owner} is full: {limit} runs are waiting already",
            f"try again in {retry_after} s",
        )
        self.retry_after = retry_after
        self.what = what


class NeverFits(WasisupError):
    """The run would have to wait for ever: for more memory than there is to promise."""


class Stopped(WasisupError):
    """Nothing is admitted any more."""

    def __init__(self) -> None:
        super().__init__("the daemon is stopping", "try again once it has been started again")


class Usage(NamedTuple):
    """What one caller has: runs that run, runs that wait, bytes promised to the former."""

    running: int
    queued: int
    promised: int


class Ticket:
    """A run's place: waiting, running, then over.  For `Admission` to change."""

    __slots__ = ("memory", "passes", "runs", "share", "since", "start", "state", "uid")

    def __init__(
        self, uid: int, memory: int, runs: int, start: Callable[[], None], share: int | None = None
    ) -> None:
        self.uid = uid
        self.memory = memory
        self.runs = runs  # of its caller, at once
        self.share = share  # bytes that may be promised to its caller at once
        self.start = start
        self.state: Literal["queued", "running", "over"] = "queued"
        self.passes = 0  # how often another was started while this waited for memory
        self.since = 0.0  # when it was started


class _Caller:
    __slots__ = ("promised", "running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.promised = 0
        self.waiting: deque[Ticket] = deque()

    def has_room(self, ticket: Ticket) -> bool:
        """Whether this caller's own limits let it start."""
        within = ticket.share is None or self.promised + ticket.memory <= ticket.share
        return within and self.running < ticket.runs


class Admission:
    """The queue and its limits.

    runs: at once (at least 1).  queued: waiting.  memory: bytes promised to runs at once.  clock:
    seconds, for the durations of runs.
    """

    def __init__(
        self, runs: int, queued: int, memory: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._callers: dict[int, _Caller] = {}
        self._turns: deque[_Caller] = deque()  # those with waiting runs; the next one first
        self._running = 0
        self._queued = 0
        self._promised = 0
        self._duration = 0.0  # of recent runs, in seconds: a moving average; 0 before the first
        self._starved: Ticket | None = None  # passed over too often: nothing else may start
        self._starting = False
        self._stopped = False
        self._set_limits(runs, queued, memory)

    @property
    def running(self) -> int:
        """Runs that were started and have not finished."""
        return self._running

    @property
    def queued(self) -> int:
        """Runs that wait."""
        return self._queued

    @property
    def promised(self) -> int:
        """Bytes promised to those that run."""
        return self._promised

    @property
    def memory(self) -> int:
        """Bytes that may be promised in total."""
        return self._memory

    def of(self, uid: int) -> Usage:
        """What this caller has."""
        caller = self._callers.get(uid)
        if caller is None:
            return Usage(0, 0, 0)
        return Usage(caller.running, len(caller.waiting), caller.promised)

    def enqueue(
        self,
        uid: int,
        memory: int,
        runs: int,
        queued: int,
        start: Callable[[], None],
        *,
        share: int | None = None,
    ) -> Ticket:
        """Admits a run of `memory` bytes.

        runs, queued: how many its caller may have at once, and waiting.  share: bytes that may be
        promised to its caller at once; None: all there is.  start: called when it may
        start, within this call if that is now, or later within `finished`, `cancel` or
        `reconfigure`; it may call these itself, and must not raise.  Each ticket is given back
        once, with `finished` or `cancel`.

        Raises Full, NeverFits or Stopped; then nothing was admitted.
        """
        if self._stopped:
            raise Stopped
        if memory > self._memory:
            raise NeverFits(
                f"the run may use {memory} bytes of memory, all runs together only {self._memory}",
                "ask for less memory, or raise `memory` under [limits] in the configuration",
            )
        if share is not None and memory > share:
            raise NeverFits(
                f"the run may use {memory} bytes of memory, all of yours together {share}",
                "ask for less memory, or have the administrator raise your share of it",
            )
        if runs < 1:
            raise NeverFits("you may run nothing", "`runs` is 0 in the daemon's configuration")
        caller = self._callers.get(uid) or _Caller()
        ticket = Ticket(uid, memory, runs, start, share)
        if not self._starts_at_once(caller, ticket):
            if self._queued >= self._max_queued:
                raise Full(self._retry_after(self._queued, self._running), "queue", self._queued)
            waiting = len(caller.waiting)
            if waiting >= queued:
                raise Full(self._retry_after(waiting, caller.running), "share", waiting)
        self._callers[uid] = caller
        if not caller.waiting:
            self._turns.append(caller)
        caller.waiting.append(ticket)
        self._queued += 1
        self._start_what_fits()
        return ticket

    def finished(self, ticket: Ticket) -> None:
        """The run is over: its place and its memory are free.  Raises ValueError unless it runs."""
        if ticket.state != "running":
            raise ValueError(f"the run is {ticket.state}, not running")
        ticket.state = "over"
        caller = self._callers[ticket.uid]
        caller.running -= 1
        caller.promised -= ticket.memory
        self._running -= 1
        self._promised -= ticket.memory
        lasted = self._clock() - ticket.since
        weight = _NEWEST_WEIGHT if self._duration else 1.0
        self._duration += (lasted - self._duration) * weight
        self._tidy(ticket.uid)
        self._start_what_fits()

    def cancel(self, ticket: Ticket) -> None:
        """Takes a waiting run out; `start` is never called.  Raises ValueError unless it waits."""
        if ticket.state != "queued":
            raise ValueError(f"the run is {ticket.state}, not queued")
        self._remove(ticket)
        self._start_what_fits()

    def reconfigure(self, runs: int, queued: int, memory: int) -> list[Ticket]:
        """Sets other limits.  What runs or waits already stays, even if it is more than these.

        Returns the waiting runs that now could never start; they are taken out.
        """
        self._set_limits(runs, queued, memory)
        dropped = [ticket for ticket in self._waiting() if ticket.memory > memory]
        for ticket in dropped:
            self._remove(ticket)
        self._start_what_fits()
        return dropped

    def stop(self) -> list[Ticket]:
        """From now on nothing starts or is admitted.  Returns the runs that waited, taken out."""
        self._stopped = True
        dropped = self._waiting()
        for ticket in dropped:
            self._remove(ticket)
        return dropped

    def _set_limits(self, runs: int, queued: int, memory: int) -> None:
        if runs < 1 or queued < 0 or memory < 0:
            raise ValueError("limits: at least one run, and nothing negative")
        self._max_running = runs
        self._max_queued = queued
        self._memory = memory

    def _starts_at_once(self, caller: _Caller, ticket: Ticket) -> bool:
        """Whether _start_what_fits would start the ticket, if it came last of its caller's."""
        return (
            not self._starting
            and not caller.waiting
            and caller.has_room(ticket)
            and self._running < self._max_running
            and self._fits(ticket)
            and self._blocker() is None
        )

    def _start_what_fits(self) -> None:
        # A `start` that comes back in here only changes the numbers: the loop outside goes on.
        if self._starting:
            return
        self._starting = True
        try:
            while (ticket := self._next()) is not None:
                self._promote(ticket)
                ticket.start()
        finally:
            self._starting = False

    def _next(self) -> Ticket | None:
        """The ticket that is to start now."""
        if self._running >= self._max_running:
            return None
        blocker = self._blocker()
        if blocker is not None:
            return blocker if self._fits(blocker) else None
        passed: list[Ticket] = []
        for caller in self._turns:
            ticket = caller.waiting[0]
            if not caller.has_room(ticket):
                continue
            if self._fits(ticket):
                self._pass_over(passed)
                return ticket
            passed.append(ticket)
        return None

    def _pass_over(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            ticket.passes += 1
            if ticket.passes >= MAX_PASSES and self._starved is None:
                self._starved = ticket

    def _blocker(self) -> Ticket | None:
        """The starved ticket, unless it is its own caller's limit that it waits for."""
        ticket = self._starved
        if ticket is None or not self._callers[ticket.uid].has_room(ticket):
            return None
        return ticket

    def _fits(self, ticket: Ticket) -> bool:
        return self._promised + ticket.memory <= self._memory

    def _promote(self, ticket: Ticket) -> None:
        caller = self._callers[ticket.uid]
        self._take_out(ticket)
        if caller.waiting:
            self._turns.remove(caller)
            self._turns.append(caller)
        ticket.state = "running"
        ticket.since = self._clock()
        caller.running += 1
        caller.promised += ticket.memory
        self._running += 1
        self._promised += ticket.memory

    def _remove(self, ticket: Ticket) -> None:
        ticket.state = "over"
        self._take_out(ticket)
        self._tidy(ticket.uid)

    def _take_out(self, ticket: Ticket) -> None:
        caller = self._callers[ticket.uid]
        caller.waiting.remove(ticket)
        if not caller.waiting:
            self._turns.remove(caller)
        self._queued -= 1
        if self._starved is ticket:
            self._starved = None

    def _tidy(self, uid: int) -> None:
        caller = self._callers[uid]
        if not caller.running and not caller.waiting:
            del self._callers[uid]

    def _waiting(self) -> list[Ticket]:
        return [ticket for caller in self._turns for ticket in caller.waiting]

    def _retry_after(self, waiting: int, running: int) -> int:
        """Seconds until those that wait will all have started, as things go."""
        seconds = math.ceil(self._duration * waiting / max(running, 1))
        return min(max(seconds, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)
