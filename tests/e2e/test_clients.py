"""The SDK and the commands against a real daemon, and `wasisup.run` without one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import wasisup as sdk
from support.chaos import Service
from support.command import Command
from support.network import upper_tcp, witnesses


@pytest.fixture(scope="session")
def serving(base_env: dict[str, str]) -> Iterator[Service]:
    """A daemon with its defaults."""
    with (
        tempfile.TemporaryDirectory(prefix="wasisup-daemon-", dir="/var/tmp") as folder,
        Service(base_env, Path(folder)) as serving,
    ):
        yield serving


@pytest.fixture(scope="session")
def wasisup(base_env: dict[str, str], serving: Service) -> Command:
    """The command, which a variable sends to the daemon."""
    return Command({**base_env, "WASISUP_SOCKET": serving.socket})


@pytest.fixture
def client(serving: Service) -> Iterator[sdk.Client]:
    """A client of the daemon."""
    with sdk.Client(serving.socket, timeout=60) as client:
        yield client


# --- the SDK ---


def test_run(client, guests):
    """Input goes in, output comes out, figures are there."""
    result = client.run(guests.c("stdio"), ["cat"], stdin=b"in\xff").check()
    assert result.stdout == b"in\xff"
    assert result.usage.wall_ns > 0
    assert result.run is not None
    assert client.get(result.run).outcome == result.outcome


def test_directories(client, guests, room):
    """A directory of the caller's, by descriptor."""
    (room / "a").write_text("text")
    client.run(guests.c("copy"), ["/r/a", "/r/b"], dirs=[sdk.Dir(room, "/r")]).check()
    assert (room / "b").read_text() == "text"


def test_a_quota(client, guests):
    """Quotas as on the command line, or as numbers."""
    result = client.run(guests.c("stdio"), ["spin"], cpu_time="50ms")
    assert (result.reason, result.status) == ("cpu_time", 152)
    with pytest.raises(sdk.RunFailed):
        result.check()


def test_a_module_that_is_none(client):
    """The same exception as without a daemon."""
    with pytest.raises(sdk.InvalidModule):
        client.run(b"no module")


def test_run_by_digest(client, guests):
    """Upload once, run by digest, forget."""
    module = client.add_module(guests.c("hello"))
    assert module.digest in {one.digest for one in client.modules()}
    assert client.run(module).text == "hello, world\n"
    assert client.run(f"sha256:{module.digest}").text == "hello, world\n"
    client.remove_module(module)
    with pytest.raises(sdk.NotFound):
        client.module(module)


def test_a_detached_run_with_open_stdin(client, guests):
    """Written to bit by bit, followed, and waited for."""
    run = client.start(guests.c("stdio"), ["cat"], stdin=sdk.PIPE, labels={"who": "cat"})
    assert [one.id for one in client.runs(label="who=cat")] == [run.id]
    with client.logs(run, follow=True) as logs:
        client.write_stdin(run, b"one")
        assert next(logs) == ("stdout", b"one")
        client.write_stdin(run, b"two", close=True)
        assert b"".join(chunk.data for chunk in logs) == b"two"
    assert client.wait(run).outcome.status == 0


def test_kill_and_signal(client, guests):
    """kill answers when the run has ended; then there is nothing left to signal."""
    run = client.start(guests.c("stdio"), ["spin"])
    client.signal(run, "STOP")
    assert client.get(run).stopped
    ended = client.kill(run)
    assert (ended.outcome.reason, ended.outcome.signal) == ("killed", signal.SIGKILL)
    with pytest.raises(sdk.Conflict):
        client.kill(run)


def test_events_of_a_run(client, guests):
    """From the queue to the end."""
    with client.events() as events:
        run = client.start(guests.c("hello"))
        seen = []
        for event in events:
            if event.run == run.id:
                seen.append(event.type)
            if seen[-1:] == ["ended"]:
                break
    assert seen[-2:] == ["running", "ended"]


def test_about_the_daemon(client):
    """Who it is, how it is, what it has."""
    info = client.info()
    assert (info.version, info.caller.uid) == (sdk.__version__, os.getuid())
    assert client.health().status == "ok"
    assert "# TYPE" in client.metrics()
    assert "pure" in {one.name for one in client.policies()}


def test_stats(client, guests):
    """Live runs and what they use."""
    run = client.start(guests.c("stdio"), ["block"], stdin=sdk.PIPE)
    with client.logs(run, follow=True) as logs:
        next(logs)
    (found,) = client.stats(run)
    assert found.rss > 0
    assert run.id in {one.id for one in client.stats()}
    client.kill(run)


