"""What a component's world says it needs, and the policy that follows."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from wasisup.policies import policy as policies
from wasisup.runtime.describe import Export, Import, World
from wasisup.supervisor import embedded
from wasisup.supervisor.cli import command, world
from wasisup.supervisor.cli.needs import Needs, needs_of
from wasisup.supervisor.cli.world import WorldNeeds

CORE = Path(__file__).resolve().parents[2] / "runtime" / "core"
RUN = Export("run", "function", "func() -> result", "wasi:cli/run@0.2.3")
ADD = Export("add", "function", "func(a: u32) -> u32", "local:demo/calc@0.1.0")


def wasi(interface: str, *names: str, version: str = "0.2.6") -> list[Import]:
    return [Import(f"wasi:{interface}@{version}", name, "function", "func()") for name in names]


def test_interfaces_are_the_engine_s() -> None:
    """Every interface that the core takes for offered has a group, and no other has."""
    source = (CORE / "engine" / "component.c").read_text()
    table = source.partition("OFFERED[] = {")[2].partition("};")[0]
    assert sorted(re.findall(r'"(wasi:[^"]+)"', table)) == sorted(world.INTERFACES)


def test_a_module_is_none() -> None:
    """The mark tells one from the other."""
    assert type(needs_of([ADD])) is Needs
    assert type(needs_of([World(), RUN])) is WorldNeeds


def test_a_command_that_only_prints() -> None:
    """Nothing is needed, so the smallest policy refuses the rest."""
    needs = WorldNeeds([World(), *wasi("cli/stdout", "get-stdout"), *wasi("cli/exit", "exit"), RUN])
    assert needs.is_command
    assert needs.runs
    assert not needs.opens_files
    assert needs.command_line("hello.wasm") == "wasisup run hello.wasm"
    assert tomllib.loads(needs.policy("hello.wasm")) == {
        "description": "the least that hello.wasm could need",
        "dir": False,
        "tmpfs": False,
        "net": False,
        "tcplisten": False,
    }


def test_what_functions_are_good_for(tmp_path: Path) -> None:
    """By function where an interface has more than one use."""
    items = [
        World(),
        *wasi("filesystem/types", "[method]descriptor.open-at", "[method]descriptor.write"),
        *wasi("filesystem/preopens", "get-directories"),
        *wasi("cli/environment", "get-environment", "get-arguments"),
        *wasi("sockets/tcp", "[method]tcp-socket.start-connect", "[method]tcp-socket.accept"),
        *wasi("sockets/ip-name-lookup", "resolve-addresses"),
        *wasi("http/outgoing-handler", "handle"),
        Import("wasi:io/error@0.2.0", "error", "resource", ""),
        ADD,
    ]
    needs = WorldNeeds(items)
    assert {group: names for group, names in needs.groups.items() if names} == {
        "files: opens and reads": ["descriptor.open-at", "get-directories"],
        "files: creates, changes and removes": ["descriptor.write"],
        "arguments": ["get-arguments"],
        "environment variables": ["get-environment"],
        "network: opens connections": ["tcp-socket.start-connect"],
        "network: waits for connections": ["tcp-socket.accept"],
        "network: looks names up": ["resolve-addresses"],
        "makes HTTP requests": ["handle"],
    }
    assert not needs.unknown
    assert needs.uses_network
    assert needs.opens_files
    assert needs.settings() == {"dir": ["."], "invoke": "local:demo/calc@0.1.0#add"}
    assert any("addresses" in note for note in needs.notes)
    file = tmp_path / "p.toml"
    file.write_text(needs.policy("a.wasm"))
    file.chmod(0o600)
    loaded = policies.load(str(file))
    assert set(loaded.values) == {"dir", "env", "invoke"}
    assert not {"net", "tcplisten"} & set(loaded.forbidden)


@pytest.mark.parametrize(
    "name",
    [
        "acme:x/y@0.2.0",
        "wasi:cli/stdout@0.3.0",
        "wasi:cli/stdout@0.2.0-rc-1",
        "wasi:nn/x@0.2.0",
        "",
    ],
)
def test_imports_that_nobody_offers(name: str) -> None:
    """Other packages, other versions, other interfaces, and the world's own."""
    needs = WorldNeeds([World(), Import(name, "f", "function", "func()"), RUN])
    assert needs.unknown == [(name or "(world)", "f", "function")]
    assert not needs.runs


def test_types_alone_ask_for_nothing() -> None:
    """An interface of types may come from anywhere."""
    needs = WorldNeeds([World(), Import("acme:x/types", "", "interface", ""), RUN])
    assert not needs.unknown


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In words and as JSON; 126 for a server, which `run` cannot run."""
    many = [f"[method]descriptor.f{number}" for number in range(30)]
    items = [World(), *wasi("filesystem/types", "[method]descriptor.open-at", *many), RUN]
    monkeypatch.setattr(embedded, "describe", lambda *_: items)
    assert command(["inspect", "x.wasm"]) == 0
    out = capsys.readouterr().out
    assert "component (WASI 0.2)" in out
    assert "descriptor.open-at descriptor.f0" in out
    assert "descriptor.f14 and 15 more (--json lists them)" in out
    assert "wasisup run --dir . x.wasm" in out
    assert command(["inspect", "--json", "x.wasm"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["form"], told["kind"]) == ("component", "command")
    assert len(told["wasi"]["files: opens and reads"]) == 31
    handler = Export("handle", "function", "func()", "wasi:http/incoming-handler@0.2.0")
    monkeypatch.setattr(embedded, "describe", lambda *_: [World(), handler])
    assert command(["inspect", "x.wasm"]) == 126
    assert "a server" in capsys.readouterr().out
