"""The door to the compiled core: compiling, launching workers, waiting for their ends.

`Core` is what a supervisor of many runs (the daemon, `wasisup serve`) needs of it; tests put one of
their own in its place.
"""

import asyncio
import os
import select
import signal
import time
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial

from ..runtime import cache as _cache
from ..runtime import compile as _compile
from ..runtime import engine as _engine
from ..runtime import filters as _filters
from ..runtime import record as _record
from ..runtime import spec as _spec
from ..runtime import zygote as _zygote
from . import launch as _launch
from . import logs
from .broker import PROFILE, total
from .brokers import Brokers
from .errors import CacheError, InvalidModule, SetupError, UsageError, WallMissing
from .keeper import Keeper
from .model import wall_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, Protocol

    from ..runtime.zygote import Worker
    from .brokers import RunNetwork
    from .launch import Opened
    from .model import RunRecord, RunRequest

    class Caller(Protocol):
        """Whose worker it is; it counts only where the supervisor is root."""

        @property
        def uid(self) -> int: ...
        @property
        def gid(self) -> int: ...
        @property
        def groups(self) -> tuple[int, ...]: ...

    class Running(Protocol):
        """A worker that was launched.

        pid: of the worker.  launched: CLOCK_MONOTONIC in ns.  `ended` is called back once, from the
        event loop, with the wait status, the kernel's account and the run record.
        """

        pid: int
        launched: int

        def send(self, number: int) -> None:
            """Sends a signal; one to a worker that has ended goes nowhere."""

        def output(self) -> int:
            """Bytes of output so far, by the worker's own account."""

        def is_under_way(self) -> bool:
            """Whether the guest has started."""

    Ended = Callable[[int, resource.struct_rusage, RunRecord], None]

log = logs.logger()

# What others need of the runtime, without a second door.
Source = _compile.Source
take = _compile.take
ZygoteGone = _zygote.ZygoteGone
check_head = _compile.check_head
MODULE_BYTES = _compile.MODULE_BYTES
RACY_NS = _cache.RACY_NS

_SECOND = 10**9
_KEPT_ARTIFACTS = 128
_PATIENCE_SECONDS = 10.0  # for a compile that was told to end
_ATTEMPTS = 4  # of a launch, each with a zygote that ended
_COMPILE_THREADS = (
    16  # those that wait cost nothing; how many compile at once is admitted elsewhere
)


def check_reachable(user: str) -> None:
    """Raises SetupError when this process may not read the core, the engine's library or Python's.

    user: who it has become, for the words.
    """
    # A module that is imported later would be missing in words that nobody understands.
    for path in (_engine.find_core(), _engine.find_library(), os.__file__):
        if not os.access(path, os.R_OK):
            raise SetupError(
                f"{path}: the user {user} may not read it",
                "install wasisup where other users can reach it, or name another with --user",
                step="start the core",
            )


