"""The daemon's log: the journal's protocol, JSON, a terminal, and readers that do not read."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import pty
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from wasisup.supervisor import logs
from wasisup.supervisor.sink import Sink


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No journal of the machine's own, and nothing of a test's outlives it."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    before, raising = list(logging.getLogger().handlers), logging.raiseExceptions
    yield
    logging.getLogger().handlers = before
    logging.raiseExceptions = raising
    logging.getLogger().setLevel(logging.WARNING)
    structlog.reset_defaults()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket where journald's would be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        yield receiver


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[str]]:
    """Lines of JSON at level info; the list is filled when it is asked for."""
    with open(tmp_path / "log", "w+b") as file:

        class Lines(list[str]):
            def __iter__(self) -> Iterator[str]:
                file.seek(0)
                return iter(file.read().decode().splitlines())

        logs.configure("json", "info", file)
        yield Lines()


def decode(entry: bytes) -> dict[str, str]:
    """The fields of an entry of the native protocol."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


def to_journal(journald: socket.socket, level: str = "info") -> None:
    logs.configure("journal", level, journal=journald.getsockname())


def test_fields_of_the_journal(journald: socket.socket) -> None:
    """RUN_ID, UID and POLICY by their own names, everything else with a prefix."""
    to_journal(journald)
    log = logs.logger(uid=1000)
    log.warning("run ended", run="ab12", policy="pure", reason="exit", cpu_ns=5, nothing=None)
    assert decode(journald.recv(1 << 16)) == {
        "MESSAGE": "run ended uid=1000 run=ab12 policy=pure reason=exit cpu_ns=5",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "wasisup",
        "RUN_ID": "ab12",
        "UID": "1000",
        "POLICY": "pure",
        "WASISUP_REASON": "exit",
        "WASISUP_CPU_NS": "5",
    }


def test_what_a_guest_says_cannot_forge_fields(journald: socket.socket) -> None:
    """A value with lines goes by its length; other control characters as escapes."""
    to_journal(journald)
    logs.logger().info("ended", message="a\nPRIORITY=0\x1b[2J", path="\udcff")
    got = decode(journald.recv(1 << 16))
    assert got["PRIORITY"] == "6"
    assert got["WASISUP_MESSAGE"] == "a\nPRIORITY=0\\x1b[2J"
    assert got["WASISUP_PATH"] == "\\xff"
    assert got["MESSAGE"] == "ended message=a\\x0aPRIORITY=0\\x1b[2J path=\\xff"


def test_large_entries_are_files(journald: socket.socket) -> None:
    """What is too large for a datagram comes as a sealed memfd, whole."""
    to_journal(journald)
    logs.logger().error("much", text="x" * (4 << 20))
    data, fds, _, _ = socket.recv_fds(journald, 1 << 16, 4)
    assert data == b""
    (fd,) = fds
    with open(fd, "rb") as file:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        file.seek(0)
        got = decode(file.read())
    assert got["WASISUP_TEXT"] == "x" * (4 << 20)
    wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert seals & wanted == wanted
    assert logs.dropped() == 0


def test_a_journal_that_does_not_read(journald: socket.socket) -> None:
    """The daemon goes on, and what was lost is counted."""
    to_journal(journald)
    before = logs.dropped()
    log = logs.logger()
    for _ in range(2000):  # net.unix.max_dgram_qlen is 512 at the most in practice
        log.info("x")
    lost = logs.dropped() - before
    assert lost > 0
    received = 0
    journald.setblocking(False)
    while received + lost < 2000:
        journald.recv(1 << 16)
        received += 1
    log.info("again")
    assert decode(journald.recv(1 << 16))["MESSAGE"] == "again"


def test_no_journal() -> None:
    """A journald that is not there is no reason to stop either."""
    before = logs.dropped()
    logs.configure("journal", "info", journal="/nonexistent/socket")
    logs.logger().info("x")
    assert logs.dropped() == before + 1


def test_json(lines: list[str]) -> None:
    """One object a line, ASCII, with time and level; bytes and odd values as text."""
    logs.logger(run="ab").info("started", path=b"\xff", also="\udcff\n", pid=3, what=Path("/x"))
    (line,) = lines
    assert line.isascii()
    got = json.loads(line)
    assert got.pop("timestamp").endswith("Z")
    expected = {"path": "\\xff", "also": "\udcff\n", "pid": 3, "what": "/x", "run": "ab"}
    assert got == {"event": "started", "level": "info", **expected}


