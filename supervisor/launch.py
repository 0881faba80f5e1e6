"""From a request and what was opened for it to a launch spec, for every kind of supervisor.

With `embedded` and `core` the supervisor's door to `wasisup.runtime`.
"""

import os

from ..runtime import filters as _filters
from ..runtime import spec as _spec
from .errors import SetupError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .broker import Network
    from .cgroups import RunGroup
    from .model import DirGrant, ListenGrant, RunRecord, RunRequest

# Each table of a guest; the largest programs seen have some ten thousand functions in one.
TABLE_ELEMENTS = 1 << 20
# Writable memory of the engine and the host beside the guest's: RLIMIT_DATA adds it.
DATA_OVERHEAD = 64 << 20
# Of a component's worker: the guest's, the runtime's, stdin's, and those that wait for files.  What
# finds none of the last kind free waits for one.
COMPONENT_THREADS = 16

_HEAD_BYTES = 4096
_ELF64_FLAGS = 48
_EF_COMPONENT = 2


class Opened:
    """What a request grants, opened; the descriptors stay their opener's.

    directories: in the request's order.  listeners: with the name that the guest is told.  network:
    of a component that has a broker, once that is ready.
    """

    __slots__ = ("directories", "listeners", "network")

    def __init__(
        self,
        directories: "Sequence[tuple[DirGrant, int]]",
        listeners: "Sequence[tuple[int, str]]",
        network: "Network | None" = None,
    ) -> None:
        self.directories = directories
        self.listeners = listeners
        self.network = network


def is_component(artifact: int) -> bool:
    """Whether the artifact open at `artifact` is a component's: by what is loaded, that is.

    The engine writes ELF files that say it in e_flags, which is what it looks at when it loads one
    (wasmtime 50, engine/serialization.rs: EF_WASMTIME_MODULE, EF_WASMTIME_COMPONENT).
    """
    return int.from_bytes(os.pread(artifact, 4, _ELF64_FLAGS), "little") & _EF_COMPONENT != 0


def is_component_file(path: str) -> bool:
    """Whether the file at `path` looks like a component: for showing what would be run.

    Raises OSError.
    """
    from ..runtime.compile import is_component as is_one

    with open(path, "rb") as file:
        return is_one(file.read(_HEAD_BYTES))


def is_component_source(fd: int) -> bool:
    """Whether what is open at `fd` looks like a component, before it has been compiled."""
    from ..runtime.compile import is_component as is_one

    return is_one(os.pread(fd, _HEAD_BYTES, 0))


def profile_of(request: "RunRequest", *, component: bool) -> str:
    """The profile of policies/syscalls.py that fits what is granted."""
    writing = bool(request.tmpfs) or any(not grant.read_only for grant in request.dirs)
    return _filters.profile(
        "run",
        request.engine,
        component=component,
        reading=bool(request.dirs),
        directories=writing,
        listeners=bool(request.listens),
        network=wants_broker(request, component=component),
    )


def wants_broker(request: "RunRequest", *, component: bool) -> bool:
    """Whether the run gets a broker: modules have no way to ask for one yet."""
    return component and (request.net_host or bool(request.net))


def spec_of(
    request: "RunRequest",
    streams: "Sequence[int | None]",
    artifact: int,
    opened: Opened,
    *,
    component: bool,
    identity: "tuple[int, int, Sequence[int]] | None",
    umask: int,
) -> _spec.SpecWriter:
    """The launch spec of a run, without filters.

    component: what the artifact is.  identity: uid, gid and groups of the worker; None leaves it
    the zygote's.
    """
    quotas = request.quotas
    writer = _spec.SpecWriter(_spec.KIND_RUN, request.engine)
    writer.argument(os.path.basename(request.module) if request.argv0 is None else request.argv0)
    for word in request.args:
        writer.argument(word)
    for name, value in request.env:
        writer.variable(name, value)
    if component:
        _check_component(request)
        writer.form(_spec.FORM_COMPONENT)
        writer.threads(COMPONENT_THREADS)
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
    if identity is not None:
        writer.identity(*identity)
    writer.umask(umask)
    writer.clock_resolution(request.clock_resolution)
    for grant, fd in opened.directories:
        writer.directory(fd, grant.guest, read_only=grant.read_only)
    for scratch in request.tmpfs:
        writer.tmpfs(scratch.guest, scratch.size)
    for fd, name in opened.listeners:
        writer.listener(fd, name)
    if opened.network is not None:
        opened.network.grant(writer)
    return writer


