"""A daemon to be killed: started, told to stop or reload, and heard like a service manager does."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Self

from wasisup.supervisor.client.sync import Client

from .command import SAFETY_NET
from .processes import all_pidfds, children, is_worker, wait_gone

GONE = 20.0  # seconds until what should be gone must be


class Notices:
    """The service manager's end of $NOTIFY_SOCKET.  seen: every message so far, as lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        os.chmod(path, 0o666)

    def wait_for(self, start: str, pidfd: int) -> list[str]:
        """The next message with a line that starts so; fails when the process ends before."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        while True:
            ready = dict(poller.poll(SAFETY_NET * 1000))
            assert ready, f"nothing was said; so far {self.seen}"
            if self._socket.fileno() not in ready:
                raise AssertionError(f"ended without {start!r}; so far {self.seen}")
            self.seen.append(self._socket.recv(4096).decode().split("\n"))
            if any(line.startswith(start) for line in self.seen[-1]):
                return self.seen[-1]

    def close(self) -> None:
        """From here on nobody listens."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


class Service:
    """`wasisup daemon` below `folder`, with everything of its own but the compile cache.

    config: TOML beside `state`.  prefix: what to run it under, such as setpriv.  preset: Python
    that is executed in its process before it starts, to change a constant.  listener: a socket that
    is handed to it as a service manager would.
    """

    def __init__(
        self,
        env: dict[str, str],
        folder: Path,
        config: str = "",
        *,
        prefix: tuple[str, ...] = (),
        preset: str = "",
        listener: socket.socket | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = str(folder / "wasisup.sock")
        self.config = folder / "wasisup.toml"
        self.log_path = folder / "log"
        self.configure(config)
        self.env = {**env, "XDG_CONFIG_HOME": str(folder / "config"), "PYTHONUNBUFFERED": "1"}
        self.arguments: list[str] = ["--socket", self.socket, "--config", str(self.config)]
        self.prefix = prefix
        self.preset = preset
        self.listener = listener
        self.process: subprocess.Popen[bytes]
        self.pidfd = -1
        self.notices: Notices | None = None

    def configure(self, config: str) -> None:
        """Writes the configuration file."""
        self.config.write_text(f'state = "{self.state}"\n[log]\nformat = "json"\n{config}')
        os.chmod(self.config, 0o644)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
            if self.notices is not None:
                self.notices.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    # --- beginning and end ---

    def spawn(self, **extra: str) -> None:
        """Starts it, and waits for nothing."""
        lines = ["import os, sys"]
        pass_fds: tuple[int, ...] = ()
        if self.listener is not None:
            fd = self.listener.fileno()
            pass_fds = (fd,)
            lines.append(f"os.dup2({fd}, 3); {fd} == 3 or os.close({fd})")
            lines.append("os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')")
        lines += [self.preset, "from wasisup.supervisor.cli import main", "sys.exit(main())"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-c", "\n".join(lines), "daemon", *self.arguments],
                env={**self.env, **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=pass_fds,
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    def start(self, *, listen: bool = True, **extra: str) -> None:
        """Starts it and waits until it is ready.  listen: hear its notices from then on, too."""
        if self.notices is not None:
            self.notices.close()
        self.notices = Notices(self.folder / "notify")
        self.spawn(NOTIFY_SOCKET=str(self.notices.path), **extra)
        try:
            self.notices.wait_for("READY=1", self.pidfd)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log()}") from None
        if not listen:
            self.notices.close()
            self.notices = None

    def hear(self, start: str) -> list[str]:
        """Waits for a notice."""
        assert self.notices is not None
        return self.notices.wait_for(start, self.pidfd)

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def wait(self) -> int:
        """Waits for its end; its exit status."""
        status = self.process.wait(SAFETY_NET)
        os.close(self.pidfd)
        self.pidfd = -1
        return status

    def stop(self) -> int | None:
        """Ends it in good order, but without waiting for runs; None if it has ended."""
        if self.pidfd < 0:
            return None
        self.signal(signal.SIGTERM)
        if self.notices is not None:
            # The second one hurries; two at once would be one.
            self.hear("STOPPING=1")
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> set[int]:
        """Kills it as the kernel would; those of its children that stay alive."""
        if self.pidfd < 0:
            return set()
        family = all_pidfds(self.pid)
        self.signal(signal.SIGKILL)
        self.wait()
        return wait_gone(family, GONE)

    # --- looking ---

    def inside(self, path: Path) -> Path:
        """The path in its mount namespace."""
        return Path(f"/proc/{self.pid}/root") / path.relative_to("/")

    def client(self) -> Client:
        return Client(self.socket, timeout=SAFETY_NET)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log's lines with that event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def zygote(self) -> int:
        """The zygote's pid: the child that is in no PID namespace of its own."""
        found = [pid for pid in children(self.pid) if role(pid) == "zygote"]
        assert len(found) == 1, f"zygotes: {found}"
        return found[0]

    def workers(self) -> list[int]:
        return [pid for pid in children(self.pid) if is_worker(pid)]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        with self.client() as client:
            text = client.metrics()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return sum(float(value) for key, value in rows if key.split("{")[0] == name)


class Wire:
    """One connection, to say exactly what is to be said."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.settimeout(SAFETY_NET)
        self.socket.connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(
        self, method: str, target: str, body: Any = None, fds: list[int] | None = None
    ) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n"
        if body is not None:
            head += "content-type: application/json\r\n"
        message = head.encode() + b"\r\n" + data
        sent = socket.send_fds(self.socket, [message], fds or [])
        self.socket.sendall(message[sent:])

    def receive(self) -> tuple[int, Any]:
        status, body = self._receive()
        return status, json.loads(body) if body else None

    def receive_text(self) -> str:
        return self._receive()[1].decode()

    def _receive(self) -> tuple[int, bytes]:
        response = HTTPResponse(self.socket)
        with closing(response):
            response.begin()
            return response.status, response.read()

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        self.send(method, target, body)
        return self.receive()


def role(pid: int) -> str:
    """What a child of the daemon is: "zygote", "opener", "worker", or "" when it has gone."""
    if is_worker(pid):
        return "worker"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[1].decode() if len(words) > 1 else ""


def begin(client: Client, module: Path, *args: str, **options: object) -> str:
    """The id of a detached run that says "ready", once its guest has said so."""
    run = client.start(module, args, **options)  # type: ignore[arg-type]
    with client.logs(run, follow=True, stream="stdout") as chunks:
        assert next(chunks).data == b"ready\n"
    return run.id


@contextmanager
def subreaper() -> Iterator[Callable[[], list[int]]]:
    """While it holds, orphans become children of this process; gives those that never end."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    option = 36  # PR_SET_CHILD_SUBREAPER
    before = set(children(os.getpid()))

    def left() -> list[int]:
        found = []
        for pid in set(children(os.getpid())) - before:
            if wait_gone({pid: os.pidfd_open(pid)}, GONE):
                found.append(pid)
            else:
                os.waitpid(pid, 0)
        return found

    assert libc.prctl(option, 1, 0, 0, 0) == 0
    try:
        yield left
    finally:
        assert libc.prctl(option, 0, 0, 0, 0) == 0
