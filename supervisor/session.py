"""A zygote, a cache and this process's signals: what it takes to launch workers and await them."""

import os
import time

from ..runtime import cache as _cache
from ..runtime import engine as _engine
from ..runtime import filters as _filters
from ..runtime import record as _record
from ..runtime import spec as _spec
from ..runtime import zygote as _zygote
from . import child
from .errors import CacheError, InvalidModule, WallMissing
from .grants import Descriptors, open_stdio
from .model import wall_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from ..runtime.compile import Compiler
    from ..runtime.zygote import Zygote
    from .broker import Broker
    from .cgroups import RunGroup
    from .child import Ended
    from .model import RunRecord, RunRequest

    Progress = Callable[[str, float], None]

_SECOND = 10**9


class Session:
    """A zygote and a cache, and what launching workers with them takes.

    held: owns every descriptor that has to last until the end.
    """

    __slots__ = (
        "_allow_missing",
        "_compiler",
        "_engine",
        "_held",
        "_progress",
        "_signals",
        "_zygote",
        "cache",
        "launched",
    )

    def __init__(
        self,
        engine: str,
        signals: child.Signals,
        held: Descriptors,
        progress: "Progress | None",
        allow_missing: "frozenset[str]",
    ) -> None:
        self._engine = engine
        self._signals = signals
        self._held = held
        self._progress = progress
        self._allow_missing = allow_missing
        self._compiler: Compiler | None = None
        self.launched = 0  # CLOCK_MONOTONIC of the last launch
        # The zygote loads the engine's library while this process does everything else.
        self._zygote = start(engine)
        try:
            self.cache = _open_cache(progress)
        except BaseException:
            self._zygote.close()
            raise

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._zygote.close()
        finally:
            self.cache.close()

    def restart(self) -> None:
        """Replaces the zygote, which was let go with the last run, by a new one."""
        self._zygote.close()
        self._zygote = start(self._engine)

    def release(self) -> None:
        """Lets the zygote leave while the last worker runs: its exit costs nothing there."""
        self._zygote.release()

    def artifact(self, module: int, name: str, *, fuel: bool) -> "tuple[str, str, int]":
        """The engine's key, the module's digest and the artifact, which `held` closes."""
        key = _engine.engine_key(self._engine, fuel=fuel)
        digest = self.cache.digest_of(os.fstat(module))
        found = None if digest is None else self.cache.open_artifact(key, digest)
        if digest is None or found is None:
            compiler = self._get_compiler()
            try:
                found, digest = compiler.artifact(module, name, self._engine, key, fuel=fuel)
            finally:
                self._adopt(compiler.cache)
        return key, digest, self._held.own(found)

    def start_broker(
        self,
        request: "RunRequest",
        identity: "tuple[int, int, Sequence[int]] | None",
        group: "RunGroup | None",
    ) -> "Broker":
        """Launches the run's broker.  Raises what `broker.start` raises."""
        from . import broker

        return broker.start(
            request,
            identity,
            cache=self.cache,
            missing=wall_bits(self._allow_missing),
            cgroup=None if group is None else group.fd,
            closed=closed_stdio(),
            signals=self._signals,
        )

    def _adopt(self, cache: "_cache.ArtifactCache") -> None:
        """Goes on with the cache that the compiler had to fall back to."""
        if cache is not self.cache:
            self.cache.close()
            self.cache = cache

    def launch(
        self,
        writer: _spec.SpecWriter,
        profile: str,
        timeout_ns: "int | None",
        tick: "Callable[[float], None] | None" = None,
        *,
        group: "RunGroup | None" = None,
        last: bool = False,
        launched: "Callable[[], None] | None" = None,
    ) -> "tuple[Ended, RunRecord]":
        """Runs one worker to its end.

        writer: a spec that lacks the filters of `profile` and the walls that may be missing.
        group: the cgroup it is born in.  last: the zygote is not needed for another one.
        launched: called when the worker has its descriptors.
        """
        missing = wall_bits(self._allow_missing)
        writer.allow_missing(missing)
        self._add_filters(writer, profile)
        message = writer.encode()
        page = self._held.own(_record.create())
        self._zygote.hello()
        self._signals.check()
        self.launched = time.monotonic_ns()
        cgroup = None if group is None else group.fd
        worker = self._zygote.launch(message, page, writer.fds, cgroup, missing)
        self._held.own(worker.pidfd)
        if launched is not None:
            launched()
        if last:
            self.release()
        ended = child.wait(
            worker.pid,
            worker.pidfd,
            self._signals,
            started=self.launched,
            timeout_ns=timeout_ns,
            tick=tick,
        )
        return ended, _record.read(page)

    def _add_filters(self, writer: _spec.SpecWriter, profile: str) -> None:
        try:
            first, second = _filters.programs(profile, self.cache)
        except WallMissing:
            if "seccomp" in self._allow_missing:
                return
            raise
        writer.filter(1, first)
        writer.filter(2, second)

    def _get_compiler(self) -> "Compiler":
        if self._compiler is None:
            from ..runtime.compile import Compiler

            self._compiler = Compiler(
                self.cache, self._compile, self._signals.pause, self._progress
            )
        return self._compiler

    def _compile(
        self, writer: _spec.SpecWriter, timeout_ns: int, tick: "Callable[[float], None]"
    ) -> "tuple[int, RunRecord]":
        profile = _filters.profile("compile", self._engine)
        ended, record = self.launch(writer, profile, timeout_ns, tick)
        if isinstance(ended.cause, int):
            raise child.Interrupted(ended.cause)
        if ended.cause == "timeout":
            raise InvalidModule(f"the module took more than {timeout_ns // _SECOND} s to compile")
        return ended.status, record


def start(engine: str) -> "Zygote":
    """Starts the installed core's zygote, which loads the installed engine.  Raises SetupError."""
    return _zygote.start(
        _engine.find_core(),
        _engine.find_library(),
        _engine.ENGINE_RELEASE,
        (engine,),
        closed_stdio(),
    )


def closed_stdio() -> "list[int]":
    """Those of 0, 1 and 2 that are closed here."""
    return [number for number, fd in enumerate(open_stdio((0, 1, 2))) if fd is None]


def _open_cache(progress: "Progress | None") -> "_cache.ArtifactCache":
    """The user's cache; one for this run alone where that cannot even be made.  Raises CacheError
    when it is there and not private."""
    cache = _cache.ArtifactCache()
    try:
        cache.fileno()
    except CacheError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        if progress is not None:
            progress(f"{error.message}: compiling for this run only", 0.0)
        return _cache.Ephemeral()
    return cache
