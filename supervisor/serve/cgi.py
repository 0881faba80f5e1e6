"""CGI/1.1 (RFC 3875), as far as it is about text: a request as variables, output as an answer.

The extensions are those of WAGI, which made the same of WebAssembly: X_FULL_URL, X_MATCHED_ROUTE,
X_RAW_PATH_INFO.  Everything that comes in here is hostile: the client's headers and the guest's.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

# RFC 9110, 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# A name with anything else in it could look like another header's variable: "X_A" like "X-A".
_CLEAR_NAME = re.compile(r"[a-z0-9-]+")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::([0-9]{0,5}))?")
_STATUS = re.compile(rb"([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
# Field values (RFC 9110, 5.5): no control character but a tab.
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# About the connection and not about the request (RFC 9110, 7.6.1), said by other variables, or, as
# `Proxy`, believed by libraries to be the operator's own setting ("httpoxy", CVE-2016-5385).
_NOT_PASSED = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "keep-alive",
        "proxy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
# The answer's framing is the server's.
_NOT_TAKEN = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"status",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)

MAX_HEAD_BYTES = 64 << 10
MAX_HEAD_FIELDS = 256
GATEWAY = "CGI/1.1"


class BadOutput(ValueError):
    """What the guest wrote is no CGI answer; the text says why, for the log."""


class BadTarget(ValueError):
    """A request's target or Host that cannot be made sense of; the text says why."""


class Place:
    """Where a request came in: the listening socket, as variables know it.

    name, port: of the server's end; port 0 for a Unix socket.
    """

    __slots__ = ("name", "port")

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port


def split_target(target: str) -> tuple[str, str, str | None]:
    """Path, query and, for the absolute form, the authority, of a request's target.

    RFC 9112, 3.2: a server takes the origin form and the absolute form.  Raises BadTarget.
    """
    authority = None
    if not target.startswith("/"):
        scheme, colon, rest = target.partition("://")
        if not colon or scheme.lower() not in ("http", "https"):
            raise BadTarget("the target is no path")
        authority, slash, path = rest.partition("/")
        authority, question, query = authority.partition("?")
        target = f"/?{query}" if question else f"/{path}" if slash else "/"
    if not target.isascii() or any(c <= " " or c == "\x7f" for c in target):
        raise BadTarget("the target has characters that have to be encoded")
    path, _, query = target.partition("#")[0].partition("?")
    return path, query, authority


def split_host(host: str) -> tuple[str, str]:
    """Name and port (either may be empty) of a Host header.  Raises BadTarget."""
    found = _HOST.fullmatch(host)
    if found is None:
        raise BadTarget("the Host header is malformed")
    return found[1], found[2] or ""


def decode_path(path: str) -> str:
    """A path with its %XX decoded, bytes that are not UTF-8 as os.fsdecode has them.

    Raises BadTarget for a NUL, which no variable can hold.
    """
    if "%" not in path:
        return path
    raw = unquote_to_bytes(path)
    if b"\0" in raw:
        raise BadTarget("the path holds a NUL")
    return raw.decode("utf-8", "surrogateescape")


def variables(
    *,
    method: str,
    target: str,
    version: str,
    headers: Iterable[tuple[str, str]],
    remote: str,
    remote_port: int,
    place: Place,
    software: str,
    length: int | None,
) -> dict[str, str]:
    """The meta-variables of a request (RFC 3875, 4.1), and WAGI's.

    headers: names in lower case, values as latin-1 text.  length: of the body; None when there is
    none, or when nobody knows it yet.  Raises BadTarget.
    """
    path, query, authority = split_target(target)
    fields: dict[str, str] = {}
    content_type = None
    for name, value in headers:
        if name == "content-type":
            content_type = value
        if name in _NOT_PASSED or _CLEAR_NAME.fullmatch(name) is None:
            continue
        variable = "HTTP_" + name.upper().replace("-", "_")
        if variable in fields:
            # RFC 9110, 5.3; a cookie is not a list (RFC 6265, 5.4).
            before = f"{fields[variable]}{'; ' if name == 'cookie' else ', '}"
        else:
            before = ""
        fields[variable] = before + _text(value)
    if authority is not None:
        fields["HTTP_HOST"] = authority  # RFC 9112, 3.2.2
    host = fields.get("HTTP_HOST", "")
    name, port = split_host(host)
    decoded = decode_path(path)
    found = {
        **fields,
        "GATEWAY_INTERFACE": GATEWAY,
        "SERVER_SOFTWARE": software,
        "SERVER_PROTOCOL": f"HTTP/{version}",
        "SERVER_NAME": name or place.name,
        "SERVER_PORT": str(place.port) if place.port else port or "80",
        "REQUEST_METHOD": method,
        "REQUEST_URI": path + (f"?{query}" if query else ""),
        "SCRIPT_NAME": "",
        "PATH_INFO": decoded,
        "PATH_TRANSLATED": decoded,
        "QUERY_STRING": query,
        "REMOTE_ADDR": remote,
        "REMOTE_HOST": remote,
        "REMOTE_PORT": str(remote_port) if remote_port else "",
        "X_MATCHED_ROUTE": "/...",
        "X_RAW_PATH_INFO": path,
        "X_FULL_URL": f"http://{host or place.name}{path}{f'?{query}' if query else ''}",
    }
    if content_type is not None:
        found["CONTENT_TYPE"] = _text(content_type)
    if length is not None:
        found["CONTENT_LENGTH"] = str(length)
    return found