def test_map(client, guests):
    """Every input in a run of its own, results in order."""
    inputs = [f"{number}\n" for number in range(20)]
    results = client.map(guests.c("stdio"), inputs, ["cat"], max_workers=4, check=True)
    assert [result.text for result in results] == inputs


def test_map_is_patient(base_env, guests, room):
    """More workers than the daemon has room for: the rest waits."""
    limits = "[limits]\nruns = 1\nqueued = 1\n"
    with Service(base_env, room, limits) as serving, sdk.Client(serving.socket) as client:
        results = client.map(guests.c("stdio"), ["a", "b", "c", "d"], ["cat"], max_workers=4)
        assert [result.text for result in results] == ["a", "b", "c", "d"]


def test_asyncio(serving, guests):
    """The same calls, awaited; many at once."""

    async def go() -> None:
        async with sdk.AsyncClient(serving.socket) as client:
            runs = [client.run(guests.c("stdio"), ["cat"], stdin=str(n)) for n in range(5)]
            assert [one.text for one in await asyncio.gather(*runs)] == list("01234")
            run = await client.start(guests.c("stdio"), ["both"])
            logs = [chunk async for chunk in client.logs(run, follow=True)]
            assert sorted(logs) == [("stderr", b"err\n"), ("stdout", b"out\n")]
            found = [one.text async for one in client.map(guests.c("stdio"), ["x", "y"], ["cat"])]
            assert found == ["x", "y"]

    asyncio.run(go())


def test_cancelling_kills_the_run(serving, client, guests):
    """A task that is cancelled takes its run along."""

    async def go() -> str:
        async with sdk.AsyncClient(serving.socket) as asking:
            started = asking.events(type="running")
            async with started:
                task = asyncio.create_task(
                    asking.run(guests.c("stdio"), ["spin"], labels={"a": "b"})
                )
                event = await anext(started)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return str(event.run)

    run = asyncio.run(go())
    assert client.wait(run).outcome.reason == "killed"


def test_a_listening_socket(client, guests):
    """A socket of the caller's, for the guest to accept from."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        run = client.start(guests.c("preview1/sockets"), listens={"here": listener})
        client.kill(run)
        assert client.get(run).grants.listens


def printed(client, run) -> list[str]:
    """The lines of a run's stdout."""
    return b"".join(chunk.data for chunk in client.logs(run, stream="stdout")).decode().splitlines()


def test_a_component(client, guests, room):
    """Components run by the SDK as modules do: by path and by bytes, with stdin and directories."""
    tool = guests.made_by("rust")
    assert client.run(tool, ["upper"], stdin=b"words").check().stdout == b"WORDS"
    (room / "a").write_text("text")
    result = client.run(
        tool.read_bytes(), ["cat", "/r/a"], dirs=[sdk.Dir(room, "/r", read_only=True)]
    )
    assert result.check().stdout == b"text"


def test_the_network_of_a_component(client, guests):
    """What was granted is reached, what was not is told in the record, also of a detached run."""
    guest = guests.made_by("c")
    with upper_tcp() as port, witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        granted = f"tcp:127.0.0.1:{port}"
        answer = client.run(guest, ["ask", granted, "words"], net=[granted]).check()
        assert answer.text.endswith("WORDS\n")
        run = client.start(guest, ["try", granted, other.address, "name:localhost"], net=[granted])
        ended = client.wait(run)
        assert not other.heard
    assert ended.outcome is not None
    told = {(denial.kind, denial.path) for denial in ended.outcome.denials}
    assert {("network", other.address), ("name", "localhost")} <= told
    assert printed(client, run)[:2] == [
        f"{granted} ok", f"{other.address} access-denied",
    ]  # fmt: skip


def test_many_components_at_once(client, guests):
    """Runs at the same time have a broker each, and only their own grants."""
    guest = guests.made_by("c")
    with upper_tcp() as one, upper_tcp() as other:
        ports = [one, other] * 8
        runs = [
            client.start(guest, ["try", *(f"tcp:127.0.0.1:{port}" for port in (one, other))],
                         net=[f"tcp:127.0.0.1:{port}"])
            for port in ports
        ]  # fmt: skip
        for run, port in zip(runs, ports, strict=True):
            client.wait(run)
            expected = {one: "access-denied", other: "access-denied", port: "ok"}
            lines = [f"tcp:127.0.0.1:{number} {answer}" for number, answer in expected.items()]
            assert printed(client, run) == lines


# --- without a daemon ---


@pytest.fixture
def here(base_env, monkeypatch):
    """This process's own compile cache, for runs in it."""
    monkeypatch.setenv("WASISUP_CACHE_DIR", base_env["WASISUP_CACHE_DIR"])


