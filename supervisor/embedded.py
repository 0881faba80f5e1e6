"""A run without a daemon: this process is the supervisor, for as long as the one run lasts.

With `session`, the supervisor's one door to `wasisup.runtime`.  The road of a cached run is kept
short: what only an uncached one needs is imported where it is used.
"""

import os
import time
from errno import EFBIG

from ..runtime import cache as _cache
from ..runtime import filters as _filters
from ..runtime import spec as _spec
from . import child
from .errors import CacheError, InvalidModule, ModuleNotFound, SetupError, UsageError
from .grants import Descriptors, check_names, open_directory, open_listener, open_stdio
from .model import Outcome
from .session import Session, start
from .verdict import judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..runtime.describe import Export, Import
    from ..runtime.zygote import Hello
    from .cgroups import RunGroup
    from .model import RunRecord, RunRequest

    Progress = Callable[[str, float], None]

# Each table of a guest; the largest programs seen have some ten thousand functions in one.
TABLE_ELEMENTS = 1 << 20
# Writable memory of the engine and the host beside the guest's: RLIMIT_DATA adds it.
DATA_OVERHEAD = 64 << 20
_CGROUP_V2 = "/sys/fs/cgroup/cgroup.controllers"


def run(
    request: "RunRequest",
    stdio: "Sequence[int]" = (0, 1, 2),
    progress: "Progress | None" = None,
) -> Outcome:
    """Carries out one run and waits for its end.

    stdio: the guest's stdin, stdout and stderr; they stay the caller's, and a closed number is
    closed for the guest.  progress: called with words and seconds while a compile takes over a
    second.  Signals that ask for the end (INT, TERM, HUP, QUIT) end the run with 128 + n.
    Raises ModuleNotFound, InvalidModule, UsageError, CacheError, SetupError or WallMissing when the
    guest never ran.  Whatever happens, nothing is left behind.
    """
    streams = open_stdio(stdio)
    began = time.monotonic_ns()
    try:
        with child.Signals() as signals, Descriptors() as held:
            module = _open_module(request.module, held)
            group = _enter_group()
            try:
                with Session(
                    request.engine, signals, held, progress, request.allow_missing
                ) as session:
                    outcome = _run(session, request, streams, module, group)
            finally:
                if group is not None:
                    group.close()
        outcome.timings["total"] = time.monotonic_ns() - began
        return outcome
    except child.Interrupted as interrupted:
        number = interrupted.signal
        return Outcome(reason="killed", status=128 + number, signal=number)
    except _spec.SpecError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        if error.errno != EFBIG:
            raise
        raise SetupError(
            "the limit on the size of files (ulimit -f) leaves no room for what a run needs",
            step="limits",
            errno=EFBIG,
        ) from error


def describe(module: str, engine: str = "cranelift") -> "list[Import | Export]":
    """The module's imports and exports, compiling it when it has not been yet.

    Raises what `run` raises, and KeyboardInterrupt with the number of the signal that asked for the
    end.
    """
    from ..runtime.describe import decode

    try:
        with child.Signals() as signals, Descriptors() as held:
            fd = _open_module(module, held)
            with Session(engine, signals, held, None, frozenset()) as session:
                key, digest, _ = session.artifact(fd, module, fuel=False)
                raw = session.cache.read_file(f"artifacts/{key}/{digest}.desc")
                if raw is None:  # pruned a moment ago, or damaged
                    session.cache.drop(key, digest)
                    key, digest, _ = session.artifact(fd, module, fuel=False)
                    raw = session.cache.read_file(f"artifacts/{key}/{digest}.desc")
    except child.Interrupted as interrupted:
        raise KeyboardInterrupt(interrupted.signal) from interrupted
    if raw is None:
        raise CacheError("the compile cache does not keep what is stored")
    return decode(raw)


def probe() -> "Hello":
    """What the zygote says about itself here: engine release, and the walls clone3 can put up.

    Raises SetupError when it cannot start.
    """
    with start("cranelift") as zygote:
        return zygote.hello()


def _run(
    session: Session,
    request: "RunRequest",
    streams: "list[int | None]",
    module: int,
    group: "RunGroup | None",
) -> Outcome:
    began = time.monotonic_ns()
    fuel = request.quotas.fuel is not None
    check_names(request)
    if group is not None:
        _limit_group(group, request)
    for attempt in (1, 2):
        key, digest, artifact = session.artifact(module, request.module, fuel=fuel)
        with Descriptors() as granted:
            writer = _spec_of(request, streams, artifact, granted)
            ended, record = session.launch(
                writer, profile_of(request), request.quotas.timeout, group=group, last=True
            )
        if attempt == 2:
            break
        if _was_rejected(ended, record):
            # Made by another build of the engine, or damaged.  Compiled once more.
            session.cache.drop(key, digest)
        elif not _was_pruned(ended, record, artifact):
            break
        session.restart()
    outcome = judge(
        ended,
        record,
        request.quotas,
        out_of_memory=group is not None and group.oom_kills() > 0,
        name_of=_filters.name_of,
    )
    outcome.timings = _timings(began, session.launched, record)
    outcome.digest = digest
    return outcome


