"""The commands that ask a daemon, against a scripted one: what they ask, print and exit with."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.scripted import RUN, Asked, Scripted, answer, chunked, ended, error
from wasisup.supervisor.cli import command

Script = Callable[[Asked], "bytes | None"]
QUOTAS = {"memory": 8 << 20, "cpu_time": 10**9, "timeout": None, "fds": 64, "output": 1024}


@pytest.fixture
def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Script], Scripted]]:
    """Starts a scripted daemon that $WASISUP_SOCKET leads to; m.wasm is in the directory."""
    started: list[Scripted] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    Path("m.wasm").write_bytes(b"\0asm\1\0\0\0")

    def serve(script: Script) -> Scripted:
        server = Scripted(tmp_path / "d.sock", script)
        monkeypatch.setenv("WASISUP_SOCKET", server.path)
        started.append(server)
        return server.__enter__()

    yield serve
    for server in started:
        server.__exit__()


def attached(outcome: dict[str, Any], **fields: Any) -> Script:
    """A daemon that takes a run and ends it in one way."""
    record = ended(**fields, outcome=outcome)

    def script(asked: Asked) -> bytes:
        return answer(201, RUN) if asked.method == "POST" else answer(200, record)

    return script


# --- run ---


def test_run_is_attached_to_one_connection(serve, tmp_path):
    """The run hangs on the connection that waits for it, with this process's stdio."""
    server = serve(attached({"reason": "exit", "status": 3, "exit_code": 3}))
    assert command(["run", "--dir", f"{tmp_path}::/d::ro", "--env", "A=1", "m.wasm", "x"]) == 3
    started, waited = server.asked
    assert (started.target, waited.target) == ("/v1/runs", f"/v1/runs/{RUN['id']}/wait")
    assert started.connection == waited.connection
    sent = started.json
    assert sent["attach"] is True
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        theirs = os.fstat(started.fds[sent[stream]["fd"]])
        assert os.path.samestat(theirs, os.fstat(number))
    assert (sent["args"], sent["argv0"], sent["env"]) == (["x"], "m.wasm", {"A": "1"})
    assert sent["module"]["name"] == str(tmp_path / "m.wasm")
    assert sent["dirs"][0]["guest"] == "/d"
    assert (sent["policy"], sent["quotas"]) == ("default", {})


@pytest.mark.parametrize(
    ("words", "policy", "quotas"),
    [
        (["--memory=1MiB", "--timeout=none"], "default", {"memory": 1 << 20, "timeout": "none"}),
        (["--cpu-time=1.5s", "--fds=9"], "default", {"cpu_time": "1500000000ns", "fds": 9}),
        (["--policy=pure", "--output=5"], "pure", {"output": 5}),
        (["--policy=./mine.toml"], "default", {"memory": 1 << 20, "file_size": "none"}),
        (["--policy=mine"], "default", {"memory": 1 << 20, "file_size": "none"}),
        (["--cpus=0.5"], "default", {"cpus": 0.5}),
    ],
)
def test_what_was_asked_for_is_sent(serve, tmp_path, words, policy, quotas):
    """Flags, and the values of a policy of the user's; the administrator's goes by its name."""
    server = serve(attached({"reason": "exit", "status": 0}))
    text = 'memory = "1MiB"\nfile-size = "none"\n'
    Path("mine.toml").write_text(text)
    (tmp_path / "config/wasisup/policies").mkdir(parents=True)
    (tmp_path / "config/wasisup/policies/mine.toml").write_text(text)
    assert command(["run", *words, "m.wasm"]) == 0
    sent = server.asked[0].json
    assert (sent["policy"], sent["quotas"]) == (policy, quotas)


