"""The client against a scripted server: what it sends, how it reads, when it asks again."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wasisup
from support.scripted import RUN, Asked, Scripted, answer, chunked, ended, error


class Both:
    """A client of either kind behind one face: the same tests drive both."""

    def __init__(self, kind: str, path: str, timeout: float | None) -> None:
        self.loop = asyncio.new_event_loop() if kind == "async" else None
        made = wasisup.AsyncClient if kind == "async" else wasisup.Client
        self.client: Any = made(path, timeout)

    def __call__(self, name: str, *args: Any, **options: Any) -> Any:
        """Calls a method; a stream comes back as the list of its pieces."""
        found = getattr(self.client, name)(*args, **options)
        if name in ("logs", "events", "map"):
            return self.loop.run_until_complete(_listed(found)) if self.loop else list(found)
        return self.loop.run_until_complete(found) if self.loop else found

    def close(self) -> None:
        if self.loop is None:
            self.client.close()
        else:
            self.loop.run_until_complete(self.client.aclose())
            self.loop.close()


async def _listed(found: Any) -> list[Any]:
    return [piece async for piece in found]


Connect = Callable[..., Both]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Any:
    """Makes clients of both kinds, and closes them."""
    made: list[Both] = []

    def connect(server: Scripted | str, timeout: float | None = None) -> Both:
        path = server if isinstance(server, str) else server.path
        made.append(Both(request.param, path, timeout))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    """Starts scripted servers."""
    started: list[Scripted] = []

    def serve(script: Callable[[Asked], bytes | None]) -> Scripted:
        started.append(Scripted(tmp_path / f"{len(started)}.sock", script))
        return started[-1].__enter__()

    yield serve
    for server in started:
        server.__exit__()


def test_run_hands_over_what_it_opened(serve, connect, tmp_path):
    """Module and directory go as descriptors, named by index; the answer is a typed result."""
    (tmp_path / "m.wasm").write_bytes(b"\0asm")
    server = serve(lambda _: answer(200, ended(stdout="out", stderr_base64="gA==")))
    result = connect(server)(
        "run", tmp_path / "m.wasm", ["a", b"\xff"], env={"A": "1"}, memory="8MiB", timeout=2.5,
        dirs=[wasisup.Dir(tmp_path, "/data", read_only=True)], stdin="in", labels={"a": "b"},
    )  # fmt: skip
    assert (result.reason, result.status) == ("exit", 0)
    assert (result.stdout, result.stderr) == (b"out", b"\x80")
    (asked,) = server.asked
    assert (asked.method, asked.target) == ("POST", "/v1/runs")
    sent = asked.json
    assert os.pread(asked.fds[sent["module"]["fd"]], 9, 0) == b"\0asm"
    assert os.path.samestat(os.fstat(asked.fds[sent["dirs"][0]["fd"]]), os.stat(tmp_path))
    assert sent["dirs"][0] | {"fd": 0} == {
        "guest": "/data", "fd": 0, "read_only": True, "host": str(tmp_path),
    }  # fmt: skip
    assert sent["args"] == ["a", {"base64": "/w=="}]
    assert sent["quotas"] == {"memory": "8MiB", "timeout": 2.5}
    assert (sent["env"], sent["stdin"], sent["labels"]) == ({"A": "1"}, "in", {"a": "b"})
    assert sent["wait"] is True


def test_long_stdin_travels_as_a_descriptor(serve, connect):
    """What no request has room for is a file in memory, from its start."""
    server = serve(lambda _: answer(200, ended()))
    connect(server)("run", b"\0asm", stdin=b"x" * (1 << 20))
    sent = server.asked[0].json
    fds = server.asked[0].fds
    assert os.read(fds[sent["stdin"]["fd"]], 2 << 20) == b"x" * (1 << 20)
    assert os.pread(fds[sent["module"]["fd"]], 9, 0) == b"\0asm"


def test_start_by_digest_with_an_open_stdin(serve, connect):
    """A digest is no path, and PIPE says that stdin is written later."""
    server = serve(lambda _: answer(201, RUN))
    run = connect(server)("start", "sha256:" + "a" * 64, stdin=wasisup.PIPE)
    assert run.id == RUN["id"]
    sent = server.asked[0].json
    assert sent["module"] == {"digest": "a" * 64}
    assert sent["stdin"] == {"open": True}
    assert "wait" not in sent


def test_one_connection_serves_many_calls(serve, connect):
    """Keep-alive: the second call goes over the first one's connection."""
    server = serve(lambda _: answer(200, RUN))
    client = connect(server)
    client("get", "0123")
    client("get", "0123")
    assert [asked.connection for asked in server.asked] == [1, 1]