class Core:
    """The real core.

    lost: called when a zygote was lost.
    """

    def __init__(self, lost: "Callable[[], None]") -> None:
        self._keeper = Keeper(lost)
        self._lost = lost
        self._brokers: Brokers | None = None  # until the first run that is granted a network
        self._cache = _cache.ArtifactCache()
        self._artifacts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._compiling: dict[tuple[str, str], _Compile] = {}
        self._filters: dict[str, tuple[bytes, bytes]] = {}
        self._keys: dict[tuple[str, bool], str] = {}
        self._threads = ThreadPoolExecutor(_COMPILE_THREADS, "compile")
        self._ends = _Ends()
        self._closed = False

    @property
    def release(self) -> str:
        """The engine's release."""
        return self._keeper.release

    @property
    def walls(self) -> "list[str]":
        """The walls that clone3 can put up here."""
        return self._keeper.walls

    @property
    def failure(self) -> "SetupError | None":
        """Why there is no zygote at the moment, or None."""
        return self._keeper.failure

    @property
    def zygote_pid(self) -> "int | None":
        """The zygote's pid, None while there is none."""
        return self._keeper.pid

    def prepare(self) -> None:
        """Has a worker stand by: to be called when there is a moment for it."""
        self._keeper.prepare()

    @staticmethod
    def name_of(number: int) -> str:
        """The name of a system call."""
        return _filters.name_of(number)

    def cache_roots(self) -> "list[str]":
        """Every place where this user's runs would look for compiled modules."""
        return [self._cache.root, *_cache.known_roots()]

    def prune(self, most: int) -> None:
        """Removes compiled modules, the least recently used first, beyond `most` bytes.

        For a thread.
        """
        try:
            for entry in self._cache.prune(most):
                log.info("compiled module removed", digest=entry.digest, size=entry.size)
        except (CacheError, OSError) as error:
            log.error("the compile cache could not be pruned", why=str(error))

    async def start(self) -> None:
        """Opens the cache and starts the zygote.  Raises CacheError, SetupError."""
        try:
            self._cache.fileno()
        except CacheError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            log.warning(
                "the compile cache cannot be used; compiling for this life only", why=error.message
            )
            self._cache = _cache.Ephemeral()
        asyncio.get_running_loop().add_reader(self._ends.fileno(), self._ends.hear)
        await self._keeper.start()

    async def close(self) -> None:
        """Ends the zygote; no worker may be left."""
        self._closed = True
        for work in [*self._compiling.values()]:
            work.task.cancel()
        if self._brokers is not None:
            await self._brokers.close()
        await self._keeper.close()
        asyncio.get_running_loop().remove_reader(self._ends.fileno())
        self._ends.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for fd in self._artifacts.values():
            os.close(fd)
        self._artifacts.clear()
        self._cache.close()

    # --- modules ---

    def compiled(self, digest: str, engine: str, *, fuel: bool) -> bool:
        """Whether the module is compiled already."""
        return self._find(self._key(engine, fuel), digest) is not None

    def is_component(self, digest: str, engine: str, *, fuel: bool) -> bool:
        """Whether what is compiled is a component.  Raises KeyError when it is not (any more)."""
        found = self._find(self._key(engine, fuel), digest)
        if found is None:
            raise KeyError(digest)
        return _launch.is_component(found)

    async def compile(
        self, source: "_compile.Source", name: str, engine: str, caller: "Caller", *, fuel: bool
    ) -> None:
        """Compiles the module unless it is compiled.  source: stays the caller's.

        Raises InvalidModule, SetupError.
        """
        key = self._key(engine, fuel)
        if self._find(key, source.digest) is not None:
            return
        place = key, source.digest
        work = self._compiling.get(place)
        if work is None:
            own = _compile.Source(os.dup(source.fd), source.digest, source.size)
            work = self._compiling[place] = _Compile()
            work.task = asyncio.create_task(
                self._obtain(own, name, engine, key, caller, fuel=fuel, work=work)
            )
            work.task.add_done_callback(lambda _: self._forget(place, work))
        work.waiting += 1
        try:
            # One who goes away does not take the work from the others that wait for it.
            await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if not work.waiting and not work.task.done():
                self._forget(place, work)
                work.abandon()

    def _forget(self, place: "tuple[str, str]", work: "_Compile") -> None:
        if self._compiling.get(place) is work:
            del self._compiling[place]
        if work.task.done() and not work.task.cancelled():
            work.task.exception()  # all who waited for it may have gone

    async def _obtain(
        self,
        source: "_compile.Source",
        name: str,
        engine: str,
        key: str,
        caller: "Caller",
        *,
        fuel: bool,
        work: "_Compile",
    ) -> int:
        loop = asyncio.get_running_loop()

        def launch(
            writer: _spec.SpecWriter, timeout_ns: int, tick: "Callable[[float], None]"
        ) -> "tuple[int, RunRecord]":
            _identify(writer, caller)
            job: Future[tuple[int, RunRecord]] = Future()
            loop.call_soon_threadsafe(work.begin, self._run_compiler(writer, engine), job)
            began = time.monotonic()
            while True:
                try:
                    return job.result(timeout=1)
                except CancelledError:
                    raise SetupError("nobody waits for it any more", step="compile") from None
                except TimeoutError:
                    spent = time.monotonic() - began
                    tick(spent)
                    if self._closed or spent * _SECOND > timeout_ns:
                        loop.call_soon_threadsafe(work.abandon)
                        if not self._closed:
                            wait([job], _PATIENCE_SECONDS)
                        raise InvalidModule(
                            f"the module took more than {timeout_ns // _SECOND} s to compile"
                        ) from None

        def pause(milliseconds: int) -> None:
            if self._closed or work.abandoned:
                raise SetupError("nobody waits for it any more", step="compile")
            if milliseconds:
                time.sleep(milliseconds / 1000)

        try:
            compiler = _compile.Compiler(self._cache, launch, pause, None)
            fd = await loop.run_in_executor(
                self._threads,
                lambda: compiler.obtain(source, name, engine, key, fuel=fuel),
            )
        finally:
            source.close()
        if compiler.cache is not self._cache:
            log.warning("the compile cache cannot be written; compiling for this life only")
            before, self._cache = self._cache, compiler.cache
            before.close()
        self._keep(key, source.digest, fd)
        return fd

    async def _run_compiler(self, writer: _spec.SpecWriter, engine: str) -> "tuple[int, RunRecord]":
        ended = asyncio.get_running_loop().create_future()

        def done(status: int, _: "resource.struct_rusage", record: "RunRecord") -> None:
            if not ended.done():
                ended.set_result((status, record))

        profile = _filters.profile("compile", engine)
        running = await self._launch(writer, profile, frozenset(), None, done)
        try:
            result: tuple[int, RunRecord] = await ended
        except asyncio.CancelledError:
            running.send(signal.SIGKILL)
            raise
        return result

    # --- runs ---

    async def launch(
        self,
        request: "RunRequest",
        digest: str,
        *,
        streams: "Sequence[int | None]",
        opened: "Opened",
        caller: "Caller",
        umask: int,
        cgroup: "int | None",
        ended: "Ended",
    ) -> "Running":
        """Launches a worker for a module that is compiled.  Descriptors stay the caller's.

        Raises KeyError when the module is not compiled (any more), SetupError, WallMissing,
        UsageError, and ZygoteGone when nobody knows whether the guest ran.
        """
        fuel = request.quotas.fuel is not None
        found = self._find(self._key(request.engine, fuel), digest)
        if found is None:
            raise KeyError(digest)
        artifact = os.dup(found)  # the other may be given up while this launch waits for its turn
        network: RunNetwork | None = None
        try:
            component = _launch.is_component(artifact)
            if _launch.wants_broker(request, component=component):
                network = await self._start_broker(request, caller, cgroup)
                opened = _launch.Opened(opened.directories, opened.listeners, network.ends)
            writer = _launch.spec_of(
                request,
                streams,
                artifact,
                opened,
                component=component,
                identity=_identity(caller),
                umask=umask,
            )
            profile = _launch.profile_of(request, component=component)
            running = await self._launch(writer, profile, _launch.may_miss(request), cgroup, ended)
            if network is not None:
                running.attach(network)
                network = None
            return running
        except _spec.SpecError as error:
            raise UsageError(str(error)) from error
        finally:
            os.close(artifact)
            if network is not None:
                await network.gone()

    async def try_network(self, request: "RunRequest", caller: "Caller") -> None:
        """Plans a component's network and launches its broker, for nothing but to see that it can.

        Raises UsageError, SetupError, WallMissing.
        """
        network = await self._start_broker(request, caller, None)
        await network.gone()

    async def _start_broker(
        self, request: "RunRequest", caller: "Caller", cgroup: "int | None"
    ) -> "RunNetwork":
        if self._brokers is None:
            self._brokers = Brokers(self._lost, self._keeper)
        missing = _launch.may_miss(request)
        try:
            return await self._brokers.launch(
                request,
                _identity(caller),
                missing=wall_bits(missing),
                cgroup=cgroup,
                add_filter=lambda writer: self._add_filters(writer, PROFILE, missing),
            )
        except _spec.SpecError as error:
            raise UsageError(str(error)) from error

    def reject(self, digest: str, engine: str, *, fuel: bool) -> None:
        """Drops an artifact that the engine refused, or that is not there any more."""
        key = self._key(engine, fuel)
        fd = self._artifacts.pop((key, digest), None)
        if fd is not None:
            if os.fstat(fd).st_nlink:
                self._cache.drop(key, digest)
            os.close(fd)

    def has_gone(self, digest: str, engine: str, *, fuel: bool) -> bool:
        """Whether the artifact was pruned while it was in use here."""
        fd = self._artifacts.get((self._key(engine, fuel), digest))
        return fd is None or os.fstat(fd).st_nlink == 0

    async def _launch(
        self,
        writer: _spec.SpecWriter,
        profile: str,
        allow_missing: "frozenset[str]",
        cgroup: "int | None",
        ended: "Ended",
    ) -> "_Running":
        missing = wall_bits(allow_missing)
        writer.allow_missing(missing)
        self._add_filters(writer, profile, allow_missing)
        message = writer.encode()
        for attempt in range(1, _ATTEMPTS + 1):
            page = _record.create()
            launched = time.monotonic_ns()
            try:
                worker = await self._keeper.launch(message, page, writer.fds, cgroup, missing)
            except ZygoteGone:
                # The worker has been ended, if there was one: what has run is not run twice.
                ran = _record.read(page).phase in ("running", "done")
                os.close(page)
                if ran:
                    raise SetupError(
                        "the zygote ended when the run had just begun, which was ended, too",
                        "run it again, if it may have run in part before",
                        step="start a worker",
                    ) from None
                if attempt == _ATTEMPTS:
                    raise
                continue
            except BaseException:
                os.close(page)
                raise
            return _Running(worker, page, launched, self._keeper.workers, self._ends, ended)
        raise AssertionError("unreachable")

    def _add_filters(
        self, writer: _spec.SpecWriter, profile: str, allow_missing: "frozenset[str]"
    ) -> None:
        pair = self._filters.get(profile)
        if pair is None:
            try:
                pair = _filters.programs(profile, self._cache)
            except WallMissing:
                if "seccomp" in allow_missing:
                    return
                raise
            self._filters[profile] = pair
        writer.filter(1, pair[0])
        writer.filter(2, pair[1])

    def _key(self, engine: str, fuel: bool) -> str:
        key = self._keys.get((engine, fuel))
        if key is None:
            key = self._keys[engine, fuel] = _engine.engine_key(engine, fuel=fuel)
        return key

    def _find(self, key: str, digest: str) -> "int | None":
        fd = self._artifacts.get((key, digest))
        if fd is not None:
            self._artifacts.move_to_end((key, digest))
            return fd
        fd = self._cache.open_artifact(key, digest)
        if fd is not None:
            self._keep(key, digest, fd)
        return fd

    def _keep(self, key: str, digest: str, fd: int) -> None:
        before = self._artifacts.pop((key, digest), None)
        if before is not None:
            os.close(before)
        self._artifacts[key, digest] = fd
        while len(self._artifacts) > _KEPT_ARTIFACTS:
            os.close(self._artifacts.popitem(last=False)[1])


