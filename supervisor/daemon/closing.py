"""Closing descriptors that came from clients: it can take for ever.

close(2) of a file on FUSE asks its server, which is the client's own and need not answer; that of a
socket may linger (SO_LINGER, socket(7)).  So threads close, each what is of one user at a time:
whoever makes it wait makes only their own wait.  And how many of a user's are held here, waiting or
in use, is known: that is what bounds them.
"""

import fcntl
import os
import resource
import threading
from collections import Counter, deque

_MOST_THREADS = 512
_IDLE_SECONDS = 10.0
_LEAST_SHARE = 256


class _Closer:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        # By user, while there is something to be closed or being closed: and lent or not.
        self._left: dict[int, deque[tuple[int, bool]]] = {}
        self._turns: deque[int] = deque()  # users that no thread is at
        self._threads = 0
        self._idle = 0
        self.held: Counter[int] = Counter()

    def take(self, uid: int, count: int) -> None:
        with self._changed:
            self.held[uid] += count

    def give_back(self, uid: int) -> None:
        with self._changed:
            self.held[uid] -= 1
            if not self.held[uid]:
                del self.held[uid]

    def put(self, fd: int, uid: int, lent: bool) -> None:
        with self._changed:
            if uid not in self._left:
                self._left[uid] = deque()
                self._turns.append(uid)
            self._left[uid].append((fd, lent))
            if not self._turns or self._threads >= _MOST_THREADS:
                return
            if self._idle >= len(self._turns):
                self._changed.notify()
                return
            self._threads += 1
        try:
            threading.Thread(target=self._run, name="closing", daemon=True).start()
        except RuntimeError:  # no more threads: the next one who has something to close tries again
            with self._changed:
                self._threads -= 1

    def _run(self) -> None:
        while (uid := self._next_user()) is not None:
            while (one := self._next_of(uid)) is not None:
                fd, lent = one
                try:
                    os.close(fd)
                except OSError:
                    pass  # the descriptor is gone whatever close(2) says of its file
                if lent:
                    self.give_back(uid)

    def _next_user(self) -> int | None:
        with self._changed:
            while not self._turns:
                self._idle += 1
                told = self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not told and not self._turns:
                    self._threads -= 1
                    return None
            return self._turns.popleft()

    def _next_of(self, uid: int) -> tuple[int, bool] | None:
        with self._changed:
            if self._left[uid]:
                return self._left[uid].popleft()
            del self._left[uid]
            return None


_closer = _Closer()


def take(uid: int, count: int) -> None:
    """Notes that so many descriptors have come from a user: `close_soon` is for each of them."""
    if count:
        _closer.take(uid, count)


def held(uid: int) -> int:
    """How many that came from this user are not closed yet."""
    return _closer.held.get(uid, 0)


def share() -> int:
    """How many of one user's may be held: the daemon has need of the others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_LEAST_SHARE, (1 << 20 if soft == resource.RLIM_INFINITY else soft) // 8)


def close_soon(fd: int, uid: int, *, lent: bool = False) -> None:
    """Closes a descriptor of a user's file: at once where that cannot hang, else from a thread.

    lent: it is one of those that `take` has counted.
    """
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        os.close(fd)
        if lent:
            _closer.give_back(uid)
        return
    _closer.put(fd, uid, lent)
