"""What a worker of the fake core does: it acts one of the suite's guests, in Python."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import time
from typing import Any, NoReturn

from wasisup.supervisor.model import RunRecord, RunRequest

_OUTCOMES = ("none", "exit", "trap", "output", "cpu_time", "file_size", "memory", "fuel")
_LEAST_MEMORY = 128 << 10
_PR_SET_PDEATHSIG = 1


class Page:
    """What the worker reports, in memory that it shares with the daemon."""

    _FORM = struct.Struct("=5Q")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._FORM.size)
        self.output = 0

    def say(self, outcome: str = "none", code: int = 0, *, running: int, done: int = 0) -> None:
        fields = (self.output, _OUTCOMES.index(outcome), code, running, done)
        self._memory[:] = self._FORM.pack(*fields)

    def read(self) -> RunRecord:
        output, outcome, code, running, done = self._FORM.unpack(self._memory)
        return RunRecord(
            phase="done" if done else "running" if running else "setup",
            outcome=_OUTCOMES[outcome],
            code=code,
            output=output,
            running_ns=running,
            done_ns=done,
        )


class _End(Exception):
    """The guest ends.  outcome, code: of the record.  status: of the process."""

    def __init__(self, outcome: str, code: int, status: int) -> None:
        super().__init__(outcome)
        self.outcome, self.code, self.status = outcome, code, status


class Guest:
    """What the child does."""

    def __init__(self, program: str, request: RunRequest, page: Page) -> None:
        self._program = program
        self._request = request
        self._page = page
        self._directories: list[tuple[str, int, bool]] = []

    def be(self, streams: Any, directories: Any, caller: Any, umask: int) -> NoReturn:
        """Becomes the caller's worker, and ends."""
        status = 125
        try:
            self._settle(streams, directories, caller, umask)
            status = self._live()
        finally:
            os._exit(status)

    def _settle(self, streams: Any, directories: Any, caller: Any, umask: int) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Above all that is there, before the numbers below are given to something else.
        held = [os.dup2(fd, 1000 + at) for at, fd in enumerate(streams)]
        granted = [os.dup2(fd, 1010 + at) for at, (_, fd, _) in enumerate(directories)]
        os.closerange(0, 1000)
        os.closerange(1010 + len(granted), 65536)
        for number, fd in enumerate(held):
            os.dup2(fd, number)
            os.close(fd)
        pairs = zip(directories, granted, strict=True)
        self._directories = [(guest, fd, read_only) for (guest, _, read_only), fd in pairs]
        if os.geteuid() == 0:
            os.setgroups(caller.groups)
            os.setresgid(caller.gid, caller.gid, caller.gid)
            os.setresuid(caller.uid, caller.uid, caller.uid)
        os.umask(umask)
        # Last: the kernel forgets it with a change of identity.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def _live(self) -> int:
        quotas = self._request.quotas
        running = time.monotonic_ns()
        self._running = running
        self._page.say(running=running)
        if quotas.cpu_time is not None:
            signal.signal(signal.SIGPROF, _out_of_time)
            signal.setitimer(signal.ITIMER_PROF, quotas.cpu_time / 1e9)
        try:
            if quotas.memory is not None and quotas.memory < _LEAST_MEMORY:
                raise _End("memory", 0, 137)
            code = self._act(*(_text(word) for word in self._request.args))
            raise _End("exit", code, code)
        except _End as end:
            done = time.monotonic_ns()
            self._page.say(end.outcome, end.code, running=running, done=done)
            return end.status

    def _act(self, what: str = "", *args: str) -> int:
        if self._program == "hello":
            return self._print(b"hello, world\n")
        act = getattr(self, f"_{self._program}_{what}", None)
        try:
            return 64 if act is None else int(act(*args) or 0)
        except OSError:
            return 1

    # --- stdio.c ---

    def _stdio_cat(self) -> None:
        while data := os.read(0, 65536):
            self._print(data)

    def _stdio_pour(self, total: str) -> None:
        left = int(total)
        while left:
            part = min(left, 4096)
            self._print(b"x" * part)
            left -= part

    def _stdio_exit(self, code: str) -> int:
        return int(code)

    def _stdio_both(self) -> None:
        self._print(b"out\n")
        self._print(b"err\n", 2)

    def _stdio_block(self) -> int:
        self._print(b"ready\n")
        return (os.read(0, 1) or b"\0")[0]

    def _stdio_sleep(self, milliseconds: str) -> None:
        self._print(b"ready\n")
        time.sleep(int(milliseconds) / 1000)

    def _stdio_spin(self) -> None:
        self._print(b"ready\n")
        if self._request.quotas.fuel is not None:
            raise _End("fuel", 11, 134)
        while True:
            pass

    def _stdio_trap(self) -> None:
        self._print(b"ready\n")
        raise _End("trap", 9, 134)

    # --- tell.c ---

    def _tell_args(self, *_: str) -> None:
        given = self._request.argv0 or os.path.basename(self._request.module)
        for word in (given, *self._request.args):
            self._print(_raw(word) + b"\n")

    def _tell_env(self) -> None:
        for name, value in self._request.env:
            self._print(_raw(f"{name}={value}") + b"\n")

    def _tell_show(self, path: str) -> int:
        try:
            with open(self._open(path, os.O_RDONLY), "rb") as file:
                return self._print(file.read())
        except OSError as error:
            self._print(f"{path}: {error.strerror}\n".encode(), 2)
            return 1

    def _tell_write(self, path: str, text: str) -> int:
        try:
            with open(self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
                file.write(text.encode() + b"\n")
        except OSError as error:
            self._print(f"{path}: {error.strerror}\n".encode(), 2)
            return 1
        return 0

    def _quota_size(self, path: str, total: str) -> None:
        most = self._request.quotas.file_size
        with open(self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(b"\0" * min(int(total), most or int(total)))
        if most is not None and int(total) > most:
            raise _End("file_size", 0, 153)

    # --- what the host does for it ---

    def _print(self, data: bytes, stream: int = 1) -> int:
        most = self._request.quotas.output
        left = len(data) if most is None else most - self._page.output
        taken = data[:left]
        while taken:
            written = os.write(stream, taken)
            self._page.output += written
            taken = taken[written:]
        self._page.say(running=self._running)
        if left < len(data):
            raise _End("output", 0, 153)
        return 0

    def _open(self, path: str, flags: int) -> int:
        for scratch in self._request.tmpfs:
            if path.startswith(f"{scratch.guest.rstrip('/')}/"):
                return os.memfd_create("scratch")
        for guest, fd, read_only in self._directories:
            below = path if guest == "." else path.removeprefix(f"{guest.rstrip('/')}/")
            if guest == "." or below != path:
                if read_only and flags & os.O_ACCMODE != os.O_RDONLY:
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
                return os.open(below, flags | os.O_NOFOLLOW, 0o666, dir_fd=fd)
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def _out_of_time(*_: object) -> None:
    raise _End("cpu_time", 0, 152)


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else os.fsdecode(word)


def _raw(word: str | bytes) -> bytes:
    return word if isinstance(word, bytes) else os.fsencode(word)
