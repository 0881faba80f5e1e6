"""A listening Unix socket: made in one step, in place of one that nobody answers at any more."""

import errno
import os
import socket

_BACKLOG = 1024


def open_socket(path: str, mode: int, gid: "int | None") -> socket.socket:
    """A listening socket at `path`, with a mode and a group; one that is dead is replaced.

    Raises OSError; EADDRINUSE when another server answers there.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755 if os.geteuid() == 0 else 0o700)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Bound under another name and renamed: with the right mode from the first moment on, and in one
    # step in place of a dead one.
    temporary = f"{folder}/.{os.urandom(4).hex()}"
    try:
        if _answers(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
        before = os.umask(0o177)
        try:
            sock.bind(temporary)
        finally:
            os.umask(before)
        try:
            if gid is not None:
                os.chown(temporary, -1, gid)
            os.chmod(temporary, mode)
            sock.listen(_BACKLOG)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            return error.errno == errno.EAGAIN  # its queue is full: it lives
    return True
