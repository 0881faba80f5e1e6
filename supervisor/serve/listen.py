"""Where the server listens: addresses as somebody typed them, and sockets that were handed over."""

import contextlib
import errno
import os
import socket

from ..errors import SetupError, UsageError
from ..listening import open_socket
from ..notify import listen_fds
from .cgi import Place

DEFAULT = "127.0.0.1:8080"
_BACKLOG = 1024
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_HINT = "--listen HOST:PORT, --listen [::1]:PORT or --listen unix:PATH"


class Listener:
    """A listening socket.

    sock: owned; `close` closes it, and removes the path that was made for it.  where: for people.
    """

    __slots__ = ("_made", "_path", "place", "sock", "where")

    def __init__(self, sock: socket.socket, path: str | None = None) -> None:
        self.sock = sock
        self._path = path
        self._made = None if path is None else os.stat(path)
        if sock.family == socket.AF_UNIX:
            name = path or sock.getsockname() or "an inherited socket"
            self.where = f"unix:{name}"
            self.place = Place("localhost", 0)
        else:
            host, port = sock.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self.where = f"http://{shown}:{port}"
            self.place = Place(shown, port)

    def close(self) -> None:
        """Closes it."""
        self.sock.close()
        if self._path is not None and self._made is not None:
            # Not one that another server has put there since, and not against the directory's will.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self._path), self._made):
                    os.unlink(self._path)


def inherited() -> list[Listener]:
    """The sockets that a service manager passed (LISTEN_FDS).  Raises SetupError."""
    return [Listener(socket.socket(fileno=fd)) for fd, _ in listen_fds(families=_FAMILIES)]


def parse(text: str) -> tuple[str, int] | str:
    """Host and port, or the path of a Unix socket.  Raises UsageError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise UsageError(f"--listen: {text!r} names no path", _HINT)
        return path
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"--listen: {text!r}: an IPv6 address goes in brackets", _HINT)
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            f"--listen: {text!r} is not an address",
            f"{_HINT}; 0.0.0.0 or [::] as HOST is every interface, 0 as PORT any that is free",
        )
    return host, int(port)


def open_listeners(text: str) -> list[Listener]:
    """Listens at `text`; a name that has several addresses is listened to at each.

    Raises UsageError, SetupError.
    """
    parsed = parse(text)
    if isinstance(parsed, str):
        return [_open_path(parsed)]
    host, port = parsed
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except (OSError, UnicodeError) as error:
        raise SetupError(
            f"--listen {text}: {getattr(error, 'strerror', None) or error}", step="listen"
        ) from error
    if port == 0:
        found = found[:1]
    listeners: list[Listener] = []
    try:
        for family, kind, protocol, _, address in found:
            listeners.append(_open_address(text, family, kind, protocol, address))
    except BaseException:
        for one in listeners:
            one.close()
        raise
    return listeners


def _open_address(text: str, family: int, kind: int, protocol: int, address: object) -> Listener:
    sock = None
    try:
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(_BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        hints = {
            errno.EADDRINUSE: "another program listens there; --listen names another place",
            errno.EACCES: "ports below 1024 are root's; --listen names another place",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        raise SetupError(
            f"--listen {text}: {error.strerror}",
            hints.get(error.errno or 0),
            step="listen",
            errno=error.errno or 0,
        ) from error
    return Listener(sock)


def _open_path(path: str) -> Listener:
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        return Listener(open_socket(path, 0o666 & ~umask, None), path)
    except OSError as error:
        why = error.strerror or str(error)
        hint = "another server answers there" if error.errno == errno.EADDRINUSE else None
        raise SetupError(
            f"--listen unix:{path}: {why}", hint, step="listen", errno=error.errno or 0
        ) from error