class _Compile:
    """A compile that is under way.  waiting: for how many; without any it is ended."""

    __slots__ = ("_worker", "abandoned", "task", "waiting")

    def __init__(self) -> None:
        self.task: asyncio.Task[int]
        self.waiting = 0
        self.abandoned = False
        self._worker: asyncio.Task[tuple[int, RunRecord]] | None = None

    def begin(
        self,
        run: "Coroutine[Any, Any, tuple[int, RunRecord]]",
        job: "Future[tuple[int, RunRecord]]",
    ) -> None:
        """Runs its worker.

        job: told when that is over, and not before, as run_coroutine_threadsafe's is: a launch that
        is under way uses the descriptors which the compile's thread closes when it is told.
        """

        def tell(worker: "asyncio.Task[tuple[int, RunRecord]]") -> None:
            if worker.cancelled():
                job.cancel()
            elif (error := worker.exception()) is not None:
                job.set_exception(error)
            else:
                job.set_result(worker.result())

        self._worker = asyncio.create_task(run)
        self._worker.add_done_callback(tell)
        if self.abandoned:
            self._worker.cancel()

    def abandon(self) -> None:
        """Ends it; for the event loop's thread."""
        self.abandoned = True
        if self._worker is not None:
            self._worker.cancel()


class _Ends:
    """Hears of workers' ends, all of them by one epoll.

    The loop itself makes a selector's key, a handle and their entries for each descriptor.
    """

    __slots__ = ("_heard", "_poll", "close", "fileno")

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._heard: dict[int, Callable[[], None]] = {}
        self.fileno = self._poll.fileno
        self.close = self._poll.close

    def watch(self, pidfd: int, heard: "Callable[[], None]") -> None:
        """Has `heard` called when the process has ended, until `forget`."""
        self._heard[pidfd] = heard
        self._poll.register(pidfd, select.EPOLLIN)

    def forget(self, pidfd: int) -> None:
        """To be called before `pidfd` is closed."""
        del self._heard[pidfd]
        self._poll.unregister(pidfd)

    def hear(self) -> None:
        """Calls those whose process has ended; to be called when `fileno` can be read."""
        for pidfd, _ in self._poll.poll(0):
            self._heard[pidfd]()


