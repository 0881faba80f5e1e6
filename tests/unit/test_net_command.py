"""--net where people meet it: --explain, warnings, hand-over to a daemon, doctor, reports."""

from __future__ import annotations

import _socket
import asyncio
import errno
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import wasisup
from support.scripted import RUN, Asked, Scripted, answer, ended
from support.stand_in import Supervisor
from wasisup.supervisor import embedded
from wasisup.supervisor.cli import command, probes
from wasisup.supervisor.daemon import net as daemon_net
from wasisup.supervisor.errors import SetupError, UsageError
from wasisup.supervisor.launch import Opened
from wasisup.supervisor.model import NetGrant, Outcome, Quotas, RunRequest

COMPONENT = b"\0asm\x0d\0\1\0"
MODULE = b"\0asm\1\0\0\0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a module and a component, and no daemon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WASISUP_SOCKET", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    Path("m.wasm").write_bytes(MODULE)
    Path("c.wasm").write_bytes(COMPONENT)
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    stand_in = Supervisor()
    monkeypatch.setattr(embedded, "run", stand_in.run)
    return stand_in


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver with one public name, one private one, and no other."""
    known = {"example.org": ["93.184.215.14", "10.0.0.1"], "db.internal": ["10.0.0.7"]}

    def getaddrinfo(host: str, *_: object) -> list[Any]:
        if host not in known:
            raise _socket.gaierror(_socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, 1, 6, "", (one, 0)) for one in known[host]]

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)


def flags(*texts: str) -> list[str]:
    return [f"--net={text}" for text in texts]


@pytest.mark.usefixtures("names")
def test_explain_says_what_it_reaches(capsys: pytest.CaptureFixture[str]) -> None:
    """In words; names with their addresses, and of a wide CIDR its public part."""
    texts = [
        "tcp:example.org:443",
        "udp:10.0.0.0/8:53",
        "tcp:0.0.0.0/0:8000-8010",
        "tcp:[::1]:*",
        "tcp:8.8.8.8:53",
        "listen:tcp:0.0.0.0:8080",
        "listen:udp:[::1]:53",
    ]
    assert command(["run", "--explain", *flags(*texts), "c.wasm"]) == 0
    shown = capsys.readouterr().out
    section = shown.partition("\nNetwork\n")[2].partition("\n\n")[0]
    assert [line.strip() for line in section.splitlines()] == [
        "connects to example.org (93.184.215.14), TCP port 443",
        "sends to 10.0.0.0/8 (private), UDP port 53",
        "connects to 0.0.0.0/0 (what is public of it), TCP ports 8000-8010",
        "connects to ::1 (loopback), TCP every port",
        "connects to 8.8.8.8, TCP port 53",
        "listens on every address (IPv4), TCP port 8080",
        "listens on ::1, UDP port 53",
    ]
    assert command(["run", "--explain", "--json", *flags(*texts), "c.wasm"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["grants"]["net"] == texts
    assert explained["names"] == {"example.org": ["93.184.215.14"]}


@pytest.mark.usefixtures("names")
def test_explain_fails_as_the_run_would(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that leads nowhere, or nowhere public."""
    assert command(["run", "--explain", "--net=tcp:nowhere.example:80", "c.wasm"]) == 125
    assert "--net tcp:nowhere.example:80: there is no host" in capsys.readouterr().err
    assert command(["run", "--explain", "--net=tcp:db.internal:80", "c.wasm"]) == 125
    assert "granted by themselves: --net tcp:10.0.0.7:80" in capsys.readouterr().err


def test_explain_of_everything_and_of_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    """`host` is the whole network; a module has only sockets that listen already."""
    assert command(["run", "--explain", "--net=host", "c.wasm"]) == 0
    assert "everything: the host's network as your user has it" in capsys.readouterr().out
    words = ["run", "--explain", *flags("listen:tcp:[::1]:80", "tcp:x:80"), "m.wasm"]
    assert command(words) == 0
    shown = capsys.readouterr().out
    assert "accepts connections on [::1]:80" in shown
    assert "no use of --net tcp:x:80: a module of WASI preview 1 cannot connect" in shown
    assert command([*words[:2], "--json", *words[2:]]) == 0
    calls = json.loads(capsys.readouterr().out)["system_calls"]
    assert "accept4" in calls
    assert "connect" not in calls