def profile_of(request: "RunRequest") -> str:
    """The profile of policies/syscalls.py that fits what is granted."""
    writing = bool(request.tmpfs) or any(not grant.read_only for grant in request.dirs)
    return _filters.profile(
        "run",
        request.engine,
        reading=bool(request.dirs),
        directories=writing,
        listeners=bool(request.listens),
    )


def _was_rejected(ended: "child.Ended", record: "RunRecord") -> bool:
    # Before the guest's first instruction, that is: what has run is not run twice.
    return record.outcome == "rejected" and ended.status == 126 << 8 and record.running_ns == 0


def _was_pruned(ended: "child.Ended", record: "RunRecord", artifact: int) -> bool:
    """Whether the artifact was removed before the worker could mount it."""
    failed = record.outcome == "setup" and ended.status == 125 << 8 and record.running_ns == 0
    return failed and os.fstat(artifact).st_nlink == 0


def _spec_of(
    request: "RunRequest",
    streams: "list[int | None]",
    artifact: int,
    granted: Descriptors,
) -> _spec.SpecWriter:
    """The launch spec of a run, without filters; `granted` owns what is opened for it."""
    quotas = request.quotas
    writer = _spec.SpecWriter(_spec.KIND_RUN, request.engine)
    writer.argument(os.path.basename(request.module) if request.argv0 is None else request.argv0)
    for word in request.args:
        writer.argument(word)
    for name, value in request.env:
        writer.variable(name, value)
    writer.stdio(streams)
    writer.artifact(artifact)
    writer.limits(
        memory=quotas.memory,
        cpu_ns=quotas.cpu_time,
        fds=quotas.fds,
        file_size=quotas.file_size,
        output=quotas.output,
        fuel=quotas.fuel,
        table_elements=TABLE_ELEMENTS,
        data_overhead=DATA_OVERHEAD,
    )
    if request.invoke is not None:
        writer.invoke(request.invoke)
    if os.geteuid() == 0:
        # An ordinary user's worker is that user without being told.
        writer.identity(os.geteuid(), os.getegid(), os.getgroups())
    mask = os.umask(0o077)
    os.umask(mask)
    writer.umask(mask)
    writer.clock_resolution(request.clock_resolution)
    _grant(request, writer, granted)
    return writer


def _grant(request: "RunRequest", writer: _spec.SpecWriter, granted: Descriptors) -> None:
    if request.dirs:
        from . import reach

        opened = [(grant, granted.own(open_directory(grant))) for grant in request.dirs]
        reach.check(opened, _cache.known_roots(), accept="cache" in request.allow_missing)
        for grant, fd in opened:
            writer.directory(fd, grant.guest, read_only=grant.read_only)
    for scratch in request.tmpfs:
        writer.tmpfs(scratch.guest, scratch.size)
    for listen in request.listens:
        listener = granted.own_socket(open_listener(listen))
        writer.listener(listener, f"{listen.host}:{listen.port}")


def _enter_group() -> "RunGroup | None":
    # Most machines end here: no cgroup v2 at the usual place, or one that is not ours.
    if not os.path.exists(_CGROUP_V2):
        return None
    from . import cgroups

    return cgroups.enter()


def _limit_group(group: "RunGroup", request: "RunRequest") -> None:
    memory = request.quotas.memory
    if memory is not None:
        # Scratch space is memory too, and the kernel counts it for whoever writes to it.
        memory += DATA_OVERHEAD + sum(scratch.size for scratch in request.tmpfs)
    try:
        group.limit(memory=memory, processes=1)
    except OSError as error:
        raise SetupError(
            f"the run's control group takes no limits: {error.strerror}",
            step="cgroup",
            errno=error.errno or 0,
        ) from error


def _timings(began: int, launched: int, record: "RunRecord") -> "dict[str, int]":
    """ns of each stretch of the run; those that were not reached are left out."""
    marks = (
        ("prepare", began, launched),
        ("launch", launched, record.setup_ns),
        ("walls", record.setup_ns, record.loading_ns),
        ("load", record.loading_ns, record.running_ns),
        ("run", record.running_ns, record.done_ns),
    )
    return {name: end - start for name, start, end in marks if 0 < start <= end}


def _open_module(path: str, held: Descriptors) -> int:
    """The module, open for reading; `held` closes it.  Raises ModuleNotFound or InvalidModule."""
    try:
        # Non-blocking: a FIFO would wait for a writer before it could be refused.
        fd = held.own(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModuleNotFound(f"{path}: no such module") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidModule(f"{path}: {reason[:1].lower()}{reason[1:]}") from error
    kind = os.fstat(fd).st_mode & 0o170000
    if kind == 0o040000:
        raise InvalidModule(f"{path}: is a directory")
    if kind != 0o100000:
        raise InvalidModule(f"{path}: not a regular file")
    return fd
