"""What the daemon says of itself, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from pathlib import Path

import msgspec
import schemathesis
from prometheus_client.parser import text_string_to_metric_families

from support.chaos import subreaper
from wasisup.supervisor import wire


def test_health(api):
    """All is well."""
    assert api.get("/v1/healthz") == {"status": "ok", "message": ""}


def test_info(api, daemon):
    """Who it is, and what it gives the caller."""
    info = api.get("/v1/info")
    assert (info["pid"], info["uid"], info["api"]) == (daemon.pid, os.getuid(), 1)
    assert (info["running"], info["queued"]) == (0, 0)
    caller = info["caller"]
    assert (caller["uid"], caller["gid"]) == (os.getuid(), os.getgid())
    assert set(caller["groups"]) == set(os.getgroups())
    assert caller["sees"] == caller["kills"] == "all"
    assert {"default", "pure", "service"} <= set(caller["policies"])
    msgspec.convert(info, wire.Info)


def test_policies(api):
    """Each with its settings, as in its file."""
    policies = {one["name"]: one for one in api.get("/v1/policies")["policies"]}
    pure = policies["pure"]
    with open(pure["path"], "rb") as file:
        text = tomllib.load(file)
    assert pure["description"] == text.pop("description")
    assert pure["settings"]["dir"] is False
    assert pure["settings"]["clock-resolution"] == text["clock-resolution"]
    assert all(one["error"] is None for one in policies.values())


def test_a_broken_policy(make_daemon):
    """A policy that cannot be read says why, in the list and when it is used."""
    daemon = make_daemon()
    folder = daemon.folder / "config" / "wasisup" / "policies"
    folder.mkdir(parents=True)
    (folder / "bad.toml").write_text("memory = 'a lot'\n")
    (folder / "good.toml").write_text("memory = '32MiB'\n")
    api = daemon.api()
    daemon.signal(signal.SIGHUP)
    daemon.hear("READY=1")
    policies = {one["name"]: one for one in api.get("/v1/policies")["policies"]}
    assert "memory" in policies["bad"]["error"]
    assert api.run("hello", policy="good")["quotas"]["memory"] == 32 << 20
    api.ask("POST", "/v1/runs", api.request("hello", policy="bad")).refused(422, "memory")
    # The log has told, as an error.
    daemon.let_go()
    daemon.kill()


def test_metrics(api):
    """What Prometheus reads, with the figures of what was just done."""

    def figures():
        answer = api.ask("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = {}
        for family in text_string_to_metric_families(answer.body.decode()):
            assert family.documentation
            for sample in family.samples:
                found[sample.name, *sorted(sample.labels.items())] = sample.value
        return found

    before = figures()
    api.run("stdio", "exit", "0")
    api.run("stdio", "trap")
    api.ask("POST", "/v1/runs", {}).refused(422)
    after = figures()

    def more(name, **labels):
        key = (name, *sorted(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    assert more("wasisup_runs_total", reason="exit", policy="default") == 1
    assert more("wasisup_runs_total", reason="trap", policy="default") == 1
    assert more("wasisup_refused_total", code="invalid") == 1
    assert more("wasisup_run_seconds_count") == 2
    ok = {"route": "/v1/runs", "method": "POST", "status": "200"}
    assert more("wasisup_http_requests_total", **ok) == 2
    refused = {"route": "/v1/runs", "method": "POST", "status": "422"}
    assert more("wasisup_http_requests_total", **refused) == 1
    assert after["wasisup_runs_running",] == after["wasisup_runs_queued",] == 0
    assert after["wasisup_memory_promised_bytes",] == 0


def test_openapi(api):
    """Every reference leads somewhere, every operation has a name, answers and errors."""
    document = api.get("/v1/openapi.json")
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]

    def references(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for one in node.values():
                yield from references(one)
        elif isinstance(node, list):
            for one in node:
                yield from references(one)

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    names = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            assert {"400", "405", "414", "431", "500"} <= operation["responses"].keys()
            assert any(int(status) < 400 for status in operation["responses"])
            in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
            assert [f"{{{name}}}" in path for name in in_path] == [True] * path.count("{")
    assert len(names) == len(set(names)) == 20


def test_openapi_is_valid(api):
    """As the schema of OpenAPI documents has it."""
    schemathesis.openapi.from_dict(api.get("/v1/openapi.json")).validate()


def test_it_ends_in_good_order(core, make_daemon, daemon):
    """SIGTERM: status 0, no socket, no process, nothing in its folder but its state."""
    del daemon
    with subreaper() as left:
        made = make_daemon()
        api = made.api()
        api.run("hello")
        api.ask("POST", "/v1/runs", {"module": {"path": str(api.programs["hello"])}}).ok(201)
        made.finish()
        assert left() == []
    assert {path.name for path in made.folder.iterdir()} <= {
        "state", "log", "notify", "wasisup.toml",
    }  # fmt: skip
    assert not list((made.state / "modules").iterdir())


def test_it_tells_those_who_wait(make_daemon):
    """At the end of the drain runs are ended and marked, and whoever waits for one is told."""
    made = make_daemon({"limits": {"drain": "100ms"}})
    api = made.api()
    run = api.start("stdio", "sleep", "60000")
    api.ready(run)
    with api.connection() as own:
        own.request("GET", f"/v1/runs/{run}/wait")
        api.get("/v1/healthz")
        made.signal(signal.SIGTERM)
        with own.getresponse() as response:
            outcome = json.loads(response.read())["outcome"]
    assert (outcome["reason"], outcome["interrupted"]) == ("killed", True)
    made.finished()


def test_while_it_drains(make_daemon):
    """While runs go on no others are taken, and it says that it stops."""
    made = make_daemon()
    api = made.api()
    run = api.start("stdio", "block", stdin={"open": True})
    api.ready(run)
    with api.connection() as own:
        own.ask("GET", "/v1/healthz").ok()
        own.request("GET", f"/v1/runs/{run}/wait")
        api.get("/v1/healthz")
        made.signal(signal.SIGTERM)
        made.hear("STOPPING=1")
        assert api.ask("GET", "/v1/healthz").ok(503)["status"] == "stopping"
        error = api.ask("POST", "/v1/runs", api.request("hello")).refused(503)
        assert error["code"] == "stopping"
        api.write(run, b"\x05").ok(204)
        with own.getresponse() as response:
            assert json.loads(response.read())["outcome"]["exit_code"] == 5
    made.let_go()
    made.finished()


def test_no_descriptor_is_lost(daemon, api):
    """Hundreds of runs, waited for and detached: it holds no more than before."""
    for _ in range(100):
        api.run("hello")
        api.start("hello")
    assert Path(f"/proc/{daemon.pid}").exists()
