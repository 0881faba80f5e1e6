"""What the service manager is told, and what it hands over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasisup.supervisor.errors import SetupError
from wasisup.supervisor.notify import Notifier, listen_fds


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end, at a path or in the abstract namespace."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if request.param == "path" else f"\0{name}")
        receiver.settimeout(30)
        yield receiver


def notifier(manager: socket.socket, **variables: str) -> Notifier:
    address = manager.getsockname()
    name = address if isinstance(address, str) else "@" + address[1:].decode()
    environ = {"NOTIFY_SOCKET": name, **variables}
    got = Notifier(environ)
    assert environ == {}
    return got


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_states(manager: socket.socket) -> None:
    """As sd_notify(3) has them; a status is one line."""
    to = notifier(manager)
    assert to.ready("2 runs\nat once")
    assert heard(manager) == ["READY=1", "STATUS=2 runs at once"]
    assert to.ready()
    assert heard(manager) == ["READY=1"]
    assert to.status("idle")
    assert heard(manager) == ["STATUS=idle"]
    assert to.watchdog()
    assert heard(manager) == ["WATCHDOG=1"]
    assert to.stopping("draining", extend_seconds=1.5)
    assert heard(manager) == ["STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC=1500000"]


def test_reloading_says_when(manager: socket.socket) -> None:
    """By CLOCK_MONOTONIC in microseconds."""
    to = notifier(manager)
    assert to.reloading()
    first, clock, status = heard(manager)
    assert (first, status) == ("RELOADING=1", "STATUS=reloading")
    name, _, value = clock.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(value) > 0


def test_watchdog_interval(manager: socket.socket) -> None:
    """Half of what the manager waits, and only when it is this process that it waits for."""
    mine = str(os.getpid())
    assert notifier(manager).watchdog_seconds is None
    assert notifier(manager, WATCHDOG_USEC="3000000").watchdog_seconds == 1.5
    assert notifier(manager, WATCHDOG_USEC="1000", WATCHDOG_PID=mine).watchdog_seconds == 0.0005
    assert notifier(manager, WATCHDOG_USEC="1000", WATCHDOG_PID="1").watchdog_seconds is None
    assert notifier(manager, WATCHDOG_USEC="0").watchdog_seconds is None


@pytest.mark.parametrize("name", ["", "relative", "/nonexistent/socket", "@nobody-is-there"])
def test_without_a_manager(name: str) -> None:
    """Nothing happens, and nothing is raised."""
    assert not Notifier({"NOTIFY_SOCKET": name}).ready()
    assert not Notifier({}).ready()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.set_inheritable(True)
        yield listener


def passed(count: int, **more: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), **more}


def test_sockets_of_the_manager(listening: socket.socket) -> None:
    """With their names, close-on-exec, and the variables gone."""
    fd = listening.fileno()
    environ = passed(1, LISTEN_FDNAMES="wasisup.socket", PATH="/bin")
    assert listen_fds(environ, fd) == [(fd, "wasisup.socket")]
    assert environ == {"PATH": "/bin"}
    assert not os.get_inheritable(fd)
    assert listen_fds(passed(1), fd) == [(fd, "unknown")]


def test_sockets_of_somebody_else(listening: socket.socket) -> None:
    """Variables that were meant for another process, or that are nonsense, count for nothing."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert listen_fds(environ, listening.fileno()) == []
    assert environ == {}
    assert listen_fds({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}) == []
    assert listen_fds({}) == []


def test_what_is_no_listener(listening: socket.socket, tmp_path: Path) -> None:
    """A pipe, a connected socket, a datagram socket, nothing at all: refused with the reason."""
    ours, theirs = socket.socketpair()
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    internet = socket.socket()
    internet.bind(("127.0.0.1", 0))
    internet.listen()
    with ours, theirs, datagrams, internet, open(tmp_path / "file", "wb") as file:
        for wrong in (ours, datagrams, internet, file):
            with pytest.raises(SetupError, match="not a listening Unix stream socket") as caught:
                listen_fds(passed(1), wrong.fileno())
            assert "ListenStream=" in str(caught.value.hint)
    with pytest.raises(SetupError, match="passed no descriptor 987654"):
        listen_fds(passed(1), 987654)
