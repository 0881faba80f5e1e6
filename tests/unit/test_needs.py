"""What a module's imports say it needs, and the policy that follows."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from wasisup.policies import policy as policies
from wasisup.runtime.describe import Export, Import
from wasisup.supervisor import embedded
from wasisup.supervisor.cli import command
from wasisup.supervisor.cli.needs import GROUPS, Needs, memory_range
from wasisup.supervisor.errors import InvalidModule

PREVIEW1 = "wasi_snapshot_preview1"
START = Export("_start", "function", "() -> ()")
MEMORY = Export("memory", "memory", "i32 unshared 17 -")


def wasi(*names: str, module: str = PREVIEW1) -> list[Import]:
    return [Import(module, name, "function", "() -> (i32)") for name in names]


def test_every_function_of_preview_1_has_its_group() -> None:
    """All 46, once each."""
    names = " ".join(GROUPS.values()).split()
    assert len(names) == len(set(names)) == 46


def test_a_program_that_only_prints() -> None:
    """It needs nothing, so the smallest policy refuses the rest."""
    needs = Needs([*wasi("fd_write", "proc_exit", "fd_prestat_get"), START, MEMORY])
    assert needs.is_command
    assert not needs.opens_files
    assert needs.least_memory == 17 * 65536
    assert needs.command_line("hello.wasm") == "wasisup run hello.wasm"
    assert tomllib.loads(needs.policy("hello.wasm")) == {
        "description": "the least that hello.wasm could need",
        "dir": False,
        "tmpfs": False,
        "net": False,
        "tcplisten": False,
    }


def test_a_program_with_everything(tmp_path: Path) -> None:
    """Its smallest policy is one that the loader takes."""
    names = ("path_open", "fd_write", "sock_accept", "environ_get", "args_get")
    memory = Export("memory", "memory", "i32 unshared 8192 16384")
    needs = Needs([*wasi(*names, module="wasi_unstable"), Export("f", "function", ""), memory])
    assert needs.settings() == {
        "dir": ["."],
        "tcplisten": ["127.0.0.1:8080"],
        "memory": "1GiB",
        "invoke": "f",
    }
    assert needs.command_line("a b.wasm") == (
        "wasisup run --dir . --tcplisten 127.0.0.1:8080 --memory 1GiB --invoke f 'a b.wasm'"
    )
    file = tmp_path / "p.toml"
    file.write_text(needs.policy('a "b".wasm'))
    file.chmod(0o600)
    loaded = policies.load(str(file))
    assert loaded.description == 'the least that a "b".wasm could need'
    assert set(loaded.values) == {"dir", "tcplisten", "memory", "invoke", "env"}
    assert not loaded.forbidden


def test_imports_that_nobody_offers() -> None:
    """Other modules, unknown functions, and memories from outside."""
    items = [
        Import("env", "f", "function", ""),
        Import(PREVIEW1, "fd_teleport", "function", ""),
        Import("env", "memory", "memory", "i64 shared 1 2"),
    ]
    needs = Needs(items)
    assert [name for _, name, _ in needs.unknown] == ["f", "fd_teleport", "memory"]
    assert needs.memories == [("imported", "i64 shared 1 2")]


@pytest.mark.parametrize("text", ["", "i32", "i32 unshared x -", "i32 unshared -1 -"])
def test_a_memory_type_that_is_none(text: str) -> None:
    """The description comes from a worker that read untrusted bytes."""
    assert memory_range(text) == (0, None)


def describe(monkeypatch: pytest.MonkeyPatch, items: Sequence[Import | Export]) -> None:
    monkeypatch.setattr(embedded, "describe", lambda *_: items)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, as JSON and as a policy; 126 for what could not run."""
    describe(monkeypatch, [*wasi("path_open", "random_get"), START, MEMORY])
    assert command(["inspect", "x.wasm"]) == 0
    out = capsys.readouterr().out
    assert "files: opens and reads  path_open" in out
    assert "wasisup run --dir . x.wasm" in out
    assert command(["inspect", "--json", "x.wasm"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "command"
    assert told["policy"] == {"dir": ["."]}
    assert command(["inspect", "--toml", "x.wasm"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["dir"] == ["."]
    describe(monkeypatch, [Import("env", "\x1b[2J", "function", ""), START])
    assert command(["inspect", "x.wasm"]) == 126
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_that_is_no_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """126, and the file's name in front."""

    def refuse(*_: object) -> None:
        raise InvalidModule("not a WebAssembly module")

    monkeypatch.setattr(embedded, "describe", refuse)
    assert command(["inspect", "x.txt"]) == 126
    assert capsys.readouterr().err == "wasisup: error: x.txt: not a WebAssembly module\n"
