"""Keeps a zygote at hand: starts it, hears its answers, notices its death or silence, replaces it.

Running workers do not depend on the zygote: they are this process's children.  A launch that was
under way when the zygote ended may have happened or not; the worker is found and ended if it did.
"""

import asyncio
import contextlib
import itertools
import os
import select
import signal
from collections import deque
from pathlib import Path

from ..runtime import engine as _engine
from ..runtime import zygote as _zygote
from . import logs
from .alarm import Alarm
from .errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..runtime.zygote import Worker, Zygote

log = logs.logger()

ENGINES = ("cranelift", "pulley")
# The two kinds of zygotes, by the word of their command line: it is that of their children, too,
# until those change it.
WORKERS, BROKERS = "zygote", "brokers"
_DOUBT_SECONDS = 0.05  # how often an orphan that may be another keeper's is looked at again
# The zygote answers in well under a millisecond; it is replaced when it has not for so long.
PATIENCE_SECONDS = 5.0
PING_SECONDS = 1.0
# What fits the socket's buffer with ease; more launches wait for their turn.
MOST_UNDER_WAY = 64
# Starts that may fail, less than a second's worth of them, before launches are told.
_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.05
_DUE_SECONDS = 0.003  # after a launch, unless the run was shorter
_KILL_MS = 1000  # how long the end of a killed child is waited for
_LONGEST_PAUSE_SECONDS = 5.0


