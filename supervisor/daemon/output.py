"""What a guest writes to stdout and stderr, where the daemon keeps it.

The worker writes into a file and no byte passes through the daemon.  A run that somebody waits for
writes into memory; a detached one into files below the state directory, which are still there when
the daemon is killed.  Once it has ended, what is small goes into the database (records.py).
"""

import os
from typing import Literal

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
# What the database takes in; more stays in files.
SMALL = 64 << 10
_COPY_BYTES = 1 << 20


class Kept:
    """The kept streams of one run.

    folder: where files go.  run: its id.  streams: those that are kept.  files: from the start, and
    not only when they turn out large.  `fd` lends a descriptor for the worker; `close` closes all.
    """

    __slots__ = ("_fds", "_folder", "_run", "in_files")

    def __init__(self, folder: str, run: str, streams: "list[Stream]", *, files: bool) -> None:
        self._folder = folder
        self._run = run
        self._fds: dict[Stream, int] = {}
        self.in_files = files
        try:
            for stream in streams:
                self._fds[stream] = self._create(stream) if files else _memory(stream)
        except BaseException:
            self.close()
            if files:
                remove(folder, run)
            raise

    def fd(self, stream: Stream) -> "int | None":
        """The descriptor of a stream, which stays this object's; None when it is not kept."""
        return self._fds.get(stream)

    def size(self) -> int:
        """Bytes of both streams."""
        return sum(os.fstat(fd).st_size for fd in self._fds.values())

    def read(self, stream: Stream, offset: int, most: int) -> bytes:
        """Up to `most` bytes from `offset` on; empty at the end, or when it is not kept."""
        fd = self._fds.get(stream)
        return b"" if fd is None else os.pread(fd, most, offset)

    def whole(self, stream: Stream, most: int) -> bytes:
        """The first `most` bytes of a stream."""
        return read_all(self._fds[stream], most) if stream in self._fds else b""

    def to_files(self) -> None:
        """Copies what is in memory to files, for those who ask later.  May take long."""
        if self.in_files:
            return
        for stream, fd in self._fds.items():
            # sendfile(2) takes no target that is appended to.
            target = self._create(stream, append=0)
            try:
                size, at = os.fstat(fd).st_size, 0
                while at < size:
                    at += os.sendfile(target, fd, at, size - at)
            finally:
                os.close(target)
        self.in_files = True

    def close(self) -> None:
        """Closes the descriptors; files stay."""
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)

    def _create(self, stream: Stream, append: int = os.O_APPEND) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | append | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path_of(self._folder, self._run, stream), flags, 0o600)


def path_of(folder: str, run: str, stream: Stream) -> str:
    """The file of one stream of a run."""
    return f"{folder}/{run}.{stream}"


def from_files(folder: str, run: str) -> "Kept | None":
    """What a run left in files, opened for reading; None when there are none."""
    kept = Kept(folder, run, [], files=True)
    try:
        for stream in STREAMS:
            try:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                kept._fds[stream] = os.open(path_of(folder, run, stream), flags)
            except FileNotFoundError:
                continue
    except BaseException:
        kept.close()
        raise
    return kept if kept._fds else None


def remove(folder: str, run: str) -> None:
    """Removes the files of a run, if there are any."""
    for stream in STREAMS:
        try:
            os.unlink(path_of(folder, run, stream))
        except FileNotFoundError:
            pass


def read_all(fd: int, most: int) -> bytes:
    """Up to `most` bytes from the start of the file open at `fd`."""
    parts: list[bytes] = []
    at = 0
    while at < most and (part := os.pread(fd, min(_COPY_BYTES, most - at), at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _memory(stream: Stream) -> int:
    import fcntl

    fd = os.memfd_create(f"wasisup-{stream}", os.MFD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return fd
