"""The conversation with the core's opener (core/opener/protocol.h): starting it, asking, answers.

An opener is a process with one caller's rights.  Nothing here waits: the socket does not block, and
whoever uses it (supervisor/daemon/opener.py) is told by its event loop when there is something.
"""

import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..supervisor.errors import SetupError
from ..supervisor.steps import failed_step

MAGIC = 0x4E45504F
VERSION = 1
MODULE, DIRECTORY, LOOK, COPY = 1, 2, 3, 4
PATH_MAX = 4096

HELLO = struct.Struct("<IIi48s256s")
REQUEST = struct.Struct("<4IQ")
_STAT = "QQIII4xQqq"
ANSWER = struct.Struct(f"<IIiIII{_STAT}{_STAT}")

_STEP = "become the caller"
_RIGHTS_SPACE = socket.CMSG_SPACE(8)
# All that is left of the daemon's environment: inert but in a build with sanitizers.
_KEPT_ENVIRONMENT = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")


class Stat(NamedTuple):
    """What fstat(2) said."""

    dev: int
    ino: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Answer(NamedTuple):
    """struct opener_answer; `after` is only of a copy's."""

    err: int
    open_flags: int
    mount_flags: int
    fs_type: int
    stat: Stat
    after: Stat
    path: str


def encode(operation: int, path: bytes = b"", limit: int = 0) -> bytes:
    """A request; path: without a NUL, shorter than PATH_MAX."""
    return REQUEST.pack(MAGIC, VERSION, operation, 0, limit) + path


def decode(message: bytes) -> Answer:
    """Reads an answer.  Raises SetupError when it is none."""
    if len(message) < ANSWER.size:
        raise _another_protocol()
    magic, version, err, open_flags, mount_flags, fs_type, *stats = ANSWER.unpack_from(message)
    if (magic, version) != (MAGIC, VERSION):
        raise _another_protocol()
    path = message[ANSWER.size :].decode("utf-8", "surrogateescape")
    stat, after = Stat(*stats[:8]), Stat(*stats[8:])
    return Answer(err, open_flags, mount_flags, fs_type, stat, after, path)


def check_hello(message: bytes) -> None:
    """Raises SetupError when the opener is not the caller, with the step and errno it reported."""
    if len(message) != HELLO.size:
        raise _another_protocol()
    magic, version, err, step, detail = HELLO.unpack(message)
    if (magic, version) != (MAGIC, VERSION):
        raise _another_protocol()
    if err:
        raise failed_step(err, _c_string(step), _c_string(detail))


class Opener:
    """A running opener, made by `start`.  To end it: `kill`, then `reap` until that is True.

    socket, pidfd: readable when something was said, and when the process has ended.  The socket is
    closed by `kill`, the pidfd is the holder's to close.
    """

    __slots__ = ("pid", "pidfd", "socket")

    def __init__(self, pid: int, pidfd: int, connection: socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.socket = connection

    def send(self, request: bytes, fd: int) -> None:
        """Sends a request and, unless it is negative, `fd`, which stays the caller's."""
        rights: list[tuple[int, int, bytes]] = []
        if fd >= 0:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))]
        self.socket.sendmsg([request], rights, socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[bytes, list[int]]:
        """The next message and its descriptors, owned by the receiver; b"" at its end.

        Raises BlockingIOError when there is none yet.
        """
        size, flags = ANSWER.size + PATH_MAX, socket.MSG_CMSG_CLOEXEC
        message, ancillary, _, _ = self.socket.recvmsg(size, _RIGHTS_SPACE, flags)
        fds: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                words = range(0, len(data) - 3, 4)
                fds += [int.from_bytes(data[at : at + 4], "little") for at in words]
        return message, fds

    def kill(self) -> None:
        """Ends it, also while it waits for a file system or is stopped; closes the socket."""
        self.socket.close()
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # somebody reaps every child of this process: then it is gone

    def reap(self) -> bool:
        """Whether it has ended; then it is reaped."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True  # as above


def start(core: str, uid: int, gid: int, groups: Sequence[int]) -> Opener:
    """Starts an opener that becomes that user, or says in its hello why it cannot.

    groups: the supplementary ones.  It dies with the thread that calls this.  Raises SetupError.
    """
    kinds = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kinds)
    except OSError as error:
        raise _no_start(error) from error
    try:
        # Its own end blocks, unlike ours.
        theirs.setblocking(True)
        pid = os.posix_spawn(
            core,
            ["wasisup-core", "opener", str(uid), str(gid), *map(str, groups)],
            {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
            setsigmask=(),
            # Python ignores these two, and an ignored signal stays ignored across exec.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
        try:
            return Opener(pid, os.pidfd_open(pid), ours)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)  # it has touched no file of the caller's yet
            raise
    except OSError as error:
        ours.close()
        raise _no_start(error) from error
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


def _no_start(error: OSError) -> SetupError:
    text = f"the opener cannot be started: {error.strerror}"
    return SetupError(text, step=_STEP, errno=error.errno or 0)


def _another_protocol() -> SetupError:
    return SetupError("the opener speaks another protocol", step=_STEP)


def _c_string(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
