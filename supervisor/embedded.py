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
from . import child, launch
from .errors import CacheError, SetupError, UsageError
from .grants import (
    Descriptors,
    check_names,
    open_directory,
    open_listener,
    open_module,
    open_stdio,
)
from .launch import Opened
from .model import Outcome
from .session import Session, start
from .verdict import judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..runtime.describe import Export, Import, World
    from ..runtime.zygote import Hello
    from .cgroups import RunGroup
    from .child import Ended
    from .model import RunRecord, RunRequest

    Progress = Callable[[str, float], None]

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
            module = held.own(open_module(request.module))
            group = _enter_group()
            try:
                with Session(
                    request.engine, signals, held, progress, launch.may_miss(request)
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


def describe(module: str, engine: str = "cranelift") -> "list[World | Import | Export]":
    """The module's imports and exports, compiling it when it has not been yet.

    Raises what `run` raises, and KeyboardInterrupt with the number of the signal that asked for the
    end.
    """
    from ..runtime.describe import decode

    try:
        with child.Signals() as signals, Descriptors() as held:
            fd = held.own(open_module(module))
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
    for attempt in (1, 2):
        key, digest, artifact = session.artifact(module, request.module, fuel=fuel)
        component = launch.is_component(artifact)
        if request.net and not component:
            from . import network

            network.give_module(request)
            check_names(request)
        launch.limit_group(group, request, component=component)
        with Descriptors() as granted:
            opened = _open_grants(request, granted)
            ended, record = _launch(
                session, request, streams, artifact=artifact, opened=opened, group=group
            )
        if attempt == 2:
            break
        if launch.was_rejected(ended.status, record):
            # Made by another build of the engine, or damaged.  Compiled once more.
            session.cache.drop(key, digest)
        elif not launch.was_pruned(ended.status, record, artifact):
            break
        session.restart()
    outcome = judge(
        ended,
        record,
        request.quotas,
        out_of_memory=group is not None and group.oom_kills() > 0,
        name_of=_filters.name_of,
    )
    outcome.timings = launch.timings(began, session.launched, record)
    outcome.digest = digest
    return outcome


def _launch(
    session: Session,
    request: "RunRequest",
    streams: "list[int | None]",
    *,
    artifact: int,
    opened: Opened,
    group: "RunGroup | None",
) -> "tuple[Ended, RunRecord]":
    """Runs the worker, and beside it the broker that a component may have."""
    component = launch.is_component(artifact)
    broker = None
    if launch.wants_broker(request, component=component):
        broker = session.start_broker(request, _identity(), group)
        opened.network = broker.network
    try:
        writer = launch.spec_of(
            request,
            streams,
            artifact,
            opened,
            component=component,
            identity=_identity(),
            umask=_umask(),
        )
        ended, record = session.launch(
            writer,
            launch.profile_of(request, component=component),
            request.quotas.timeout,
            group=group,
            last=True,
            launched=None if broker is None else broker.network.handed_over,
        )
    finally:
        left = None if broker is None else broker.end()
    if left is not None:
        from .broker import total

        ended.usage = total(ended.usage, left[0])
        record.denials += left[1].denials
    return ended, record


def _open_grants(request: "RunRequest", granted: Descriptors) -> Opened:
    """What the request grants, opened as the user; `granted` owns it."""
    directories = [(grant, granted.own(open_directory(grant))) for grant in request.dirs]
    if directories:
        from . import reach

        accept = "cache" in request.allow_missing
        reach.check(directories, _cache.known_roots(), accept=accept)
    listeners = [
        (granted.own_socket(open_listener(listen)), f"{listen.host}:{listen.port}")
        for listen in request.listens
    ]
    return Opened(directories, listeners)


def _identity() -> "tuple[int, int, Sequence[int]] | None":
    # An ordinary user's worker is that user without being told.
    return (0, os.getegid(), os.getgroups()) if os.geteuid() == 0 else None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _enter_group() -> "RunGroup | None":
    # Most machines end here: no cgroup v2 at the usual place, or one that is not ours.
    if not os.path.exists(_CGROUP_V2):
        return None
    from . import cgroups

    return cgroups.enter()
