"""HTTP/1.1 on AF_UNIX, with descriptors: one connection, its parser and its bounds.

httptools parses.  What is here is what it does not do: descriptors that come with the bytes
(SCM_RIGHTS), a bound on every size and time, and noticing that a client has gone.  Requests of one
connection are answered one after the other.
"""

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections import deque

import httptools

from .. import logs, wire
from ..alarm import Alarm
from . import closing
from .failures import HttpError
from .messages import Request, Response
from .peers import Budget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .access import Caller

    Handler = Callable[["Request"], Awaitable["Response"]]

log = logs.logger()

_READ_BYTES = 256 << 10
# What one recvmsg takes: the kernel itself sends no more than 253 at once (SCM_MAX_FD).
_CONTROL_BYTES = socket.CMSG_SPACE(253 * 4)
# A request has to be there as a whole so many seconds after its first byte; a body that is large
# gets more, as long as it keeps coming.
REQUEST_SECONDS = 30.0
WRITE_SECONDS = 60.0
IDLE_SECONDS = 600.0
_TRUNCATED = int(socket.MSG_CTRUNC)  # with an enum's member each `&` would be a call
# Requests that a client may send ahead of the answers.
_MOST_AHEAD = 16
# Or that come in one read: of ordinary ones it has a few dozen.
_MOST_AT_ONCE = 256


