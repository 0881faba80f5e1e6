"""POST /v1/runs: what a run is given, and how it ends."""

from __future__ import annotations

import base64
import os

import pytest


def b64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def test_hello(api):
    """The simplest run: a module by path, waited for."""
    body = {"module": {"path": str(api.programs["hello"])}, "wait": True}
    run = api.ask("POST", "/v1/runs", body).ok(200)
    assert (run["stdout"], run["stderr"]) == ("hello, world\n", "")
    assert run["state"] == "ended"
    assert (run["outcome"]["reason"], run["outcome"]["status"]) == ("exit", 0)
    assert run["module"] == str(api.programs["hello"])
    assert run["created"] <= run["started"] <= run["ended"]
    assert (run["uid"], run["gid"]) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("how", ["path", "base64", "fd", "digest"])
def test_the_module_in_every_way(api, how):
    """By path, bytes, descriptor or digest: it is the same module, and has its name."""
    path = api.programs["hello"]
    with open(path, "rb") as file:
        digest = api.run("hello")["digest"]
        module = {
            "path": {"path": str(path)},
            "base64": {**b64(path.read_bytes()), "name": "it"},
            "fd": {"fd": 0, "name": "it"},
            "digest": {"digest": digest},
        }[how]
        run = api.run("", module=module, fds=[file.fileno()] if how == "fd" else [])
    assert run["stdout"] == "hello, world\n"
    assert run["digest"] == digest
    names = {"path": str(path), "digest": digest[:12]}
    assert run["module"] == names.get(how, "it")


def test_arguments(api):
    """argv is the module's name and the arguments, which need not be UTF-8."""
    run = api.run("tell", "args", "", "two words", b64(b"\xff\xfe"))
    assert base64.b64decode(run["stdout_base64"]) == b"tell\nargs\n\ntwo words\n\xff\xfe\n"
    assert "stdout" not in run
    assert run["args"] == ["args", "", "two words", "\\xff\\xfe"]


def test_argv0(api):
    """argv[0] can be given."""
    assert api.run("tell", "args", argv0="me")["stdout"] == "me\nargs\n"


def test_environment(api):
    """Variables are what the request gives, and none of the daemon's; the record has no values."""
    run = api.run("tell", "env", env={"A": "1", "EMPTY": "", "BYTES": b64(b"\xff")})
    lines = base64.b64decode(run["stdout_base64"]).splitlines()
    assert sorted(lines) == [b"A=1", b"BYTES=\xff", b"EMPTY="]
    assert sorted(run["grants"]["env"]) == ["A", "BYTES", "EMPTY"]
    assert api.run("tell", "env")["stdout"] == ""


def test_detached(api):
    """A detached run is answered with at once, and can be asked for later."""
    run = api.start("stdio", "exit", "3", labels={"job": "a/1"})
    ended = api.wait(run)
    assert ended["outcome"]["exit_code"] == 3
    assert ended["labels"] == {"job": "a/1"}
    assert api.get(f"/v1/runs/{run}") == ended
    assert "stdout" not in ended


@pytest.mark.parametrize(
    ("quotas", "program", "args", "reason", "status"),
    [
        ({"timeout": "100ms"}, "stdio", ["sleep", "60000"], "timeout", 124),
        ({"timeout": 0.1}, "stdio", ["spin"], "timeout", 124),
        ({"cpu_time": "100ms"}, "stdio", ["spin"], "cpu_time", 152),
        ({"output": 10}, "stdio", ["pour", "1000"], "output", 153),
        ({"fuel": 100000}, "stdio", ["spin"], "fuel", 134),
        ({"memory": "64KiB"}, "stdio", ["exit", "0"], "memory", 137),
    ],
)
def test_quotas(api, quotas, program, args, reason, status):
    """Each quota ends a run with its own reason, and is in the record."""
    run = api.run(program, *args, quotas=quotas)
    assert (run["outcome"]["reason"], run["outcome"]["status"]) == (reason, status)
    assert run["quotas"][next(iter(quotas))] is not None


def test_file_size(api, room):
    """The quota on files ends a run that writes more; where output is kept, it bounds that, too."""
    grant = {"path": str(room), "guest": "."}
    quotas = {"file_size": "64KiB"}
    run = api.run("quota", "size", "big", str(1 << 20), dirs=[grant], quotas=quotas)
    assert (run["outcome"]["reason"], run["outcome"]["status"]) == ("file_size", 153)
    assert (room / "big").stat().st_size == 64 << 10
    assert run["quotas"]["output"] == 64 << 10


def test_output_up_to_the_quota(api):
    """What was written before the quota is there, to the byte."""
    run = api.run("stdio", "pour", "100000", quotas={"output": 70001})
    assert run["stdout"] == "x" * 70001
    assert run["outcome"]["usage"]["output"] == 70001


def test_large_output(api):
    """Output beyond what a pipe or the database holds comes back whole."""
    size = 3 << 20
    assert api.run("stdio", "pour", str(size))["stdout"] == "x" * size


def test_a_trap(api):
    """A trap is an outcome of its own."""
    outcome = api.run("stdio", "trap")["outcome"]
    assert (outcome["reason"], outcome["status"]) == ("trap", 134)
    assert "unreachable" in outcome["trap"]


def test_an_invalid_module(api):
    """What has a module's head and cannot be compiled is a run that ends so, and no error."""
    outcome = api.run("broken")["outcome"]
    assert (outcome["reason"], outcome["status"]) == ("invalid_module", 126)
    assert outcome["message"]


def test_no_such_module(api):
    """A module that is not there is told before there is a run."""
    answer = api.ask("POST", "/v1/runs", {"module": {"path": "/nowhere/x.wasm"}})
    assert answer.refused(404, "/nowhere/x.wasm")["code"] == "module_not_found"
    answer = api.ask("POST", "/v1/runs", {"module": {"digest": "0" * 64}})
    assert answer.refused(404)["code"] == "module_not_found"


def test_policies_set_defaults(api):
    """A run has the quotas of its policy where it has none of its own."""
    run = api.run("hello", policy="pure", quotas={"memory": "16MiB"})
    assert run["policy"] == "pure"
    assert run["quotas"]["fds"] == 8
    assert run["quotas"]["memory"] == 16 << 20
    assert run["grants"]["clock_resolution"] == 1_000_000


def test_a_policy_forbids(api, room):
    """What a policy refuses is refused before there is a run."""
    body = api.request("hello", policy="pure", dirs=[{"path": str(room), "guest": "."}])
    api.ask("POST", "/v1/runs", body).refused(422, "pure")
    body = api.request("hello", policy="pure", tmpfs=[{"guest": "/t"}])
    api.ask("POST", "/v1/runs", body).refused(422, "pure")
    body = api.request("hello", policy="no such")
    api.ask("POST", "/v1/runs", body).refused(422, "no such")


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_engines(api, engine):
    """Both engines run it."""
    run = api.run("hello", engine=engine)
    assert run["stdout"] == "hello, world\n"
    assert run["engine"] == engine