def test_one_line(here, guests):
    """wasisup.run: a result with output, status and figures."""
    result = sdk.run(guests.c("stdio"), ["cat"], stdin="text")
    assert (result.text, result.reason, result.status) == ("text", "exit", 0)
    assert result.run is None
    assert result.usage.wall_ns > 0


def test_one_line_with_much_to_say(here, guests):
    """Output and input that no pipe has room for."""
    data = os.urandom(1 << 20)
    assert sdk.run(guests.c("stdio"), ["cat"], stdin=data).stdout == data


def test_one_line_with_everything(here, guests, room):
    """Grants, variables and quotas are those of the command line."""
    (room / "a").write_text("text")
    sdk.run(guests.c("copy").read_bytes(), ["/r/a", "/r/b"], dirs=[sdk.Dir(room, "/r")]).check()
    assert (room / "b").read_text() == "text"
    assert sdk.run(guests.c("stdio"), ["spin"], cpu_time=0.05).reason == "cpu_time"
    with pytest.raises(sdk.UsageError, match="memory"):
        sdk.run(guests.c("hello"), memory="lots")
    with pytest.raises(sdk.ModuleNotFound):
        sdk.run(room / "none.wasm")
    with pytest.raises(TypeError, match="memry"):
        sdk.run(guests.c("hello"), memry=5)


def test_one_line_leaves_nothing(here, guests):
    """No thread and no descriptor stays behind."""
    sdk.run(guests.c("hello"), stdin=b"unread")
    threads, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
    sdk.run(guests.c("hello"), stdin=b"unread")
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, fds)


def test_interrupting_one_line(base_env, guests):
    """Ctrl-C raises KeyboardInterrupt, as it does in any Python program."""
    script = (
        "import sys, wasisup\n"
        "try:\n"
        "    wasisup.run(sys.argv[1], ['block'], stdin=0)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    argv = [sys.executable, "-c", script, str(guests.c("stdio"))]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": base_env}
    with subprocess.Popen(argv, **options) as process:
        pidfd = wait_for_worker(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"interrupted\n"
        assert process.wait(60) == 0
    os.close(pidfd)


def wait_for_worker(pid: int) -> int:
    """A pidfd of the run's worker, as soon as there is one; the caller owns it."""
    from support.processes import children, is_worker

    while True:
        for child in children(pid):
            if is_worker(child):
                return os.pidfd_open(child)


def test_importing_is_cheap(base_env):
    """`import wasisup` alone brings in nothing but itself."""
    script = (
        "import sys; before = set(sys.modules); import wasisup;"
        "print(sorted(name for name in set(sys.modules) - before if 'wasisup' in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=base_env, capture_output=True, text=True, check=True
    )
    assert "wasisup.supervisor" not in done.stdout


# --- the commands ---


def test_the_commands(wasisup, guests):
    """A run's way through ps, logs, stats, kill, wait and inspect."""
    run = wasisup("run", "-d", "--label=a=b", guests.c("stdio"), "spin").ok().text.strip()
    assert run in wasisup("ps", "-q", "--label=a").ok().text
    assert run[:12] in wasisup("stats").ok().text
    assert run[:12] in wasisup("top").ok().text
    assert wasisup("kill", run).ok().text.strip() == run
    assert wasisup("wait", run).status == 137
    record = json.loads(wasisup("inspect", "--json", run[:10]).ok().text)
    assert (record["id"], record["outcome"]["reason"]) == (run, "killed")
    assert wasisup("kill", run).status == 125


def test_following(wasisup, guests):
    """logs -f ends with the run."""
    run = wasisup("run", "-d", guests.c("stdio"), "sleep", "200").ok().text.strip()
    assert wasisup("logs", "-f", run).status == 0
    assert wasisup("wait", run).status == 0


def test_top_on_a_terminal(wasisup, client, guests):
    """Drawn on the whole screen, with the runs in it; q gives the screen back."""
    run = client.start(guests.c("stdio"), ["spin"])
    pid, master = pty.fork()
    if pid == 0:
        argv = wasisup.argv("top", "--interval=0.1", "--sort=memory")
        os.execve(argv[0], argv, {**wasisup.env, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"})
    seen = b""
    while run.id[:12].encode() not in seen and len(seen) < 1 << 20:
        seen += os.read(master, 65536)
    os.write(master, b"tq")
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 65536)
        except OSError:  # EIO: nobody is on the other side any more
            break
        seen += part
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert run.id[:12].encode() in seen
    assert os.waitstatus_to_exitcode(status) == 0
    assert seen.rstrip().endswith(b"\x1b[?1049l")  # the normal screen again
    client.kill(run)
