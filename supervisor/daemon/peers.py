"""Who is at the other end of a connection, and what they may take."""

import errno
import os
import socket
import struct

from .failures import HttpError

_SO_PEERGROUPS = 59  # asm-generic/socket.h; not among Python's names
_PYTHONS_MOST = 1024  # bytes that socket.getsockopt returns
_NGROUPS_MAX = 65536


class Budget:
    """Bytes that the daemon holds in memory for one user: bodies, modules, answers not yet read."""

    __slots__ = ("left",)

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self, size: int) -> None:
        """Takes `size` bytes.  Raises HttpError when there are not so many."""
        if size > self.left:
            raise HttpError(
                429, "your other requests bring too much at once", "try again", retry_after=1
            )
        self.left -= size


class Budgets:
    """The budgets of all users.  most: bytes each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[int, Budget] = {}

    def of(self, uid: int) -> Budget:
        """A user's budget."""
        budget = self._of.get(uid)
        if budget is None:
            budget = self._of[uid] = Budget(self._most)
        return budget

    def tidy(self, uid: int) -> None:
        """Forgets a user of whom nothing is held; to be called when they have gone."""
        budget = self._of.get(uid)
        if budget is not None and budget.left == self._most:
            del self._of[uid]


def peer(sock: socket.socket) -> "tuple[int, int, int, tuple[int, ...]]":
    """pid, uid, gid and supplementary groups of who connected, as they were then.

    SO_PEERCRED and SO_PEERGROUPS (unix(7), socket(7); Linux 4.13).
    """
    pid, uid, gid = struct.unpack(
        "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    groups = _peer_groups(sock)
    return pid, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, groups


def _peer_groups(sock: socket.socket) -> "tuple[int, ...]":
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PYTHONS_MOST)
        return struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
    import ctypes

    found = (ctypes.c_uint32 * _NGROUPS_MAX)()
    size = ctypes.c_uint32(ctypes.sizeof(found))
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, found, ctypes.byref(size))
    if libc.getsockopt(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return tuple(found[: size.value // 4])
