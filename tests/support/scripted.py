"""A server on a real AF_UNIX socket that answers as a test says."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httptools

FDS = 128


@dataclass
class Asked:
    """One request: the descriptors that came with it are this object's."""

    method: str = ""
    target: str = ""
    body: bytes = b""
    connection: int = 0
    fds: list[int] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(status: int, body: Any = None, *headers: str) -> bytes:
    """An answer with a JSON body."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Some", *headers]
    if status != 204:
        lines.append(f"Content-Length: {len(data)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def error(status: int, code: str, message: str = "no", *headers: str) -> bytes:
    """An error of the API."""
    body = {"error": {"code": code, "message": message, "hint": "try"}}
    return answer(status, body, *headers)


def chunked(*parts: bytes) -> bytes:
    """An answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


class Scripted:
    """Answers each request with what `script` makes of it; None: it hangs up without a word.

    gone: counts the connections that clients have closed; wait for it with `wait_gone`.
    """

    def __init__(self, path: Path, script: Callable[[Asked], bytes | None]) -> None:
        self.path = str(path)
        self.script = script
        self.asked: list[Asked] = []
        self.gone = 0
        self.connections = 0
        self._changed = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener.bind(self.path)
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by its thread
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for asked in self.asked:
            for fd in asked.fds:
                os.close(fd)

    def wait_gone(self, count: int) -> None:
        """Waits until so many connections have been closed by their clients."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.gone >= count, 30)

    def wait_asked(self, count: int) -> None:
        """Waits until so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, 30)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            while True:
                asked = self._read(connection)
                if asked is None:
                    break
                asked.connection = number
                with self._changed:
                    self.asked.append(asked)
                    self._changed.notify_all()
                said = self.script(asked)
                if said is None:
                    return
                try:
                    connection.sendall(said)
                except OSError:
                    break
        with self._changed:
            self.gone += 1
            self._changed.notify_all()

    def _read(self, connection: socket.socket) -> Asked | None:
        reading = _Reading()
        parser = httptools.HttpRequestParser(reading)
        while not reading.complete:
            try:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 16, FDS)
            except OSError:
                return None
            reading.asked.fds += fds
            if not data:
                return None
            parser.feed_data(data)
        reading.asked.method = parser.get_method().decode()
        return reading.asked


class _Reading:
    def __init__(self) -> None:
        self.asked = Asked()
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.asked.target += url.decode()

    def on_body(self, part: bytes) -> None:
        self.asked.body += part

    def on_message_complete(self) -> None:
        self.complete = True


RUN = {
    "id": "0123456789abcdef",
    "state": "running",
    "uid": 0,
    "gid": 0,
    "policy": "default",
    "module": "/m.wasm",
    "created": "2026-01-02T03:04:05Z",
}


def ended(reason: str = "exit", status: int = 0, **fields: Any) -> dict[str, Any]:
    """The record of a run that has ended."""
    outcome = {"reason": reason, "status": status, **fields.pop("outcome", {})}
    return {**RUN, "state": "ended", "outcome": outcome, **fields}
