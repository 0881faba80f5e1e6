"""Waiting for a worker: its end, the clock, and the signals that concern it, all without a race.

Signals come as bytes on a pipe (signal.set_wakeup_fd) and the worker's end as an event on its
pidfd, so that one poll waits for everything.
"""

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    import signal as _signal
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, Self
else:
    import _signal  # `signal` would import `enum`

# These end the run.
_ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
# These stop a job.  The worker has to be stopped explicitly: as process 1 of its namespace it does
# not see them, and would go on computing behind a stopped command.
_STOPPING = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
_TICK_MS = 1000


class Interrupted(Exception):
    """A signal asked for the end before there was a worker to end.  signal: its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.signal = number


class Signals:
    """Signals as events, for as long as the `with` lasts.

    Those that the caller ignores (nohup, a shell's background job) stay ignored, but for SIGCHLD:
    ignored, it would have the kernel drop the exit statuses of children.  Outside the main thread
    Python can handle none: then there are no events.
    """

    __slots__ = ("_before", "_read", "_wakeup_before", "_write", "asked")

    def __init__(self) -> None:
        self._read = -1
        self._write = -1
        self._wakeup_before = -1
        self._before: list[tuple[int, Any]] = []
        self.asked: int | None = None  # the first ending signal that came

    def __enter__(self) -> "Self":
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._wakeup_before = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            return self
        try:
            if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
                self._before.append(
                    (_signal.SIGCHLD, _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL))
                )
            for number in (*_ENDING, *_STOPPING, _signal.SIGCONT):
                if _signal.getsignal(number) != _signal.SIG_IGN:
                    self._before.append((number, _signal.signal(number, _nothing)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            # None: it was set by something that is not Python, and cannot be put back.
            _signal.signal(number, _signal.SIG_DFL if handler is None else handler)
        if self._before:
            _signal.set_wakeup_fd(self._wakeup_before)
        self._before = []
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read

    def take(self) -> "list[int]":
        """The signals that came since the last call, in order; an ending one is kept in `asked`."""
        try:
            numbers = list(os.read(self._read, 256))
        except BlockingIOError:
            return []
        for number in numbers:
            if self.asked is None and number in _ENDING:
                self.asked = number
        return numbers

    def stop_here(self, number: int) -> int:
        """Stops this process as the signal would have; returns ns of CLOCK_MONOTONIC it lasted.

        What asked for a stop before is forgotten, as the kernel forgets it at SIGCONT: while the
        worker had not stopped yet it may have asked many times for the terminal.
        """
        began = time.monotonic_ns()
        before = _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
        _signal.signal(number, before)
        while self.take():
            pass
        return time.monotonic_ns() - began

    def check(self) -> None:
        """Raises Interrupted when a signal has asked for the end; stops the command if asked to."""
        for number in self.take():
            if number in _STOPPING:
                self.stop_here(number)
                break
        if self.asked is not None:
            raise Interrupted(self.asked)

    def pause(self, milliseconds: int) -> None:
        """Waits that long, or until a signal comes; then as `check`."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.poll(milliseconds)
        self.check()


class Ended:
    """How a worker ended.

    status: the wait status, as from waitpid.  usage: the kernel's account.  cause: None when it
    ended by itself, "timeout", or the number of the signal that made us kill it.  wall_ns: from
    `started` to the end.
    """

    __slots__ = ("cause", "status", "usage", "wall_ns")

    def __init__(
        self,
        status: int,
        usage: "resource.struct_rusage",
        cause: "int | str | None",
        wall_ns: int,
    ) -> None:
        self.status = status
        self.usage = usage
        self.cause = cause
        self.wall_ns = wall_ns


def wait(
    pid: int,
    pidfd: int,
    signals: Signals,
    *,
    started: int,
    timeout_ns: "int | None",
    tick: "Callable[[float], None] | None" = None,
) -> Ended:
    """Waits for the worker, a child of this process, and reaps it; kills it when it has to.

    started: CLOCK_MONOTONIC in ns when it was launched; timeout_ns counts from there, and does not
    count while this command is stopped.  tick: called with the seconds since `started`, once a
    second.  Whatever is raised on the way, the worker has been killed and reaped by then.
    """
    try:
        cause = _wait_for_end(pidfd, signals, started, timeout_ns, tick)
    except BaseException:
        kill(pidfd)
        os.wait4(pid, 0)
        raise
    _, status, usage = os.wait4(pid, 0)
    return Ended(status, usage, cause, time.monotonic_ns() - started)


def kill(pidfd: int) -> None:
    """Kills the worker; one that has already ended is none to kill."""
    _send(pidfd, _signal.SIGKILL)


def _wait_for_end(
    pidfd: int,
    signals: Signals,
    started: int,
    timeout_ns: "int | None",
    tick: "Callable[[float], None] | None",
) -> "int | str | None":
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(signals, select.POLLIN)
    deadline = None if timeout_ns is None else started + timeout_ns
    cause: int | str | None = None
    while True:
        ready = poll.poll(_patience(deadline if cause is None else None, tick is not None))
        if any(fd == pidfd for fd, _ in ready):
            return cause
        for number in signals.take():
            if number in _STOPPING:
                stopped = _stop_both(pidfd, signals, number)
                deadline = None if deadline is None else deadline + stopped
                break
            if number == _signal.SIGCONT:
                _send(pidfd, _signal.SIGCONT)
        if cause is None and signals.asked is not None:
            cause = signals.asked
            kill(pidfd)
        if cause is None and deadline is not None and time.monotonic_ns() >= deadline:
            cause = "timeout"
            kill(pidfd)
        if tick is not None and not ready:
            tick((time.monotonic_ns() - started) / 1e9)


def _patience(deadline: "int | None", ticking: bool) -> "int | None":
    """Milliseconds to poll for, rounded up; None for ever."""
    if deadline is None:
        return _TICK_MS if ticking else None
    left = max(0, -((time.monotonic_ns() - deadline) // 1_000_000))
    # poll takes a C int; a longer wait goes round once more.
    return min(left, _TICK_MS if ticking else 1 << 30)


def _stop_both(pidfd: int, signals: Signals, number: int) -> int:
    _send(pidfd, _signal.SIGSTOP)
    try:
        return signals.stop_here(number)
    finally:
        _send(pidfd, _signal.SIGCONT)


def _send(pidfd: int, number: int) -> None:
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _nothing(_number: int, _frame: "FrameType | None") -> None:
    """Only there so that the signal is written to the wake-up pipe."""