def test_a_module_is_warned_of_grants_without_use(
    stand_in: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning, no error; none for a component, nor for a listening socket."""
    assert command(["run", *flags("tcp:x:80", "listen:tcp:127.0.0.1:80"), "m.wasm"]) == 0
    said = capsys.readouterr().err
    assert "warning: m.wasm is a module of WASI preview 1, which cannot use --net tcp:x:80:" in said
    assert command(["run", *flags("host"), "m.wasm"]) == 0
    assert "cannot use --net host:" in capsys.readouterr().err
    assert command(["run", *flags("listen:tcp:127.0.0.1:80"), "m.wasm"]) == 0
    assert command(["run", *flags("tcp:x:80"), "c.wasm"]) == 0
    assert capsys.readouterr().err == ""
    assert stand_in.requests[-1].net == [NetGrant("connect", "tcp", "x", 80, 80)]


def test_the_report(stand_in: Supervisor) -> None:
    """What was granted, as it is written."""
    stand_in.end = Outcome(reason="exit", status=1)
    assert command(["run", "--report=r.json", *flags("tcp:[::1]:80-81"), "c.wasm"]) == 1
    assert json.loads(Path("r.json").read_text())["grants"]["net"] == ["tcp:[::1]:80-81"]
    assert command(["run", "--report=r.json", *flags("host"), "c.wasm"]) == 1
    assert json.loads(Path("r.json").read_text())["grants"]["net"] == ["host"]


def test_policies(capsys: pytest.CaptureFixture[str]) -> None:
    """`policy check` finds a slip by file, line and key; pure refuses the flag."""
    Path("p.toml").write_text('memory = "1MiB"\nnet = ["tcp:example.org"]\n')
    Path("p.toml").chmod(0o600)
    assert command(["policy", "check", "./p.toml"]) == 1
    assert "./p.toml: line 2: net: 'tcp:example.org' has no port" in capsys.readouterr().err
    Path("p.toml").write_text("net = true\n")
    assert command(["policy", "check", "./p.toml"]) == 1
    assert "must be a list of strings, or false" in capsys.readouterr().err
    Path("p.toml").write_text('net = ["tcp:example.org:443", "host"]\n')
    assert command(["policy", "check", "./p.toml"]) == 0
    assert command(["run", "--policy=pure", "--net=host", "c.wasm"]) == 125
    assert "--net: policy 'pure' allows none" in capsys.readouterr().err


# --- through a daemon ---


def script(asked: Asked) -> bytes:
    if asked.method == "POST":
        return answer(201, RUN)
    return answer(200, ended(outcome={"reason": "exit", "status": 0}))


@pytest.fixture
def daemon(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scripted daemon, which $WASISUP_SOCKET leads to."""
    with Scripted(here / "d.sock", script) as server:
        monkeypatch.setenv("WASISUP_SOCKET", server.path)
        yield server


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_a_component_is_handed_over_with_its_grants(daemon: Any) -> None:
    """They are the daemon's to carry out."""
    texts = [f"listen:tcp:127.0.0.1:{free_port()}", "tcp:x:80", "host"]
    assert command(["run", *flags(*texts), "c.wasm"]) == 0
    sent = daemon.asked[0].json
    assert (sorted(sent["net"]), sent["listens"]) == (sorted(texts), [])


def test_a_module_is_handed_over_with_its_socket(
    daemon: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is opened here, with the caller's rights and in the caller's network."""
    port = free_port()
    assert command(["run", *flags(f"listen:tcp:127.0.0.1:{port}", "tcp:x:80"), "m.wasm"]) == 0
    asked = daemon.asked[0]
    (sent,) = asked.json["listens"]
    assert sent["name"] == f"127.0.0.1:{port}"
    with socket.socket(fileno=os.dup(asked.fds[sent["fd"]])) as given:
        assert given.getsockname() == ("127.0.0.1", port)
    assert asked.json["net"] == ["tcp:x:80"]
    assert "warning" in capsys.readouterr().err


def test_a_named_policys_grants_are_the_daemons(
    daemon: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was typed beside it goes along."""
    monkeypatch.setattr("wasisup.policies.policy.SYSTEM", str(here / "system"))
    (here / "system").mkdir(mode=0o755)
    (here / "system/site.toml").write_text('net = ["tcp:site.example:1", "host"]\n')
    here.chmod(0o755)
    assert command(["run", "--policy=site", "--net=tcp:mine.example:2", "c.wasm"]) == 0
    sent = daemon.asked[0].json
    assert (sent["policy"], sent["net"]) == ("site", ["tcp:mine.example:2"])
    Path("mine.toml").write_text('net = ["tcp:site.example:1"]\n')
    Path("mine.toml").chmod(0o600)
    assert command(["run", "--policy=./mine.toml", "--net=tcp:mine.example:2", "c.wasm"]) == 0
    sent = daemon.asked[2].json
    assert (sent["policy"], sent["net"]) == (
        "default",
        ["tcp:site.example:1", "tcp:mine.example:2"],
    )


def test_the_record_shows_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inspect RUN`: what was granted, and what was denied."""
    denied = [
        {"kind": "network", "count": 2, "errno": 2, "path": "tcp:192.0.2.1:80"},
        {"kind": "name", "count": 1, "errno": 2, "path": "example.org"},
    ]
    grants = {"net": ["tcp:example.com:443"]}
    record = ended(grants=grants, outcome={"reason": "exit", "status": 1, "denials": denied})
    with Scripted(here / "d.sock", lambda _: answer(200, record)) as server:
        assert command(["inspect", "--socket", server.path, RUN["id"]]) == 0
    shown = capsys.readouterr().out
    for words in ("network  tcp:example.com:443", "192.0.2.1:80", "name     1 times  example.org"):
        assert words in shown


# --- without a network ---


def kept_off(*_: object, **__: object) -> Any:
    raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")


def test_a_daemon_that_is_kept_off_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wasisup.service is: an error that says so and where to read on."""
    daemon_net.check_there_is_one()
    monkeypatch.setattr(daemon_net.socket, "socket", kept_off)
    with pytest.raises(SetupError, match="net: this daemon has no network") as caught:
        daemon_net.check_there_is_one()
    assert "wasisup.service keeps the daemon off the network" in str(caught.value.hint)
    prepared: Any = SimpleNamespace(request=None)
    with pytest.raises(SetupError):  # before anything of the run is looked at
        daemon_net.prepare(prepared, component=True).send(None)


def test_an_administrators_socket_for_a_module() -> None:
    """What a policy's `net` names the daemon opens, as with `tcplisten`, once."""
    port = free_port()
    owned: list[int] = []

    def own(fd: int) -> int:
        owned.append(fd)
        return fd

    grants = [
        NetGrant("listen", "tcp", "127.0.0.1", port, port),
        NetGrant("connect", "tcp", "x", 80, 80),
    ]
    prepared: Any = SimpleNamespace(
        request=RunRequest(module="m.wasm", net=grants, quotas=Quotas(fds=4)),
        spec=SimpleNamespace(net=["tcp:x:80"]),
        opened=Opened([], []),
        own=own,
    )
    for _ in range(2):
        asyncio.run(daemon_net.prepare(prepared, component=False))
        ((fd, name),) = prepared.opened.listeners
        assert (owned, name) == ([fd], f"127.0.0.1:{port}")
    assert prepared.request.net == grants[1:]
    with socket.socket(fileno=fd) as given:
        assert given.getsockname() == ("127.0.0.1", port)
    prepared.request.net, prepared.request.quotas.fds = [grants[0]], 3
    prepared.request.listens, prepared.spec.net = [], []
    with pytest.raises(UsageError, match="3 descriptors are too few"):
        asyncio.run(daemon_net.prepare(prepared, component=False))


# --- the SDK ---


def test_the_option_of_the_sdk(
    here: Path, stand_in: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`net=` is the flag, with and without a daemon; one string is a mistake."""
    monkeypatch.setattr(embedded, "run", lambda request, _: stand_in.run(request))
    wasisup.run("c.wasm", net=["tcp:example.org:443", "host"])
    (request,) = stand_in.requests
    assert (request.net, request.net_host) == (
        [NetGrant("connect", "tcp", "example.org", 443, 443)],
        True,
    )
    with pytest.raises(UsageError, match=r"^net: 'x' is no grant"):
        wasisup.run("c.wasm", net=["x"])
    with (
        Scripted(here / "d.sock", lambda _: answer(200, ended())) as server,
        wasisup.Client(server.path) as client,
    ):
        client.run("c.wasm", net=("tcp:example.org:443",))
        with pytest.raises(TypeError, match="net is a list"):
            client.run("c.wasm", net="host")
    assert server.asked[0].json["net"] == ["tcp:example.org:443"]
    with pytest.raises(TypeError, match="net is a list"):
        wasisup.run("c.wasm", net="host")


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs sockets and nothing else; a machine without can run the rest."""
    found = probes.net_grants()
    assert (found.name, found.state) == ("--net", probes.OK)
    assert "IPv4" in found.detail
    monkeypatch.setattr(socket, "socket", kept_off)
    assert probes.net_grants().state == probes.OPTIONAL
