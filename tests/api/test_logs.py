"""GET /v1/runs/{id}/logs: what a run has written, while it runs and afterwards."""

from __future__ import annotations

import base64
import json

import pytest


def lines_of(answer) -> dict[str, bytes]:
    """The streams' bytes from lines of LogChunk."""
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = {"stdout": b"", "stderr": b""}
    for line in answer.body.splitlines():
        chunk = json.loads(line)
        assert ("text" in chunk) != ("base64" in chunk)
        data = chunk["text"].encode() if "text" in chunk else base64.b64decode(chunk["base64"])
        found[chunk["stream"]] += data
    return found


@pytest.mark.parametrize("follow", ["", "?follow=1", "?follow=0"])
def test_both_streams(api, follow):
    """Lines say which stream they are of."""
    run = api.start("stdio", "both")
    api.wait(run)
    found = lines_of(api.ask("GET", f"/v1/runs/{run}/logs{follow}"))
    assert found == {"stdout": b"out\n", "stderr": b"err\n"}


def test_one_stream(api):
    """With `stream` only that one's bytes come, as they are."""
    run = api.start("stdio", "both")
    api.wait(run)
    assert api.logs(run, "stdout") == b"out\n"
    assert api.logs(run, "stderr") == b"err\n"


def test_as_it_comes(api):
    """A follower sees what is written while the run goes on, and its end."""
    run = api.start("stdio", "cat", stdin={"open": True})
    with (
        api.connection() as own,
        own.begin("GET", f"/v1/runs/{run}/logs?follow=1&stream=stdout") as response,
    ):
        for part in (b"one\n", b"two\n"):
            api.write(run, part).ok(204)
            assert response.readline() == part
        api.write(run, b"", close=True).ok(204)
        assert response.read() == b""
    assert api.wait(run)["state"] == "ended"


def test_without_follow(api):
    """Without `follow` it is what there is now."""
    run = api.start("stdio", "block", stdin={"open": True})
    api.ready(run)
    assert api.logs(run) == b"ready\n"
    assert api.logs(run, "stderr") == b""
    api.kill(run)
    assert api.logs(run) == b"ready\n"


def test_many_followers(api):
    """Followers do not take the bytes from each other."""
    run = api.start("stdio", "cat", stdin={"open": True})
    with api.connection() as one, api.connection() as two:
        target = f"/v1/runs/{run}/logs?follow=1&stream=stdout"
        with one.begin("GET", target) as first, two.begin("GET", target) as second:
            api.write(run, b"x" * 200_000, close=True).ok(204)
            assert first.read() == second.read() == b"x" * 200_000


@pytest.mark.parametrize("size", [64 << 10, (64 << 10) + 1, 1 << 20])
@pytest.mark.parametrize("wait", [False, True])
def test_large_output(api, size, wait):
    """What the database holds and what it does not: all of it is there afterwards."""
    if wait:
        run = api.run("stdio", "pour", str(size))["id"]
    else:
        run = api.start("stdio", "pour", str(size))
        api.wait(run)
    assert api.logs(run) == b"x" * size
    assert api.logs(run, follow=True) == b"x" * size
    found = lines_of(api.ask("GET", f"/v1/runs/{run}/logs"))
    assert found == {"stdout": b"x" * size, "stderr": b""}


def test_output_over_the_quota(api):
    """What was written up to the quota is kept, detached too."""
    run = api.start("stdio", "pour", "100000", quotas={"output": 70001})
    assert api.wait(run)["outcome"]["reason"] == "output"
    assert api.logs(run) == b"x" * 70001


def test_kept_output_is_bounded(make_daemon):
    """The configuration's bound on what is kept of a run is a quota of the run."""
    with_bound = make_daemon({"limits": {"kept-output": "10KiB"}}).api()
    run = with_bound.run("stdio", "pour", "100000")
    assert run["quotas"]["output"] == 10 << 10
    assert run["outcome"]["reason"] == "output"
    assert run["stdout"] == "x" * (10 << 10)


def test_nothing_is_kept(make_daemon):
    """No room for output at all: the first byte ends the run."""
    without = make_daemon({"limits": {"kept-output": 0}}).api()
    run = without.run("hello")
    assert run["outcome"]["reason"] == "output"
    assert run["stdout"] == ""
    assert without.run("stdio", "exit", "3")["outcome"]["exit_code"] == 3


def test_a_slow_follower(api):
    """Who does not read what they asked for delays nobody, and can go away."""
    run = api.start("stdio", "pour", str(8 << 20))
    with api.connection() as own:
        own.request("GET", f"/v1/runs/{run}/logs?follow=1&stream=stdout")
        assert api.wait(run)["outcome"]["status"] == 0
        assert api.get("/v1/healthz")["status"] == "ok"


def test_head(api):
    """HEAD of a stream is its head, at once and without a body."""
    run = api.start("stdio", "block", stdin={"open": True})
    with api.connection() as own:
        for target in (f"/v1/runs/{run}/logs?follow=1", "/v1/events", f"/v1/runs/{run}"):
            answer = own.ask("HEAD", target)
            assert (answer.status, answer.body) == (200, b"")
    api.kill(run)