def test_a_kept_connection_that_was_closed(serve, connect):
    """A server that has closed the idle connection is asked again on another, whatever it was."""
    server = serve(lambda asked: answer(200 if asked.method == "GET" else 201, RUN))
    client = connect(server)
    client("get", "0123")
    for connection in server._open:
        connection.shutdown(socket.SHUT_RDWR)
    server.wait_gone(1)
    client("start", b"\0asm")
    assert [asked.method for asked in server.asked] == ["GET", "POST"]


@pytest.mark.parametrize("method", ["get", "kill"])
def test_hanging_up_on_a_kept_connection(serve, connect, method):
    """A request that may have been carried out is sent again only if it is a GET."""
    said = iter([answer(200, RUN), None, answer(200, RUN)])
    server = serve(lambda _: next(said))
    client = connect(server)
    client("get", "0123")
    if method == "get":
        assert client("get", "0123").id == RUN["id"]
        assert len(server.asked) == 3
    else:
        with pytest.raises(wasisup.DaemonUnavailable, match="hung up"):
            client("kill", "0123")
        assert len(server.asked) == 2


def test_hanging_up_on_a_new_connection(serve, connect):
    """Nobody is asked twice who hung up at once."""
    server = serve(lambda _: None)
    with pytest.raises(wasisup.DaemonUnavailable, match="hung up"):
        connect(server)("get", "0123")
    assert len(server.asked) == 1


def test_an_answer_before_the_request_was_read(tmp_path, connect):
    """One who refuses early and hangs up is understood all the same."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(error(413, "too_large", "too much"))

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(wasisup.InvalidRequest, match="too much"):
            connect(path)("write_stdin", "0123", b"x" * (8 << 20))
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", wasisup.InvalidRequest),
        (403, "denied", wasisup.DeniedByDaemon),
        (404, "not_found", wasisup.NotFound),
        (409, "conflict", wasisup.Conflict),
        (422, "invalid", wasisup.InvalidRequest),
        (429, "full", wasisup.Busy),
        (503, "stopping", wasisup.Unavailable),
        (500, "internal", wasisup.ApiError),
    ],
)
def test_errors_of_the_api(serve, connect, status, code, kind):
    """Each status has its class, with code, words, hint and Retry-After."""
    server = serve(lambda _: error(status, code, "why not", "Retry-After: 3"))
    with pytest.raises(kind) as caught:
        connect(server)("get", "0123")
    found = caught.value
    assert (found.status, found.code, found.message, found.hint) == (status, code, "why not", "try")
    assert found.retry_after == 3
    assert isinstance(found, wasisup.WasisupError)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        answer(200, ["no run"]),
        answer(200, {"id": 5}),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xff{]",
        answer(500, "an error of somebody else's"),
    ],
)
def test_what_answers_is_no_daemon(serve, connect, said):
    """Anything else at the socket is BadAnswer, and never msgspec's or httptools' own."""
    server = serve(lambda _: said)
    with pytest.raises(wasisup.BadAnswer):
        connect(server)("get", "0123")


def test_fields_of_a_later_version_are_ignored(serve, connect):
    """A newer daemon may say more."""
    server = serve(lambda _: answer(200, {**RUN, "colour": "green"}))
    assert connect(server)("get", "0123").state == "running"


def test_interim_answers_are_skipped(serve, connect):
    """100 Continue is not the answer."""
    server = serve(lambda _: b"HTTP/1.1 100 Continue\r\n\r\n" + answer(200, RUN))
    assert connect(server)("get", "0123").id == RUN["id"]


def test_no_socket(connect, tmp_path):
    """Without a daemon the error says how to have one."""
    with pytest.raises(wasisup.DaemonUnavailable) as caught:
        connect(str(tmp_path / "none"))("info")
    assert f"wasisup daemon --socket {tmp_path}" in str(caught.value.hint)


def test_nobody_listens(connect, tmp_path):
    """A socket that its daemon left behind is no daemon."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    with pytest.raises(wasisup.DaemonUnavailable, match="nobody listens"):
        connect(str(tmp_path / "s"))("info")


