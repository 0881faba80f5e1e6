"""GET /v1/runs: which runs there are, page by page, and by a part of their id."""

from __future__ import annotations

import pytest


@pytest.fixture
def own(make_daemon):
    """The API of a daemon that has no runs yet."""
    made = make_daemon().api()
    yield made
    made.close()


def ids(answer) -> list[str]:
    return [run["id"] for run in answer["runs"]]


def test_the_newest_first_in_pages(own):
    """Pages follow each other without gaps and without repeating."""
    made = []
    for at in range(7):
        made.append(own.run("stdio", "exit", str(at))["id"])
    assert ids(own.get("/v1/runs")) == made[::-1]
    assert own.get("/v1/runs")["next"] is None
    found, target = [], "/v1/runs?limit=3"
    while True:
        page = own.get(target)
        found += ids(page)
        if page["next"] is None:
            break
        assert len(page["runs"]) == 3
        target = f"/v1/runs?limit=3&before={page['next']}"
    assert found == made[::-1]
    assert ids(own.get("/v1/runs?before=0000000000000000")) == []


@pytest.mark.parametrize("state", ["running", "queued"])
def test_pages_of_live_runs(make_daemon, state):
    """Runs that are alive come in pages as well."""
    own = make_daemon({"default": {"runs": 5 if state == "running" else 1}}).api()
    made = [own.start("stdio", "block", stdin={"open": True}) for _ in range(5)]
    for run in made if state == "running" else made[:1]:
        own.ready(run)
    wanted = (made if state == "running" else made[1:])[::-1]
    found, target = [], f"/v1/runs?state={state}&limit=2"
    while target:
        page = own.get(target)
        found += ids(page)
        assert {run["state"] for run in page["runs"]} <= {state}
        after = page["next"]
        target = after and f"/v1/runs?state={state}&limit=2&before={after}"
    assert found == wanted
    for run in made:
        own.kill(run)


def test_by_state(own):
    """Live and ended runs apart."""
    ended = own.run("hello")["id"]
    live = own.start("stdio", "block", stdin={"open": True})
    own.ready(live)
    assert ids(own.get("/v1/runs?state=running")) == [live]
    assert ids(own.get("/v1/runs?state=ended")) == [ended]
    assert ids(own.get("/v1/runs?state=queued")) == []
    assert ids(own.get("/v1/runs?state=starting")) == []
    assert ids(own.get("/v1/runs")) == [live, ended]
    own.kill(live)
    assert ids(own.get("/v1/runs?state=ended")) == [live, ended]


def test_by_label(own):
    """A label by name, or with its value; several have all to fit."""
    a = own.run("hello", labels={"job": "a", "n": "1"})["id"]
    b = own.run("hello", labels={"job": "b", "n": "1"})["id"]
    own.run("hello")
    live = own.start("stdio", "block", stdin={"open": True}, labels={"job": "a", "e": ""})
    own.ready(live)
    for query, found in (
        ("label=job", [live, b, a]),
        ("label=job=a", [live, a]),
        ("label=job=a&label=n=1", [a]),
        ("label=job%3Db&label=n", [b]),
        ("label=job=a&state=running", [live]),
        ("label=n=2", []),
        ("label=e=", [live]),
        ("label=no", []),
    ):
        assert ids(own.get(f"/v1/runs?{query}")) == found, query
    own.kill(live)


def test_a_part_of_an_id(own):
    """A unique beginning will do, everywhere; one of several is told apart from none."""
    made = [own.run("hello")["id"] for _ in range(20)]
    by_first: dict[str, list[str]] = {}
    for run in made:
        by_first.setdefault(run[0], []).append(run)
    for first, runs in by_first.items():
        answer = own.ask("GET", f"/v1/runs/{first}")
        if len(runs) == 1:
            assert answer.ok()["id"] == runs[0]
        else:
            answer.refused(422, "more than one")
    run = made[0]
    for length in (12, 15, 16):
        assert own.get(f"/v1/runs/{run[:length]}")["id"] == run
        assert own.get(f"/v1/runs/{run[:length]}/wait")["id"] == run
        assert own.logs(run[:length]) == b"hello, world\n"
    for wrong in ("xyz", "0" * 16, "0" * 17, run.upper(), "%2e%2e", run + "0"):
        assert own.ask("GET", f"/v1/runs/{wrong}").refused(404)["code"] == "not_found"


def test_a_part_of_a_live_ones_id(api):
    """So with one that is alive."""
    run = api.start("stdio", "block", stdin={"open": True})
    api.ready(run)
    assert api.get(f"/v1/runs/{run[:12]}")["state"] == "running"
    assert api.kill(run[:12])["id"] == run


def test_stats(api):
    """What live runs use now, and what ended ones used."""
    run = api.start("stdio", "spin", quotas={"cpu_time": "60s"})
    api.ready(run)
    stats = api.get(f"/v1/runs/{run}/stats")
    assert (stats["id"], stats["state"], stats["output"]) == (run, "running", 6)
    assert stats["wall_ns"] > 0
    assert stats["rss"] > 0
    assert stats["quotas"]["cpu_time"] == 60 * 10**9
    assert [one["id"] for one in api.get("/v1/stats")["stats"]] == [run]
    usage = api.kill(run)["outcome"]["usage"]
    stats = api.get(f"/v1/runs/{run}/stats")
    assert stats["state"] == "ended"
    assert stats["cpu_ns"] == usage["cpu_user_ns"] + usage["cpu_system_ns"]
    assert stats["wall_ns"] == usage["wall_ns"]
    assert api.get("/v1/stats")["stats"] == []
