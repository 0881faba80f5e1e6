"""Requests and answers, as the handlers of the API have them."""

import os

from .closing import close_soon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .http import Connection

_REASONS = {
    100: "Continue", 200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    409: "Conflict", 413: "Content Too Large", 414: "URI Too Long",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error",
    503: "Service Unavailable", 504: "Gateway Timeout", 507: "Insufficient Storage",
}  # fmt: skip


class Request:
    """A request as it came.

    path and query: still encoded.  headers: names in lower case; of a repeated one the last counts.
    body: what came, unless it went to `sink`.  fds: descriptors that came along; `take_fds` hands
    them over, what is left is closed when the request has been answered.  chunked: whether the
    client knows such answers.
    """

    __slots__ = (
        "body",
        "bytes",
        "caller",
        "chunked",
        "connection",
        "fds",
        "headers",
        "method",
        "path",
        "query",
        "sink",
    )

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.caller = connection.caller
        self.method = ""
        self.path = ""
        self.query = ""
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.bytes = 0  # of body, as far as it has come
        self.sink: int | None = None
        self.chunked = True
        self.fds: list[int] = []

    def take_fds(self) -> "list[int]":
        """The descriptors, the caller's from here on."""
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        """Closes what nobody took, and gives back what the body took."""
        self.connection.budget.left += self.bytes
        self.bytes = 0
        for fd in self.take_fds():
            close_soon(fd, self.caller.uid, lent=True)
        if self.sink is not None:
            os.close(self.sink)
            self.sink = None


class Response:
    """An answer.  body: bytes, or an iterator of parts that are sent as they come (chunked)."""

    __slots__ = ("body", "headers", "kind", "status")

    def __init__(
        self,
        status: int,
        body: "bytes | AsyncIterator[bytes]" = b"",
        kind: str = "application/json",
        headers: "tuple[tuple[str, str], ...]" = (),
    ) -> None:
        self.status = status
        self.body = body
        self.kind = kind
        self.headers = headers

    def head(self, *, chunked: bool, with_body: bool, keep: bool) -> bytes:
        """Status line and headers.

        chunked: how parts are sent, or else up to the end of the connection.  with_body: whether
        the body follows.  keep: whether the connection goes on.
        """
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}"]
        if not isinstance(self.body, bytes):
            lines += ["transfer-encoding: chunked"] * chunked
        elif self.status != 204:
            lines.append(f"content-length: {len(self.body)}")
        if self.body or not with_body:
            lines.append(f"content-type: {self.kind}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not keep:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
