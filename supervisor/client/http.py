"""HTTP/1.1 for one client, without I/O.

Everything here is a generator that yields operations (Connect, Send, Receive, Sleep) to a driver
and gets their results back, or their OSError thrown in; `return` is the result.  So the protocol is
written once, and blocking sockets and asyncio each need a few lines (`sync.Driver`, `aio.Driver`).
"""

from collections import deque

from ..errors import BadAnswer
from . import failures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any, TypeVar

    from httptools import HttpResponseParser

    T = TypeVar("T")
    Flow = Generator["Operation | Sleep", Any, T]

READ_BYTES = 256 << 10
# A listening socket's backlog is full: seconds until the next try.
_CROWDED = 0.01
_NO_CONTENT = 204
_INTERIM = 200  # statuses below are followed by another


class Operation:
    """What a driver is to do.  timeout: seconds that it may take; None: for ever."""

    __slots__ = ("link", "timeout")

    def __init__(self, link: "Link", timeout: "float | None") -> None:
        self.link = link
        self.timeout = timeout


class Connect(Operation):
    """Connect a new socket to `path` and keep it in link.socket.

    A driver that does not wait for room in the backlog has BlockingIOError to say so.
    """

    __slots__ = ("path",)

    def __init__(self, link: "Link", path: str, timeout: "float | None") -> None:
        super().__init__(link, timeout)
        self.path = path


class Send(Operation):
    """Send all of `data`, `fds` with its first byte; they stay the caller's."""

    __slots__ = ("data", "fds")

    def __init__(
        self, link: "Link", data: bytes, fds: "Sequence[int]", timeout: "float | None"
    ) -> None:
        super().__init__(link, timeout)
        self.data = data
        self.fds = fds


class Receive(Operation):
    """Receive what there is, at most READ_BYTES, once there is something; b"" at the end."""

    __slots__ = ()


class Sleep:
    """Let so many seconds pass."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Link:
    """A connection: its socket, made and used by the driver, and the parser of what comes.

    used: whether it has carried an exchange before, so that the other side may have closed it.
    """

    __slots__ = ("_parser", "body", "complete", "headers", "keep", "socket", "status", "used")

    def __init__(self) -> None:
        self.socket: Any = None
        self.used = False
        self._parser: HttpResponseParser | None = None
        self.expect()

    def expect(self) -> None:
        """Forgets the last answer: the next one begins."""
        self.status = 0  # until its headers are complete
        self.headers: dict[str, str] = {}
        self.body: deque[bytes] = deque()
        self.complete = False
        self.keep = False

    def feed(self, data: bytes) -> None:
        """Takes what was received.  Raises EOFError at the end, BadAnswer for what is no HTTP."""
        if not data:
            raise EOFError
        # Here and not at the top: in `wasisup run` the daemon is at work meanwhile.
        from httptools import HttpParserError, HttpResponseParser

        if self._parser is None:
            self._parser = HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            raise BadAnswer(f"the daemon's answer is not HTTP: {error}") from error

    def close(self) -> None:
        """Closes the socket; the daemon ends what depends on the connection."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps one header, its name in lower case."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Keeps the status."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        """Keeps a part of the body."""
        self.body.append(part)

    def on_message_complete(self) -> None:
        """Notes the answer's end."""
        if self.status < _INTERIM:
            self.expect()
            return
        assert self._parser is not None
        self.keep = self._parser.should_keep_alive()
        self.complete = True