def test_exceptions_and_levels(lines: list[str]) -> None:
    """Below the level nothing; an exception with its traceback, in one line."""
    log = logs.logger()
    log.debug("not this")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    (line,) = lines
    got = json.loads(line)
    assert (got["event"], got["level"]) == ("failed", "error")
    assert "ValueError: why" in got["exception"]


def test_a_value_that_cannot_be_shown(lines: list[str]) -> None:
    """It costs the event, not the daemon."""

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no")

    before = logs.dropped()
    logs.logger().info("x", odd=Odd())
    assert logs.dropped() == before + 1
    assert list(lines) == []


def test_the_level_can_change(lines: list[str], tmp_path: Path) -> None:
    """Loggers that exist follow a reload."""
    log = logs.logger()
    with open(tmp_path / "other", "w+b") as other:
        logs.configure("json", "error", other)
        log.warning("lost")
        log.error("kept")
        other.seek(0)
        assert [json.loads(line)["event"] for line in other] == ["kept"]
    assert list(lines) == []


def test_libraries_log_here(lines: list[str]) -> None:
    """asyncio's warnings, with their exceptions; what is below a warning is left out."""
    library = logging.getLogger("asyncio")
    library.info("chatter")
    asyncio.run(_call_exception_handler())
    (line,) = lines
    got = json.loads(line)
    assert (got["event"], got["logger"], got["level"]) == ("broken", "asyncio", "error")
    assert "ZeroDivisionError" in got["exception"]


async def _call_exception_handler() -> None:
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "broken", "exception": ZeroDivisionError()})


def test_pretty(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, in colours unless NO_COLOR says otherwise, and no escapes of a guest's."""
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb") as terminal, os.fdopen(follower, "wb", buffering=0) as stream:
        assert logs.detect(stream.fileno()) == "pretty"
        monkeypatch.delenv("NO_COLOR", raising=False)
        logs.configure("auto", "info", stream)
        logs.logger().info("seen", text="\x1b[2J")
        line = terminal.readline()
        assert b"seen" in line
        assert b"\x1b[2J" not in line
        assert b"\\x1b[2J" in line
        assert b"\x1b[" in line
        monkeypatch.setenv("NO_COLOR", "1")
        logs.configure("auto", "info", stream)
        logs.logger().info("seen")
        assert b"\x1b[" not in terminal.readline()


def test_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The journal only when stderr itself leads there: a child may have redirected it."""
    with open(tmp_path / "log", "w+b") as file:
        assert logs.detect(file.fileno()) == "json"
        got = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{got.st_dev}:{got.st_ino}")
        assert logs.detect(file.fileno()) == "journal"
        monkeypatch.setenv("JOURNAL_STREAM", f"{got.st_dev}:{got.st_ino + 1}")
        assert logs.detect(file.fileno()) == "json"
    assert logs.detect(-1) == "json"


def test_a_pipe_that_nobody_reads() -> None:
    """Lines that do not fit are dropped whole, and whoever shares the pipe may still block."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as out, os.fdopen(writer, "wb", buffering=0) as stream:
        before = logs.dropped()
        logs.configure("json", "info", stream)
        log = logs.logger()
        for number in range(3000):
            log.info("x" * 100, number=number)
        lost = logs.dropped() - before
        assert lost > 0
        assert os.get_blocking(writer)
        first = os.read(reader, 1 << 20)
        log.info("last")  # after the rest of a line that was cut
        logs.configure("journal", "info")  # lets go of the pipe
        stream.close()
        got = [json.loads(line) for line in (first + out.read()).splitlines()]
    assert got[-1]["event"] == "last"
    assert len(got) - 1 + lost == 3000


def test_closed_stderr() -> None:
    """Nothing is written, least of all to whatever has the number now."""
    for fd in (-1, 987654):
        sink = Sink(fd)
        assert not sink.write(b"x\n")
        sink.close()
    reader, writer = os.pipe()
    sink = Sink(writer)
    os.close(writer)
    os.close(reader)
    assert not sink.write(b"x\n")  # EPIPE: its reader is gone
    sink.close()
    assert not sink.write(b"x\n")


def test_a_socket_that_nobody_reads() -> None:
    """stderr may be a socket: inetd's, or a test's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = Sink(ours.fileno())
        assert sink.write(b"first\n")
        while sink.write(b"x" * 65536):
            pass
        assert theirs.recv(6) == b"first\n"
        assert ours.getblocking()
        sink.close()
    assert not sink.write(b"x")
