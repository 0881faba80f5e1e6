"""`wasisup serve` for tests: started, spoken to in HTTP and in plain bytes, and ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from .command import SAFETY_NET, Command
from .processes import all_pidfds, children, is_worker, wait_gone

PATIENCE = 20.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class Answer:
    """A whole answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.text = self.body.decode("utf-8", "replace")


class Serving:
    """A server in a `with`; its end is checked: status 0, no process left, no error in the log."""

    def __init__(self, command: Command, *args: str | Path, **options: Any) -> None:
        listen = (
            () if "--listen" in args or options.get("pass_fds") else ("--listen", "127.0.0.1:0")
        )
        self._argv = ("serve", "--log", "json", *listen, *args)
        self._command = command
        self._options = options
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed at the end of the `with`)
        self.process: subprocess.Popen[bytes]
        self.said = ""
        self.address: Any = None
        self.errors_expected = False

    def __enter__(self) -> Self:
        self.process = self._command.popen(
            *self._argv, stdin=subprocess.DEVNULL, stderr=self._log, **self._options
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().decode()
        found = re.search(r" at (?:http://(\[?[^\]]*\]?):(\d+)|unix:(.*))\n", self.said)
        if found is None:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it does not serve: {self.said!r}\n{self.log_text()}")
        host, port, path = found.groups()
        self.address = path if path is not None else (host.strip("[]"), int(port))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self.process.poll() is None:
                if kind is None:
                    self.finish()
                else:
                    self.process.kill()
                    self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
            if kind is not None:
                print(self.log_text())
            self._log.close()

    def finish(self, number: int = signal.SIGTERM) -> None:
        """Ends it in good order."""
        family = all_pidfds(self.process.pid)
        self.process.send_signal(number)
        assert self.process.wait(SAFETY_NET) == 0, self.log_text()
        assert wait_gone(family, PATIENCE) == set()
        assert "Traceback" not in self.log_text(), self.log_text()
        if not self.errors_expected:
            assert '"level": "error"' not in self.log_text(), self.log_text()

    # --- asking ---

    def connect(self) -> socket.socket:
        """A connection."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        if family == socket.AF_INET and ":" in self.address[0]:
            family = socket.AF_INET6
        sock = socket.socket(family)
        try:
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def connection(self) -> http.client.HTTPConnection:
        """A client's connection, kept alive."""
        if isinstance(self.address, str):
            return UnixConnection(self.address)
        return http.client.HTTPConnection(*self.address, timeout=PATIENCE)

    def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        client = self.connection()
        try:
            client.request(method, target, body, headers or {})
            return Answer(client.getresponse())
        finally:
            client.close()

    def get(self, target: str, **headers: str) -> Answer:
        """A GET."""
        return self.ask("GET", target, headers=headers)

    def raw(self, data: bytes) -> bytes:
        """All that comes until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return drain(sock)

    # --- looking ---

    def log_text(self) -> str:
        """The log so far."""
        return os.pread(self._log.fileno(), 64 << 20, 0).decode()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of that name."""
        lines = [line for line in self.log_text().splitlines() if line.startswith("{")]
        return [event for line in lines if (event := json.loads(line))["event"] == name]

    def request_event(self, target: str) -> dict[str, Any]:
        """The log's line of the request for `target`, once it is there."""

        def look() -> list[dict[str, Any]]:
            return [event for event in self.events("request") if event["target"] == target]

        until(lambda: bool(look()))
        return look()[-1]

    def workers(self) -> list[int]:
        """The workers, the one forked ahead included."""
        return [pid for pid in children(self.process.pid) if is_worker(pid)]

    def held(self) -> Counter[str]:
        """Open descriptors and children by kind."""
        found: Counter[str] = Counter()
        folder = f"/proc/{self.process.pid}/fd"
        for fd in os.listdir(folder):
            try:
                found[re.sub(r"\d+", "", os.readlink(f"{folder}/{fd}"))] += 1
            except FileNotFoundError:
                continue
        found["children"] = len(children(self.process.pid))
        return found


def drain(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    while part := sock.recv(1 << 16):
        found += part
    return found


def until(true: Callable[[], bool]) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.005)
