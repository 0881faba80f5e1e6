"""A daemon under load: its process and what it spends, clients that cost little, and the peer."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from support.command import SAFETY_NET, command_path

# More than any question asks for: what is measured is the price of runs, not of waiting for a turn.
_CONFIG = """
[limits]
runs = 2000
memory = "64TiB"
[default]
runs = 2000
"""
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_ANSWER_BYTES = 64 << 10


class Service:
    """A daemon of the benchmark's own below `folder`, until the `with` ends.

    Raises RuntimeError, with its log, when it cannot start or does not stop in good order.
    """

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.socket = str(folder / "wasisup.sock")
        self._log = folder / "log"
        self._env = dict(env)
        self._config = folder / "wasisup.toml"
        self._config.write_text(f'state = "{folder}/state"\n{_CONFIG}')
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        argv = [command_path(), "daemon", "--socket", self.socket, "--config", str(self._config)]
        address = f"{self.socket}-notify"
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            self._log.open("wb") as log,
        ):
            notify.bind(address)
            env = {**self._env, "NOTIFY_SOCKET": address}
            self.process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            if not self._is_ready(notify):
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"no daemon: {self._log.read_text()}")
        return self

    def _is_ready(self, notify: socket.socket) -> bool:
        """Waits until it says so; False when it ends first, or says nothing for long."""
        ended = os.pidfd_open(self.process.pid)
        try:
            while True:
                told, _, _ = select.select([notify, ended], [], [], SAFETY_NET)
                if notify not in told:
                    return False
                if b"READY=1" in notify.recv(_ANSWER_BYTES):
                    return True
        finally:
            os.close(ended)

    def __exit__(self, kind: object, *_: object) -> None:
        self.process.terminate()
        if kind is not None:
            self.process.terminate()  # once more: it does not wait for the runs
        status = self.process.wait(SAFETY_NET)
        if status and kind is None:
            raise RuntimeError(f"the daemon ended with {status}: {self._log.read_text()}")

    def workers(self) -> list[int]:
        """The pids of the runs that live, and of the worker that the zygote forked ahead."""
        return [pid for pid in self._children() if _name(pid) == "wasisup-worker"]

    def zygote(self) -> int:
        """The zygote's pid."""
        return next(pid for pid in self._children() if b"\0zygote\0" in _command(pid))

    def spent(self) -> dict[str, int]:
        """ns of processor time so far: the daemon's, its helpers', its ended workers', and ours."""
        pid = self.process.pid
        helpers: dict[str, int] = {}
        for child in self._helpers():
            # A worker is called like its zygote at first, which is older.
            helpers.setdefault(_command(child).split(b"\0")[1].decode(), child)
        # Fields 16 and 17 of /proc/PID/stat: of children that were waited for.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return {
            "daemon": _spent_by(pid),
            "workers": (int(fields[13]) + int(fields[14])) * _TICK_NS,
            **{name: _spent_by(child) for name, child in helpers.items()},
            "client": time.process_time_ns(),
        }

    def memory(self) -> int:
        """Resident bytes of the daemon's own process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def _helpers(self) -> list[int]:
        return [pid for pid in self._children() if _name(pid) == "wasisup-core"]


class Client:
    """One kept-alive connection.  Close it, or use it in a `with`."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> bytes:
        """The whole answer to a prebuilt request."""
        self.socket.sendall(request)
        return self.answer()

    def answer(self) -> bytes:
        """The rest of an answer, whose head names its length.  Raises ConnectionError."""
        data = b""
        missing = 1
        while missing > 0:
            part = self.socket.recv(_ANSWER_BYTES)
            if not part:
                raise ConnectionError("the daemon closed the connection")
            data += part
            missing = _missing(data)
        return data

    def json(self, method: str, target: str, body: Any = None) -> Any:
        """What is in the body of the answer; for what is not measured.

        Raises RuntimeError for an error.
        """
        answer = self.ask(request(method, target, body))
        if int(answer.split(b" ", 2)[1]) >= 400:
            raise RuntimeError(f"{method} {target}: {answer.decode()}")
        text = answer.partition(b"\r\n\r\n")[2]
        return json.loads(text) if text else None

    def created(self, wanted: bytes) -> str:
        """The id of a run that is started and left alone.  Raises RuntimeError."""
        answer = self.ask(wanted)
        if not answer.startswith(b"HTTP/1.1 201 "):
            raise RuntimeError(f"no run was started: {answer.decode()}")
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["id"])

    def first_line(self, run: str) -> bytes:
        """What a run has written to stdout, once it is a line; ends the use of this connection."""
        self.socket.sendall(request("GET", f"/v1/runs/{run}/logs?follow=1&stream=stdout"))
        data = b""
        while b"\n" not in data.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]:
            part = self.socket.recv(_ANSWER_BYTES)
            if not part:
                raise RuntimeError(f"the run ended before it slept: {data.decode()}")
            data += part
        return data


