"""The form of the daemon's configuration file, where it lies, and who may have written it."""

import os
import stat
from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from ..errors import ConfigError
from .access import NetRight, Scope
from .tables import unit

MAX_BYTES = 1 << 20

MIB = 1 << 20
SECOND = 10**9
DAY = 86400 * SECOND

Size = Annotated[int, unit("size")]
SizeOrZero = Annotated[int, unit("size", zero=True)]
Duration = Annotated[int, unit("duration")]
DurationOrZero = Annotated[int, unit("duration", zero=True)]
Count = Annotated[int, unit("count")]
CountOrZero = Annotated[int, unit("count", zero=True)]
SizeCeiling = Annotated[int | UnsetType | None, unit("size", none=True)]
DurationCeiling = Annotated[int | UnsetType | None, unit("duration", none=True)]
CountCeiling = Annotated[int | UnsetType | None, unit("count", none=True)]
CpusCeiling = Annotated[float | UnsetType | None, unit("cpus", none=True)]


class _Section(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A table of the file."""


class Limits(_Section, frozen=True):
    """What the daemon takes on.

    runs: at once; in the file 0 stands for what the machine can bear.  queued: waiting.  memory:
    bytes promised to the runs in total; in the file 0 as well.  compiles: at once.  drain: ns that
    running runs have left after SIGTERM.  kept_output: most bytes kept of one run's stdout and
    stderr together.  cache: most bytes of compiled modules.
    """

    runs: CountOrZero = 0
    queued: CountOrZero = 1024
    memory: SizeOrZero = 0
    compiles: Count = 2
    drain: DurationOrZero = 30 * SECOND
    kept_output: SizeOrZero = 64 * MIB
    cache: SizeOrZero = 4096 * MIB


class Records(_Section, frozen=True):
    """How long records and kept output last.  keep: ns.  size: bytes of both together."""

    keep: Duration = 30 * DAY
    size: Size = 1024 * MIB


class Log(_Section, frozen=True):
    """See `logs.configure`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "journal", "json", "pretty"] = "auto"


class Ceilings(_Section, frozen=True):
    """Most that a quota may be, by the names of `policies.settings`.  None: no ceiling."""

    memory: SizeCeiling = UNSET
    cpu_time: DurationCeiling = UNSET
    timeout: DurationCeiling = UNSET
    fds: CountCeiling = UNSET
    file_size: SizeCeiling = UNSET
    output: SizeCeiling = UNSET
    fuel: CountCeiling = UNSET
    cpus: CpusCeiling = UNSET
    tmpfs: SizeCeiling = UNSET


class Rights(_Section, frozen=True):
    """What callers may do; see `access.Access`.  What is not set comes from [default]."""

    policies: list[str] | UnsetType = UNSET
    runs: Count | UnsetType = UNSET
    queued: CountOrZero | UnsetType = UNSET
    memory: SizeOrZero | UnsetType = UNSET
    sees: Scope | UnsetType = UNSET
    kills: Scope | UnsetType = UNSET
    modules: SizeOrZero | UnsetType = UNSET
    net: NetRight | UnsetType = UNSET
    serve: bool | UnsetType = UNSET
    ceilings: Ceilings = Ceilings()


class CallerRights(Rights, frozen=True):
    """A [[caller]]: rights, and whose they are."""

    uids: list[int] = []
    users: list[str] = []
    groups: list[str | int] = []


class File(_Section, frozen=True):
    """The whole file."""

    socket: str | None = None
    socket_mode: str = "0660"
    socket_group: str | None = None
    state: str | None = None
    limits: Limits = Limits()
    records: Records = Records()
    log: Log = Log()
    default: Rights = Rights()
    caller: list[CallerRights] = []


def read(path: str) -> str:
    """The text of the file at `path`.

    Raises FileNotFoundError, and ConfigError for one that cannot be read or that others than root
    and this process's user can change.
    """
    # O_NONBLOCK: a FIFO is refused, not waited for.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path!r}: {error.strerror}") from None
    with open(fd, "rb") as file:
        _check_owner(path, os.fstat(fd))
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes is no configuration")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None


def _check_owner(path: str, file: os.stat_result) -> None:
    me = os.geteuid()
    if not stat.S_ISREG(file.st_mode):
        raise ConfigError(f"{path} is not a regular file")
    # Many users have a group of their own and a umask of 002.
    others = 0o022 if me == 0 else 0o002
    parent = os.stat(os.path.dirname(os.path.abspath(path)))
    # In a sticky directory (/tmp) others cannot replace the file.
    open_parent = parent.st_mode & others and not parent.st_mode & stat.S_ISVTX
    owners = {0, me}
    if {file.st_uid, parent.st_uid} - owners or file.st_mode & others or open_parent:
        whose = "root" if me == 0 else "you or root"
        raise ConfigError(
            f"{path}: other users can change it",
            f"the file and its directory must belong to {whose}: chown, chmod go-w",
        )