class Keeper:
    """One zygote after the other.

    lost: called when a zygote was lost, before the next is started.  served: the keeper of workers
    for which this one launches brokers; None: this one launches workers.  workers: pids of those
    that were launched, of both; whoever reaps one takes it out.
    """

    def __init__(self, lost: "Callable[[], None]", served: "Keeper | None" = None) -> None:
        self._tell_lost = lost
        self._served = served
        self._brokers: Keeper | None = None
        self.workers: set[int] = set()
        if served is not None:
            self.workers = served.workers
            served._brokers = self
        self._due: Alarm | None = None  # for `prepare`
        self._zygote: Zygote | None = None
        self._gone: set[Zygote] = set()  # ended, with workers that set themselves up
        self._under_way: deque[asyncio.Future[Worker]] = deque()
        self._ready = asyncio.Event()  # set when there is a zygote, or a failure
        self._room = asyncio.Semaphore(MOST_UNDER_WAY)
        self._guard: asyncio.Task[None] | None = None
        self._pidfd = -1  # the zygote's; -1 while there is none
        self._closed = False
        self.failure: SetupError | None = None
        self.release = ""
        self.walls: list[str] = []

    @property
    def pid(self) -> "int | None":
        """The zygote's pid, None while there is none."""
        return None if self._zygote is None else self._zygote.pid

    async def start(self) -> None:
        """Starts the first zygote and waits until it is ready.  Raises SetupError."""
        self._due = Alarm(self.prepare)
        await self._start()
        self._guard = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Ends the zygote, and a worker that it forked ahead."""
        self._closed = True
        if self._due is not None:
            self._due.close()
        if self._guard is not None:
            self._guard.cancel()
        zygote, self._zygote = self._zygote, None
        for one in self._gone:
            asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()
        if zygote is not None:
            self._stop_listening(zygote)
            await asyncio.to_thread(zygote.close)

    async def launch(
        self,
        message: bytes,
        record: int,
        fds: "Sequence[int]",
        cgroup: "int | None",
        missing: int,
    ) -> "Worker":
        """As `Zygote.launch`.  Raises ZygoteGone when nobody knows whether it happened."""
        async with self._room:
            while self._zygote is None:
                await self._wait_ready()
            try:
                worker = self._zygote.submit(message, record, fds, cgroup, missing)
            except (_zygote.ZygoteGone, BlockingIOError) as error:
                self._lost("it does not take a launch")
                raise _zygote.ZygoteGone("the zygote ended", step="start a worker") from error
            if self._due is not None and not self._due.is_set:
                self._due.set(_DUE_SECONDS)
            if worker is not None:
                self.workers.add(worker.pid)
                return worker
            answer: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
            self._under_way.append(answer)
            # Shielded by hand: a cancelled launch leaves its place in the order of the answers.
            try:
                return await asyncio.shield(answer)
            except asyncio.CancelledError:
                answer.add_done_callback(self._end_unwanted)
                raise

    def prepare(self) -> None:
        """Has a worker forked ahead, unless there is one.

        A good moment is when a worker has been reaped: while it runs, or makes way, a fork and it
        wait for each other.
        """
        if self._due is not None:
            self._due.clear()
        if self._zygote is not None:
            self._zygote.prepare()

    def _end_unwanted(self, answer: "asyncio.Future[Worker]") -> None:
        """Ends the worker of a launch that was cancelled meanwhile."""
        if answer.cancelled() or answer.exception() is not None:
            return
        worker = answer.result()
        _end(worker.pid, worker.pidfd)
        self.workers.discard(worker.pid)

    def _end_orphans(self) -> None:
        """Kills and reaps workers whose launch was not answered."""
        for pid in _children():
            if pid in self.workers:
                continue
            word = _word(pid)
            if self._served is not None:
                # Brokers are honest about their command line; what is none of them is not ours.
                if word == BROKERS:
                    _end(pid, os.pidfd_open(pid))
            elif _is_worker(pid):
                brokers = self._brokers
                if word == BROKERS and brokers is not None and brokers._under_way:
                    self._doubt(pid, os.pidfd_open(pid), brokers)
                else:
                    _end(pid, os.pidfd_open(pid))

    def _doubt(self, pid: int, pidfd: int, brokers: "Keeper") -> None:
        """Waits until `brokers` knows all of its own; whoever is then nobody's is ended.

        A worker can write what it likes on its command line, but not into that set.
        """
        if pid in self.workers:
            os.close(pidfd)
        elif brokers._under_way:
            loop = asyncio.get_running_loop()
            loop.call_later(_DOUBT_SECONDS, self._doubt, pid, pidfd, brokers)
        else:
            try:
                _end(pid, pidfd)
            except ProcessLookupError:
                os.close(pidfd)  # a broker that has ended and been reaped since

    async def _wait_ready(self) -> None:
        await self._ready.wait()
        failure = self.failure
        if self._zygote is None and failure is not None:
            # Not itself: each raising of one exception adds to its traceback.
            raise SetupError(failure.message, failure.hint, step=failure.step, errno=failure.errno)

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        zygote = self._spawn()
        try:
            said = loop.create_future()
            loop.add_reader(zygote.fileno(), _done, said)
            try:
                await asyncio.wait_for(said, _zygote.PATIENCE_SECONDS)
            finally:
                loop.remove_reader(zygote.fileno())
            hello = zygote.hello()
            assert zygote.pid is not None
            # The socket does not end with it for as long as a worker that sets itself up has it.
            self._pidfd = os.pidfd_open(zygote.pid)
        except BaseException:
            await asyncio.to_thread(zygote.close)
            raise
        self.release, self.walls = hello.release, hello.walls
        zygote.set_nonblocking()
        self._zygote = zygote
        loop.add_reader(zygote.fileno(), self._hear, zygote)
        loop.add_reader(self._pidfd, self._lost, "it has ended")
        self.failure = None
        self._ready.set()

    def _spawn(self) -> "Zygote":
        if self._served is not None:
            return _zygote.start_brokers(_engine.find_core())
        return _zygote.start(
            _engine.find_core(),
            _engine.find_library(),
            _engine.ENGINE_RELEASE,
            ENGINES,
            stay=True,
        )

    def _stop_listening(self, zygote: "Zygote") -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(zygote.fileno())
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1

    def _hear(self, zygote: "Zygote") -> None:
        try:
            self._take_answers(zygote)
        except _zygote.ZygoteGone as error:
            self._lost(error.message)

    def _take_answers(self, zygote: "Zygote") -> None:
        """Hands out every answer that has come.  Raises ZygoteGone at the end of them all."""
        while True:
            try:
                worker = zygote.receive()
            except BlockingIOError:
                return
            except _zygote.ZygoteGone:
                raise
            except SetupError as error:
                self._under_way.popleft().set_exception(error)
                continue
            if worker is not None:
                self.workers.add(worker.pid)
                self._under_way.popleft().set_result(worker)

    async def _watch(self) -> None:
        """Pings, and replaces a zygote that is silent for too long."""
        while True:
            zygote = self._zygote
            if zygote is None:
                await self._replace()
                continue
            heard = zygote.answered
            try:
                zygote.ping()
            except _zygote.ZygoteGone as error:
                self._lost(error.message)
                continue
            except BlockingIOError:
                pass  # its buffer is full: then it does not read
            silent = 0.0
            while zygote is self._zygote:
                await asyncio.sleep(PING_SECONDS)
                if zygote.answered != heard:
                    break
                silent += PING_SECONDS
                if silent >= PATIENCE_SECONDS and zygote is self._zygote:
                    self._lost(f"it has not answered for {silent:.0f} s")

    def _lost(self, why: str) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is None or self._closed:
            return
        log.error("the zygote is gone and will be replaced", why=why)
        self._ready.clear()
        self._stop_listening(zygote)
        # Killed, not asked: it may be stopped.  No answer comes after those that are taken here.
        zygote.kill()
        with contextlib.suppress(_zygote.ZygoteGone):
            self._take_answers(zygote)
        zygote.end_spare()
        self._end_orphans()
        self._gone.add(zygote)
        asyncio.get_running_loop().add_reader(zygote.fileno(), self._forget, zygote)
        self._tell_lost()
        under_way, self._under_way = self._under_way, deque()
        for answer in under_way:
            answer.set_exception(_zygote.ZygoteGone("the zygote ended", step="start a worker"))
        # The watch would notice within its pause; launches wait for it now.
        if self._guard is not asyncio.current_task():
            if self._guard is not None:
                self._guard.cancel()
            self._guard = asyncio.create_task(self._watch())

    def _forget(self, zygote: "Zygote") -> None:
        """Closes the socket of one that has ended, once no worker needs it to set itself up."""
        try:
            zygote.receive()
        except BlockingIOError:
            return
        except SetupError:
            asyncio.get_running_loop().remove_reader(zygote.fileno())
            self._gone.discard(zygote)
            zygote.close()

    async def _replace(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        for tries in itertools.count(1):
            try:
                await self._start()
                log.info("a new zygote is ready", zygote=self.pid)
                return
            except (SetupError, OSError, TimeoutError) as error:
                log.error("the zygote cannot be started", why=str(error))
                if tries >= _TRIES:
                    self.failure = (
                        error if isinstance(error, SetupError) else SetupError(f"the core: {error}")
                    )
                    self._ready.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _end(pid: int, pidfd: int) -> None:
    """Kills and reaps a child, and closes `pidfd`.

    Once it has been killed it carries out nothing of its own any more; but a file system that does
    not answer can hold it in the kernel, and then it is reaped whenever that lets go.
    """
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(_KILL_MS):
        _reap(pid, pidfd)
    else:
        asyncio.get_running_loop().add_reader(pidfd, _reap_late, pid, pidfd)


def _reap(pid: int, pidfd: int) -> None:
    os.waitpid(pid, 0)
    os.close(pidfd)


def _reap_late(pid: int, pidfd: int) -> None:
    asyncio.get_running_loop().remove_reader(pidfd)
    _reap(pid, pidfd)


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _children() -> "list[int]":
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue  # a thread that has just ended
    return found


def _word(pid: int) -> str:
    """The first word after the command of a child's command line, "" when it has none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[1].decode("ascii", "replace") if len(words) > 1 else ""


def _is_worker(pid: int) -> bool:
    """Whether a child is a worker: it has a PID namespace of its own, or the worker's name.

    Or, before it has either, the command line of the zygote, which has ended.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    deeper = len(fields.get("NSpid", "").split()) > len(_own_depth())
    return deeper or fields["Name"].strip() == "wasisup-worker" or _word(pid) == WORKERS


def _own_depth() -> "list[str]":
    status = Path("/proc/self/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
