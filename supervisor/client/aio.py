"""AsyncClient: a daemon's API with asyncio."""

from __future__ import annotations

import asyncio
import os
import socket as _socket
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from .. import wire
from ..shapes import Chunk, Result, StrPath
from .api import Api, Reading, RunId
from .driver import message
from .http import READ_BYTES, Connect, Operation, Receive, Send, Sleep
from .options import ClientOptions, ModuleSource, opened
from .pool import AHEAD, job_of, with_job

if TYPE_CHECKING:
    from .http import Flow

T = TypeVar("T")


async def drive(flow: Flow[T]) -> T:
    """Runs one of `api`'s generators on the running loop; as `driver.Driver.drive`."""
    result: bytes | None = None
    failed: BaseException | None = None
    while True:
        try:
            operation = flow.send(result) if failed is None else flow.throw(failed)
        except StopIteration as end:
            value: T = end.value
            return value
        result = failed = None
        try:
            if isinstance(operation, Sleep):
                await asyncio.sleep(operation.seconds)
            else:
                async with asyncio.timeout(operation.timeout):
                    result = await _perform(operation)
        except BaseException as error:  # a cancelled task, too: what is open is closed
            failed = error


async def _perform(operation: Operation) -> bytes | None:
    loop = asyncio.get_running_loop()
    link = operation.link
    if isinstance(operation, Receive):
        return await loop.sock_recv(link.socket, READ_BYTES)
    if isinstance(operation, Send):
        await _send(operation)
    elif isinstance(operation, Connect):
        link.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        link.socket.setblocking(False)
        # Not loop.sock_connect: it takes a full backlog for a connection that is being made.
        link.socket.connect(operation.path)
    return None


async def _send(operation: Send) -> None:
    loop = asyncio.get_running_loop()
    connection = operation.link.socket
    data = memoryview(operation.data)
    if operation.fds:
        while True:
            try:
                sent = connection.sendmsg(*message(operation.data, operation.fds))
                break
            except BlockingIOError:
                await _writable(connection)
        data = data[sent:]
    await loop.sock_sendall(connection, data)


