"""Accepts connections, and bounds how many there are of one user."""

import asyncio
import contextlib
import errno
import socket
from collections import Counter

from .. import logs
from . import http, peers
from .access import Caller
from .failures import HttpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .http import Connection, Handler

log = logs.logger()

MOST_OF_ONE_USER = 512
# With subordinate uids one person can be many users.
MOST = 8192
_PAUSE_SECONDS = 0.1


class Server:
    """Serves HTTP on listening sockets, which stay the caller's to close.

    limit_of: see http.Connection.
    """

    def __init__(
        self,
        handler: "Handler",
        limit_of: "Callable[[str, str], tuple[int, bool]]",
        budgets: peers.Budgets,
    ) -> None:
        self._handler = handler
        self._limit_of = limit_of
        self._listeners: list[socket.socket] = []
        self._connections: dict[Connection, None] = {}
        self._budgets = budgets
        self._of_user: Counter[int] = Counter()

    def listen(self, listener: socket.socket) -> None:
        """Serves what connects to `listener`."""
        listener.setblocking(False)
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def stop_listening(self) -> None:
        """Accepts no more; connections go on."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
        self._listeners.clear()

    async def finish(self, seconds: float) -> None:
        """Waits until what is being answered has been, but not longer than this."""
        serving = [one.serving for one in self._connections if one.serving is not None]
        if serving:
            await asyncio.wait(serving, timeout=seconds)

    def close(self) -> None:
        """Closes every connection."""
        self.stop_listening()
        for connection in list(self._connections):
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._pause(listener, error)
                return
            self._begin(sock)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """There are no descriptors left: listens again in a moment, and does not spin meanwhile."""
        log.error("no connection can be accepted", why=error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())

        def again() -> None:
            if listener in self._listeners:
                loop.add_reader(listener.fileno(), self._accept, listener)

        loop.call_later(_PAUSE_SECONDS, again)

    def _begin(self, sock: socket.socket) -> None:
        try:
            pid, uid, gid, groups = peers.peer(sock)
        except OSError as error:
            log.warning("nobody can say who connected", why=error.strerror)
            sock.close()
            return
        if self._of_user[uid] >= MOST_OF_ONE_USER or len(self._connections) >= MOST:
            full = HttpError(503, "there are too many connections")
            with contextlib.suppress(OSError):
                sock.setblocking(False)
                response = full.response()
                assert isinstance(response.body, bytes)
                head = response.head(chunked=False, with_body=True, keep=False)
                sock.send(head + response.body)
            sock.close()
            return
        self._of_user[uid] += 1
        caller = Caller(uid, gid, groups, pid)
        connection = http.Connection(
            sock,
            caller,
            self._handler,
            self._limit_of,
            closed=self._closed,
            budget=self._budgets.of(uid),
        )
        self._connections[connection] = None

    def _closed(self, connection: "Connection") -> None:
        uid = connection.caller.uid
        self._connections.pop(connection, None)
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]
            self._budgets.tidy(uid)