def _check_component(request: "RunRequest") -> None:
    # What only our own preview 1 can give.
    if request.listens:
        raise UsageError(
            "a component takes no socket from --tcplisten: that is a way of WASI preview 1",
            "a component listens by itself: "
            + " ".join(f"--net listen:tcp:{_address(one)}" for one in request.listens),
        )
    if request.clock_resolution:
        raise UsageError(
            "clock-resolution is for modules: a component's clocks are as fine as the kernel's",
            "a policy without clock-resolution can run it",
        )


def _address(grant: "ListenGrant") -> str:
    return f"[{grant.host}]:{grant.port}" if ":" in grant.host else f"{grant.host}:{grant.port}"


def may_miss(request: "RunRequest") -> "frozenset[str]":
    """The walls that a run can do without: those that it accepts by name to be missing.

    But the rules of a granted network are kept by the filter, which leaves the worker no other way
    to it than to ask: with a network there is no run without.
    """
    if request.net or request.net_host:
        return request.allow_missing - {"seccomp"}
    return request.allow_missing


def most_memory(request: "RunRequest") -> "int | None":
    """Bytes that the run can come to hold: guest, host, scratch space; None for no limit."""
    memory = request.quotas.memory
    if memory is None:
        return None
    # Scratch space is memory too, and the kernel counts it for whoever writes to it.
    return memory + DATA_OVERHEAD + sum(scratch.size for scratch in request.tmpfs)


def limit_group(group: "RunGroup | None", request: "RunRequest", *, component: bool) -> None:
    """Sets the limits of the run's control group.  Raises SetupError.

    A request for a share of a processor cannot do without a group that gives it.
    """
    cpus = request.quotas.cpus
    if group is None:
        if cpus is not None:
            raise SetupError(
                "--cpus needs a control group (cgroup v2) that is delegated to wasisup",
                "a service with Delegate=yes has one; `wasisup doctor` explains",
                step="cgroup",
            )
        return
    try:
        # Beside a component's threads there is its broker, should it have one.
        tasks = COMPONENT_THREADS + 1 if component else 1
        group.limit(memory=most_memory(request), processes=tasks, cpus=cpus)
    except OSError as error:
        raise SetupError(
            f"the run's control group takes no limits: {error.strerror}",
            "--cpus needs the controller cpu in the delegated group" if cpus is not None else None,
            step="cgroup",
            errno=error.errno or 0,
        ) from error


def timings(began: int, launched: int, record: "RunRecord") -> "dict[str, int]":
    """ns of each stretch of the run; those that were not reached are left out."""
    marks = (
        ("prepare", began, launched),
        ("launch", launched, record.setup_ns),
        ("walls", record.setup_ns, record.loading_ns),
        ("load", record.loading_ns, record.running_ns),
        ("run", record.running_ns, record.done_ns),
    )
    return {name: end - start for name, start, end in marks if 0 < start <= end}


def was_rejected(status: int, record: "RunRecord") -> bool:
    """Whether the engine refused the artifact: before the guest's first instruction, that is.

    What has run is not run twice.
    """
    return record.outcome == "rejected" and status == 126 << 8 and record.running_ns == 0


def was_pruned(status: int, record: "RunRecord", artifact: int) -> bool:
    """Whether the artifact was removed before the worker could mount it."""
    failed = record.outcome == "setup" and status == 125 << 8 and record.running_ns == 0
    return failed and os.fstat(artifact).st_nlink == 0