async def _writable(connection: _socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class AsyncStream(Generic[T]):
    """As `sync.Stream`, for `async for` and `async with`."""

    def __init__(self, reading: Reading[T]) -> None:
        self._reading = reading

    async def __aenter__(self) -> Self:
        await drive(self._reading.open())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        piece = await drive(self._reading.next())
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Closes the connection, unless all was read."""
        self._reading.close()


class AsyncClient:
    """As `Client`, whose calls it has under the same names, to be awaited.

    Cancelling a task closes the connection of its call, which kills a run that it waits for.  One
    client belongs to one event loop.
    """

    def __init__(self, socket: StrPath | None = None, timeout: float | None = None) -> None:
        self._api = Api(socket, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """As `Client.close`."""
        self._api.connections.close()

    @property
    def socket(self) -> str:
        """As `Client.socket`."""
        return self._api.connections.path

    async def run(
        self,
        module: ModuleSource,
        args: Iterable[str | bytes] = (),
        **options: Unpack[ClientOptions],
    ) -> Result:
        """As `Client.run`."""
        return await drive(self._api.run(module, args, **options))

    async def start(
        self,
        module: ModuleSource,
        args: Iterable[str | bytes] = (),
        **options: Unpack[ClientOptions],
    ) -> wire.Run:
        """As `Client.start`."""
        return await drive(self._api.start(module, args, **options))

    async def map(
        self,
        module: ModuleSource,
        inputs: Iterable[Any] | AsyncIterable[Any],
        args: Iterable[str | bytes] = (),
        *,
        max_workers: int | None = None,
        check: bool = False,
        **options: Unpack[ClientOptions],
    ) -> AsyncIterator[Result]:
        """As `Client.map`, over any iterable."""
        workers = max_workers or os.cpu_count() or 1
        kept = self._api.connections
        kept.most = max(kept.most, workers)
        room = asyncio.Semaphore(workers)
        pending: deque[asyncio.Task[Result]] = deque()
        failed: list[Exception] = []
        held = ExitStack()
        source = held.enter_context(opened(module))

        async def one(given: Any) -> Result:
            own, words = with_job(options, args, job_of(given))
            try:
                async with room:
                    flow = self._api.run_when_there_is_room(source, words, **own)
                    result = await drive(flow)
                return result.check() if check else result
            except Exception as error:
                failed.append(error)
                for task in pending:  # at once, and not when the results before it are taken
                    task.cancel()
                raise

        async def next_result() -> Result:
            try:
                return await pending[0]
            except asyncio.CancelledError:
                if failed and pending[0].cancelled():
                    raise failed[0] from None
                raise
            finally:
                if pending[0].done():
                    pending.popleft()

        try:
            async for given in _each(inputs):
                pending.append(asyncio.create_task(one(given)))
                if len(pending) >= AHEAD * workers:
                    yield await next_result()
            while pending:
                yield await next_result()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            held.close()

    async def runs(
        self,
        *,
        state: str | None = None,
        label: str | Iterable[str] = (),
        limit: int | None = None,
        before: RunId | None = None,
    ) -> list[wire.Run]:
        """As `Client.runs`."""
        return (await drive(self._api.runs(state, label, limit, before))).runs

    async def get(self, run: RunId) -> wire.Run:
        """As `Client.get`."""
        return await drive(self._api.get(run))

    async def wait(self, run: RunId, timeout: float | None = None) -> wire.Run:
        """As `Client.wait`."""
        return await drive(self._api.wait(run, timeout))

    async def kill(self, run: RunId) -> wire.Run:
        """As `Client.kill`."""
        return await drive(self._api.kill(run))

    async def signal(self, run: RunId, signal: str = "TERM") -> None:
        """As `Client.signal`."""
        await drive(self._api.signal(run, signal))

    def logs(
        self, run: RunId, *, follow: bool = False, stream: str | None = None
    ) -> AsyncStream[Chunk]:
        """As `Client.logs`."""
        return AsyncStream(self._api.logs(run, follow, stream))

    async def write_stdin(self, run: RunId, data: bytes = b"", *, close: bool = False) -> None:
        """As `Client.write_stdin`."""
        await drive(self._api.write_stdin(run, data, close))

    def events(
        self,
        *,
        run: RunId | None = None,
        type: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncStream[wire.Event]:
        """As `Client.events`."""
        return AsyncStream(self._api.events(run, type, limit, timeout))

    async def stats(self, run: RunId | None = None) -> list[wire.Stats]:
        """As `Client.stats`."""
        return await drive(self._api.stats(run))

    async def policies(self) -> list[wire.PolicyInfo]:
        """As `Client.policies`."""
        return await drive(self._api.policies())

    async def add_module(self, module: StrPath | bytes, name: str | None = None) -> wire.ModuleInfo:
        """As `Client.add_module`."""
        return await drive(self._api.add_module(module, name))

    async def modules(self) -> list[wire.ModuleInfo]:
        """As `Client.modules`."""
        return await drive(self._api.modules())

    async def module(self, digest: str | wire.ModuleInfo) -> wire.ModuleInfo:
        """As `Client.module`."""
        return await drive(self._api.module(digest))

    async def remove_module(self, digest: str | wire.ModuleInfo) -> None:
        """As `Client.remove_module`."""
        await drive(self._api.remove_module(digest))

    async def info(self) -> wire.Info:
        """As `Client.info`."""
        return await drive(self._api.info())

    async def health(self) -> wire.Health:
        """As `Client.health`."""
        return await drive(self._api.health())

    async def metrics(self) -> str:
        """As `Client.metrics`."""
        return await drive(self._api.metrics())


async def _each(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for given in inputs:
            yield given
    else:
        for given in inputs:
            yield given
