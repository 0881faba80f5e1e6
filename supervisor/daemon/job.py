"""A run that is alive: what it holds, and what can be done to it."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import wire
from ..model import RunRequest
from .intake import Prepared
from .output import Kept

if TYPE_CHECKING:
    from ..cgroups import RunGroup
    from ..core import Running
    from .admission import Ticket

ENDING = ("HUP", "INT", "QUIT", "TERM", "KILL")


class Job:
    """One run from its admission to its end.

    run: its record, as it is now.  cause: why it was ended: a signal's number, "timeout", or None;
    why: in words, for the record.  output: stdout and stderr, once it has ended, for the one who
    waits.  Everything it holds is closed by `runs.Runs` when it has ended.
    """

    __slots__ = (
        "_deadline",
        "_ends",
        "_stopped",
        "_timer",
        "admitted",
        "attempt",
        "cause",
        "connection",
        "created_ns",
        "group",
        "interrupted",
        "kept",
        "noted",
        "output",
        "prepared",
        "recorded",
        "run",
        "running",
        "stdin_lock",
        "task",
        "ticket",
        "wanted",
        "why",
    )

    def __init__(self, run: wire.Run, prepared: Prepared, kept: Kept, *, wanted: bool) -> None:
        self.run = run
        self.prepared = prepared
        self.kept = kept
        self.wanted = wanted  # its output, by one who waits
        self.ticket: Ticket | None = None
        self.group: RunGroup | None = None
        self.running: Running | None = None
        self.task: asyncio.Task[None] | None = None
        self.cause: int | str | None = None
        self.why = ""
        self.interrupted = False
        self.output: tuple[bytes, bytes] = (b"", b"")
        self.attempt = 1
        self.admitted = self.recorded = self.noted = False
        self.created_ns = time.monotonic_ns()
        self.stdin_lock = asyncio.Lock()
        self.connection: Callable[[], None] | None = None  # takes back what ends it with its client
        self._ends: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: int | None = None
        self._stopped: int | None = None

    @property
    def _has_ceiling(self) -> bool:
        return "timeout" in self.prepared.access.ceilings

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    def streams(self) -> "list[int | None]":
        """stdin, stdout and stderr of the guest; they stay the job's."""
        stdin, stdout, stderr = self.prepared.stdio
        return [
            stdin,
            self.kept.fd("stdout") if stdout is None else stdout,
            self.kept.fd("stderr") if stderr is None else stderr,
        ]

    def within_kept(self) -> RunRequest:
        """The request, with the kernel's limit on files where the only ones are the kept streams.

        What the worker counts is then also the most that the kernel lets it write there.
        """
        request = self.prepared.request
        writes = bool(request.tmpfs) or any(not grant.read_only for grant in request.dirs)
        kept = (self.kept.fd("stdout"), self.kept.fd("stderr"))
        if not writes and kept != (None, None):
            request.quotas.file_size = 1
        return request

    async def ended(self) -> None:
        """Waits for the end."""
        if self.run.state != "ended":
            end = asyncio.get_running_loop().create_future()
            self._ends.append(end)
            try:
                await end
            finally:
                if end in self._ends:
                    self._ends.remove(end)

    def tell_end(self) -> None:
        """Wakes up everybody who waits."""
        ends, self._ends = self._ends, []
        for end in ends:
            if not end.done():
                end.set_result(None)

    def begin(self, running: "Running", timeout: int | None) -> None:
        """Its worker is there: from here on its clock counts."""
        self.running = running
        self.run.pid = running.pid
        self.run.state = "running"
        if timeout is not None:
            self._deadline = running.launched + timeout
            self._arm()
        if self.cause is not None:
            running.send(signal.SIGKILL)
        elif self._stopped is not None:
            running.send(signal.SIGSTOP)
            if not self._has_ceiling:
                self._disarm()

    def finish(self) -> None:
        """Its worker has ended."""
        self._disarm()
        self.running = None

    def kill(self, cause: int | str, why: str = "") -> None:
        """Ends the worker, if there is one; the first cause counts."""
        if self.cause is None:
            self.cause, self.why = cause, why
        if self.running is not None:
            self.running.send(signal.SIGKILL)

    def stop(self) -> None:
        """Halts the worker; its clock stands still as well, unless its caller's time has a ceiling:

        a halted run holds its place and its memory.
        """
        if self._stopped is None:
            self._stopped = time.monotonic_ns()
            self.run.stopped = True
            if not self._has_ceiling:
                self._disarm()
        if self.running is not None:
            self.running.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undoes `stop`."""
        if self._stopped is not None:
            halted, self._stopped = time.monotonic_ns() - self._stopped, None
            self.run.stopped = False
            if self._deadline is not None and not self._has_ceiling:
                self._deadline += halted
                self._arm()
        if self.running is not None:
            self.running.send(signal.SIGCONT)

    def _arm(self) -> None:
        assert self._deadline is not None
        left = max(0, self._deadline - time.monotonic_ns()) / 1e9
        loop = asyncio.get_running_loop()
        # A day at a time: the loop cannot wait for ten years.
        self._timer = loop.call_later(min(left, 86400.0), self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._deadline is not None and time.monotonic_ns() < self._deadline:
            self._arm()
        else:
            self.kill("timeout")
