"""A stand-in for core.Core: acts the suite's guests out in plain child processes.

No engine, no walls; but real processes with the caller's identity and streams, so that everything
around the core is the same: signals, waiting, output, quotas that the daemon itself keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from wasisup.supervisor.errors import InvalidModule, SetupError
from wasisup.supervisor.model import RunRequest

from .fake_guest import Guest, Page

PROGRAMS = "WASISUP_TEST_PROGRAMS"  # the variable with {digest: name} as JSON
NEVER_COMPILED = "slow"  # the program that is being compiled for ever
NOT_A_MODULE = "broken"


def install() -> None:
    """Has this process's daemon use it."""
    from wasisup.supervisor.daemon import app

    app.Core = FakeCore  # type: ignore[assignment,misc]


class FakeCore:
    """The methods of core.Core."""

    release = "fake"
    walls: Sequence[str] = ("namespaces", "network")
    failure: SetupError | None = None
    zygote_pid: int | None = None

    def __init__(self, lost: Callable[[], None]) -> None:
        self._programs: dict[str, str] = json.loads(os.environ[PROGRAMS])
        self._compiled: set[tuple[str, str, bool]] = set()

    @staticmethod
    def name_of(number: int) -> str:
        return str(number)

    def cache_roots(self) -> list[str]:
        return []

    def prune(self, most: int) -> None:
        pass

    def prepare(self) -> None:
        pass

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing is left: workers have ended."""

    def is_component(self, digest: str, engine: str, *, fuel: bool) -> bool:
        return False

    def compiled(self, digest: str, engine: str, *, fuel: bool) -> bool:
        return (digest, engine, fuel) in self._compiled

    async def compile(
        self, source: Any, name: str, engine: str, caller: Any, *, fuel: bool
    ) -> None:
        size = os.fstat(source.fd).st_size
        assert hashlib.sha256(os.pread(source.fd, size, 0)).hexdigest() == source.digest
        program = self._programs.get(source.digest, NOT_A_MODULE)
        if program == NOT_A_MODULE:
            raise InvalidModule(f"{name}: it is none of the suite's")
        if program == NEVER_COMPILED:
            await asyncio.get_running_loop().create_future()
        self._compiled.add((source.digest, engine, fuel))

    def reject(self, digest: str, engine: str, *, fuel: bool) -> None:
        self._compiled.discard((digest, engine, fuel))

    def has_gone(self, digest: str, engine: str, *, fuel: bool) -> bool:
        return False

    async def launch(
        self,
        request: RunRequest,
        digest: str,
        *,
        streams: Sequence[int | None],
        opened: Any,
        caller: Any,
        umask: int,
        cgroup: int | None,
        ended: Any,
    ) -> Running:
        if not self.compiled(digest, request.engine, fuel=request.quotas.fuel is not None):
            raise KeyError(digest)
        launched = time.monotonic_ns()
        page = Page()
        directories = [(grant.guest, fd, grant.read_only) for grant, fd in opened.directories]
        pid = os.fork()
        if pid == 0:
            guest = Guest(self._programs[digest], request, page)
            guest.be(streams, directories, caller, umask)
        return Running(pid, launched, page, ended)


class Running:
    """As core._Running."""

    def __init__(self, pid: int, launched: int, page: Page, ended: Any) -> None:
        self.pid = pid
        self.launched = launched
        self._page = page
        self._ended = ended
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def send(self, number: int) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def output(self) -> int:
        return self._page.read().output

    def is_under_way(self) -> bool:
        return self._pidfd >= 0 and self._page.read().running_ns > 0

    def _reap(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._ended(status, usage, self._page.read())