class _Running:
    """A worker and what is known of it until it has been reaped."""

    __slots__ = ("_ended", "_ends", "_network", "_page", "_pidfd", "_workers", "launched", "pid")

    def __init__(  # noqa: PLR0917  # what it is made of, each once
        self,
        worker: "Worker",
        page: int,
        launched: int,
        workers: "set[int]",
        ends: _Ends,
        ended: "Ended",
    ) -> None:
        self.pid = worker.pid
        self.launched = launched
        self._pidfd = worker.pidfd
        self._page = page
        self._workers = workers
        self._ends = ends
        self._ended = ended
        self._network: RunNetwork | None = None
        ends.watch(worker.pidfd, self._reap)

    def attach(self, network: "RunNetwork") -> None:
        """It has a broker, which goes when it does: `ended` is told when both are reaped."""
        network.ends.handed_over()
        self._network = network

    def send(self, number: int) -> None:
        """Sends a signal; one to a worker that has ended goes nowhere."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # it has ended, and is reaped in a moment

    def output(self) -> int:
        """Bytes of output so far, by the worker's own account."""
        return _record.read(self._page).output if self._pidfd >= 0 else 0

    def is_under_way(self) -> bool:
        """Whether the guest has started: from there on nothing of the launch is needed again."""
        return self._pidfd >= 0 and _record.read(self._page).running_ns > 0

    def _reap(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        self._workers.discard(self.pid)
        self._ends.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        record = _record.read(self._page)
        os.close(self._page)
        if self._network is None:
            self._ended(status, usage, record)
        else:
            self._network.end(partial(self._finish, status, usage, record))

    def _finish(
        self,
        status: int,
        usage: "resource.struct_rusage",
        record: "RunRecord",
        broker_usage: "resource.struct_rusage",
        broker_record: "RunRecord",
    ) -> None:
        record.denials += broker_record.denials
        self._ended(status, total(usage, broker_usage), record)


def _identity(caller: "Caller") -> "tuple[int, int, Sequence[int]] | None":
    # An ordinary user's worker is that user without being told.
    return (caller.uid, caller.gid, caller.groups) if os.geteuid() == 0 else None


def _identify(writer: _spec.SpecWriter, caller: "Caller") -> None:
    identity = _identity(caller)
    if identity is not None:
        writer.identity(*identity)
