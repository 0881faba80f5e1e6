"""A run's life from outside: waiting for it, signals, and who goes away with whom."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest

from support.processes import wait_gone


@pytest.fixture
def starting(api, daemon):
    """A run whose module is being compiled, for as long as the test goes on: its id."""
    zygote = daemon.zygote() if daemon.core == "real" else None
    if zygote is not None:
        os.kill(zygote, signal.SIGSTOP)
    run = api.start("slow")
    assert api.get(f"/v1/runs/{run}")["state"] == "starting"
    yield run
    if zygote is not None:
        os.kill(zygote, signal.SIGCONT)


@contextmanager
def blocked(api, **fields):
    """A run that has said that it runs, and waits for its stdin."""
    run = api.start("stdio", "block", stdin={"open": True}, **fields)
    api.ready(run)
    yield run
    api.ask("DELETE", f"/v1/runs/{run}")


def test_kill_while_it_runs(api):
    """DELETE answers with the end; a second time is a conflict."""
    with blocked(api) as run:
        ended = api.kill(run)
        assert ended["state"] == "ended"
        outcome = ended["outcome"]
        assert (outcome["reason"], outcome["status"], outcome["signal"]) == ("killed", 137, 9)
        assert not outcome["interrupted"]
        answer = api.ask("DELETE", f"/v1/runs/{run}")
        assert answer.refused(409, "has ended")["code"] == "conflict"


def test_kill_while_it_is_compiled(api, starting):
    """A run that has no worker yet is ended as well."""
    ended = api.kill(starting)
    assert (ended["outcome"]["reason"], ended["outcome"]["status"]) == ("killed", 137)
    assert ended["started"] is None


def test_signal_while_it_is_compiled(api, starting):
    """So do the other signals that end a run."""
    api.signal(starting, "TERM")
    outcome = api.wait(starting)["outcome"]
    assert (outcome["reason"], outcome["status"]) == ("killed", 143)


def test_compiles_that_are_given_up(api, daemon):
    """A run that is ended as its compile begins leaves the zygote as it was, however often."""
    zygote = daemon.zygote() if daemon.core == "real" else None
    for _ in range(30):
        if zygote is not None:
            os.kill(zygote, signal.SIGSTOP)
        run = api.start("slow")
        api.signal(run, "TERM")
        assert api.wait(run)["outcome"]["status"] == 143
        if zygote is not None:
            os.kill(zygote, signal.SIGCONT)
            assert daemon.zygote() == zygote


def test_kill_while_it_waits(make_daemon):
    """A queued run is ended, and never starts."""
    daemon = make_daemon({"default": {"runs": 1}})
    api = daemon.api()
    with blocked(api) as first:
        run = api.start("hello")
        assert api.get(f"/v1/runs/{run}")["state"] == "queued"
        ended = api.kill(run)
        assert (ended["outcome"]["reason"], ended["started"]) == ("killed", None)
        assert api.logs(run) == b""
        second = api.start("hello")
        api.signal(second, "INT")
        assert api.wait(second)["outcome"]["status"] == 130
        assert api.get(f"/v1/runs/{first}")["state"] == "running"
    assert api.run("hello")["outcome"]["status"] == 0
    assert not daemon.leaked() - api_socket()


def api_socket():
    """What a test's own connection is on the daemon's side."""
    from collections import Counter

    return Counter({"socket:[]": 1})


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "KILL"])
def test_signals_that_end(api, name):
    """The status says which it was, as a shell would."""
    with blocked(api) as run:
        api.signal(run, name)
        outcome = api.wait(run)["outcome"]
        number = int(signal.Signals[f"SIG{name}"])
        assert (outcome["reason"], outcome["status"]) == ("killed", 128 + number)
        assert outcome["signal"] == number
        answer = api.ask("POST", f"/v1/runs/{run}/signal", {"signal": name})
        answer.refused(409)


@pytest.mark.parametrize("name", ["STOP", "TSTP", "TTIN", "TTOU"])
def test_stop_halts_the_clock(api, name):
    """A halted run outlives its timeout, and has the rest of it after CONT."""
    with blocked(api, quotas={"timeout": "200ms"}) as run:
        api.signal(run, name)
        record = api.get(f"/v1/runs/{run}")
        assert (record["state"], record["stopped"]) == ("running", True)
        # Halted for longer than its timeout: a sleep of the daemon's.
        again = api.get(f"/v1/runs/{run}/wait?timeout=0.3")
        assert (again["state"], again["stopped"]) == ("running", True)
        api.signal(run, "CONT")
        assert api.get(f"/v1/runs/{run}")["stopped"] is False
        ended = api.wait(run)
        assert ended["outcome"]["reason"] == "timeout"
        assert ended["outcome"]["usage"]["wall_ns"] > 450e6


def test_stopped_and_killed(api):
    """A halted run can be killed."""
    with blocked(api) as run:
        api.signal(run, "STOP")
        assert api.kill(run)["outcome"]["status"] == 137


def test_stop_before_the_start(api, starting):
    """A run that is halted before it has a worker says so."""
    api.signal(starting, "STOP")
    assert api.get(f"/v1/runs/{starting}")["stopped"] is True
    api.signal(starting, "CONT")
    assert api.get(f"/v1/runs/{starting}")["stopped"] is False
    api.kill(starting)


def test_wait_with_a_timeout(api):
    """At the timeout the run is told as it is."""
    with blocked(api) as run:
        for seconds in ("0", "0.01"):
            assert api.get(f"/v1/runs/{run}/wait?timeout={seconds}")["state"] == "running"


def test_many_wait(api):
    """Everybody who waits is told, in whatever way."""
    with blocked(api) as run, api.connection() as one, api.connection() as two:
        for connection in (one, two):
            connection.request("GET", f"/v1/runs/{run}/wait")
        api.write(run, b"\x07").ok(204)
        for connection in (one, two):
            with connection.getresponse() as response:
                assert b'"exit_code":7' in response.read()


def worker_of(api, run):
    """A pidfd of the run's worker; the caller's."""
    return os.pidfd_open(api.get(f"/v1/runs/{run}")["pid"])


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half closed first"])
def test_disconnect_of_one_who_waits(api, pipe, half):
    """With `wait` the run ends with its client, who need not have heard a word."""
    reader, writer = pipe()
    body = api.request("stdio", "spin", wait=True, stdout={"fd": 0}, quotas={"cpu_time": "60s"})
    with api.connection() as own:
        own.fds = [writer.fileno()]
        import json

        own.request("POST", "/v1/runs", json.dumps(body), {"content-type": "application/json"})
        assert reader.read(6) == b"ready\n"
        (run,) = api.get("/v1/runs?state=running")["runs"]
        fd = worker_of(api, run["id"])
        if half:
            own.sock.shutdown(1)
            assert api.get(f"/v1/runs/{run['id']}")["state"] == "running"
    assert wait_gone({run["pid"]: fd}, 10) == set()
    outcome = api.wait(run["id"])["outcome"]
    assert (outcome["reason"], outcome["status"]) == ("killed", 137)
    assert "client" in outcome["message"]


def test_attach(api, pipe):
    """An attached run is answered with at once, and ends with its connection."""
    reader, writer = pipe()
    body = api.request("stdio", "spin", attach=True, stdout={"fd": 0})
    with api.connection() as own:
        answer = own.ask("POST", "/v1/runs", body, fds=[writer.fileno()])
        run = answer.ok(201)
        assert answer.headers["location"] == f"/v1/runs/{run['id']}"
        assert reader.read(6) == b"ready\n"
        fd = worker_of(api, run["id"])
        # The same connection serves other requests meanwhile.
        assert own.ask("GET", f"/v1/runs/{run['id']}").ok()["state"] == "running"
    assert wait_gone({run["id"]: fd}, 10) == set()
    assert api.wait(run["id"])["outcome"]["reason"] == "killed"


def test_attach_and_wait_on_one_connection(api, pipe):
    """As the thin command does it: attach, then wait for the end there."""
    reader, writer = pipe()
    body = api.request("stdio", "cat", attach=True, stdin={"fd": 0}, stdout={"fd": 1})
    stdin = pipe()
    with api.connection() as own:
        fds = [stdin[0].fileno(), writer.fileno()]
        run = own.ask("POST", "/v1/runs", body, fds=fds).ok(201)
        stdin[1].write(b"through")
        stdin[1].close()
        writer.close()
        record = own.ask("GET", f"/v1/runs/{run['id']}/wait").ok()
        assert record["outcome"]["status"] == 0
        assert reader.readall() == b"through"


def test_a_detached_run_stays(api):
    """A detached run does not care for its client."""
    with api.connection() as own:
        body = api.request("stdio", "block", stdin={"open": True})
        run = own.ask("POST", "/v1/runs", body).ok(201)["id"]
    api.ready(run)
    assert api.get(f"/v1/runs/{run}")["state"] == "running"
    api.kill(run)


def test_many_at_once(api):
    """Runs beside each other do not mix up whose is what."""
    runs = [api.start("stdio", "exit", str(at)) for at in range(40)]
    assert [api.wait(run)["outcome"]["exit_code"] for run in runs] == list(range(40))
