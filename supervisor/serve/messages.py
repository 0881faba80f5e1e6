"""A request that came in, and the bytes of an answer's head and framing."""

import time
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus

# A status that has no body, whatever its headers say (RFC 9110, 6.4.1).
BODILESS = (204, 304)

Headers = Sequence[tuple[bytes, bytes]]


class Refused(Exception):
    """A request that is answered without a run.

    status: of the answer.  why: for the log.  retry_after: seconds, for a 503.
    """

    def __init__(self, status: int, why: str, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.retry_after = retry_after


class Request:
    """A request whose head is there.

    headers: names in lower case, latin-1.  length: of the body as declared, None when chunked.
    buffer: what has come of the body and was not fetched yet.  received: bytes of body so far.
    complete: whether all of it has come.  unwanted: nobody will fetch the rest.
    """

    __slots__ = (
        "buffer",
        "complete",
        "expects_continue",
        "frame_bytes",
        "headers",
        "keep_alive",
        "length",
        "method",
        "received",
        "target",
        "unwanted",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: str,
        version: str,
        headers: list[tuple[str, str]],
        *,
        keep_alive: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.keep_alive = keep_alive
        self.length: int | None = 0
        self.buffer = bytearray()
        self.received = 0
        self.frame_bytes = 0
        self.complete = False
        self.unwanted = False
        self.expects_continue = False
        self._check()

    def get(self, name: str) -> str:
        """The first header of that name, or nothing."""
        return next((value for key, value in self.headers if key == name), "")

    def _check(self) -> None:
        """What the parser leaves to its user.  Raises Refused."""
        if self.version not in ("1.0", "1.1"):
            raise Refused(505, f"HTTP/{self.version}")
        counts = {"host": 0, "transfer-encoding": 0, "content-length": 0}
        for name, value in self.headers:
            if name in counts:
                counts[name] += 1
            if name == "transfer-encoding":
                self.length = None
                if value.strip().lower() != "chunked":
                    raise Refused(501, "a transfer coding other than chunked")
            elif name == "content-length":
                # The parser has seen that it is a number, and only one.
                self.length = int(value)
            elif name == "expect":
                if value.strip().lower() != "100-continue":
                    raise Refused(417, "an expectation that nobody meets")
                self.expects_continue = self.version == "1.1"
        if counts["host"] > 1 or (not counts["host"] and self.version == "1.1"):
            raise Refused(400, "not one Host header")  # RFC 9112, 3.2
        if counts["transfer-encoding"] and (counts["content-length"] or self.version == "1.0"):
            raise Refused(400, "a body framed in two ways")  # RFC 9112, 6.1
        if counts["transfer-encoding"] > 1 or counts["content-length"] > 1:
            raise Refused(400, "a body framed twice")
        if self.method in ("CONNECT", "TRACE"):
            raise Refused(405, self.method)


class Framing:
    """How the end of an answer's body is told: by its length, by chunks, or by closing.

    Which of them is chosen by `of`.
    """

    __slots__ = ("chunked", "left", "mute")

    def __init__(self, *, chunked: bool, left: int | None, mute: bool) -> None:
        self.chunked = chunked
        self.left = left  # bytes that are still to come, by length
        self.mute = mute  # no body is sent at all

    @classmethod
    def of(cls, request: Request, status: int, length: int | None) -> "Framing":
        """For an answer to `request` whose length is declared, or None."""
        if request.method == "HEAD" or status in BODILESS:
            return cls(chunked=False, left=None, mute=True)
        if length is not None:
            return cls(chunked=False, left=length, mute=False)
        return cls(chunked=request.version == "1.1", left=None, mute=False)

    @property
    def closes(self) -> bool:
        """Whether only the connection's end tells the end of the body."""
        return not self.mute and not self.chunked and self.left is None

    @property
    def missing(self) -> bool:
        """Whether what was declared has not come in full."""
        return not self.mute and bool(self.left)

    def part(self, data: bytes) -> bytes:
        """The bytes for a part of the body."""
        if self.mute or not data:
            return b""
        if self.chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        return data

    def end(self) -> bytes:
        """The bytes after the last part."""
        return b"0\r\n\r\n" if self.chunked else b""


def head(
    status: int,
    reason: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    framing: Framing,
    *,
    keep: bool,
    version: str,
) -> bytes:
    """The bytes of an answer's head.  keep: whether the connection goes on."""
    lines = [b"HTTP/1.1 %d %b" % (status, reason or phrase(status))]
    dated = False
    for name, value in headers:
        dated = dated or name.lower() == b"date"
        lines.append(b"%b: %b" % (name, value))
    if not dated:
        lines.append(b"Date: %b" % _date())
    if framing.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if not keep:
        lines.append(b"Connection: close")
    elif version == "1.0":
        lines.append(b"Connection: keep-alive")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def phrase(status: int) -> bytes:
    """The reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def page(status: int) -> bytes:
    """The body of an answer that is the server's own: no detail of what went wrong."""
    return b"%d %b\n" % (status, phrase(status))


class _Clock:
    """The Date header, made once a second."""

    second = 0
    text = b""


def _date() -> bytes:
    now = int(time.time())
    if now != _Clock.second:
        _Clock.second, _Clock.text = now, formatdate(now, usegmt=True).encode()
    return _Clock.text
