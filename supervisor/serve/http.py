"""HTTP/1.1 for clients that nobody has to trust: one connection, its parser and its bounds.

httptools parses (llhttp, in its strict mode: a request that is framed in two ways is refused).
What is here is what it does not do: a bound on every size and time, one answer after the other,
holding a sender back, and noticing that a client has gone.  A client that shuts down its sending
side counts as gone, as it does for nginx and Go: over TCP the two look the same.
"""

import asyncio
import contextlib
import math
import select
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from .. import logs
from . import messages
from .messages import Framing, Refused, Request

if TYPE_CHECKING:
    from .cgi import Place
    from .sides import Answerer, Server

log = logs.logger()

MAX_TARGET_BYTES = 16 << 10
# Of a body that is waited for as a whole, or held for a worker that is slower than its client.
HOLD_BYTES = 64 << 10
HIGH_WATER = 256 << 10
_MOST_AHEAD = 32
_LINGER_SECONDS = 2.0
_CHUNK_FRAME = 5  # bytes around a chunk of one byte

HEAD_SECONDS = 10.0
IDLE_SECONDS = 30.0
# Without a byte of a body that is waited for; without a byte taken of an answer.
STALL_SECONDS = 30.0


class Connection(asyncio.Protocol):
    """One client's connection.

    place: of the listening socket.
    """

    def __init__(self, server: "Server", place: "Place") -> None:
        self.place = place
        self.remote, self.remote_port = "", 0
        self.deadline = math.inf  # by the loop's clock; `sweep` looks at it
        self.write_paused = False
        self._server = server
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = False
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._request: Request | None = None  # the one that is coming in
        self._queue: deque[Request] = deque()
        self._current: Request | None = None  # the one that is answered
        self._answerer: Answerer | None = None
        self._framing: Framing | None = None
        self._keep = True  # the connection after the current answer
        self._out = b""  # of the current answer, to be sent with what comes next
        self._refused: Refused | None = None
        self._deaf = False  # nothing that comes is parsed any more
        self._reading = True
        self._lingers = False
        self._watch: select.epoll | None = None
        self._unsent = 0
        self._held_head = 0  # bytes of a head that is not whole
        self.sent = 0  # bytes of body of the current answer

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)  # type: ignore[attr-defined]
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.remote, self.remote_port = peer[0].removeprefix("::ffff:"), peer[1]
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        full = not self._server.has_room()
        self._server.connections.add(self)
        self.deadline = self._loop.time() + HEAD_SECONDS
        if full:
            self._deaf = True
            self.refuse(None, Refused(503, "too many connections", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's)
        """It is over, for whatever reason."""
        self._server.connections.discard(self)
        self._server.finished()
        self._unwatch()
        self._deaf = True
        self._queue.clear()
        answerer, self._answerer = self._answerer, None
        self._transport = None
        if answerer is not None:
            answerer.gone()

    def eof_received(self) -> bool:
        """The client sends no more: to us it is gone."""
        self._client_left()
        return False

    def pause_writing(self) -> None:
        """The client takes its time."""
        self.write_paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._loop.time() + STALL_SECONDS

    def resume_writing(self) -> None:
        """The client has taken enough for more."""
        self.write_paused = False
        self.deadline = math.inf
        if self._answerer is not None:
            self._answerer.writable()
        else:
            self.deadline = self._loop.time() + (_LINGER_SECONDS if self._lingers else IDLE_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._deaf:
            return
        before = self._request
        body_before = 0 if before is None else before.received
        head_before = self._in_head
        self._held_head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # RFC 9110, 7.8: who cannot upgrade just answers; what follows could be anything.
            self._deaf = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            known = isinstance(cause, Refused)
            self._refuse(cause if known else Refused(400, f"not HTTP: {error}"))  # type: ignore[arg-type]
        if self._in_head and head_before and self._held_head > self._most_head:
            # The callbacks count what is whole; this is a single header without an end.
            self._refuse(Refused(431, "the headers are too large"))
        elif before is not None and self._request is before:
            self._bound_frame(before, len(data) - (before.received - body_before))
        self._go_on()

    def sweep(self, now: float) -> None:
        """Ends what has taken too long; called every second or so."""
        if now < self.deadline or self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent and (self.write_paused or self._lingers):
            if unsent < self._unsent:
                self._unsent = unsent
                self.deadline = now + STALL_SECONDS
                return
            self.cut()
        elif self._lingers:
            self.cut()
        elif self._in_head or self._request is not None:
            self._refuse(Refused(408, "the request did not come in time"))
            self._go_on()
        else:
            self.cut()

    # --- the parser's side ---

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if len(self._queue) >= _MOST_AHEAD:
            raise Refused(503, "too many requests ahead of their answers")
        self._in_head = True
        self._held_head = 0  # what else came with its beginning is unknown, and one read at most
        self._target, self._headers, self._head_bytes = b"", [], 0
        if self._answerer is None:
            self.deadline = self._loop.time() + HEAD_SECONDS

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self._target += part
        if len(self._target) > MAX_TARGET_BYTES:
            raise Refused(414, f"the target is longer than {MAX_TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; or a trailer, which nobody is told of."""
        if not self._in_head:
            return
        self._head_bytes += len(name) + len(value) + 4
        if (
            self._head_bytes > self._server.max_header
            or len(self._headers) >= self._server.max_headers
        ):
            raise Refused(431, "the headers are too large")
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """What the request is about is known."""
        self._in_head = False
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._parser.get_http_version(),
            self._headers,
            keep_alive=self._parser.should_keep_alive(),
        )
        if request.length is not None and request.length > self._server.max_body:
            raise Refused(413, f"a body of {request.length} bytes")
        self._request = request
        self._queue.append(request)

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        request = self._request
        if request is None:
            return
        request.received += len(part)
        if request.received > self._server.max_body:
            raise Refused(413, "the body is larger than allowed")
        if not request.unwanted:
            request.buffer += part

    def on_message_complete(self) -> None:
        """All of the request is there."""
        if self._request is not None:
            self._request.complete = True
            self._request = None

    # --- what came in ---

    @property
    def _most_head(self) -> int:
        return self._server.max_header + MAX_TARGET_BYTES

    def _bound_frame(self, request: Request, more: int) -> None:
        """The parser keeps trailers and chunk extensions to itself, however long they are."""
        request.frame_bytes += more
        if request.frame_bytes > self._server.max_header + _CHUNK_FRAME * request.received:
            self._refuse(Refused(431, "more around the body than in it"))

    def _refuse(self, refused: Refused) -> None:
        """Nothing after this can be understood."""
        self._deaf = True
        self._refused = refused
        self._in_head = False
        request, self._request = self._request, None
        if request is None:
            return
        if request is self._current:
            if self._answerer is not None:
                self._refused = None
                self._answerer.fail(refused)
        elif request in self._queue:
            self._queue.remove(request)

    def _go_on(self) -> None:
        """Whatever is due after something has come in, or an answer is out."""
        request = self._request
        if self._transport is None:
            return
        if self._answerer is not None and self._current is not None:
            self._answerer.body_came()
        elif self._queue:
            self._begin(self._queue.popleft())
        elif self._refused is not None:
            refused, self._refused = self._refused, None
            self.refuse(None, refused)
            return
        if self._transport is None:
            return
        held = len(request.buffer) >= HOLD_BYTES if request is not None else bool(self._queue)
        if held and not self._lingers:
            self.pause_reading()
        if not self.write_paused and not self._lingers:
            waits = self._request is not None and not self._request.complete and self._reading
            if waits:
                self.deadline = self._loop.time() + STALL_SECONDS
            elif self._answerer is not None:
                self.deadline = math.inf

    def _begin(self, request: Request) -> None:
        self._current = request
        self.sent = 0
        if request.expects_continue and not request.complete and not request.received:
            if self._server.is_full():
                self.refuse(request, Refused(503, "full", retry_after=1))
                return
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._answerer = self._server.answerer(self, request)
        self._answerer.start()

    def pause_reading(self) -> None:
        """Holds the client back; that it leaves is noticed all the same."""
        if not self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = False
        self._transport.pause_reading()
        self._watch = select.epoll()
        self._watch.register(self._transport.get_extra_info("socket").fileno(), select.EPOLLRDHUP)
        self._loop.add_reader(self._watch.fileno(), self._client_left)

    def resume_reading(self) -> None:
        """Takes more of what the client sends."""
        if self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = True
        self._unwatch()
        self._transport.resume_reading()
        if self._request is not None and not self.write_paused:
            self.deadline = self._loop.time() + STALL_SECONDS

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _client_left(self) -> None:
        self._unwatch()
        if self._answerer is not None and self._transport is not None:
            # What was being answered is of no use to anybody now.
            self._transport.abort()
        elif self._transport is not None:
            self._transport.close()

    # --- answering ---

    @property
    def is_open(self) -> bool:
        """Whether the client is still there."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def has_begun(self) -> bool:
        """Whether the head of the current answer is out."""
        return self._framing is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is answered, and nothing is coming in."""
        return self._answerer is None and not self._in_head and not self._queue

    def begin_answer(
        self, status: int, reason: bytes, headers: "messages.Headers", length: int | None
    ) -> None:
        """Sends the head of the answer to the current request.

        headers: with Content-Length, if `length` is given.
        """
        request = self._current
        assert request is not None
        self._framing = Framing.of(request, status, length)
        comes_more = not self._deaf or bool(self._queue) or self._refused is not None
        self._keep = (
            request.keep_alive
            and comes_more
            and not self._framing.closes
            and not self._server.stopping
        )
        self._out = messages.head(
            status, reason, headers, self._framing, keep=self._keep, version=request.version
        )

    def write(self, data: bytes) -> None:
        """Sends a part of the body."""
        assert self._framing is not None
        part = self._framing.part(data)
        if part:
            self.sent += len(data)
            self._out += part
            self.flush()

    def flush(self) -> None:
        """Sends what is held to go out with what comes next."""
        if self._out:
            out, self._out = self._out, b""
            self._transport.write(out)

    def end_answer(self) -> bool:
        """The answer is over; the next request has its turn.  False: it was not complete."""
        framing, request = self._framing, self._current
        assert framing is not None
        assert request is not None
        if framing.missing:
            self.cut()
            return False
        self._out += framing.end()
        self.flush()
        self._framing = self._current = self._answerer = None
        request.unwanted = True
        request.buffer.clear()
        if not request.complete or not self._keep or self._server.stopping:
            self._linger()
            return True
        if not self._queue and self._refused is None:
            if not self.write_paused:
                patience = HEAD_SECONDS if self._in_head else IDLE_SECONDS
                self.deadline = self._loop.time() + patience
            self.resume_reading()
            return True
        # From the loop: a thousand answers in a row must not be a thousand frames deep.
        self._loop.call_soon(self._next)
        return True

    def _next(self) -> None:
        if self._answerer is None:
            self._go_on()
            if not self._queue:
                self.resume_reading()

    def refuse(self, request: Request | None, refused: Refused) -> None:
        """Answers with an error of the server's own, and closes after it unless all is in order."""
        if self._transport is None or self._transport.is_closing():
            return
        if request is None:
            log.info("refused", remote=self.remote, status=refused.status, why=refused.why)
            request = Request("GET", "/", "1.0", [], keep_alive=False)
            self._current = request
        # Whoever sends what cannot be understood may mean something else by what follows.
        understood = request.complete and refused.status != 400
        request.keep_alive = request.keep_alive and understood
        body = messages.page(refused.status)
        headers = [
            (b"Content-Type", b"text/plain"),
            (b"Content-Length", b"%d" % len(body)),
        ]
        if refused.retry_after is not None:
            headers.append((b"Retry-After", b"%d" % refused.retry_after))
        self.begin_answer(refused.status, b"", headers, len(body))
        self.write(body)
        self.end_answer()

    def cut(self) -> None:
        """Ends the connection so that the client sees that something is missing."""
        if self._transport is None:
            return
        if self._framing is not None and self._framing.closes and self.remote:
            # Only a reset tells such an end from the right one.
            reset = struct.pack("ii", 1, 0)
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self._transport.abort()

    def close_when_idle(self) -> None:
        """The server stops: what is being answered comes to its end, and nothing else."""
        if self.is_idle and self._transport is not None:
            self._transport.close()

    def _linger(self) -> None:
        """Closes so that the answer arrives: a reset for unread bytes could overtake it."""
        self._deaf = self._lingers = True
        self._queue.clear()
        self._unsent = self._transport.get_write_buffer_size()
        wait = STALL_SECONDS if self._unsent else _LINGER_SECONDS
        self.deadline = self._loop.time() + wait
        self.resume_reading()
        with contextlib.suppress(OSError, RuntimeError):
            self._transport.write_eof()
