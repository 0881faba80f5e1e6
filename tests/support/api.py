"""A small client of the daemon's API for tests: HTTP by the standard library, descriptors by hand.

Not the SDK: what that gets wrong in the same way as the daemon would not be seen.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds until an answer that does not come fails the test
Connect = Callable[[], socket.socket]


class Answer:
    """An answer that has been read.  headers: names in lower case."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What went wrong, in the shape that every error has."""
        assert self.status >= 400, self.body
        assert self.headers["content-type"] == "application/json"
        assert self.json.keys() == {"error"}
        error = self.json["error"]
        assert error.keys() == {"code", "message", "hint"}
        assert error["message"]
        assert error["hint"] is None or error["hint"]
        return dict(error)

    def ok(self, status: int = 200) -> Any:
        """What it says, when it has this status; None without a body."""
        assert self.status == status, f"{self.status}: {self.body[:2000]!r}"
        return self.json if self.body else None

    def refused(self, status: int, words: str = "") -> dict[str, Any]:
        """The error, when it has this status and its message these words."""
        assert self.status == status, f"{self.status}: {self.body[:2000]!r}"
        assert words in self.error["message"]
        return self.error


class Connection(http.client.HTTPConnection):
    """HTTP over a connected socket; descriptors go with the first bytes of a request."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = sock
        self.fds: Sequence[int] = ()

    def connect(self) -> None:
        raise ConnectionError("the daemon has closed this connection")

    def send(self, data: Any) -> None:
        if self.fds and self.sock is not None:
            fds, self.fds = self.fds, ()
            data = data[socket.send_fds(self.sock, [data], fds) :]
        super().send(data)

    def begin(
        self,
        method: str,
        target: str,
        body: Any = None,
        fds: Sequence[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Sends a request; the answer's head has come, its body is yet to be read.

        body: bytes, or anything else as JSON.
        """
        self.fds = fds
        kind = "application/octet-stream"
        if body is not None and not isinstance(body, bytes):
            body, kind = json.dumps(body).encode(), "application/json"
        given = {} if body is None else {"content-type": kind}
        self.request(method, target, body, {**given, **(headers or {})})
        return self.getresponse()

    def ask(self, *args: Any, **more: Any) -> Answer:
        """A request and its whole answer."""
        return Answer(self.begin(*args, **more))


class Api:
    """The API as one caller sees it.  connect: makes this caller's connections."""

    def __init__(self, connect: Connect, programs: Mapping[str, Path]) -> None:
        self._connect = connect
        self.programs = programs
        self._kept: Connection | None = None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection of one's own."""
        made = Connection(self._connect())
        try:
            yield made
        finally:
            made.close()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def ask(self, method: str, target: str, body: Any = None, **more: Any) -> Answer:
        """A request over the kept connection, and its whole answer."""
        if self._kept is None or self._kept.sock is None:
            self._kept = Connection(self._connect())
        answer = self._kept.ask(method, target, body, **more)
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def get(self, target: str) -> Any:
        return self.ask("GET", target).ok()

    def program(self, name: str) -> dict[str, str]:
        """A guest by its bytes: any caller may run it."""
        data = self.programs[name].read_bytes()
        return {"base64": base64.b64encode(data).decode(), "name": name}

    def request(self, program: str, *args: Any, **fields: Any) -> dict[str, Any]:
        """A wire.RunRequest; `module` among the fields stands for the program's own bytes."""
        return {"module": self.program(program) if program else {}, "args": args, **fields}

    def run(self, program: str, *args: Any, fds: Sequence[int] = (), **fields: Any) -> Any:
        """A run to its end: its record, with outcome and output."""
        body = self.request(program, *args, wait=True, **fields)
        return self.ask("POST", "/v1/runs", body, fds=fds).ok(200)

    def start(self, program: str, *args: Any, fds: Sequence[int] = (), **fields: Any) -> str:
        """A detached run: its id."""
        answer = self.ask("POST", "/v1/runs", self.request(program, *args, **fields), fds=fds)
        run = answer.ok(201)
        assert answer.headers["location"] == f"/v1/runs/{run['id']}"
        return str(run["id"])

    def wait(self, run: str) -> Any:
        """The record of a run that has ended."""
        record = self.get(f"/v1/runs/{run}/wait?timeout={PATIENCE}")
        assert record["state"] == "ended"
        return record

    def kill(self, run: str) -> Any:
        return self.ask("DELETE", f"/v1/runs/{run}").ok()

    def signal(self, run: str, name: str) -> None:
        assert self.ask("POST", f"/v1/runs/{run}/signal", {"signal": name}).ok(204) is None

    def logs(self, run: str, stream: str = "stdout", *, follow: bool = False) -> bytes:
        """The raw bytes of one stream."""
        answer = self.ask("GET", f"/v1/runs/{run}/logs?stream={stream}&follow={int(follow)}")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        return answer.body

    def write(self, run: str, data: bytes, *, close: bool = False) -> Answer:
        return self.ask("POST", f"/v1/runs/{run}/stdin?close={int(close)}", data)

    def ready(self, run: str) -> None:
        """Waits until the guest has written its first line."""
        with (
            self.connection() as own,
            own.begin("GET", f"/v1/runs/{run}/logs?stream=stdout&follow=1") as response,
        ):
            assert response.readline() == b"ready\n"


def connect(path: str) -> socket.socket:
    """A connection as whoever this process is."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


def connect_as(path: str, uid: int, gid: int, groups: Sequence[int] = ()) -> socket.socket:
    """A connection as somebody else: the kernel keeps who called connect(2) (SO_PEERCRED).

    A child becomes that user, connects, and hands the socket back.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                made = connect(path)
                socket.send_fds(theirs, [b"x"], [made.fileno()])
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it could not connect"
    sock = socket.socket(fileno=fds[0])
    sock.settimeout(PATIENCE)
    return sock


class _Read(io.BytesIO):
    """What has been received, for one http.client.HTTPResponse after the other."""

    def makefile(self, *_: object) -> _Read:
        return self

    def close(self) -> None:
        """The next response goes on where this one ends."""


def talk(
    sock: socket.socket,
    data: bytes,
    fds: Sequence[int] = (),
    *,
    hang_up: bool = True,
    count: int | None = None,
) -> list[Answer]:
    """Sends exactly this and reads what is answered until the daemon closes the connection.

    hang_up: say that nothing more comes; without it the daemon has to close by itself.  count: of
    answers, in place of the connection's end.
    """
    try:
        if fds:
            data = data[socket.send_fds(sock, [data], fds) :]
        sock.sendall(data)
        if hang_up:
            sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has heard enough
    received = _Read()
    try:
        while part := sock.recv(65536):
            received.write(part)
            if count is not None and received.getvalue().count(b"HTTP/1.1 ") == count:
                break  # the last one fits a part, as all of them do that are counted
    except ConnectionResetError:
        pass  # it did not wait for all that was sent; what it said came before
    received.seek(0)
    answers = []
    while received.tell() < len(received.getbuffer()):
        response = http.client.HTTPResponse(received)  # type: ignore[arg-type]
        response.begin()
        answers.append(Answer(response))
    return answers