def test_a_named_policy_keeps_its_own_grants(serve, tmp_path, monkeypatch):
    """What the administrator's policy grants is the daemon's to open; variables are ours to say."""
    monkeypatch.setattr("wasisup.policies.policy.SYSTEM", str(tmp_path / "system"))
    (tmp_path / "system").mkdir(mode=0o755)
    (tmp_path / "system/site.toml").write_text(
        f'dir = ["{tmp_path}::/site"]\ntmpfs = ["/t:1MiB"]\nenv = ["WASISUP_TEST"]\n'
    )
    monkeypatch.setenv("WASISUP_TEST", "here")
    os.chmod(tmp_path, 0o755)
    server = serve(attached({"reason": "exit", "status": 0}))
    args = ["run", "--policy=site", "--dir=.::/mine", "--tmpfs=/u:2MiB", "m.wasm"]
    assert command(args) == 0
    sent = server.asked[0].json
    assert [one["guest"] for one in sent["dirs"]] == ["/mine"]
    assert sent["tmpfs"] == [{"guest": "/u", "size": 2 << 20}]
    assert (sent["policy"], sent["env"]) == ("site", {"WASISUP_TEST": "here"})


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        ({"reason": "timeout", "status": 124}, 124, "--timeout"),
        (
            {"reason": "setup", "status": 125, "message": "no wall", "hint": "make one"},
            125,
            "no wall",
        ),
        ({"reason": "invalid_module", "status": 126, "message": "m.wasm: bad"}, 126, "m.wasm: bad"),
        ({"reason": "trap", "status": 134, "trap": "unreachable"}, 134, "trapped: unreachable"),
    ],
)
def test_ends_are_told_as_usual(serve, capsys, outcome, status, said):
    """The daemon's outcome goes through the words and hints of every run."""
    serve(attached(outcome))
    assert command(["run", "m.wasm"]) == status
    assert said in capsys.readouterr().err


def test_quotas_in_force_are_those_of_the_daemon(serve, capsys, tmp_path):
    """A default that a ceiling lowered is what words and report speak of."""
    serve(attached({"reason": "memory", "status": 137}, quotas=QUOTAS))
    assert command(["run", "--report=r.json", "m.wasm"]) == 137
    assert "more memory than 8MiB" in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["quotas"]["memory"] == 8 << 20


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        (error(403, "denied", "you may not"), 125, "you may not"),
        (error(429, "full", "it is full"), 125, "it is full"),
        (error(422, "invalid_module", "not a module"), 126, "m.wasm: not a module"),
        (None, 125, "hung up"),
        (answer(201, {"no": "id"}), 125, "is no run"),
    ],
)
def test_refusals(serve, capsys, said, status, words):
    """What the daemon says before there is a run ends as the embedded one's errors do."""
    serve(lambda _: said)
    assert command(["run", "m.wasm"]) == status
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on(serve, number):
    """It goes to the run by a connection of its own, and the run's end is awaited."""
    told = threading.Event()
    record = ended("killed", 128 + number, outcome={"signal": int(number)})

    def script(asked: Asked) -> bytes:
        if asked.target.endswith("/signal"):
            told.set()
            return answer(204)
        if asked.method == "POST":
            return answer(201, RUN)
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        told.wait(30)
        return answer(200, record)

    server = serve(script)
    assert command(["run", "m.wasm"]) == 128 + number
    (passed,) = [asked for asked in server.asked if asked.target.endswith("/signal")]
    assert passed.json == {"signal": signal.Signals(number).name.removeprefix("SIG")}
    assert passed.connection == 2


def test_a_signal_before_there_is_a_run(serve):
    """Nobody waits for a daemon that does not answer."""
    release = threading.Event()

    def script(_: Asked) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        release.wait(30)

    server = serve(script)
    assert command(["run", "m.wasm"]) == 128 + signal.SIGTERM
    release.set()
    assert len(server.asked) == 1


def test_detach(serve, capsys):
    """The id is all that is printed; the run has none of this process's descriptors."""
    server = serve(lambda _: answer(201, RUN))
    assert command(["run", "-d", "--label", "a=b=c", "--label=d=", "m.wasm"]) == 0
    assert capsys.readouterr().out == RUN["id"] + "\n"
    (asked,) = server.asked
    assert len(asked.fds) == 1
    assert asked.json["labels"] == {"a": "b=c", "d": ""}
    assert asked.json["attach"] is False
    assert "stdout" not in asked.json


def test_a_label_that_is_none(serve, capsys):
    """A label has a name and a value."""
    serve(lambda _: answer(201, RUN))
    assert command(["run", "-d", "--label", "a", "m.wasm"]) == 125
    assert "NAME=VALUE" in capsys.readouterr().err


# --- the other commands ---


def listing(*runs: dict[str, Any]) -> Script:
    """A daemon with these runs."""

    def script(asked: Asked) -> bytes:
        state = asked.target.partition("state=")[2].partition("&")[0]
        return answer(200, {"runs": [run for run in runs if state in ("", run["state"])]})

    return script


