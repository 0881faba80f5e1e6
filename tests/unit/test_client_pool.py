"""One module over many inputs: order, bounds, patience, and the end after an error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wasisup
from support.scripted import Asked, Scripted, answer, ended, error


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Scripted]]:
    """Starts a scripted server."""
    started: list[Scripted] = []

    def serve(script: Callable[[Asked], bytes | None]) -> Scripted:
        started.append(Scripted(tmp_path / "pool.sock", script))
        return started[-1].__enter__()

    yield serve
    for server in started:
        server.__exit__()


def mapped(kind: str, server: Scripted, inputs: Any, **options: Any) -> Iterator[wasisup.Result]:
    """`map` of either client as an iterator."""
    if kind == "sync":
        with wasisup.Client(server.path) as client:
            yield from client.map(b"\0asm", inputs, **options)
        return
    loop = asyncio.new_event_loop()
    client = wasisup.AsyncClient(server.path)
    results = client.map(b"\0asm", inputs, **options)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(results))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(results.aclose())
        loop.run_until_complete(client.aclose())
        loop.close()


both = pytest.mark.parametrize("kind", ["sync", "async"])


def echo(asked: Asked) -> bytes:
    """What a guest that copies stdin to stdout makes."""
    return answer(200, ended(stdout=asked.json.get("stdin", "")))


@both
def test_results_are_in_order(serve, kind):
    """The order is the inputs', whoever is ready first."""
    late = threading.Event()

    def script(asked: Asked) -> bytes:
        if asked.json["stdin"] == "0":
            late.wait(30)
        elif asked.json["stdin"] == "1":
            late.set()
        return echo(asked)

    inputs = [str(number) for number in range(8)]
    found = [result.text for result in mapped(kind, serve(script), inputs, max_workers=2)]
    assert found == inputs


@both
def test_inputs_of_every_kind(serve, kind):
    """Text and bytes are stdin, a tuple is arguments, a Job is both."""
    server = serve(lambda _: answer(200, ended()))
    job = wasisup.Job(stdin="s", args=["c"], env={"B": "2"})
    list(mapped(kind, server, ["a", b"\xff", ("x", "y"), job], args=["-v"], env={"A": "1"},
                max_workers=1))  # fmt: skip
    sent = [asked.json for asked in server.asked]
    assert [one.get("stdin") for one in sent] == ["a", {"base64": "/w=="}, None, "s"]
    assert [one["args"] for one in sent] == [["-v"], ["-v"], ["-v", "x", "y"], ["-v", "c"]]
    assert sent[3]["env"] == {"A": "1", "B": "2"}


@both
def test_inputs_are_taken_as_there_is_room(serve, kind):
    """An endless source is no trouble: what is ahead is bounded."""
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield str(taken)

    results = mapped(kind, serve(echo), source(), max_workers=2)
    assert next(results).text == "1"
    assert next(results).text == "2"
    assert taken <= 6
    results.close()


@both
def test_no_more_at_once_than_workers(serve, kind):
    """max_workers bounds the runs under way."""
    lock = threading.Lock()
    now, most = 0, 0

    def script(asked: Asked) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return echo(asked)

    server = serve(script)
    assert len(list(mapped(kind, server, ["x"] * 12, max_workers=3))) == 12
    assert most <= 3
    assert server.connections <= 3


@both
def test_a_full_daemon_is_asked_again(serve, kind):
    """429 is no error here: the run comes later."""
    refused = iter([True, False, True])

    def script(asked: Asked) -> bytes:
        if next(refused, False):
            return error(429, "full", "full", "Retry-After: 0")
        return echo(asked)

    server = serve(script)
    assert [one.text for one in mapped(kind, server, ["a", "b"], max_workers=1)] == ["a", "b"]
    assert len(server.asked) == 4


@both
def test_an_error_ends_it_and_what_is_under_way(serve, kind):
    """The first error is raised; runs under way lose their connections, and so their lives."""
    release = threading.Event()

    def script(asked: Asked) -> bytes | None:
        if asked.json["stdin"] == "bad":
            server.wait_asked(2)
            return error(403, "denied")
        release.wait(30)
        return echo(asked)

    server = serve(script)
    with pytest.raises(wasisup.DeniedByDaemon):
        list(mapped(kind, server, ["bad", "slow", "never", "never"], max_workers=2))
    assert "never" not in [asked.json["stdin"] for asked in server.asked]
    release.set()
    server.wait_gone(2)


@both
def test_check_ends_it_at_the_first_failure(serve, kind):
    """With check, a bad end is an error like any other."""
    script = lambda asked: answer(200, ended(status=int(asked.json["stdin"])))  # noqa: E731
    results = mapped(kind, serve(script), ["0", "3", "0"], check=True, max_workers=1)
    assert next(results).status == 0
    with pytest.raises(wasisup.RunFailed) as caught:
        next(results)
    assert caught.value.result.status == 3


def test_submit(serve):
    """A pool is used like an executor, too."""
    with wasisup.Pool(b"\0asm", socket=serve(echo).path, max_workers=2) as pool:
        first, second = pool.submit("a"), pool.submit("b")
        assert (first.result().text, second.result().text) == ("a", "b")


def test_shutdown_without_waiting(serve):
    """What was submitted is carried out all the same, and the module is closed after it."""
    release = threading.Event()

    def script(asked: Asked) -> bytes:
        release.wait(30)
        return echo(asked)

    pool = wasisup.Pool(b"\0asm", socket=serve(script).path, max_workers=1)
    first, second = pool.submit("a"), pool.submit("b")
    pool.shutdown(wait=False)
    release.set()
    assert (first.result(30).text, second.result(30).text) == ("a", "b")
    with pytest.raises(RuntimeError):
        pool.submit("c")
    pool.shutdown()


def test_leaving_by_an_error_kills_what_runs(serve):
    """An exception in the `with` does not wait for runs that nobody wants any more."""
    release = threading.Event()

    def script(asked: Asked) -> bytes:
        release.wait(30)
        return echo(asked)

    server = serve(script)

    class Mine(Exception):
        pass

    with pytest.raises(Mine), wasisup.Pool(b"\0asm", socket=server.path, max_workers=1) as pool:
        running, queued = pool.submit("a"), pool.submit("b")
        server.wait_asked(1)
        raise Mine
    assert queued.cancelled()
    assert running.done()
    assert running.exception() is not None
    release.set()


def test_a_module_that_is_not_there(serve, tmp_path):
    """It is opened once, at the start."""
    with pytest.raises(wasisup.ModuleNotFound):
        wasisup.Pool(tmp_path / "none.wasm", socket=serve(echo).path)
