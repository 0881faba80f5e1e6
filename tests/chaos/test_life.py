"""The daemon's life: how it stops and reloads, and what is killed around it."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from support.chaos import GONE, Wire, begin, role
from support.processes import all_pidfds, children, wait_gone
from wasisup.runtime.engine import find_core
from wasisup.supervisor.client.options import PIPE
from wasisup.supervisor.errors import ApiError, SetupError
from wasisup.supervisor.shapes import Dir

# --- stopping ---


def test_a_drain_lets_runs_finish(service, guests):
    """After SIGTERM a run goes on to its own end, is waited for, seen, and fed; no other starts."""
    daemon = service()
    with daemon.client() as client, daemon.client() as waiting:
        run = begin(client, guests.c("stdio"), "block", stdin=PIPE)
        with Wire(daemon.socket) as waiter:
            waiter.send("GET", f"/v1/runs/{run}/wait")
            daemon.signal(signal.SIGTERM)
            daemon.hear("STOPPING=1")
            with pytest.raises(ApiError) as refused:
                client.start(guests.c("stdio"), ["exit", "0"])
            assert (refused.value.status, refused.value.code) == (503, "stopping")
            assert client.health().status == "stopping"
            assert [one.id for one in client.runs(state="running")] == [run]
            waiting.write_stdin(run, b"\x07", close=True)
            status, answer = waiter.receive()
    assert status == 200
    assert (answer["outcome"]["reason"], answer["outcome"]["exit_code"]) == ("exit", 7)
    assert daemon.wait() == 0
    assert not os.path.exists(daemon.socket)


def test_a_drain_has_an_end(service, guests):
    """What does not end within the drain is killed, answered and recorded as interrupted."""
    daemon = service('[limits]\ndrain = "100ms"\n')
    with daemon.client() as client, Wire(daemon.socket) as waiter:
        run = begin(client, guests.c("stdio"), "spin")
        waiter.send("POST", "/v1/runs", {
            "module": {"path": str(guests.c("stdio"))}, "args": ["spin"], "wait": True,
        })  # fmt: skip
        with client.events(type="running", limit=1) as events:
            # Either it has begun before this, or it is heard of now.
            if len(client.runs(state="running")) < 2:
                next(events)
        daemon.signal(signal.SIGTERM)
        status, answer = waiter.receive()
    assert (status, answer["outcome"]["interrupted"]) == (200, True)
    assert answer["stdout"] == "ready\n"
    assert daemon.wait() == 0
    daemon.start()
    with daemon.client() as client:
        for one in (run, answer["id"]):
            outcome = client.get(one).outcome
            assert (outcome.reason, outcome.interrupted) == ("killed", True)
            assert outcome.message == "the daemon stopped"


def test_a_second_sigterm_hurries(service, guests):
    """The second SIGTERM ends the drain at once."""
    daemon = service('[limits]\ndrain = "1h"\n')
    with daemon.client() as client:
        begin(client, guests.c("stdio"), "spin")
        daemon.signal(signal.SIGTERM)
        daemon.hear("STOPPING=1")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


# --- reloading ---


def test_reload(service, guests, room):
    """SIGHUP brings new policies and limits into force, and drops no run."""
    daemon = service("[default]\nruns = 7\n")
    with daemon.client() as client:
        run = begin(client, guests.c("stdio"), "block", stdin=PIPE)
        policies = room / "config" / "wasisup" / "policies"
        policies.mkdir(parents=True)
        (policies / "extra.toml").write_text('description = "one more"\n')
        daemon.configure("[default]\nruns = 9\n")
        daemon.signal(signal.SIGHUP)
        assert any(line.startswith("MONOTONIC_USEC=") for line in daemon.hear("RELOADING=1"))
        daemon.hear("READY=1")
        # As root, [default] counts for everything but what root may see.
        assert client.info().caller.runs == 9
        assert "extra" in [policy.name for policy in client.policies()]
        client.write_stdin(run, b"\x03", close=True)
        assert client.wait(run).outcome.exit_code == 3


def test_a_broken_reload_changes_nothing(service, guests, room):
    """A broken file leaves the old configuration and policy in force, and the log says why."""
    policies = room / "config" / "wasisup" / "policies"
    policies.mkdir(parents=True)
    (policies / "mine.toml").write_text('timeout = "7s"\n')
    daemon = service("[default]\nruns = 7\n")
    daemon.configure("[default]\nruns = 'many'\n")
    (policies / "mine.toml").write_text("timeout = [\n")
    daemon.signal(signal.SIGHUP)
    daemon.hear("RELOADING=1")
    said = "\n".join(daemon.hear("READY=1"))
    assert "reload failed" in said
    assert "wasisup.toml" in daemon.events("the configuration stays as it was")[0]["why"]
    assert "mine.toml" in daemon.events("a policy stays as it was")[0]["why"]
    with daemon.client() as client:
        assert client.info().caller.runs == 7
        result = client.run(guests.c("stdio"), ["exit", "0"], policy="mine")
        assert result.run.quotas.timeout == 7 * 10**9
        daemon.configure("[default]\nruns = 8\n")
        daemon.signal(signal.SIGHUP)
        daemon.hear("RELOADING=1")
        daemon.hear("READY=1")
        assert client.info().caller.runs == 8


# --- the zygote and the workers ---


def test_a_killed_zygote_is_replaced(service, guests):
    """Runs go on without their zygote, the next ones work, and the metric counts it."""
    daemon = service()
    with daemon.client() as client:
        run = begin(client, guests.c("stdio"), "block", stdin=PIPE)
        before = daemon.zygote()
        os.kill(before, signal.SIGKILL)
        for _ in range(3):
            assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4
        assert daemon.zygote() != before
        assert daemon.metric("wasisup_zygote_restarts_total") == 1
        client.write_stdin(run, b"\x05", close=True)
        assert client.wait(run).outcome.exit_code == 5


def test_a_dead_zygote_is_noticed_without_a_launch(service, guests):
    """Nobody has to ask for a run: a zygote that ends is missed at once, spare worker or not."""
    # So that its silence would not be noticed.
    daemon = service(preset=_patience(3600, 3600))
    with daemon.client() as client:
        client.run(guests.c("stdio"), ["exit", "0"])
        zygote = daemon.zygote()
        family = all_pidfds(daemon.pid)
        mine = {pid: fd for pid, fd in family.items() if role(pid) in ("zygote", "worker")}
        for pid in family.keys() - mine.keys():
            os.close(family[pid])
        os.kill(zygote, signal.SIGKILL)
        assert wait_gone(mine, GONE) == set()
        assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4


@pytest.mark.parametrize("spare", [True, False], ids=["spare", "no spare"])
def test_a_stopped_zygote_is_replaced(service, guests, room, spare):
    """A zygote that answers no ping is replaced; launches that were under way happen once each."""
    daemon = service(preset=_patience(0.5, 0.05))
    marks = room / "marks"
    marks.mkdir()
    with ExitStack() as stack:
        client = stack.enter_context(daemon.client())
        client.run(guests.c("append"), ["/m/warm"], dirs=[Dir(marks, "/m")])
        before = daemon.zygote()
        os.kill(before, signal.SIGSTOP)
        if not spare:
            client.run(guests.c("append"), ["/m/spare"], dirs=[Dir(marks, "/m")])
        names = [f"run-{at}" for at in range(8)]
        waiting = []
        for name in names:
            waiting.append(stack.enter_context(Wire(daemon.socket)))
            waiting[-1].send("POST", "/v1/runs", {
                "module": {"path": str(guests.c("append"))}, "args": [f"/m/{name}"],
                "dirs": [{"guest": "/m", "path": str(marks)}], "wait": True,
            })  # fmt: skip
        for one in waiting:
            status, answer = one.receive()
            assert (status, answer["outcome"]["reason"]) == (200, "exit"), answer
        assert {name: (marks / name).read_text() for name in names} == dict.fromkeys(names, "x")
        assert daemon.zygote() != before
        assert daemon.metric("wasisup_zygote_restarts_total") == 1


def test_no_zygote_to_be_had(service, guests, room):
    """Runs that wait for a zygote that cannot start are told so, and all goes on when it can."""
    where = room / "core"
    where.write_text(find_core())
    daemon = service(
        preset="import wasisup.supervisor.keeper as k\n"
        f"k._engine.find_core = lambda: open({str(where)!r}).read()"
    )
    with daemon.client() as client:
        client.run(guests.c("stdio"), ["exit", "0"])
        where.write_text("/nowhere/wasisup-core")
        os.kill(daemon.zygote(), signal.SIGKILL)
        with pytest.raises(SetupError, match="the core cannot be started"):
            for _ in range(3):  # the first may have the worker that stood by
                client.run(guests.c("stdio"), ["exit", "0"])
        assert client.health().status == "degraded"
        where.write_text(find_core())
        while client.health().status == "degraded":
            pass
        assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4


def test_a_worker_killed_from_outside(service, guests):
    """It is a run that was killed, and nothing more."""
    daemon = service()
    with daemon.client() as client:
        run = begin(client, guests.c("stdio"), "spin")
        os.kill(client.get(run).pid, signal.SIGKILL)
        outcome = client.wait(run).outcome
        assert (outcome.reason, outcome.status, outcome.interrupted) == ("killed", 137, False)
        assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4


def test_workers_die_with_the_daemon(service, guests):
    """SIGKILL of the daemon ends runs that compute, wait and sleep, the zygote and the openers."""
    daemon = service()
    with daemon.client() as client:
        begin(client, guests.c("stdio"), "spin")
        begin(client, guests.c("stdio"), "block", stdin=PIPE)
        begin(client, guests.c("stdio"), "sleep", "60000")
        roles = {role(pid) for pid in children(daemon.pid)}
        assert roles == {"worker", "zygote", "opener"}
    assert daemon.kill() == set()


def test_a_stopped_zygote_dies_with_the_daemon(service):
    """One that cannot see that its socket has ended is killed by the kernel."""
    daemon = service()
    os.kill(daemon.zygote(), signal.SIGSTOP)
    assert daemon.kill() == set()


def _patience(seconds: float, ping: float) -> str:
    """Other times for the watch over the zygote."""
    where = "wasisup.supervisor.keeper"
    return f"import {where} as k; k.PATIENCE_SECONDS = {seconds}; k.PING_SECONDS = {ping}"