def test_a_path_that_is_too_long(connect):
    """The kernel's bound on socket paths is said in words."""
    with pytest.raises(wasisup.DaemonUnavailable, match="too long"):
        connect("/" + "x" * 200)("info")


def test_a_silent_daemon(serve, connect):
    """timeout bounds how long it may be silent."""
    release = threading.Event()

    def script(_: Asked) -> bytes | None:
        release.wait(30)
        return None

    server = serve(script)
    try:
        with pytest.raises(wasisup.ClientTimeout):
            connect(server, timeout=0.05)("info")
    finally:
        release.set()


def test_logs_come_apart(serve, connect):
    """Lines cut anywhere by the transport are whole again; streams stay apart."""
    lines = b'{"stream":"stdout","text":"one\\n"}\n{"stream":"stderr","base64":"/w=="}\n'
    server = serve(lambda _: chunked(lines[:5], lines[5:40], lines[40:]))
    pieces = connect(server)("logs", "0123", follow=True)
    assert pieces == [("stdout", b"one\n"), ("stderr", b"\xff")]
    assert server.asked[0].target == "/v1/runs/0123/logs?follow=1"


def test_one_stream_is_raw(serve, connect):
    """With a stream named, bytes come as they are."""
    server = serve(lambda _: chunked(b"ab", b"\xff"))
    pieces = connect(server)("logs", "0123", stream="stderr")
    assert b"".join(data for _, data in pieces) == b"ab\xff"
    assert {stream for stream, _ in pieces} == {"stderr"}


def test_a_stream_of_an_unknown_run(serve, connect):
    """An error in place of a stream is raised at the first piece."""
    server = serve(lambda _: error(404, "not_found"))
    with pytest.raises(wasisup.NotFound):
        connect(server)("logs", "0123")


def test_a_stream_that_breaks_off(serve, connect):
    """Half a stream is an error and not an end."""
    whole = chunked(b'{"stream":"stdout","text":"x"}\n')

    def script(asked: Asked) -> bytes | None:
        server._open[-1].sendall(whole[:-5])
        return None

    server = serve(script)
    with pytest.raises(wasisup.DaemonUnavailable, match="hung up"):
        connect(server)("logs", "0123")


def test_leaving_a_stream_closes_its_connection(serve):
    """Whoever stops reading leaves nobody writing."""
    server = serve(lambda _: chunked(b'{"time":"2026-01-02T03:04:05Z","type":"queued"}\n')[:-5])
    with wasisup.Client(server.path) as client:
        with client.events(type="queued", limit=5) as events:
            assert next(events).type == "queued"
        server.wait_gone(1)
    assert server.asked[0].target == "/v1/events?type=queued&limit=5"


@pytest.mark.parametrize(
    ("call", "args", "options", "method", "target"),
    [
        ("runs", (), {"state": "ended", "label": ["a=b c", "d"], "limit": 5}, "GET",
         "/v1/runs?state=ended&label=a%3Db+c&label=d&limit=5"),
        ("wait", ("0123",), {"timeout": 1.5}, "GET", "/v1/runs/0123/wait?timeout=1.5"),
        ("get", ("../x?",), {}, "GET", "/v1/runs/..%2Fx%3F"),
        ("kill", ("0123",), {}, "DELETE", "/v1/runs/0123"),
        ("stats", (), {}, "GET", "/v1/stats"),
        ("stats", ("0123",), {}, "GET", "/v1/runs/0123/stats"),
        ("policies", (), {}, "GET", "/v1/policies"),
        ("modules", (), {}, "GET", "/v1/modules"),
        ("module", ("sha256:ab",), {}, "GET", "/v1/modules/ab"),
        ("remove_module", ("ab",), {}, "DELETE", "/v1/modules/ab"),
        ("add_module", (b"\0asm", "a b.wasm"), {}, "POST", "/v1/modules?name=a+b.wasm"),
        ("info", (), {}, "GET", "/v1/info"),
        ("health", (), {}, "GET", "/v1/healthz"),
        ("metrics", (), {}, "GET", "/metrics"),
        ("signal", ("0123", "SIGTERM"), {}, "POST", "/v1/runs/0123/signal"),
        ("write_stdin", ("0123", b"x"), {"close": True}, "POST", "/v1/runs/0123/stdin?close=1"),
    ],
)  # fmt: skip
def test_each_call_asks_for_the_right_thing(serve, connect, call, args, options, method, target):
    """The path, the query and the method of every operation."""
    server = serve(lambda _: error(404, "not_found"))
    with pytest.raises(wasisup.NotFound):
        connect(server)(call, *args, **options)
    assert (server.asked[0].method, server.asked[0].target) == (method, target)