class Connections:
    """The idle connections to one socket; at most `most` are kept."""

    __slots__ = ("_closed", "_idle", "most", "path")

    def __init__(self, path: str, most: int = 1) -> None:
        self.path = path
        self.most = most
        self._idle: list[Link] = []
        self._closed = False

    def take(self) -> "Link | None":
        """An idle connection, now the caller's; None: make one."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give(self, link: Link) -> None:
        """Takes back a connection whose exchange is over."""
        if link.keep and not self._closed and len(self._idle) < self.most:
            link.used = True
            link.expect()
            self._idle.append(link)
        else:
            link.close()

    def close(self) -> None:
        """Closes the idle ones, and each of the others once it is given back."""
        self._closed = True
        while (link := self.take()) is not None:
            link.close()


class Request:
    """One request.

    fds: descriptors that go with it; the caller's, open until the answer has begun.  timeout:
    seconds that the daemon may be silent; None: for ever.  bound: to the connection that is kept;
    no other will do.
    """

    __slots__ = ("bound", "data", "fds", "safe", "timeout")

    def __init__(
        self,
        method: str,
        target: str,
        body: "bytes | None" = None,
        *,
        content_type: str = "application/json",
        fds: "Sequence[int]" = (),
        timeout: "float | None" = None,
        bound: bool = False,
    ) -> None:
        head = f"{method} {target} HTTP/1.1\r\nHost: wasisup\r\n"
        if body is not None:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        elif method == "POST":
            head += "Content-Length: 0\r\n"
        self.data = f"{head}\r\n".encode("ascii") + (body or b"")
        self.fds = fds
        self.safe = method == "GET"
        self.bound = bound
        self.timeout = timeout


class Answer:
    """An answer whose body is yet to come.

    It has to be read to its end or closed: its connection goes back to the others or is closed
    then.
    """

    __slots__ = ("_connections", "_link", "_timeout", "headers", "status")

    def __init__(
        self, link: Link, connections: Connections, timeout: "float | None" = None
    ) -> None:
        self.status = link.status
        self.headers = link.headers
        self._link: Link | None = link
        self._connections = connections
        self._timeout = timeout

    def part(self) -> "Flow[bytes]":
        """The next bytes of the body; b"" at its end."""
        link = self._link
        if link is None:
            return b""
        try:
            while not link.body and not link.complete:
                link.feed((yield Receive(link, self._timeout)))
        except (OSError, EOFError) as error:
            self.close()
            raise failures.of_socket(error, self._connections.path) from error
        except BaseException:  # a task that is cancelled, Ctrl-C
            self.close()
            raise
        if link.body:
            return link.body.popleft()
        self._link = None
        self._connections.give(link)
        return b""

    def read(self) -> "Flow[bytes]":
        """The whole body."""
        parts = []
        while part := (yield from self.part()):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Leaves the rest unread."""
        if self._link is not None:
            self._link.close()
            self._link = None


def exchange(connections: Connections, request: Request) -> "Flow[Answer]":
    """Sends a request; returns when the head of its answer is there, whatever its status.

    A kept connection may have been closed by the daemon meanwhile.  The request then goes out again
    on another one, if it cannot have been carried out the first time or may be twice.
    Raises DaemonUnavailable, BadAnswer, ClientTimeout.
    """
    while True:
        link = connections.take()
        if link is None:
            link = yield from _connect(connections.path, request.timeout)
        sent = False
        try:
            sent = yield from _send(link, request)
            while not link.status:
                link.feed((yield Receive(link, request.timeout)))
        except (OSError, EOFError) as error:
            link.close()
            # Reset: what was sent has not even been read to its end.
            again = request.safe or not sent or isinstance(error, ConnectionResetError)
            if link.used and again and not request.bound and not isinstance(error, TimeoutError):
                continue
            raise failures.of_socket(error, connections.path) from error
        except BaseException:
            link.close()
            raise
        return Answer(link, connections, request.timeout)


def _send(link: Link, request: Request) -> "Flow[bool]":
    """Whether all of it was sent: one who hangs up early may have said before why."""
    try:
        yield Send(link, request.data, request.fds, request.timeout)
    except ConnectionError:
        return False
    return True


def _connect(path: str, timeout: "float | None") -> "Flow[Link]":
    link = Link()
    waited = 0.0
    while True:
        try:
            yield Connect(link, path, timeout)
        except BlockingIOError as error:
            if timeout is not None and waited >= timeout:
                raise failures.of_socket(TimeoutError(), path) from error
            yield Sleep(_CROWDED)
            waited += _CROWDED
        except OSError as error:
            link.close()
            raise failures.of_socket(error, path) from error
        except BaseException:
            link.close()
            raise
        else:
            return link
