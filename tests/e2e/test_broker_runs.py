"""Runs with a broker beside them, embedded and in a daemon's core: their ends, and what is left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from support.processes import children
from wasisup.runtime import filters
from wasisup.runtime.spec import SpecWriter
from wasisup.supervisor import broker, embedded
from wasisup.supervisor import core as cores
from wasisup.supervisor.errors import SetupError, WallMissing
from wasisup.supervisor.launch import Opened
from wasisup.supervisor.model import NetGrant, Outcome, Quotas, RunRecord, RunRequest

GUEST = Path(__file__).parents[1] / "guests/wat/connect.wat"
ACCESS_DENIED, REMOTE_UNREACHABLE, CONNECTION_REFUSED = 101, 113, 114
SECOND = 10**9


@pytest.fixture(scope="module")
def module(guests: Any) -> str:
    return str(guests.wat(GUEST.read_text(), "connect"))


@pytest.fixture(autouse=True)
def leaves_nothing(cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No descriptor, process or thread outlives a run."""
    monkeypatch.setenv("WASISUP_CACHE_DIR", str(cache_root))
    before = sorted(os.listdir("/proc/self/fd")), children(os.getpid())
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(5)
    assert (sorted(os.listdir("/proc/self/fd")), children(os.getpid())) == before


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as made:
        yield made


def grant(port: int) -> list[NetGrant]:
    return [NetGrant("connect", "tcp", "127.0.0.1", port, port)]


def request(module: str, *args: str, seconds: int = 20, **more: Any) -> RunRequest:
    return RunRequest(module=module, args=args, quotas=Quotas(timeout=seconds * SECOND), **more)


def denied(outcome: Outcome | RunRecord) -> list[tuple[str, str]]:
    return [(denial.kind, denial.path) for denial in outcome.denials]


def brokers() -> list[int]:
    """The brokers among this process's children."""
    found = []
    for pid in children(os.getpid()):
        try:
            if Path(f"/proc/{pid}/comm").read_text() == "wasisup-broker\n":
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_what_is_granted_and_what_is_not(module: str, engine: str, server: socket.socket) -> None:
    """A connection; a denial by the broker, by nobody's leave, and the kernel's own refusal."""
    port = server.getsockname()[1]
    outcome = embedded.run(request(module, str(port), engine=engine, net=grant(port)))
    assert (outcome.exit_code, denied(outcome)) == (0, [])
    other = embedded.run(request(module, str(port), engine=engine, net=grant(port + 1)))
    nothing = embedded.run(request(module, str(port), engine=engine))
    for one in (other, nothing):
        assert one.exit_code == ACCESS_DENIED
        assert denied(one) == [("network", f"tcp:127.0.0.1:{port}")]
    server.close()
    refused = embedded.run(request(module, str(port), engine=engine, net_host=True))
    assert (refused.exit_code, denied(refused)) == (CONNECTION_REFUSED, [])


def test_a_broker_that_is_killed(module: str, server: socket.socket) -> None:
    """The guest's next call answers an error; the run goes on to its own end."""
    port = server.getsockname()[1]

    def kill() -> None:
        with server.accept()[0]:
            for pid in brokers():
                os.kill(pid, signal.SIGKILL)
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=kill)
    thread.start()
    outcome = embedded.run(request(module, str(port), "again", net=grant(port)))
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert (outcome.reason, outcome.exit_code) == ("exit", REMOTE_UNREACHABLE)
    assert denied(outcome) == []


def test_a_worker_that_is_killed(module: str, server: socket.socket) -> None:
    """Its broker goes with it; and what it was doing is not what the run waits for."""
    port = server.getsockname()[1]

    def accept() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    outcome = embedded.run(request(module, str(port), "again", seconds=1, net=grant(port)))
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert outcome.reason == "timeout"


def no_filter(*_: object) -> None:
    """In place of what adds the filter."""