def test_long_input_goes_in_pieces(serve, connect):
    """stdin that is larger than one request takes is closed by the last of several."""
    server = serve(lambda _: answer(204))
    connect(server)("write_stdin", "0123", b"x" * (17 << 20), close=True)
    assert [(len(asked.body) >> 20, "close" in asked.target) for asked in server.asked] == [
        (16, False), (1, True),
    ]  # fmt: skip


def test_a_sick_daemon_is_an_answer(serve, connect):
    """healthz with 503 is no error: the state is what was asked for."""
    server = serve(lambda _: answer(503, {"status": "stopping", "message": "no new runs"}))
    assert connect(server)("health").status == "stopping"


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({"reason": "invalid_module", "status": 126}, wasisup.InvalidModule),
        ({"reason": "not_found", "status": 127}, wasisup.ModuleNotFound),
        ({"reason": "setup", "status": 125, "step": "bind mount", "errno": 1}, wasisup.SetupError),
        ({"reason": "setup", "status": 125, "wall": "landlock"}, wasisup.WallMissing),
    ],
)
def test_a_guest_that_never_ran(serve, connect, outcome, kind):
    """What the embedded supervisor raises, the client raises."""
    server = serve(lambda _: answer(200, ended(outcome={"message": "why", **outcome})))
    with pytest.raises(kind, match="why"):
        connect(server)("run", b"\0asm")


def test_check(serve, connect):
    """check() passes a good end through and raises for any other, with the result."""
    server = serve(lambda _: answer(200, ended("trap", 134, outcome={"message": "bad\nmore"})))
    result = connect(server)("run", b"\0asm")
    with pytest.raises(wasisup.RunFailed, match=r"134 \(trap\): bad$") as caught:
        result.check()
    assert caught.value.result is result
    assert caught.value.exit_status == 134


def test_options_that_are_none(serve, connect):
    """A misspelt option is a TypeError, here and not at the daemon."""
    server = serve(lambda _: answer(200, ended()))
    with pytest.raises(TypeError, match="memry"):
        connect(server)("run", b"\0asm", memry=5)
    assert not server.asked


def test_a_module_that_is_not_there(serve, connect, tmp_path):
    """Nobody is asked to run what cannot be opened."""
    server = serve(lambda _: answer(200, ended()))
    with pytest.raises(wasisup.ModuleNotFound):
        connect(server)("run", tmp_path / "none.wasm")
    with pytest.raises(wasisup.SetupError, match="grant"):
        connect(server)("run", b"\0asm", dirs=[tmp_path / "none"])
    assert not server.asked


def test_no_descriptor_is_left_open(serve, connect, tmp_path):
    """Whatever a call opens it closes."""
    server = serve(lambda _: error(429, "full"))
    client = connect(server)
    with pytest.raises(wasisup.Busy):
        client("run", b"\0asm", dirs=[tmp_path], stdin=b"x" * (1 << 20))
    for asked in server.asked:
        while asked.fds:
            os.close(asked.fds.pop())
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(wasisup.Busy):
        client("run", b"\0asm", dirs=[tmp_path], stdin=b"x" * (1 << 20))
    for asked in server.asked:
        while asked.fds:
            os.close(asked.fds.pop())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_cancelled_task_hangs_up(serve):
    """Cancelling the task that waits for a run closes the connection that the run hangs on."""
    release = threading.Event()

    def script(_: Asked) -> bytes:
        release.wait(30)
        return answer(200, ended())

    server = serve(script)

    async def go() -> None:
        async with wasisup.AsyncClient(server.path) as client:
            task = asyncio.create_task(client.run(b"\0asm"))
            await asyncio.to_thread(server.wait_asked, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(go())
    release.set()
    server.wait_gone(1)


def test_threads_share_a_client(serve):
    """A call that finds the connection busy makes another."""
    meeting = threading.Barrier(2)

    def script(_: Asked) -> bytes:
        meeting.wait(30)  # both are here at once
        return answer(200, RUN)

    server = serve(script)
    with wasisup.Client(server.path) as client:
        threads = [threading.Thread(target=client.get, args=("0123",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.connections == 2
