"""The command: exit statuses, messages, reports and listings, with a supervisor that is a stand-in.

The real one is in the end-to-end tests; here it would hide which side a fault is on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.stand_in import Supervisor
from wasisup import policies, runtime
from wasisup import supervisor as supervisor_package
from wasisup.policies import syscalls
from wasisup.supervisor import embedded
from wasisup.supervisor.cli import command, doctor, probes
from wasisup.supervisor.cli.explain import WALL_WORDS
from wasisup.supervisor.cli.options import BY_FLAG
from wasisup.supervisor.errors import InvalidModule, ModuleNotFound, WallMissing
from wasisup.supervisor.model import MAY_MISS, WALLS, Denial, Outcome, RunRequest

# Everything that a cached run may not import: each costs as much as a module of ours or more.
SLOW = {
    *("click", "dataclasses", "inspect", "typing", "enum", "socket", "subprocess", "json"),
    *("hashlib", "tomllib", "ctypes", "asyncio", "logging", "structlog", "shutil", "tempfile"),
    *("pathlib", "re", "difflib", "textwrap", "shlex"),
}


def test_what_follows_the_module_is_the_guests(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also what looks like an option of ours, and bytes that are no text."""
    odd = os.fsdecode(b"\xff")
    assert command(["run", "--dir", ".", "m.wasm", "--dir", "--help", "--", odd]) == 0
    assert command(["run", "--explain", "--json", "m.wasm", odd]) == 0
    assert json.loads(capsys.readouterr().out)["argv"] == ["m.wasm", "\\xff"]
    (request,) = supervisor.requests
    assert request.args == [b"--dir", b"--help", b"--", b"\xff"]
    assert [grant.guest for grant in request.dirs] == ["."]


def test_the_guests_status_is_the_commands(supervisor: Supervisor) -> None:
    """Whatever it is."""
    supervisor.end = Outcome(reason="exit", status=42, exit_code=42)
    assert command(["run", "m.wasm"]) == 42


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["run"], 125, "which module is to be run"),
        (["run", "--memory", "m.wasm"], 125, "'m.wasm' was taken for the value of --memory"),
        (
            ["run", "--dir", ".:/x:ro", "m.wasm"],
            125,
            "two colons stand between the parts: .::/x::ro",
        ),
        (["run", "--dir", ".::/x:ro", "m.wasm"], 125, "two colons stand before the mode"),
        (["run", "--dir", ".::RO", "m.wasm"], 125, "the mode is written once, in small letters"),
        (["run", "--dir", "no\udcff", "m.wasm"], 125, r"there is no directory 'no\xff'"),
        (["run", "--nope", "m.wasm"], 125, "no such option '--nope'"),
        (["run", "--memory"], 125, "option '--memory' requires an argument"),
        (["run", "--memory", "64XB", "m.wasm"], 125, "--memory: '64XB' is not a size"),
        (["run", "--json", "m.wasm"], 125, "--json goes with --explain"),
        (["run", "--socket", "/x", "m.wasm"], 125, "there is no daemon at /x"),
        (["run", "--socket", "/x", "--no-daemon", "m.wasm"], 125, "contradict"),
        (["run", "--policy", "nope", "m.wasm"], 125, "there is no policy 'nope'"),
        (["run", "--policy", "pure", "--dir", ".", "m.wasm"], 125, "policy 'pure' allows none"),
        (["run", "--report", "/no/such/r", "m.wasm"], 125, "--report: cannot write '/no/such/r'"),
        (["run", "--report", "", "m.wasm"], 125, "--report: cannot write ''"),
        (["run", "--explain", "nope.wasm"], 127, "nope.wasm: no such module"),
        (["run", "--explain", "m"], 127, "hint: did you mean m.wasm?"),
        (["run", "--explain", "-"], 127, "a module cannot come from stdin"),
        (["run", "--explain", ""], 127, "MODULE is empty"),
        (["run", "--explain", "."], 126, "is a directory"),
        (["m.wasm"], 2, "there is no command 'm.wasm'"),
        (["cache", "lst"], 2, "there is no command 'lst'; did you mean list?"),
        (["cache", "prune", "--max-size", "x"], 2, "--max-size: 'x' is not a size"),
        (["cache", "prune", "--max-size"], 2, "hint: wasisup cache prune --help"),
        (["completion"], 2, "missing argument 'SHELL'. Choose from: bash, zsh, fish"),
        (["policy", "show", "nope"], 125, "there is no policy 'nope'"),
    ],
)
def test_usage_errors(
    supervisor: Supervisor,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    message: str,
) -> None:
    """Of `run` 125, of the other commands 2; one line, no traceback, and nothing runs."""
    assert command(words) == status
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not supervisor.requests


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), ImportError("x.so: Too many open files")]
)
def test_too_few_descriptors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """A low `ulimit -n` is no bug of ours."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr("wasisup.supervisor.cli._dispatch", fail)
    assert command(["run", "m.wasm"]) == 125
    assert "ulimit -n" in capsys.readouterr().err


def test_what_is_neither_binary_nor_text(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text format's parser is asked last: its words alone would be a riddle."""
    supervisor.end = InvalidModule("expected `(`\n     --> <anon>:1:1\n\n")
    assert command(["run", "m.wasm"]) == 126
    assert capsys.readouterr().err == (
        "wasisup: error: m.wasm: neither a WebAssembly binary nor its text format: expected `(`\n"
        "       --> m.wasm:1:1\n"
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModuleNotFound("x.wasm: no such module"), 127),
        (InvalidModule("x.wasm: is text", "compile it first"), 126),
        (WallMissing("no landlock here", "wasisup doctor", wall="landlock"), 125),
    ],
)
def test_errors_of_the_supervisor(
    supervisor: Supervisor,
    capsys: pytest.CaptureFixture[str],
    error: InvalidModule,
    status: int,
) -> None:
    """Their own status, their message and their hint."""
    supervisor.end = error
    assert command(["run", "m.wasm"]) == status
    err = capsys.readouterr().err
    assert err.startswith(f"wasisup: error: {error.message}\n")
    assert error.hint is None or err.endswith(f"hint: {error.hint}\n")


