"""What one caller cannot take from the others: memory, and places without a clock."""

from __future__ import annotations

import pytest

from .conftest import OTHER

pytestmark = pytest.mark.usefixtures("root")


def test_nobody_takes_all_the_memory(daemon, api):
    """A run without a limit on memory is promised its caller's share, and no more."""
    other = daemon.api(OTHER)
    greedy = other.start(
        "stdio", "block", stdin={"open": True}, quotas={"memory": "none", "timeout": "none"}
    )
    try:
        other.ready(greedy)
        assert api.run("hello")["outcome"]["status"] == 0
    finally:
        other.kill(greedy)


def test_a_share_of_ones_own(make_daemon):
    """Whose share is spent waits for their own runs; what is over the share is never taken."""
    daemon = make_daemon({"default": {"memory": "400MiB"}})
    other = daemon.api(OTHER)
    run = other.start("stdio", "block", stdin={"open": True}, quotas={"memory": "256MiB"})
    other.ready(run)
    waits = other.start("hello", quotas={"memory": "256MiB"})
    assert other.get(f"/v1/runs/{waits}")["state"] == "queued"
    body = other.request("hello", quotas={"memory": "400MiB"})
    other.ask("POST", "/v1/runs", body).refused(422, "all of yours together")
    other.kill(run)
    assert other.wait(waits)["outcome"]["status"] == 0


def test_halted_for_ever(make_daemon):
    """Where time has a ceiling, a halted run's clock goes on: it holds a place and memory."""
    daemon = make_daemon({"default": {"ceilings": {"timeout": "300ms"}}})
    other = daemon.api(OTHER)
    run = other.start("stdio", "block", stdin={"open": True})
    other.signal(run, "STOP")
    assert other.wait(run)["outcome"]["reason"] == "timeout"


def test_answers_do_not_grow(api):
    """Control characters would be six times as long in JSON: much of them comes as base64."""
    run = api.run("stdio", "cat", stdin="\1" * 100_000)
    assert "stdout" not in run
    assert len(run["stdout_base64"]) < 140_000