def test_a_broker_without_a_wall_is_no_run(
    module: str, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set-up fails before there is a worker, and says which wall of whose."""
    port = server.getsockname()[1]
    monkeypatch.setattr(broker, "add_filter", no_filter)
    with pytest.raises(WallMissing, match="broker") as caught:
        embedded.run(request(module, str(port), net=grant(port)))
    assert caught.value.wall == "seccomp"
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_name_that_is_not_there_is_no_run(module: str) -> None:
    """Names are resolved before: RFC 6761 has nothing below .invalid."""
    grants = [NetGrant("connect", "tcp", "nothing.invalid", 80, 80)]
    with pytest.raises(SetupError, match=r"nothing\.invalid"):
        embedded.run(request(module, "80", net=grants))


class Caller:
    """The one who runs the tests."""

    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()


def in_core(module: str, steps: Callable[..., Any]) -> None:
    """Runs steps with a daemon's core that has compiled the module, and a way to launch."""

    async def run() -> None:
        core = cores.Core(lambda: None)
        await core.start()
        try:
            fd = os.open(module, os.O_RDONLY)
            data = Path(module).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            source = cores.Source(fd, digest, len(data))
            caller: Any = Caller()
            await core.compile(source, "connect.wasm", "cranelift", caller, fuel=False)
            source.close()

            async def launch(*args: str, **more: Any) -> tuple[Any, Any]:
                done = asyncio.get_running_loop().create_future()
                running = await core.launch(
                    request(module, *args, **more),
                    digest,
                    streams=[None, None, None],
                    opened=Opened([], []),
                    caller=caller,
                    umask=0o22,
                    cgroup=None,
                    ended=lambda status, _, record: done.set_result((status, record)),
                )
                return running, done

            await steps(core, launch)
        finally:
            await core.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_launch_that_is_given_up(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its broker, which was ready before the worker, has been reaped when the launch returns."""

    async def steps(core: Any, launch: Any) -> None:
        for error in (None, SetupError("no worker")):
            reached = asyncio.Event()

            async def hang(*_: Any, error: Any = error, reached: Any = reached) -> None:
                reached.set()
                if error is not None:
                    raise error
                await asyncio.Event().wait()

            monkeypatch.setattr(core, "_launch", hang)
            launching = asyncio.ensure_future(launch("80", net=grant(80)))
            await reached.wait()
            assert len(brokers()) == 1
            if error is None:
                launching.cancel()
            with pytest.raises((asyncio.CancelledError, SetupError)):
                await launching
            assert brokers() == []

    in_core(module, steps)


def test_in_a_daemon(module: str, server: socket.socket) -> None:
    """Many at a time, with and without: each is told what its own broker denied."""
    port = server.getsockname()[1]

    async def steps(_: Any, launch: Any) -> None:
        runs = [await launch(str(port + at % 2), net=grant(port)) for at in range(20)]
        for at, (_running, done) in enumerate(runs):
            status, record = await done
            code = os.waitstatus_to_exitcode(status)
            said = [("network", f"tcp:127.0.0.1:{port + 1}")] if at % 2 else []
            assert (code, denied(record)) == (ACCESS_DENIED if at % 2 else 0, said)
        _running, done = await launch(str(port))
        status, record = await done
        assert os.waitstatus_to_exitcode(status) == ACCESS_DENIED
        assert brokers() == []

    in_core(module, steps)


def test_ends_in_a_daemon(module: str, server: socket.socket) -> None:
    """A broker that is killed ends the network; a worker that is killed ends the broker."""
    port = server.getsockname()[1]

    async def steps(_: Any, launch: Any) -> None:
        loop = asyncio.get_running_loop()
        server.setblocking(False)

        async def accept() -> None:
            while True:
                (await loop.sock_accept(server))[0].close()

        accepting = loop.create_task(accept())
        _running, done = await launch(str(port), "again", net=grant(port))
        (pid,) = brokers()
        os.kill(pid, signal.SIGKILL)
        status, record = await done
        assert os.waitstatus_to_exitcode(status) == REMOTE_UNREACHABLE
        assert denied(record) == []
        running, done = await launch(str(port), "again", net_host=True)
        running.send(signal.SIGKILL)
        status, _record = await done
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert brokers() == []
        accepting.cancel()

    in_core(module, steps)


def test_a_failed_launch_in_a_daemon(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is refused, with the broker's reason, and no worker is there."""

    async def steps(core: Any, launch: Any) -> None:
        add = core._add_filters

        def add_none(writer: SpecWriter, profile: str, missing: frozenset[str]) -> None:
            if profile != broker.PROFILE:
                add(writer, profile, missing)

        monkeypatch.setattr(core, "_add_filters", add_none)
        with pytest.raises(WallMissing, match="broker"):
            await launch("80", net=grant(80))
        with pytest.raises(SetupError, match=r"nothing\.invalid"):
            await launch("80", net=[NetGrant("connect", "tcp", "nothing.invalid", 80, 80)])
        assert brokers() == []

    in_core(module, steps)


def test_no_network_without_a_filter(
    module: str, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the rules of a network: that it may be missing counts for other runs only."""

    def fails(*_: object) -> NoReturn:
        raise WallMissing("no libseccomp", wall="seccomp", step="seccomp")

    port = server.getsockname()[1]
    monkeypatch.setattr(filters, "programs", fails)
    alone = request(module, str(port))
    alone.allow_missing = frozenset({"seccomp"})
    assert "seccomp" not in embedded.run(alone).walls
    granted = request(module, str(port), net=grant(port))
    granted.allow_missing = frozenset({"seccomp"})
    with pytest.raises(WallMissing, match="no libseccomp"):
        embedded.run(granted)
