"""One module over many inputs, each in a run of its own."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from ..shapes import Result, StrPath
from .driver import Driver
from .http import Receive, Send
from .options import ClientOptions, ModuleSource, opened

if TYPE_CHECKING:
    from .http import Link
    from .sync import Client

# Inputs taken ahead of the results that are wanted: enough that no worker waits for a slow reader.
AHEAD = 2
_SHUT_BOTH = 2  # socket.SHUT_RDWR


class Job(NamedTuple):
    """One input: what is different from run to run.

    stdin: as in `RunOptions`.  args: after those that all runs have.  env: beside those, too.
    """

    stdin: Any = None
    args: Iterable[str | bytes] = ()
    env: Mapping[str, str | bytes] = {}


def job_of(given: Any) -> Job:
    """An input of `map` as a Job: text and bytes are stdin, a list or tuple is arguments."""
    if isinstance(given, Job):
        return given
    if isinstance(given, list | tuple):
        return Job(args=given)
    return Job(stdin=given)


def with_job(
    options: ClientOptions, args: Iterable[str | bytes], job: Job
) -> tuple[ClientOptions, list[str | bytes]]:
    """The options and the arguments of one run."""
    own = options.copy()
    if job.stdin is not None:
        own["stdin"] = job.stdin
    if job.env:
        own["env"] = {**own.get("env", {}), **job.env}
    return own, [*args, *job.args]


class Pool:
    """Runs of one module, at most `max_workers` (default: the processors) at once.

    Used like a `concurrent.futures.Executor`.  module, options: as for `Client.run`; args: before
    those of each input.  client: whose daemon to ask; without, one for `socket` is made here.  A
    daemon that is full is asked again when it says so.  Raises ModuleNotFound, InvalidModule.
    """

    def __init__(
        self,
        module: ModuleSource,
        args: Iterable[str | bytes] = (),
        *,
        client: Client | None = None,
        socket: StrPath | None = None,
        max_workers: int | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self.max_workers = max_workers or os.cpu_count() or 1
        self._held = ExitStack()
        if client is None:
            from .sync import Client

            client = self._held.enter_context(Client(socket))
        self._module = self._held.enter_context(opened(module))
        self._args = list(args)
        self._options = options
        self._api = client._api
        kept = self._api.connections
        kept.most = max(kept.most, self.max_workers)
        self._threads = ThreadPoolExecutor(self.max_workers, thread_name_prefix="wasisup")
        self._driver = _Stoppable()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def submit(self, given: Any = None) -> Future[Result]:
        """Queues a run for an input, which is as for `map`."""
        return self._threads.submit(self._carry_out, job_of(given), self._driver)

    def map(self, inputs: Iterable[Any], *, check: bool = False) -> Iterator[Result]:
        """Yields the results in the inputs' order; see `Client.map`."""
        driver = _Stoppable()
        pending: deque[Future[Result]] = deque()

        def one(job: Job) -> Result:
            try:
                result = self._carry_out(job, driver)
                return result.check() if check else result
            except BaseException as error:
                driver.stop(error)  # at once, and not when the results before it have been taken
                raise

        def next_result() -> Result:
            try:
                return pending.popleft().result()
            except CancelledError:
                raise driver.why or CancelledError from None

        try:
            for given in inputs:
                pending.append(self._threads.submit(one, job_of(given)))
                if len(pending) >= AHEAD * self.max_workers:
                    yield next_result()
            while pending:
                yield next_result()
        finally:
            if pending:
                driver.stop()
                for future in pending:
                    future.cancel()
                wait(pending)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more; cancel_futures: drops what is queued and kills what runs.

        wait: until everything has ended.
        """
        if cancel_futures:
            self._driver.stop()
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            self._finish()
        else:
            threading.Thread(target=self._finish).start()

    def _finish(self) -> None:
        self._threads.shutdown()
        self._held.close()

    def _carry_out(self, job: Job, driver: _Stoppable) -> Result:
        options, args = with_job(self._options, self._args, job)
        return driver.drive(self._api.run_when_there_is_room(self._module, args, **options))


class _Stoppable(Driver):
    """Blocking sockets that another thread can stop: whatever waits then raises CancelledError.

    why: the first error that was a reason to.
    """

    __slots__ = ("_lock", "_stopped", "_waiting", "why")

    def __init__(self) -> None:
        self.why: BaseException | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._waiting: set[Link] = set()

    def stop(self, why: BaseException | None = None) -> None:
        """Ends the exchanges that are under way, and all later ones at their start."""
        with self._lock:
            if not self._stopped.is_set():
                self.why = why
            self._stopped.set()
            for link in self._waiting:
                link.socket.shutdown(_SHUT_BOTH)

    def send(self, operation: Send) -> None:
        """As usual, unless it is stopped."""
        self._check()
        super().send(operation)

    def receive(self, operation: Receive) -> bytes:
        """As usual, until it is stopped."""
        with self._lock:
            self._check()
            self._waiting.add(operation.link)
        try:
            return super().receive(operation)
        finally:
            with self._lock:
                self._waiting.discard(operation.link)
                self._check()

    def sleep(self, seconds: float) -> None:
        """As usual, until it is stopped."""
        self._stopped.wait(seconds)
        self._check()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise CancelledError
