"""GET /v1/events: what happens, as it happens."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager

import pytest


@contextmanager
def listening(api, query=""):
    """An open stream of events: a function that reads the next one."""
    with api.connection() as own, own.begin("GET", f"/v1/events{query}") as response:
        assert response.getheader("content-type") == "application/x-ndjson"
        yield lambda: json.loads(response.readline() or "null")


def test_a_runs_life(api):
    """Its start and its end, with who and what."""
    api.run("stdio", "exit", "0")  # now it is compiled
    with listening(api) as following:
        run = api.run("stdio", "exit", "3", labels={"a": "b"})
        first, last = following(), following()
    assert (first["type"], last["type"]) == ("running", "ended")
    for event in (first, last):
        assert event["run"] == run["id"]
        assert event["uid"] == run["uid"]
        assert event["policy"] == "default"
        assert event["labels"] == {"a": "b"}
    assert (last["reason"], last["status"]) == ("exit", 3)
    assert first["time"] <= last["time"]


def test_signals(api):
    """A signal is told before the end that it causes."""
    run = api.start("stdio", "block", stdin={"open": True})
    api.ready(run)
    with listening(api, f"?run={run}") as following:
        api.signal(run, "STOP")
        api.signal(run, "CONT")
        api.signal(run, "TERM")
        told = [following() for _ in range(4)]
    assert [event["type"] for event in told] == ["signal"] * 3 + ["ended"]
    assert [event["signal"] for event in told[:3]] == ["STOP", "CONT", "TERM"]


def test_a_queued_runs_life(make_daemon):
    """A run that has to wait is told as queued; killed there, the signal comes before the end."""
    api = make_daemon({"default": {"runs": 1}}).api()
    first = api.start("stdio", "block", stdin={"open": True})
    api.ready(first)
    with listening(api) as following:
        run = api.start("hello")
        api.kill(run)
        told = [following() for _ in range(3)]
    assert [event["type"] for event in told] == ["queued", "signal", "ended"]
    assert {event["run"] for event in told} == {run}
    api.kill(first)


def test_compiling(api):
    """A run whose module is compiled first is told as starting."""
    with listening(api) as following:
        run = api.run("broken")
        told = [following() for _ in range(2)]
    assert [event["type"] for event in told] == ["starting", "ended"]
    assert told[1]["reason"] == "invalid_module"
    assert told[1]["run"] == run["id"]


def test_filters(api):
    """Only one run's, or one type."""
    with listening(api, "?type=ended") as ends:
        run = api.run("hello")["id"]
        assert (ends()["run"], api.run("hello")["state"]) == (run, "ended")
        with listening(api, f"?run={run[:8]}&timeout=0") as nothing:
            assert nothing() is None


def test_limit(api):
    """After so many events the stream ends."""
    api.run("hello")
    with listening(api, "?limit=2") as following:
        api.run("hello")
        assert [following()["type"], following()["type"]] == ["running", "ended"]
        assert following() is None


@pytest.mark.parametrize("seconds", ["0", "0.05"])
def test_timeout(api, seconds):
    """After so many seconds the stream ends."""
    before = time.monotonic()
    with listening(api, f"?timeout={seconds}") as following:
        assert following() is None
    assert time.monotonic() - before >= float(seconds)


def test_modules(api):
    """An added module is an event."""
    with listening(api) as following:
        data = api.programs["hello"].read_bytes()
        digest = api.ask("POST", "/v1/modules?name=m", data).ok(201)["digest"]
        event = following()
    assert (event["type"], event["module"]) == ("module", digest)
    api.ask("DELETE", f"/v1/modules/{digest}").ok(204)


def test_reload_and_stop(make_daemon):
    """A reload and the end of the daemon are events."""
    import signal

    daemon = make_daemon()
    api = daemon.api()
    with listening(api) as following:
        daemon.signal(signal.SIGHUP)
        assert following()["type"] == "reloaded"
        daemon.signal(signal.SIGTERM)
        assert following()["type"] == "stopping"
        assert following() is None

    daemon.finished()


def test_one_who_does_not_listen(api):
    """Who asks for events and does not read them delays nobody."""
    with api.connection() as own:
        own.request("GET", "/v1/events")
        for _ in range(20):
            assert api.run("hello")["outcome"]["status"] == 0
