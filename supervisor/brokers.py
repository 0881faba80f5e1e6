"""The network of many runs at once: a broker beside each that has one, and answers for names.

As supervisor/broker.py, without waiting: the event loop hears of everything, and whatever asks the
C library's resolver does so in a thread of its own.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from functools import partial

from ..runtime.zygote import ZygoteGone
from . import broker as _broker
from . import logs
from .errors import SetupError
from .keeper import Keeper
from .network import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from ..runtime.spec import SpecWriter
    from ..runtime.zygote import Worker
    from .model import RunRecord, RunRequest

    Result = TypeVar("Result")
    Ended = Callable[[resource.struct_rusage, RunRecord], None]

log = logs.logger()

_ATTEMPTS = 4  # of a launch, each with a zygote that ended
# Look-ups under way, of all runs and plans together; more wait.
_MOST_LOOK_UPS = 32
_QUESTION_BYTES = 512


class Brokers:
    """Launches brokers.  lost: called when their zygote was lost.  workers: the workers' keeper."""

    def __init__(self, lost: "Callable[[], None]", workers: Keeper) -> None:
        self._keeper = Keeper(lost, workers)
        self._starting = asyncio.Lock()
        self._started = False
        self._look_ups = LookUps(_MOST_LOOK_UPS)

    async def close(self) -> None:
        """Ends the zygote; no broker may be left."""
        await self._keeper.close()

    async def launch(
        self,
        request: "RunRequest",
        identity: "tuple[int, int, Sequence[int]] | None",
        *,
        missing: int,
        cgroup: "int | None",
        add_filter: "Callable[[SpecWriter], None]",
    ) -> "RunNetwork":
        """Plans the network of a run and launches its broker, which is ready then.

        Raises UsageError, SetupError, WallMissing.
        """
        planned = await self._look_ups.run(lambda: plan(request.net, request.net_host))
        async with self._starting:
            if not self._started:
                await self._keeper.start()
                self._started = True
        for attempt in range(1, _ATTEMPTS + 1):
            network = _broker.Network(planned)
            try:
                writer = network.spec(identity, request.quotas.cpu_time)
                writer.allow_missing(missing)
                add_filter(writer)
                worker = await self._keeper.launch(
                    writer.encode(), network.page, writer.fds, cgroup, missing
                )
            except ZygoteGone:
                # The broker was ended, if there was one, and it had nobody to act for.
                network.close()
                if attempt == _ATTEMPTS:
                    raise
                continue
            except BaseException:
                network.close()
                raise
            network.launched()
            made = RunNetwork(network, worker, self._keeper.workers, self._look_ups)
            try:
                await made.ready()
            except BaseException:
                await made.gone()
                raise
            return made
        raise AssertionError("unreachable")


class RunNetwork:
    """A run's broker, as a child of this process.  `end` ends it, and closes everything.

    ends: what the worker is handed.
    """

    def __init__(
        self,
        ends: _broker.Network,
        worker: "Worker",
        workers: "set[int]",
        look_ups: "LookUps",
    ) -> None:
        self.ends = ends
        self._worker = worker
        self._workers = workers
        self._look_ups = look_ups
        self._ended: Ended | None = None
        self._answering: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.pidfd, self._reap)
        if ends.questions is not None:
            ends.questions.setblocking(False)
            self._answering = loop.create_task(self._answer(ends.questions))

    async def ready(self) -> None:
        """Waits for its first word.  Raises SetupError when it says none."""
        loop = asyncio.get_running_loop()
        end = self.ends.end.fileno()
        deadline = loop.time() + _broker.PATIENCE_SECONDS
        while not self.ends.has_said_hello():
            if loop.time() >= deadline:
                raise SetupError("the run's broker does not answer", step=_broker.STEP)
            # Not wait_for, which forgets that it was cancelled when the word comes just then.
            turn = asyncio.Event()
            loop.add_reader(end, turn.set)
            late = loop.call_at(deadline, turn.set)
            try:
                await turn.wait()
            finally:
                late.cancel()
                loop.remove_reader(end)

    def end(self, ended: "Ended") -> None:
        """Kills it.  ended: called back with what it used and its record, once it is reaped."""
        self._ended = ended
        if self._answering is not None:
            self._answering.cancel()
        if self._worker.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._worker.pidfd, signal.SIGKILL)
        else:
            self._tell()

    async def gone(self) -> None:
        """Kills it, and waits until it is reaped: whoever gives up a launch has nothing left of it.

        Its control group can be removed then.  Cancelled, it is as `end`.
        """
        gone = asyncio.Event()
        self.end(lambda _usage, _record: gone.set())
        await gone.wait()

    def _reap(self) -> None:
        """It has ended: because it was told to, or by itself, which ends the run's network."""
        worker, loop = self._worker, asyncio.get_running_loop()
        _, _, self._usage = os.wait4(worker.pid, 0)
        self._workers.discard(worker.pid)
        loop.remove_reader(worker.pidfd)
        os.close(worker.pidfd)
        worker.pidfd = -1
        if self._ended is not None:
            self._tell()

    def _tell(self) -> None:
        ended, self._ended = self._ended, None
        record = self.ends.record()
        if self.ends.questions is not None:
            # By its descriptor's number, which may be another's by the time its task is cancelled.
            asyncio.get_running_loop().remove_reader(self.ends.questions)
        self.ends.close()
        assert ended is not None
        ended(self._usage, record)

    async def _answer(self, questions: socket.socket) -> None:
        """Answers the worker's questions for names, one after the other, until it has ended."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while question := await loop.sock_recv(questions, _QUESTION_BYTES):
                answer = await self._look_ups.run(partial(_broker.look_up, question))
                await loop.sock_sendall(questions, answer)


class LookUps:
    """Runs what may wait for a name server in threads, at most so many at a time.

    They are daemons' threads: the C library's resolver cannot be told to give up, and the end of
    this process does not wait for it.
    """

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)

    async def run(self, work: "Callable[[], Result]") -> "Result":
        """What `work` returns or raises.  A thread that nobody waits for any more has its place."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def settle(result: "Result | None", error: "BaseException | None") -> None:
            self._room.release()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def carry_out() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            # Without a loop there is nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=carry_out, daemon=True).start()
        except RuntimeError as error:  # no more threads
            self._room.release()
            raise SetupError(f"no thread to look a name up: {error}", step="resolve") from error
        return await done
