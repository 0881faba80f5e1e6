"""A daemon inside the test's own process, whose workers do what the test says."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from support.api import Answer, Connection
from support.command import SAFETY_NET
from wasisup.supervisor.daemon import config
from wasisup.supervisor.daemon.app import Daemon
from wasisup.supervisor.model import RunRecord

TEXT = "(module)"  # what the daemon takes for a module without looking further
_UNIX = socket.AF_UNIX
MODULE = {"base64": "KG1vZHVsZSk=", "name": "puppet"}  # the same bytes


class Puppet:
    """A worker of the test's own making: it ends, and has begun, when the test says so.

    launched with: `streams` and `opened` of the launch.
    """

    def __init__(self, ended: Any, streams: Sequence[int | None], opened: Any) -> None:
        self.pid = os.getpid()
        self.launched = time.monotonic_ns()
        self.streams = streams
        self.opened = opened
        self.begun = False
        self.signals: list[int] = []
        self._ended = ended

    def send(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            asyncio.get_running_loop().call_soon(self.end, signal.SIGKILL, RunRecord())

    def output(self) -> int:
        return 0

    def is_under_way(self) -> bool:
        return self.begun

    def end(self, status: int, record: RunRecord) -> None:
        """Its end, with this wait status and this record; the second is none."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(status, resource.getrusage(resource.RUSAGE_CHILDREN), record)


class PuppetCore:
    """In place of core.Core.  workers: those launched so far."""

    release = "puppet"
    walls: Sequence[str] = ()
    failure = None
    zygote_pid = None

    def __init__(self) -> None:
        self.workers: list[Puppet] = []
        self.launched = asyncio.Event()
        self.is_compiled = True

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
        """Nothing to end."""

    def compiled(self, digest: str, engine: str, *, fuel: bool) -> bool:
        return self.is_compiled

    async def compile(self, *_: Any, **__: Any) -> None:
        self.is_compiled = True

    def reject(self, digest: str, engine: str, *, fuel: bool) -> None:
        """Nothing is kept."""

    def has_gone(self, digest: str, engine: str, *, fuel: bool) -> bool:
        return False

    async def launch(self, request: Any, digest: str, **given: Any) -> Puppet:
        worker = Puppet(given["ended"], list(given["streams"]), given["opened"])
        self.workers.append(worker)
        self.launched.set()
        return worker

    async def worker(self, number: int) -> Puppet:
        """That worker, from 0 on, once it has been launched."""
        while len(self.workers) <= number:
            self.launched.clear()
            await asyncio.wait_for(self.launched.wait(), SAFETY_NET)
        return self.workers[number]


class Inside:
    """What a test has in its hands.  daemon, core: the parts.  socket: where it serves."""

    def __init__(self, daemon: Daemon, core: PuppetCore, path: str) -> None:
        assert daemon.state is not None
        self.daemon = daemon
        self.state = daemon.state
        self.core = core
        self.socket = path

    def connect(self) -> socket.socket:
        """A connection as this process."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.settimeout(SAFETY_NET)
        made.connect(self.socket)
        return made

    async def ask(self, method: str, target: str, body: Any = None, **more: Any) -> Answer:
        """One request over a connection of its own."""

        def converse() -> Answer:
            with closing(Connection(self.connect())) as connection:
                return connection.ask(method, target, body, **more)

        return await asyncio.to_thread(converse)

    async def start(self, **fields: Any) -> str:
        """A detached run: its id."""
        fds = fields.pop("fds", ())
        answer = await self.ask("POST", "/v1/runs", {"module": MODULE, **fields}, fds=fds)
        return str(answer.ok(201)["id"])


def play(
    folder: Path, body: Callable[[Inside], Awaitable[None]], settings: str = "", core: Any = None
) -> None:
    """Runs `body` beside a daemon that serves below `folder`; settings: TOML beside `state`."""

    async def main() -> None:
        puppets = PuppetCore() if core is None else core
        daemon = Daemon(config.load(str(file)), None, None, puppets, where=path)
        serving = asyncio.create_task(daemon.run([listener]))
        ready = asyncio.create_task(daemon.ready.wait())
        await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        try:
            assert ready.done(), serving.exception()
            await asyncio.wait_for(body(Inside(daemon, puppets, path)), 4 * SAFETY_NET)
        finally:
            daemon.stop()
            daemon.stop()
            await serving

    file = folder / "wasisup.toml"
    file.write_text(f'state = "{folder}/state"\n{settings}')
    with tempfile.TemporaryDirectory(prefix="wasisup-") as public, socket.socket(_UNIX) as listener:
        os.chmod(public, 0o755)  # unlike `folder`, everybody gets here
        path = f"{public}/socket"
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen(512)
        asyncio.run(main())
