"""Opening, looking at and copying files with the rights of a caller, and never the daemon's.

One process a caller does it (runtime/opener.py): it has the caller's uid and groups and no
capability, so that the kernel itself judges every step of a path.  It is also the one who waits
when a file system of the caller's does not answer.  The daemon never opens, stats, reads or closes
such a file: the descriptors that come out of here are O_PATH ones and memfds.
"""

import errno
import os
import stat as modes
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...runtime import opener as wire
from ...runtime.opener import Stat
from .opener_pool import Pool

__all__ = ["Caller", "Copy", "Opened", "Openers", "Stat"]

_FUSE_SUPER_MAGIC = 0x65735546


class Caller(Protocol):
    """Whose rights count.  groups: the supplementary ones."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def groups(self) -> Sequence[int]: ...


class Opened(NamedTuple):
    """A file or directory.

    fd: O_PATH and owned by the receiver; from `look`, the one that was looked at.  open_flags: of
    F_GETFL.  mount_flags: ST_* of statvfs.  fs_type: statfs's f_type.  path: as the kernel has it
    (surrogateescape; "" when it is too long), for people to read: it may have been renamed since.
    """

    fd: int
    stat: Stat
    open_flags: int
    mount_flags: int
    fs_type: int
    path: str

    @property
    def read_only(self) -> bool:
        """Whether its mount is."""
        return bool(self.mount_flags & os.ST_RDONLY)

    @property
    def close_may_hang(self) -> bool:
        """Whether close(2) of such a descriptor asks a FUSE server, which need not ever answer."""
        return self.fs_type == _FUSE_SUPER_MAGIC and not self.open_flags & os.O_PATH


class Copy(NamedTuple):
    """A file's bytes.

    fd: a sealed memfd, owned by the receiver.  size: of the memfd.  before, after: the file's stat
    around the copying.
    """

    fd: int
    size: int
    before: Stat
    after: Stat

    @property
    def changed(self) -> bool:
        """Whether somebody wrote to the file meanwhile: then the bytes are those of no moment."""
        return self.before != self.after or self.size != self.after.size


class Openers:
    """The openers of all callers.  For one event loop, whose thread must live as long as they do.

    limit: processes at once; beyond it the one that was idle longest makes room.  idle_seconds:
    after these an opener is ended.  patience: seconds for a request, from its turn on; an opener
    that takes longer is killed.  core: path of the core, by default the installed one.

    The requests of one caller are answered in order; different callers do not wait for each other.
    All methods raise OSError for what the kernel refused the caller, OpenerTimeout, and SetupError
    when there is no opener to be had.  Cancelled requests leave nothing behind.
    """

    def __init__(
        self,
        limit: int = 64,
        idle_seconds: float = 60.0,
        patience: float = 10.0,
        core: str | None = None,
    ) -> None:
        self._pool = Pool(limit, idle_seconds, patience, core)

    async def module(self, caller: Caller, path: str) -> Opened:
        """A regular file that the caller may read; path: absolute."""
        answer, fd = await self._ask(caller, wire.MODULE, path=path)
        return _opened(answer, fd)

    async def directory(self, caller: Caller, path: str) -> Opened:
        """A directory that the caller may search; path: absolute."""
        answer, fd = await self._ask(caller, wire.DIRECTORY, path=path)
        return _opened(answer, fd)

    async def look(self, caller: Caller, fd: int) -> Opened:
        """What a descriptor of the caller's is; any kind.  It stays whose it was."""
        answer, _ = await self._ask(caller, wire.LOOK, fd=fd)
        return _opened(answer, fd)

    async def copy(self, caller: Caller, fd: int, limit: int) -> Copy:
        """The bytes of a regular file, at most `limit`: EFBIG beyond.

        fd: open for reading, or O_PATH, and then the caller must be allowed to read; stays whose
        it was, and its offset is not moved.
        """
        answer, made = await self._ask(caller, wire.COPY, fd=fd, limit=limit)
        return Copy(made, os.fstat(made).st_size, answer.stat, answer.after)

    async def close(self) -> None:
        """Fails what is under way, ends all openers and reaps them.

        One that a file system does not let go within `patience` is left to init.
        """
        await self._pool.close()

    async def _ask(
        self, caller: Caller, operation: int, *, path: str = "", fd: int = -1, limit: int = 0
    ) -> tuple[wire.Answer, int]:
        """The answer and its descriptor, owned by the receiver; -1 for look's."""
        payload = wire.encode(operation, b"" if fd >= 0 else _raw(path), limit)
        key = _identity(caller)
        answer, made = await self._pool.ask(key, payload, fd, path)
        if answer.err:
            raise OSError(answer.err, _words(answer), path or answer.path or None)
        if made < 0 and operation != wire.LOOK:
            # The kernel could not give it a number here, and dropped it.
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path or None)
        return answer, made


def _identity(caller: Caller) -> tuple[int, int, tuple[int, ...]]:
    """Whom the opener becomes.

    An ordinary user's daemon can take nobody's groups.  It serves its own uid only, which can do
    anyway what the daemon can (ptrace(2)); a user who was added to a group since the daemon started
    comes with others than the daemon has.
    """
    if os.geteuid() != 0 and caller.uid == os.geteuid():
        return (os.geteuid(), os.getegid(), tuple(os.getgroups()))
    return (caller.uid, caller.gid, tuple(caller.groups))


def _opened(answer: wire.Answer, fd: int) -> Opened:
    return Opened(
        fd, answer.stat, answer.open_flags, answer.mount_flags, answer.fs_type, answer.path
    )


def _raw(path: str) -> bytes:
    """The path as the opener takes it; what it would refuse anyway is refused in words."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise OSError(errno.EILSEQ, "Not a path", path) from None
    if not raw.startswith(b"/"):
        raise OSError(errno.EINVAL, "Not an absolute path", path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "A NUL in the path", path)
    if len(raw) >= wire.PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return raw


def _words(answer: wire.Answer) -> str:
    if answer.err == errno.EINVAL and answer.stat.mode and not modes.S_ISREG(answer.stat.mode):
        return "Not a regular file"
    return os.strerror(answer.err)
