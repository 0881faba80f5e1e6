"""Parts of the server by themselves: places, addresses, whom it becomes, kinds of components."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasisup.supervisor.errors import InvalidModule, SetupError, UsageError
from wasisup.supervisor.model import Denial, NetGrant, RunRequest
from wasisup.supervisor.serve import component, exchange, identity, listen, server
from wasisup.supervisor.serve.gate import Full, Gate


def test_places_and_turns() -> None:
    """First come, first served; over the queue there is no room; a late one gives up."""

    async def use() -> None:
        gate = Gate(1, 2)
        await gate.enter(10)
        turns: list[str] = []

        async def wait(name: str) -> None:
            await gate.enter(10)
            turns.append(name)

        waiting = [asyncio.create_task(wait("a")), asyncio.create_task(wait("b"))]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await gate.enter(10)
        waiting[0].cancel()
        await asyncio.gather(*waiting[:1], return_exceptions=True)
        assert gate.waiting == 1
        gate.leave()
        await waiting[1]
        assert turns == ["b"]
        with pytest.raises(Full):
            await gate.enter(0.001)
        gate.leave()
        assert gate.try_enter()
        assert not gate.try_enter()

    asyncio.run(use())


def test_a_turn_that_comes_as_its_waiter_leaves() -> None:
    """Is not lost: the place goes to the next."""

    async def use() -> None:
        gate = Gate(1, 5)
        await gate.enter(10)
        tasks = [asyncio.create_task(gate.enter(10)) for _ in range(2)]
        await asyncio.sleep(0)
        gate.leave()
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        await tasks[1]
        gate.leave()
        assert gate.try_enter()

    asyncio.run(use())


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("unix:/a:b", "/a:b"),
    ],
)
def test_addresses(text: str, parsed: object) -> None:
    assert listen.parse(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "a:", "a:x", "a:65536", "::1:80", "unix:", "a:-1", "a:²"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(UsageError):
        listen.parse(text)


def test_listening(tmp_path: Path) -> None:
    """A free port; one that is taken is said to be; a path that is there only as long as it is."""
    (one,) = listen.open_listeners("127.0.0.1:0")
    try:
        assert one.where == f"http://127.0.0.1:{one.place.port}"
        with pytest.raises(SetupError, match="in use"):
            listen.open_listeners(f"127.0.0.1:{one.place.port}")
    finally:
        one.close()
    path = str(tmp_path / "s")
    (two,) = listen.open_listeners(f"unix:{path}")
    with pytest.raises(SetupError):
        listen.open_listeners(f"unix:{path}")
    # Another server's, by now: not this one's to remove.
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        two.close()
        assert os.path.exists(path)


def test_whom_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root becomes nobody unless told otherwise; nobody else becomes anybody."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    default = identity.find(None)
    assert default is not None
    assert default.uid != 0
    assert default.gid != 0
    assert 0 not in default.groups
    assert identity.find("root") is None
    numbers = identity.find("12:34")
    assert numbers is not None
    assert (numbers.uid, numbers.gid, numbers.groups) == (12, 34, ())
    beyond = ("0:34", "4294967295:1", "1:4294967295", "99999999999:1", f"1:{'9' * 5000}")
    for wrong in ("no-such-user", "1:", ":1", "a:b", "\0", *beyond):
        with pytest.raises(UsageError):
            identity.find(wrong)
    monkeypatch.setattr(os, "geteuid", lambda: 12)
    assert identity.find(None) is None
    assert identity.find("12:34") is None
    with pytest.raises(UsageError, match="only root"):
        identity.find("13:34")


def component_file(path: Path, *exports: bytes) -> int:
    data = b"\0asm\x0d\0\x01\0" + b"\x00\x03\x01a\x00"  # a custom section first
    for name in exports:
        content = b"\x01\x00" + bytes([len(name)]) + name + b"\x05\x00\x00"
        data += bytes([11, len(content)]) + content
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def test_kinds_of_components(tmp_path: Path) -> None:
    """A proxy alone is refused; a command, a command that is also one, and a module are not."""
    proxy, command = b"wasi:http/incoming-handler@0.2.3", b"wasi:cli/run@0.2.0"
    for exports, refused in (((proxy,), True), ((command,), False), ((proxy, command), False)):
        fd = component_file(tmp_path / "c", *exports)
        try:
            if refused:
                with pytest.raises(InvalidModule, match="wasi:http/proxy"):
                    component.check(fd, "c")
            else:
                component.check(fd, "c")
        finally:
            os.close(fd)


@given(st.binary(max_size=60))
def test_any_file_is_looked_at(data: bytes) -> None:
    """Ends, whatever the sections say."""
    fd = os.memfd_create("component")
    try:
        os.write(fd, b"\0asm\x0d\0\x01\0" + data)
        component.check(fd, "c")
    finally:
        os.close(fd)


def test_denials_in_the_line_of_a_request() -> None:
    """Those that name something, and not too many or too long: a guest writes them."""
    denials = [Denial("no_preopen", 1, 8, ""), Denial("network", 3, 2, "tcp:192.0.2.1:80")]
    assert exchange._denied(denials) == ["network tcp:192.0.2.1:80"]
    found = exchange._denied([Denial("escape", 1, 63, "x" * 5000)] * 20)
    assert found[-1] == "and 12 more"
    assert (len(found), max(map(len, found))) == (9, len("escape ") + 1024)


@pytest.mark.parametrize(
    ("grants", "enough"),
    [
        ({}, 64 + 50 * 11),
        ({"net": [NetGrant("connect", "tcp", "192.0.2.1", 80, 80)]}, 144 + 50 * 16),
        ({"net_host": True}, 144 + 50 * 16),
    ],
)
def test_descriptors_for_that_many_at_once(
    monkeypatch: pytest.MonkeyPatch, grants: dict[str, Any], enough: int
) -> None:
    """Fewer than all of them need is refused at the start; a network needs more."""
    request = RunRequest(module="m", **grants)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    monkeypatch.setattr("resource.getrlimit", lambda _: (enough, enough))
    assert server._raise_limits(50, request) == 25
    monkeypatch.setattr("resource.getrlimit", lambda _: (enough - 1, enough - 1))
    with pytest.raises(SetupError, match="too few for 50 requests"):
        server._raise_limits(50, request)
