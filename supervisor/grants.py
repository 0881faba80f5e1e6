"""Opens the module and what a run is granted: directories, listening sockets, stdio.

Everything is opened here, in the supervisor, as the user: the worker gets descriptors.
"""

import os
from errno import EAFNOSUPPORT

from .errors import InvalidModule, ModuleNotFound, SetupError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence
    from typing import Self

    from .model import DirGrant, ListenGrant, RunRequest

_BACKLOG = 128


class Descriptors:
    """Descriptors that are closed together at the end of the `with`."""

    __slots__ = ("_owned", "_sockets")

    def __init__(self) -> None:
        self._owned: list[int] = []
        self._sockets: list[_socket.socket] = []

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        owned, self._owned = self._owned, []
        for fd in owned:
            os.close(fd)
        for connection in self._sockets:
            connection.close()

    def own(self, fd: int) -> int:
        """Takes ownership of `fd` and returns it."""
        self._owned.append(fd)
        return fd

    def own_socket(self, connection: "_socket.socket") -> int:
        """Takes ownership of a socket and returns its descriptor."""
        self._sockets.append(connection)
        return connection.fileno()


def open_stdio(fds: "Sequence[int]") -> "list[int | None]":
    """The three descriptors, None in place of a closed one.

    Has to be called before anything else is opened: what is opened later takes the free numbers.
    """
    return [fd if _is_open(fd) else None for fd in fds]


def open_module(path: str) -> int:
    """The module, open for reading; the caller's.  Raises ModuleNotFound or InvalidModule."""
    try:
        # Non-blocking: a FIFO would wait for a writer before it could be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModuleNotFound(f"{path}: no such module") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidModule(f"{path}: {reason[:1].lower()}{reason[1:]}") from error
    kind = os.fstat(fd).st_mode & 0o170000
    if kind == 0o100000:
        return fd
    os.close(fd)
    what = "is a directory" if kind == 0o040000 else "not a regular file"
    raise InvalidModule(f"{path}: {what}")


def open_directory(grant: "DirGrant") -> int:
    """An O_PATH descriptor of a granted directory, the caller's.  Raises SetupError."""
    try:
        return os.open(grant.host, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or 0
        reason = getattr(error, "strerror", None) or str(error)
        raise SetupError(
            f"--dir {grant.host}: {reason[:1].lower()}{reason[1:]}",
            "a directory has to exist before it can be granted" if number == 2 else None,
            step="open a directory",
            errno=number,
        ) from error


def open_listener(grant: "ListenGrant") -> "_socket.socket":
    """A TCP socket that listens on the granted address.  Raises SetupError."""
    import _socket

    where = f"--tcplisten {grant.host}:{grant.port}"
    try:
        found = _socket.getaddrinfo(
            grant.host or None, grant.port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE
        )
    except OSError as error:
        raise SetupError(f"{where}: {error.strerror or error}", step="listen") from error
    family, kind, protocol, _, address = found[0]
    try:
        listener = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        reason = error.strerror or str(error)
        kept_off = family == _socket.AF_INET and error.errno == EAFNOSUPPORT
        hint = "wasisup.service keeps the daemon off the network, and says how to let it there"
        raise SetupError(
            f"{where}: {reason}",
            hint if kept_off else None,
            step="listen",
            errno=error.errno or 0,
        ) from error
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        # A connection that goes away between poll and accept must not hold the guest.
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise SetupError(f"{where}: {reason}", step="listen", errno=error.errno or 0) from error
    return listener


def check_names(request: "RunRequest") -> None:
    """Raises UsageError when two grants have the same guest path, one has none, or --fds has no
    room for all of them."""
    needed = 3 + len(request.dirs) + len(request.tmpfs) + len(request.listens)
    if request.quotas.fds < needed:
        raise UsageError(
            f"--fds: {request.quotas.fds} descriptors are too few: what is granted takes {needed}"
        )
    seen = set()
    names = [grant.guest for grant in request.dirs] + [grant.guest for grant in request.tmpfs]
    for guest in names:
        if not guest:
            raise UsageError("a granted directory needs a name for the guest")
        name = guest.rstrip("/") or "/"
        if name in seen:
            raise UsageError(f"the guest path {guest} is granted twice")
        seen.add(name)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
