"""The same server with another way to run the module: `wasmtime run` spawned for each request.

`python serve_peer.py SOCKET COMMAND...`: prints a line when it serves.  All of the HTTP, the CGI
and the log is `wasisup serve`'s own; what is measured is the difference between the two workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from wasisup.supervisor import logs
from wasisup.supervisor.model import Quotas, RunRecord, RunRequest
from wasisup.supervisor.serve import listen, server


class Running:
    """One spawned command."""

    def __init__(self, pid: int, ended: Callable[..., None]) -> None:
        self.pid = pid
        self.launched = time.monotonic_ns()
        self._ended = ended
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended(status, usage, RunRecord(phase="done", outcome="exit", code=status >> 8))


class Spawner:
    """What the server needs of a core, by posix_spawn."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv

    async def start(self) -> None:
        """Nothing stays."""

    async def close(self) -> None:
        """Nothing stays."""

    def prepare(self) -> None:
        """Nothing is made ahead."""

    def cache_roots(self) -> list[str]:
        return []

    async def compile(self, *_: object, **__: object) -> None:
        """It is compiled."""

    @staticmethod
    def is_component(*_: object, **__: object) -> bool:
        return False

    @staticmethod
    def name_of(number: int) -> str:
        return str(number)

    async def launch(
        self,
        request: RunRequest,
        _digest: str,
        *,
        streams: Sequence[int],
        ended: Callable[..., None],
        **_: object,
    ) -> Running:
        run, *module = self._argv[1:]
        env = [word for name, value in request.env for word in ("--env", f"{name}={value}")]
        argv = [self._argv[0], run, *module[:-1], *env, module[-1]]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)]
        return Running(os.posix_spawn(argv[0], argv, os.environ, file_actions=actions), ended)


def main() -> None:
    where, *argv = sys.argv[1:]
    logs.configure("json")
    settings = server.Settings(
        listen=(),
        concurrency=64,
        queue=256,
        queue_seconds=30,
        max_body=1 << 20,
        max_header=32 << 10,
        grace=10,
        user=None,
        log="json",
    )
    request = RunRequest(module=argv[-1], quotas=Quotas(timeout=30 * 10**9))
    nothing = os.open(os.devnull, os.O_RDONLY)
    source: Any = server.Source(-1, "0" * 64, 0)
    made = server.Server(
        request,
        settings,
        source=source,
        opened=server.Opened([], []),
        nothing=nothing,
        software="peer",
        most_connections=1000,
        delegation=None,
        core=Spawner(argv),
    )
    asyncio.run(made.run(listen.open_listeners(f"unix:{where}")))


if __name__ == "__main__":
    main()