def _text(value: str) -> str:
    """A header's latin-1 as the bytes that came, for an environment that is bytes."""
    return value if value.isascii() else value.encode("latin-1").decode("utf-8", "surrogateescape")


class Head:
    """The head of an answer, as the guest wants it.

    status: 200 to 599.  headers: without those that are the server's.  length: of its
    Content-Length, None without one.
    """

    __slots__ = ("headers", "length", "reason", "status")

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        length: int | None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.length = length


class HeadParser:
    """Takes a guest's output in pieces until its head is there."""

    __slots__ = ("_buffer", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and what has come of the body, once there is a head; None before.

        Raises BadOutput.
        """
        buffer = self._buffer
        buffer += data
        while True:
            at = buffer.find(b"\n", self._searched)
            if at < 0:
                break
            start = buffer.rfind(b"\n", 0, at) + 1
            self._searched = at + 1
            if at > MAX_HEAD_BYTES:
                break
            if bytes(buffer[start:at]) in (b"", b"\r"):
                head = _parse(bytes(buffer[:start]))
                return head, bytes(buffer[at + 1 :])
        if len(buffer) > MAX_HEAD_BYTES:
            raise BadOutput(f"its headers are longer than {MAX_HEAD_BYTES} bytes")
        return None

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come at all."""
        return not self._buffer


def _parse(block: bytes) -> Head:
    headers: list[tuple[bytes, bytes]] = []
    seen: dict[bytes, bytes] = {}
    lines = block.split(b"\n")[:-1]
    if len(lines) > MAX_HEAD_FIELDS:
        raise BadOutput(f"it has more than {MAX_HEAD_FIELDS} headers")
    for line in lines:
        name, colon, value = line.removesuffix(b"\r").partition(b":")
        value = value.strip(b" \t")
        if not colon or _TOKEN.fullmatch(name) is None:
            raise BadOutput(f"this is no header: {line[:80]!r}")
        if _BAD_VALUE.search(value) is not None:
            raise BadOutput(f"a control character in the header {name.decode()}")
        key = name.lower()
        if key in seen and key in (b"status", b"content-length", b"content-type", b"location"):
            raise BadOutput(f"the header {name.decode()} comes twice")
        seen[key] = value
        if key not in _NOT_TAKEN:
            headers.append((name, value))
    return _head(headers, seen)


def _head(headers: list[tuple[bytes, bytes]], seen: dict[bytes, bytes]) -> Head:
    status, reason = (302 if b"location" in seen else 200), b""
    if b"status" in seen:
        found = _STATUS.fullmatch(seen[b"status"])
        if found is None:
            raise BadOutput(f"no status: {seen[b'status'][:80]!r}")
        status, reason = int(found[1]), (found[2] or b"").strip()
        if not 200 <= status <= 599:
            raise BadOutput(f"status {status} is not the module's to give")
    elif b"location" not in seen and b"content-type" not in seen:
        raise BadOutput("none of the headers Content-Type, Location and Status")
    length = None
    if b"content-length" in seen:
        text = seen[b"content-length"]
        if not text.isdigit() or len(text) > 18:
            raise BadOutput(f"no length: {text[:80]!r}")
        length = int(text)
    return Head(status, reason, headers, length)