def request(method: str, target: str, body: Any = None) -> bytes:
    """The bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nhost: wasisup\r\n"
    if content:
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


def check(answer: bytes, printed: str) -> None:
    """Raises RuntimeError unless a run ended with 0 and printed just that."""
    text = f'"stdout":{json.dumps(printed)}'.encode()
    if answer.startswith(b"HTTP/1.1 200 ") and b'"exit_code":0,' in answer and text in answer:
        return
    raise RuntimeError(f"a run ended in another way: {answer.decode()}")


def served(path: str, wanted: bytes, printed: str, runs: int, clients: int) -> float:
    """Milliseconds a run, of `runs` by `clients` that each wait for an answer and ask again."""
    open_clients = [Client(path) for _ in range(clients)]
    by_fd = {one.socket.fileno(): one for one in open_clients}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    start = time.perf_counter_ns()
    for one in open_clients[:runs]:
        one.socket.sendall(wanted)
    asked, done = min(runs, clients), 0
    while done < runs:
        for fd, _ in poll.poll():
            one = by_fd[fd]
            answer = one.answer()
            if asked < runs:
                one.socket.sendall(wanted)
                asked += 1
            check(answer, printed)
            done += 1
    end = time.perf_counter_ns()
    poll.close()
    for one in open_clients:
        one.socket.close()
    return (end - start) / 1e6 / runs


class Spawner:
    """Spawns a command whose stdout is a pipe, and checks what it prints.

    argv, env: of the command.  printed: what has to come.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], printed: str) -> None:
        self._argv = list(argv)
        self._env = dict(env)
        self._printed = printed.encode()

    def once_ms(self) -> float:
        """Milliseconds from the spawn to the end.  Raises RuntimeError."""
        start = time.perf_counter_ns()
        pid, out = self._spawn()
        text = b""
        while part := os.read(out, _ANSWER_BYTES):
            text += part
        _, status = os.waitpid(pid, 0)
        os.close(out)
        end = time.perf_counter_ns()
        self._check(status, text)
        return (end - start) / 1e6

    def kept_busy(self, runs: int, at_once: int) -> float:
        """Milliseconds a run, of `runs` with so many at once all the time.  Raises RuntimeError."""
        poll = select.epoll()
        pids: dict[int, int] = {}
        texts: dict[int, bytes] = {}
        spawned, done = 0, 0

        def spawn() -> None:
            pid, out = self._spawn()
            pids[out], texts[out] = pid, b""
            poll.register(out, select.EPOLLIN)

        start = time.perf_counter_ns()
        while spawned < min(runs, at_once):
            spawn()
            spawned += 1
        while done < runs:
            for out, _ in poll.poll():
                part = os.read(out, _ANSWER_BYTES)
                texts[out] += part
                if part:
                    continue
                _, status = os.waitpid(pids.pop(out), 0)
                text = texts.pop(out)
                # By itself it would stay while a child that has just been spawned still has it.
                poll.unregister(out)
                os.close(out)  # the next one's may get its number
                if spawned < runs:
                    spawn()
                    spawned += 1
                self._check(status, text)
                done += 1
        end = time.perf_counter_ns()
        poll.close()
        return (end - start) / 1e6 / runs

    def _spawn(self) -> tuple[int, int]:
        out, into = os.pipe2(os.O_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, into, 1),
        ]
        pid = os.posix_spawn(self._argv[0], self._argv, self._env, file_actions=actions)
        os.close(into)
        return pid, out

    def _check(self, status: int, text: bytes) -> None:
        if status or text != self._printed:
            code = os.waitstatus_to_exitcode(status)
            raise RuntimeError(f"{self._argv[0]} ended with {code} and printed {text!r}")


def _missing(data: bytes) -> int:
    """Bytes of an answer that are still to come; 1 while nobody knows how many."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 1
    at = data.find(b"content-length: ", 0, end)
    length = 0 if at < 0 else int(data[at + 16 : data.index(b"\r", at)])
    return end + 4 + length - len(data)


def _spent_by(pid: int) -> int:
    # As clock_getcpuclockid(3) makes it; finer than the ticks of /proc/PID/stat.
    return time.clock_gettime_ns(~pid << 3 | 2)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