class Connection:
    """One client's connection.

    handler: answers a request.  limit_of: for a method and path, the most bytes of body, and
    whether they go to a memfd.  closed: called once when the connection is over.
    """

    def __init__(
        self,
        sock: socket.socket,
        caller: "Caller",
        handler: "Handler",
        limit_of: "Callable[[str, str], tuple[int, bool]]",
        *,
        closed: "Callable[[Connection], None]",
        budget: Budget,
    ) -> None:
        self.caller = caller
        self.budget = budget
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._limit_of = limit_of
        self._closed = closed
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._header_bytes = 0
        self._frame_bytes = 0
        self._limit = 0
        self._ready: deque[Request | HttpError] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._on_gone: list[Callable[[], None]] = []
        self._alarm = Alarm(self._late)
        self._reading = False
        self._half_closed = False
        self._hang_up: select.epoll | None = None
        self._keep_alive = True
        self._refused: HttpError | None = None
        self.gone = False
        sock.setblocking(False)
        self._resume()
        self._alarm.set(IDLE_SECONDS)

    # --- what handlers use ---

    def on_gone(self, callback: "Callable[[], None]") -> None:
        """Has `callback` called when the client goes away; at once if it has."""
        if self.gone:
            callback()
        else:
            self._on_gone.append(callback)

    def not_on_gone(self, callback: "Callable[[], None]") -> None:
        """Takes an `on_gone` back."""
        with contextlib.suppress(ValueError):
            self._on_gone.remove(callback)

    @property
    def idle(self) -> bool:
        """Whether nothing is being read or answered."""
        return self._request is None and not self._is_answering

    @property
    def _is_answering(self) -> bool:
        return bool(self._ready) or self._serving is not None

    @property
    def serving(self) -> "asyncio.Task[None] | None":
        """The task that answers, while there is something to be answered."""
        return self._serving

    def close(self) -> None:
        """Ends the connection; what is being answered is cancelled."""
        if self.gone:
            return
        self.gone = True
        self._pause()
        self._watch_hang_up(False)
        self._alarm.close()
        self._loop.remove_writer(self._fd)
        self._sock.close()
        if self._request is not None:
            self._request.close()
        for one in self._ready:
            if isinstance(one, Request):
                one.close()
        self._ready.clear()
        callbacks, self._on_gone = self._on_gone, []
        for callback in callbacks:
            callback()
        if self._serving is not None and self._serving is not asyncio.current_task():
            self._serving.cancel()
        self._closed(self)

    # --- reading ---

    def _resume(self) -> None:
        if not self._reading and not self.gone and not self._half_closed:
            self._watch_hang_up(False)
            self._reading = True
            self._loop.add_reader(self._fd, self._read)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _watch_hang_up(self, on: bool) -> None:
        """While nothing is read, whether the client goes away altogether."""
        if on:
            # The loop would ask for input as well, whose end is there all the time.
            self._hang_up = select.epoll()
            self._hang_up.register(self._fd, 0)
            self._loop.add_reader(self._hang_up.fileno(), self.close)
        elif self._hang_up is not None:
            self._loop.remove_reader(self._hang_up.fileno())
            self._hang_up.close()
            self._hang_up = None

    def _read(self) -> None:
        uid = self.caller.uid
        if closing.held(uid) > closing.share() + wire.MAX_FDS:
            # Refusing more was of no use: theirs cannot be closed.  What is not taken in at all,
            # the kernel drops.
            self.close()
            return
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ_BYTES, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        fds = _descriptors(ancillary) if ancillary else []
        closing.take(uid, len(fds))
        if not data:
            self._close_all(fds)
            self._end_of_input()
            return
        self._feed(data, fds, bool(flags & _TRUNCATED))
        if len(self._ready) >= _MOST_AHEAD and not self.gone:
            self._pause()
            self._watch_hang_up(True)
        if self._serving is None and self._ready and not self.gone:
            self._serving = self._loop.create_task(self._serve())

    def _end_of_input(self) -> None:
        # A client that only shut its sending side down still waits for the answer.
        poll = select.poll()
        poll.register(self._fd, 0)
        hung_up = any(events & select.POLLHUP for _, events in poll.poll(0))
        if hung_up or self.idle:
            self.close()
            return
        if self._request is not None:
            self._refuse(HttpError(400, "the request ends in its middle"))
            if self._serving is None:
                self._serving = self._loop.create_task(self._serve())
        self._half_closed = True
        self._keep_alive = False
        self._pause()
        self._watch_hang_up(True)

    def _feed(self, data: bytes, fds: "list[int]", truncated: bool) -> None:
        if self._refused is not None:
            self._close_all(fds)  # the rest of what was refused
            return
        before, count = self._request, len(self._ready)
        body_before = 0 if before is None else before.bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            whole = self._ready[-1] if len(self._ready) > count else None
            self._refuse(HttpError(400, "no protocol can be upgraded to"), whole)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, HttpError):
                self._refuse(cause)
            else:
                self._refuse(HttpError(400, f"not HTTP: {error}"))
        if before is not None and self._request is before:
            self._bound_frame(before, len(data) - (before.bytes - body_before))
        # Descriptors belong to the request whose bytes they came with: the last that began here.
        newest = self._request or (self._ready[-1] if len(self._ready) > count else before)
        if isinstance(newest, Request):
            newest.fds += fds
            if truncated or len(newest.fds) > wire.MAX_FDS:
                self._refuse(
                    HttpError(
                        413,
                        f"more descriptors than can be taken: at most {wire.MAX_FDS}",
                        "the daemon may also have run out of them",
                    ),
                    newest,
                )
            elif fds and closing.held(self.caller.uid) > closing.share():
                words = "too many descriptors of yours are open here"
                self._refuse(HttpError(429, words, "try again", retry_after=1), newest)
        else:
            self._close_all(fds)

    def _close_all(self, fds: "list[int]") -> None:
        for fd in fds:
            closing.close_soon(fd, self.caller.uid, lent=True)

    def _bound_frame(self, request: Request, more: int) -> None:
        """The parser keeps a header, also one after the body, until it is whole."""
        self._frame_bytes += more
        # What is around a chunk of one byte is five.
        if self._frame_bytes > wire.MAX_HEADER_BYTES + 5 * request.bytes:
            self._refuse(HttpError(431, f"the headers are over {wire.MAX_HEADER_BYTES} bytes"))

    def _refuse(self, error: HttpError, whole: "Request | HttpError | None" = None) -> None:
        """Nothing after this can be understood: answers, and closes.

        whole: the newest request, if it is that which is refused though it is all there.
        """
        self._refused = error
        self._keep_alive = False
        request, self._request = self._request, None
        if whole is not None and self._ready and self._ready[-1] is whole:
            self._ready.pop()
            request = request or whole  # type: ignore[assignment]
        if request is not None:
            request.close()
        self._ready.append(error)

    # --- httptools' callbacks ---

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if len(self._ready) > _MOST_AHEAD + _MOST_AT_ONCE:
            # One read can have thousands of them.
            raise HttpError(429, "too many requests ahead of their answers", retry_after=1)
        self._request = Request(self)
        self._header_bytes = self._frame_bytes = 0
        self._limit = 0
        self._alarm.set(REQUEST_SECONDS)

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if self._request is None:
            return
        target = self._request.path + url.decode("latin-1")
        if len(target) > wire.MAX_TARGET_BYTES:
            raise HttpError(414, f"the target is longer than {wire.MAX_TARGET_BYTES} bytes")
        self._request.path = target

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        request = self._request
        if request is None:
            return
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > wire.MAX_HEADER_BYTES or len(request.headers) >= wire.MAX_HEADERS:
            raise HttpError(
                431,
                f"the headers are over {wire.MAX_HEADERS} or {wire.MAX_HEADER_BYTES} bytes",
            )
        request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """What the request is about is known: how much it may bring."""
        request = self._request
        if request is None:
            return
        request.method = self._parser.get_method().decode("latin-1")
        request.path, _, request.query = request.path.partition("?")
        if request.path.startswith("http://"):  # as to a proxy: RFC 9112, 3.2.2
            request.path = "/" + request.path.removeprefix("http://").partition("/")[2]
        self._limit, streamed = self._limit_of(request.method, request.path)
        length = request.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._limit:
            raise HttpError(413, f"a body of {length} bytes; at most {self._limit} are taken here")
        if streamed:
            request.sink = os.memfd_create("wasisup-module", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # Not amid another answer; who waits for it sends the body by and by without.
        if request.headers.get("expect", "").lower() == "100-continue" and not self._is_answering:
            with contextlib.suppress(OSError):
                self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        request = self._request
        if request is None:
            return
        self._limit -= len(part)
        if self._limit < 0:
            raise HttpError(413, "the body is larger than what is taken here")
        self.budget.take(len(part))
        request.bytes += len(part)
        if request.sink is not None:
            os.write(request.sink, part)
            self._alarm.set(REQUEST_SECONDS)
        else:
            request.body += part

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._request is None:
            return
        if not self._parser.should_keep_alive():
            self._keep_alive = False
        self._request.chunked = self._parser.get_http_version() != "1.0"
        self._ready.append(self._request)
        self._request = None
        self._alarm.clear()

    # --- answering ---

    async def _serve(self) -> None:
        try:
            while self._ready and not self.gone:
                one = self._ready.popleft()
                if len(self._ready) < _MOST_AHEAD:
                    self._resume()
                if isinstance(one, HttpError):
                    await self._send(one.response(), head=False)
                    self._linger()
                    return
                try:
                    response = await self._handler(one)
                    await self._send(response, head=one.method == "HEAD", chunked=one.chunked)
                finally:
                    one.close()
                if not self._keep_alive and not self._ready:
                    self.close()
                    return
            if not self.gone and self._request is None:
                self._alarm.set(IDLE_SECONDS)
        except (OSError, TimeoutError):
            self.close()
        except Exception:
            # Amid an answer, which can only be broken off.
            log.exception("an answer broke off")
            self.close()
        except asyncio.CancelledError:
            if not self.gone:
                raise
        finally:
            self._serving = None

    def _linger(self) -> None:
        """Closes, with the rest of the request read away: else the answer would be lost with it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._alarm.set(1.0)

    async def _send(self, response: Response, *, head: bool, chunked: bool = True) -> None:
        keep = self._keep_alive or bool(self._ready)
        top = response.head(chunked=chunked, with_body=not head, keep=keep)
        body = response.body
        if isinstance(body, bytes):
            await self._write(top if head else top + body)
            return
        await self._write(top)
        async with contextlib.aclosing(body) as parts:  # type: ignore[type-var]
            if head:
                return
            async for part in parts:
                if part:
                    await self._write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            await self._write(b"0\r\n\r\n")

    async def _write(self, data: bytes) -> None:
        """Sends all of it.  Raises OSError when the client has gone, TimeoutError when it hangs."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        held = len(rest)
        try:
            self.budget.take(held)
        except HttpError as error:
            raise OSError(error.message) from error  # nothing can be said while it does not read
        try:
            while rest:
                await asyncio.wait_for(self._writable(), WRITE_SECONDS)
                with contextlib.suppress(BlockingIOError):
                    rest = rest[self._sock.send(rest) :]
        finally:
            self.budget.left += held

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._fd, _settle, ready)
        try:
            await ready
        finally:
            if not self.gone:
                self._loop.remove_writer(self._fd)

    # --- time ---

    def _late(self) -> None:
        if self._request is None or self._refused is not None:
            if self._serving is None:
                self.close()
            return
        self._refuse(HttpError(408, f"no whole request within {REQUEST_SECONDS:.0f} s"))
        if self._serving is None:
            self._serving = self._loop.create_task(self._serve())


def _descriptors(ancillary: "list[tuple[int, int, bytes]]") -> "list[int]":
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            count = len(data) // 4
            found += struct.unpack(f"{count}i", data[: count * 4])
    return found


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