def test_an_export_that_is_not_there(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which one was wanted, and how to see those there are."""
    supervisor.end = InvalidModule("no function of the name given to --invoke")
    assert command(["run", "--invoke", "gone", "m.wasm"]) == 126
    err = capsys.readouterr().err
    assert err.startswith("wasisup: error: m.wasm: --invoke gone: no function")
    assert err.endswith("hint: what it exports: wasisup inspect m.wasm\n")


def test_an_unforeseen_error_is_one_line(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With WASISUP_DEBUG=1 it is the traceback that a report needs."""
    supervisor.end = KeyError("oops")
    assert command(["run", "m.wasm"]) == 125
    err = capsys.readouterr().err
    assert "internal error: KeyError: 'oops'" in err
    assert "Traceback" not in err
    monkeypatch.setenv("WASISUP_DEBUG", "1")
    assert command(["run", "m.wasm"]) == 125
    assert "Traceback" in capsys.readouterr().err


def test_a_failed_run_ends_in_a_hint(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr; a terminal's escapes in a guest's words do not reach the terminal."""
    Path("foo.txt").touch()
    denial = Denial("no_preopen", 1, 8, "")
    supervisor.end = Outcome(
        reason="trap", status=134, trap="unreachable", message="\x1b[2J", denials=[denial]
    )
    assert command(["run", "m.wasm", "foo.txt"]) == 134
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "wasisup: error: the guest trapped: unreachable\n  \\x1b[2J\n"
        "hint: it was granted no directory; for 'foo.txt': --dir .\n"
    )


def test_the_socket_of_the_environment(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--no-daemon is for whoever has it set."""
    monkeypatch.setenv("WASISUP_SOCKET", "/run/x")
    assert command(["run", "m.wasm"]) == 125
    assert "there is no daemon at /run/x" in capsys.readouterr().err
    assert command(["run", "--no-daemon", "m.wasm"]) == 0


def test_further_lines_of_a_message_are_indented(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name in a module that holds a newline makes no line that looks like ours."""
    supervisor.end = InvalidModule("m.wasm: unknown import x\nhint: run this")
    assert command(["run", "m.wasm"]) == 126
    assert "\n  hint: run this\n" in capsys.readouterr().err


def test_a_signal_during_inspect(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 + its number, whichever it was."""
    for error, status in ((KeyboardInterrupt(15), 143), (KeyboardInterrupt(), 130)):

        def describe(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(embedded, "describe", describe)
        assert command(["inspect", "m.wasm"]) == status


def test_too_little_memory_for_ourselves(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """No bug: the caller's limit is named."""
    supervisor.end = MemoryError()
    assert command(["run", "m.wasm"]) == 125
    assert "ulimit -d" in capsys.readouterr().err


def test_what_may_be_missing_is_one_list(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options, completions, help and `--explain` know the same names."""
    option = BY_FLAG["--allow-missing"]
    assert option.complete == MAY_MISS
    assert all(name in option.help for name in MAY_MISS)
    assert set(WALL_WORDS) == {*WALLS, "cache"} >= set(MAY_MISS)
    Path("c.wasm").write_bytes(b"\0asm\x0d\0\1\0")  # a component: only those have threads
    assert command(["run", "--explain", f"--allow-missing={','.join(MAY_MISS)}", "c.wasm"]) == 0
    shown = capsys.readouterr().out
    for name in MAY_MISS:
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert " may be " in line
    assert command(["run", "--allow-missing=root", "m.wasm"]) == 125


def test_no_room_for_what_is_granted(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many descriptors are needed is said."""
    assert command(["run", "--fds", "3", "--dir", ".", "m.wasm"]) == 125
    assert "--fds: 3 descriptors are too few: what is granted takes 4" in capsys.readouterr().err


def test_explain(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that a run would be granted; nothing runs."""
    words = ["run", "--dir", ".::/data::ro", "--env", "NOPE_X", "--tcplisten", "[::1]:80", "m.wasm"]
    assert command([*words[:-1], "--explain", "m.wasm", "a b"]) == 0
    out = capsys.readouterr().out
    for part in (f"/data  read only  {os.getcwd()}", "NOPE_X is not set", "[::1]:80", "256MiB"):
        assert part in out
    assert "m.wasm 'a b'" in out
    assert command(["run", "--explain", "--json", "m.wasm"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert "openat2" not in explained["system_calls"]
    assert len(explained["system_calls"]) <= 16
    assert command(["run", "--dir", ".", "--explain", "--json", "m.wasm"]) == 0
    assert 16 < len(json.loads(capsys.readouterr().out)["system_calls"]) <= 40
    assert not supervisor.requests


def test_explain_a_component(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own system calls, its threads and the wall around them; also when it is text."""
    for name, content in {
        "c.wasm": b"\0asm\x0d\0\1\0",
        "c.wat": b";; one\n (; (; two ;) ;)\t(component)",
    }.items():
        Path(name).write_bytes(content)
        assert command(["run", "--explain", "--json", name]) == 0
        explained = json.loads(capsys.readouterr().out)
        assert explained["form"] == "component"
        assert explained["system_calls"] == syscalls.admitted("run-cranelift-component")
        assert "threads" in explained["walls"]
        assert command(["run", "--explain", name]) == 0
        assert "of at most 16 threads" in capsys.readouterr().out
    assert command(["run", "--explain", "--json", "m.wasm"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["form"] == "module"
    assert "threads" not in explained["walls"]
    assert not supervisor.requests


def test_policies(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """list, show, check."""
    assert command(["policy", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [
        "default",
        "pure",
        "service",
    ]
    assert command(["policy", "show", "pure"]) == 0
    assert "dir = false" in capsys.readouterr().out
    Path("bad.toml").write_text("fds = 'x'\n")
    Path("bad.toml").chmod(0o600)
    assert command(["policy", "check", "pure", "./bad.toml"]) == 1
    out, err = capsys.readouterr()
    assert "pure: good" in out
    assert "bad.toml: line 1: fds: 'x' is not a whole number" in err


def test_the_cache(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty one is no error."""
    assert command(["cache", "path"]) == 0
    assert capsys.readouterr().out == f"{os.environ['WASISUP_CACHE_DIR']}\n"
    assert command(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == []
    assert command(["cache", "prune", "--max-size", "0"]) == 0
    assert "removed 0" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(
    supervisor: Supervisor, shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script for each shell, that asks the command itself."""
    assert command(["completion", shell]) == 0
    assert "_WASISUP_COMPLETE" in capsys.readouterr().out


def test_completion_of_options(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bash script asks for, and gets."""
    code = "import sys; from wasisup.supervisor.cli import main; sys.exit(main())"
    for typed, expected in (("wasisup run --mem", "--memory"), ("wasisup run --policy p", "pure")):
        env = {
            **os.environ,
            "_WASISUP_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert f"plain,{expected}" in done.stdout


def test_a_closed_stdout_is_no_traceback() -> None:
    """As any filter's: the status says SIGPIPE."""
    code = "import sys; from wasisup.supervisor.cli import main; sys.exit(main())"
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", code, "policy", "show", "default"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_run_imports_little(supervisor: Supervisor) -> None:
    """The budget of a cached run is a few milliseconds; these would spend it."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from wasisup.supervisor import embedded\n"
        "from wasisup.supervisor.model import Outcome\n"
        "embedded.run = lambda *_, **__: Outcome(reason='exit', status=0)\n"
        "from wasisup.supervisor.cli import command\n"
        "command(['run', '--dir', '.', '--env', 'A=1', '--memory', '1MiB', 'm.wasm'])\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    # Without site, since an editable install's hook imports much by itself; so it is laid out here.
    package = Path("path", "wasisup")
    package.mkdir(parents=True)
    for part in (supervisor_package, runtime, policies):
        (package / part.__name__.rpartition(".")[2]).symlink_to(
            Path(str(part.__file__)).resolve().parent
        )
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert not SLOW & set(done.stdout.split()), done.stdout


def test_doctor_says_what_is_missing_and_how_to_run_without(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial run has the last word; each missing wall is found."""

    def trial(request: RunRequest, **_: Any) -> Outcome:
        for wall in ("landlock", "network"):
            if wall not in request.allow_missing:
                raise WallMissing(f"no {wall} here", f"get {wall}", wall=wall)
        return Outcome(reason="exit", status=0)

    monkeypatch.setattr(embedded, "run", trial)
    monkeypatch.setattr(embedded, "probe", lambda: pytest.fail("not to be asked"))
    monkeypatch.setattr(doctor, "_core", lambda: probes.Check("core", probes.OK, "stand-in"))
    assert command(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["missing_walls"] == ["landlock", "network"]
    assert told["checks"][-1]["detail"] == "no landlock here"
    assert command(["doctor"]) == 1
    assert "--allow-missing=landlock,network" in capsys.readouterr().out
    monkeypatch.setattr(embedded, "run", supervisor.run)
    assert command(["doctor"]) == 0
    assert supervisor.requests[-1].dirs[0].read_only