def test_ps(serve, capsys):
    """A table of the live runs; with -a of all; ids alone with -q; the records with --json."""
    other = ended("timeout", 124, id="f" * 16, labels={"a": "b"})
    serve(listing(RUN, other))
    assert command(["ps"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["RUN", "STATE", "MODULE"]
    assert row.split()[:4] == ["0123456789ab", "running", "m.wasm", "default"]
    command(["ps", "-a"])
    assert "timeout 124" in capsys.readouterr().out
    command(["ps", "-aq"])
    assert capsys.readouterr().out.split() == [RUN["id"], "f" * 16]
    command(["ps", "--json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert found["id"] == RUN["id"]


def test_ps_takes_a_label(serve):
    """Labels are the daemon's to look for."""
    server = serve(listing())
    assert command(["ps", "-a", "--label", "a=b"]) == 0
    assert "label=a%3Db" in server.asked[0].target


def test_names_from_others_are_harmless(serve, capsys):
    """A module's name cannot drive the terminal."""
    serve(listing({**RUN, "module": "/x\x1b[2J.wasm"}))
    command(["ps"])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["stats", "top"])
def test_what_runs_use(serve, capsys, name):
    """Use stands beside the quota; without a terminal `top` looks once."""
    used = {"id": RUN["id"], "state": "running", "cpu_ns": 5 * 10**8, "rss": 2 << 20,
            "quotas": QUOTAS}  # fmt: skip

    def script(asked: Asked) -> bytes:
        return answer(200, {"stats": [used]} if asked.target == "/v1/stats" else {"runs": [RUN]})

    serve(script)
    assert command([name]) == 0
    out = capsys.readouterr().out
    assert "500ms / 1s" in out
    assert "2MiB / 8MiB" in out


def test_logs(serve, capfdbinary):
    """Each stream goes where it belongs, as the bytes that they are."""
    lines = b'{"stream":"stdout","base64":"/wo="}\n{"stream":"stderr","text":"err\\n"}\n'
    server = serve(lambda _: chunked(lines))
    assert command(["logs", "-f", "0123"]) == 0
    assert capfdbinary.readouterr() == (b"\xff\n", b"err\n")
    assert server.asked[0].target.endswith("/logs?follow=1")


def test_kill(serve, capsys):
    """One that cannot be killed does not keep the others from it; the status says so."""

    def script(asked: Asked) -> bytes:
        if "bad" in asked.target:
            return error(404, "not_found", "there is no run 'bad'")
        return answer(200, ended("killed", 137))

    server = serve(script)
    assert command(["kill", "bad", "0123"]) == 125
    captured = capsys.readouterr()
    assert captured.out == RUN["id"] + "\n"
    assert "there is no run 'bad'" in captured.err
    assert [asked.method for asked in server.asked] == ["DELETE", "DELETE"]


def test_kill_with_a_signal(serve, capsys):
    """Any spelling of a signal's name; one that there is not is a usage error."""
    server = serve(lambda _: answer(204))
    assert command(["kill", "-s", "sigstop", "0123"]) == 0
    assert server.asked[0].json == {"signal": "STOP"}
    assert command(["kill", "-s", "WINCH", "0123"]) == 2
    assert "WINCH" in capsys.readouterr().err


def test_wait(serve, capsys):
    """The run's status is the command's, and of several the first that is not 0."""

    def script(asked: Asked) -> bytes:
        return answer(200, ended(status=0 if "good" in asked.target else 7))

    serve(script)
    assert command(["wait", "bad"]) == 7
    assert capsys.readouterr().out == ""
    assert command(["wait", "good", "bad"]) == 7
    assert capsys.readouterr().out.splitlines() == [f"{RUN['id']}  exit 0", f"{RUN['id']}  exit 7"]


def test_events(serve, capsys):
    """Words for a person, a JSON object a line for a program."""
    event = {"time": "2026-01-02T03:04:05Z", "type": "ended", "run": RUN["id"], "status": 0,
             "reason": "exit"}  # fmt: skip
    server = serve(lambda _: chunked(json.dumps(event).encode() + b"\n"))
    assert command(["events", "--type", "ended", "-n", "1"]) == 0
    assert capsys.readouterr().out.split()[1:] == ["ended", "0123456789ab", "exit", "0"]
    assert server.asked[0].target == "/v1/events?type=ended&limit=1"
    command(["events", "--json"])
    assert json.loads(capsys.readouterr().out)["run"] == RUN["id"]


def test_inspect_a_run(serve, capsys):
    """What is no file and may be an id is looked for among the runs."""
    record = ended("exit", 0, args=["a"], labels={"x": "y"}, quotas=QUOTAS)
    serve(lambda asked: answer(200, record) if "0123" in asked.target else error(404, "not_found"))
    assert command(["inspect", "0123"]) == 0
    out = capsys.readouterr().out
    for words in ("exit 0", "/m.wasm", "x=y", "8MiB", "unlimited"):
        assert words in out
    assert command(["inspect", "--json", "0123"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"x": "y"}
    assert command(["inspect", "abcdef"]) == 127
    assert "no such run" in capsys.readouterr().err


def test_inspect_without_a_daemon(tmp_path, monkeypatch, capsys):
    """A missing module is a missing module, whoever is there to ask about runs."""
    monkeypatch.setenv("WASISUP_SOCKET", str(tmp_path / "none"))
    assert command(["inspect", "abcdef"]) == 127
    assert "no such module" in capsys.readouterr().err


def test_modules(serve, capsys):
    """add prints the digest; list has a table; rm takes the beginning of a digest."""
    module = {"digest": "ab" * 32, "name": "m.wasm", "size": 8, "added": "2026-01-02T03:04:05Z",
              "stored": True, "compiled": ["cranelift"]}  # fmt: skip

    def script(asked: Asked) -> bytes:
        if asked.method == "GET":
            return answer(200, {"modules": [module]})
        return answer(201, module) if asked.method == "POST" else answer(204)

    server = serve(script)
    assert command(["module", "add", "m.wasm"]) == 0
    assert capsys.readouterr().out == f"sha256:{'ab' * 32}\n"
    assert server.asked[0].body == b"\0asm\1\0\0\0"
    assert command(["module", "list"]) == 0
    assert "m.wasm" in capsys.readouterr().out
    assert command(["module", "rm", "sha256:abab"]) == 0
    assert server.asked[-1].target == "/v1/modules/" + "ab" * 32
    assert command(["module", "add", "none.wasm"]) == 127


def test_the_daemons_policies(serve, capsys):
    """policy list --socket shows what the daemon lets this user have."""
    server = serve(lambda _: answer(200, {"policies": [{"name": "site", "error": "broken"}]}))
    assert command(["policy", "list", "--socket", server.path]) == 0
    assert capsys.readouterr().out.split() == ["site", "broken"]


@pytest.mark.parametrize("name", ["ps", "top", "logs", "kill", "wait", "stats", "events", "module"])
def test_no_daemon(tmp_path, monkeypatch, capsys, name):
    """Every command says how to have a daemon, in one error and one hint."""
    monkeypatch.setenv("WASISUP_SOCKET", str(tmp_path / "none"))
    words = {"logs": ["0123"], "kill": ["0123"], "wait": ["0123"], "module": ["list"]}
    assert command([name, *words.get(name, [])]) == 125
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("error:") == 1
    assert "wasisup daemon --socket" in captured.err


def test_the_usual_sockets(tmp_path, monkeypatch):
    """The user's own daemon's if it is there, else the system's; the variable wins over both."""
    from wasisup.supervisor.client import sockets

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    assert sockets.default(environ) == "/run/wasisup/wasisup.sock"
    own = tmp_path / "wasisup/wasisup.sock"
    own.parent.mkdir()
    own.touch()
    assert sockets.default(environ) == str(own)
    assert sockets.default({**environ, "WASISUP_SOCKET": "/x"}) == "/x"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert sockets.default(environ) == "/run/wasisup/wasisup.sock"


def test_completion_of_runs(serve, monkeypatch, capsys):
    """A shell completes the ids; without a daemon nothing, and says nothing."""
    serve(listing(RUN))
    monkeypatch.setenv("_WASISUP_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "wasisup kill 01")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        command([])
    assert capsys.readouterr().out == f"plain,{RUN['id']}\n"
    monkeypatch.setenv("WASISUP_SOCKET", "/nowhere")
    with pytest.raises(SystemExit):
        command([])
    captured = capsys.readouterr()
    assert (captured.out.strip(), captured.err) == ("", "")
