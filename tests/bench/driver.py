"""Runs on one live zygote, as a supervisor that stays makes them: all walls, artifacts compiled.

Only the road of a run is measured: the artifact comes out of the compile cache beforehand, and the
filters are at hand.  What is left is what every run pays: its record, its spec, the zygote's fork,
the walls, loading, the guest, and reaping it.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from wasisup.runtime import cache, engine, filters, record, spec, zygote
from wasisup.supervisor import embedded, launch
from wasisup.supervisor.model import RunRecord, wall_names

# The quotas of the default policy, as far as they are not in the way of a long benchmark.
MEMORY = 256 << 20
CPU_NS = 600 * 10**9
FDS = 64
FILE_SIZE = 64 << 20
OUTPUT = 16 << 20
# The cgroup wall is put up by who starts the zygote, where one is delegated; the others always.
EXPECTED_WALLS = frozenset(wall_names(0xFF)) - {"cgroup"}


class Runner:
    """A live zygote and what it needs for runs of one engine.  Use it in a `with`.

    chosen: "cranelift" or "pulley".
    """

    def __init__(self, chosen: str = "cranelift", *, stay: bool = True) -> None:
        self.engine = chosen
        self._cache = cache.ArtifactCache()
        self._artifacts: dict[Path, int] = {}
        self._filters: dict[str, tuple[bytes, bytes]] = {}
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.zygote = zygote.start(
            engine.find_core(), engine.find_library(), engine.ENGINE_RELEASE, (chosen,), stay=stay
        )
        self.zygote.hello()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.zygote.close()
        for fd in (self._null, *self._artifacts.values()):
            os.close(fd)
        self._cache.close()

    def prepare(self, module: Path) -> int:
        """The compiled module as a descriptor, this object's; compiles it when it has to."""
        if module not in self._artifacts:
            embedded.describe(str(module), self.engine)
            digest = hashlib.sha256(module.read_bytes()).hexdigest()
            key = engine.engine_key(self.engine, fuel=False)
            artifact = self._cache.open_artifact(key, digest)
            if artifact is None:
                raise RuntimeError(f"{module} was compiled and is not in the cache")
            self._artifacts[module] = artifact
        return self._artifacts[module]

    def launch(
        self, module: Path, args: Sequence[str], stdout: int, page: int, directory: Path | None
    ) -> zygote.Worker:
        """Starts a worker: `page` is its record, `directory` becomes the guest's "."."""
        writer = spec.SpecWriter(spec.KIND_RUN, self.engine)
        for word in (module.name, *args):
            writer.argument(word)
        writer.stdio([self._null, stdout, 2])
        artifact = self.prepare(module)
        component = launch.is_component(artifact)
        if component:
            writer.form(spec.FORM_COMPONENT)
            writer.threads(launch.COMPONENT_THREADS)
        writer.artifact(artifact)
        writer.limits(
            memory=MEMORY,
            cpu_ns=CPU_NS,
            fds=FDS,
            file_size=FILE_SIZE,
            output=OUTPUT,
            fuel=None,
            table_elements=launch.TABLE_ELEMENTS,
            data_overhead=launch.DATA_OVERHEAD,
        )
        if os.geteuid() == 0:
            writer.identity(os.geteuid(), os.getegid(), os.getgroups())
        profile = filters.profile(
            "run", self.engine, component=component, directories=directory is not None
        )
        if profile not in self._filters:
            self._filters[profile] = filters.programs(profile, self._cache)
        for stage, program in enumerate(self._filters[profile], start=1):
            writer.filter(stage, program)
        granted = None
        try:
            if directory is not None:
                granted = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                writer.directory(granted, ".", read_only=False)
            return self.zygote.launch(writer.encode(), page, writer.fds, None, 0)
        finally:
            if granted is not None:
                os.close(granted)

    def run_ms(self, module: Path, *args: str) -> float:
        """Milliseconds from the request to the reaped worker, whose stdout is /dev/null.

        Raises RuntimeError when the guest did not exit with 0 behind every wall.
        """
        start = time.perf_counter_ns()
        page = record.create()
        try:
            worker = self.launch(module, args, self._null, page, None)
            _, status = os.waitpid(worker.pid, 0)
            end = time.perf_counter_ns()
            os.close(worker.pidfd)
            _check(status, record.read(page))
        finally:
            os.close(page)
        return (end - start) / 1e6

    def output(self, module: Path, *args: str, directory: Path | None = None) -> str:
        """What the module prints; it has to fit into a pipe.  Raises as `run_ms`."""
        page = record.create()
        out, into = os.pipe2(os.O_CLOEXEC)
        try:
            worker = self.launch(module, args, into, page, directory)
            _, status = os.waitpid(worker.pid, 0)
            os.close(worker.pidfd)
            _check(status, record.read(page))
            os.set_blocking(out, False)
            return os.read(out, 1 << 16).decode()
        finally:
            for fd in (page, out, into):
                os.close(fd)

    def start_sleeper(self, module: Path) -> zygote.Worker:
        """A worker whose guest has printed its first words and sleeps.  End it with `stop`."""
        page = record.create()
        out, into = os.pipe2(os.O_CLOEXEC)
        try:
            worker = self.launch(module, (), into, page, None)
            poll = select.poll()
            poll.register(out, select.POLLIN)
            poll.register(worker.pidfd, select.POLLIN)
            poll.poll()
            if worker.pidfd in [fd for fd, _ in poll.poll(0)]:
                _, status = os.waitpid(worker.pid, 0)
                os.close(worker.pidfd)
                _check(status or 1, record.read(page))
            return worker
        finally:
            for fd in (page, out, into):
                os.close(fd)


def stop(worker: zygote.Worker) -> None:
    """Kills and reaps a worker and closes its pidfd."""
    signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
    os.waitpid(worker.pid, 0)
    os.close(worker.pidfd)


def _check(status: int, told: RunRecord) -> None:
    missing = EXPECTED_WALLS.difference(told.walls)
    if status or missing:
        raise RuntimeError(
            f"a run ended with wait status {status:#x}, {told.outcome} {told.step}: "
            f"{told.message or 'no message'}; walls missing: {', '.join(sorted(missing)) or 'none'}"
        )
