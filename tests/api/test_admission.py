"""How many runs at once, who waits for whom, and what is refused."""

from __future__ import annotations

import re

import pytest

from .conftest import OTHER

BLOCK = ("stdio", "block")
OPEN = {"stdin": {"open": True}}


def test_full(make_daemon):
    """What neither runs nor may wait is refused at once, with a time to try again."""
    daemon = make_daemon({"limits": {"runs": 2, "queued": 1}})
    api = daemon.api()
    runs = [api.start(*BLOCK, **OPEN) for _ in range(3)]
    for run in runs[:2]:
        api.ready(run)
    assert api.get(f"/v1/runs/{runs[2]}")["state"] == "queued"
    for more in ({}, {"wait": True}, {"attach": True}):
        answer = api.ask("POST", "/v1/runs", api.request("hello", **more))
        assert answer.refused(429, "full")["code"] == "full"
        assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    info = api.get("/v1/info")
    assert (info["running"], info["queued"]) == (2, 1)
    api.kill(runs[0])
    # There is room for one more, and the next in the queue runs.
    api.ready(runs[2])
    fourth = api.start("hello")
    for run in runs[1:]:
        api.kill(run)
    assert api.wait(fourth)["outcome"]["status"] == 0
    assert len(api.get("/v1/runs")["runs"]) == 4, "what was refused is in no record"


def test_a_callers_share(make_daemon):
    """A caller's own limits count as well."""
    api = make_daemon({"default": {"runs": 1, "queued": 1}}).api()
    first, second = api.start(*BLOCK, **OPEN), api.start("hello")
    answer = api.ask("POST", "/v1/runs", api.request("hello"))
    answer.refused(429, "your share")
    api.kill(first)
    assert api.wait(second)["outcome"]["status"] == 0


def test_in_order(make_daemon):
    """A caller's runs start in the order in which they came."""
    api = make_daemon({"limits": {"runs": 1}}).api()
    first = api.start(*BLOCK, **OPEN)
    runs = [api.start("hello") for _ in range(10)]
    api.kill(first)
    records = [api.wait(run) for run in runs]
    started = [record["started"] for record in records]
    assert started == sorted(started)
    ended = [record["ended"] for record in records]
    assert all(end <= start for end, start in zip(ended, started[1:], strict=False))


def test_memory_is_promised(make_daemon):
    """Runs wait for memory, and one that asks for more than there is is refused."""
    api = make_daemon({"limits": {"memory": "1GiB"}}).api()
    first = api.start(*BLOCK, **OPEN, quotas={"memory": "600MiB"})
    second = api.start("hello", quotas={"memory": "600MiB"})
    assert api.get(f"/v1/runs/{second}")["state"] == "queued"
    body = api.request("hello", quotas={"memory": "1GiB"})
    error = api.ask("POST", "/v1/runs", body).refused(422, "memory")
    assert error["hint"]
    api.kill(first)
    assert api.wait(second)["outcome"]["status"] == 0


def test_fair_between_callers(make_daemon, root):
    """Whoever has many runs waiting does not hold up one who has few."""
    daemon = make_daemon({"limits": {"runs": 1}})
    many, few = daemon.api(), daemon.api(OTHER)
    first = many.start(*BLOCK, **OPEN)
    theirs = [many.start("hello") for _ in range(20)]
    own = [few.start("hello") for _ in range(3)]
    many.kill(first)
    for run in theirs:
        many.wait(run)
    order = sorted((many.wait(run)["started"], run in own) for run in [*theirs, *own])
    # They take turns: the few are through when the many have had as many turns, and one.
    assert sum(is_few for _, is_few in order[:7]) == 3


@pytest.mark.parametrize(
    ("ceilings", "quotas"),
    [
        ({"memory": "16MiB"}, {"memory": "17MiB"}),
        ({"cpu-time": "1s"}, {"cpu_time": "2s"}),
        ({"timeout": "1s"}, {"timeout": "none"}),
        ({"output": "1KiB"}, {"output": 1025}),
        ({"fuel": 1000}, {"fuel": 1001}),
        ({"fds": 10}, {"fds": 11}),
    ],
)
def test_ceilings(make_daemon, ceilings, quotas):
    """A quota over its ceiling is denied by name; a default over it is lowered."""
    api = make_daemon({"default": {"ceilings": ceilings}}).api()
    (key,) = ceilings
    error = api.ask("POST", "/v1/runs", api.request("hello", quotas=quotas)).refused(403, key)
    assert error["code"] == "denied"
    name = key.replace("-", "_")
    lowered = api.run("hello")["quotas"][name]
    assert lowered == api.get("/v1/info")["caller"]["ceilings"][name]


def test_a_policy_that_is_not_for_everybody(make_daemon):
    """Only the configured policies are to be had, and seen."""
    api = make_daemon({"default": {"policies": ["pure"]}}).api()
    error = api.ask("POST", "/v1/runs", api.request("hello")).refused(403, "default")
    assert (error["code"], "pure" in error["hint"]) == ("denied", True)
    assert api.run("hello", policy="pure")["outcome"]["status"] == 0
    assert [one["name"] for one in api.get("/v1/policies")["policies"]] == ["pure"]
    assert api.get("/v1/info")["caller"]["policies"] == ["pure"]


def test_somebody_who_is_not_served(make_daemon):
    """Everything about runs and modules is denied."""
    api = make_daemon({"default": {"serve": False}}).api()
    for method, target in (
        ("GET", "/v1/runs"), ("GET", "/v1/runs/0"), ("DELETE", "/v1/runs/0"),
        ("GET", "/v1/modules"), ("GET", "/v1/events"), ("GET", "/v1/policies"),
        ("GET", "/v1/info"), ("GET", "/v1/stats"),
    ):  # fmt: skip
        api.ask(method, target).refused(403, "does not serve")
    api.ask("POST", "/v1/runs", api.request("hello")).refused(403)
    api.ask("POST", "/v1/modules", b"\0asm\x01\0\0\0").refused(403)
