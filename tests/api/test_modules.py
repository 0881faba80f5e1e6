"""Modules: added once, compiled ahead, run by digest, and each user's own."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack

import pytest


@pytest.fixture
def hello(api):
    """The bytes of a module, and its digest; nobody has added it before."""
    data = api.programs["hello"].read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    api.ask("DELETE", f"/v1/modules/{digest}")
    yield data, digest
    api.ask("DELETE", f"/v1/modules/{digest}")


def test_add_and_run(api, hello):
    """What was added is compiled, can be looked at, and can be run by its digest."""
    data, digest = hello
    answer = api.ask("POST", "/v1/modules?name=my%20hello", data)
    info = answer.ok(201)
    assert answer.headers["location"] == f"/v1/modules/{digest}"
    assert (info["digest"], info["name"], info["size"]) == (digest, "my hello", len(data))
    assert (info["stored"], info["compiled"][0]) == (True, "cranelift")
    assert api.get(f"/v1/modules/{digest}") == info
    assert info in api.get("/v1/modules")["modules"]
    assert api.run("", module={"digest": digest})["stdout"] == "hello, world\n"


def test_add_again(api, hello):
    """Adding it again is no error; without a name it keeps the old one."""
    data, digest = hello
    api.ask("POST", "/v1/modules?name=first", data).ok(201)
    assert api.ask("POST", "/v1/modules", data).ok(201)["name"] == "first"
    assert api.ask("POST", "/v1/modules?name=second", data).ok(201)["name"] == "second"
    assert [one["digest"] for one in api.get("/v1/modules")["modules"]].count(digest) == 1


def test_remove(api, hello, daemon):
    """What was removed is unknown, and its bytes are gone."""
    data, digest = hello
    api.ask("POST", "/v1/modules", data).ok(201)
    kept = daemon.state / "modules" / f"{digest}.wasm"
    assert kept.read_bytes() == data
    api.ask("DELETE", f"/v1/modules/{digest}").ok(204)
    assert not kept.exists()
    for method, target in (
        ("GET", f"/v1/modules/{digest}"),
        ("DELETE", f"/v1/modules/{digest}"),
    ):
        api.ask(method, target).refused(404, digest)
    answer = api.ask("POST", "/v1/runs", api.request("", module={"digest": digest}))
    assert answer.refused(404)["code"] == "module_not_found"


def test_run_makes_it_known(api, hello):
    """A module that was run can be named by its digest from then on, but is not stored."""
    _, digest = hello
    api.run("hello")
    info = api.get(f"/v1/modules/{digest}")
    assert (info["stored"], info["name"]) == (False, "hello")
    assert api.run("", module={"digest": digest})["stdout"] == "hello, world\n"


def test_engines(api, hello):
    """Which engines it is compiled for is known."""
    data, digest = hello
    api.ask("POST", "/v1/modules", data).ok(201)
    api.run("", module={"digest": digest}, engine="pulley")
    assert api.get(f"/v1/modules/{digest}")["compiled"] == ["cranelift", "pulley"]


@pytest.mark.parametrize("kind", ["application/wasm", "application/octet-stream", ""])
def test_media_types(api, hello, kind):
    """As WebAssembly, as bytes, or without saying."""
    data, _ = hello
    api.ask("POST", "/v1/modules", data, headers={"content-type": kind}).ok(201)


def test_in_chunks(api, hello, daemon):
    """A body whose length nobody knows ahead."""
    data, digest = hello
    with api.connection() as own:
        parts = iter([data[:10], data[10:5000], data[5000:]])
        own.request("POST", "/v1/modules", parts, encode_chunked=True)
        response = own.getresponse()
        assert response.status == 201
        assert digest.encode() in response.read()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0asm", ""),
        (b"hello", ""),
        (b"\0asm\x01\0\0\0" + b"\xff" * 64, "module"),
    ],
)
def test_what_is_no_module(api, data, words):
    """It is refused, and nothing of it is kept."""
    answer = api.ask("POST", "/v1/modules", data)
    assert answer.refused(422, words)["code"] == "invalid_module"
    digest = hashlib.sha256(data).hexdigest()
    assert not [one for one in api.get("/v1/modules")["modules"] if one["digest"] == digest
                and one["stored"]]  # fmt: skip


def test_room(make_daemon):
    """What a user may keep is bounded; what was refused takes no room."""
    daemon = make_daemon({"default": {"modules": "100KiB"}})
    api = daemon.api()
    small, large = (api.programs[name].read_bytes() for name in ("hello", "stdio"))
    padded = large + b"\0\x81\x80\x06" + b"\0" * ((96 << 10) + 1)  # a custom section
    sizes = {len(small), len(large)}
    assert max(sizes) < 50 << 10
    api.ask("POST", "/v1/modules", small).ok(201)
    if daemon.core == "real":
        error = api.ask("POST", "/v1/modules", padded).refused(507, "of 102400")
        assert error["code"] == "no_room"
    api.ask("POST", "/v1/modules", large).ok(201)
    assert {one["size"] for one in api.get("/v1/modules")["modules"] if one["stored"]} == sizes


def test_room_for_two_at_once(make_daemon):
    """Those that are added at the same time do not both take the last of the room."""
    daemon = make_daemon({"default": {"modules": "100KiB"}})
    if daemon.core == "fake":
        pytest.skip("the fake core knows no such module")
    api = daemon.api()
    body = api.programs["hello"].read_bytes()
    section = b"\0\x81\x80\x04\0"  # a custom section of 64 KiB, its name of no bytes
    padded = [body + section + bytes([at]) * (64 << 10) for at in range(4)]
    with ExitStack() as stack:
        connections = [stack.enter_context(api.connection()) for _ in padded]
        for connection, data in zip(connections, padded, strict=True):
            connection.request("POST", "/v1/modules", data)
        statuses = []
        for connection in connections:
            with connection.getresponse() as response:
                statuses.append(response.status)
                response.read()
    assert sorted(statuses) == [201, 507, 507, 507]
    assert sum(one["stored"] for one in api.get("/v1/modules")["modules"]) == 1


def test_what_a_killed_daemon_leaves(make_daemon):
    """Bytes that it had not finished storing are gone in its next life."""
    daemon = make_daemon()
    api = daemon.api()
    digest = api.ask("POST", "/v1/modules", api.programs["hello"].read_bytes()).ok(201)["digest"]
    daemon.hang_up()
    daemon.kill()
    folder = daemon.state / "modules"
    (folder / ".0123456789abcdef").write_bytes(b"half")
    (folder / f"{'0' * 64}.wasm").write_bytes(b"whole, and nobody's")
    daemon.start()
    assert [path.name for path in folder.iterdir()] == [f"{digest}.wasm"]


def test_it_survives_a_restart(make_daemon):
    """What was added is there in the daemon's next life, and is compiled again if need be."""
    daemon = make_daemon()
    api = daemon.api()
    data = api.programs["hello"].read_bytes()
    digest = api.ask("POST", "/v1/modules?name=h", data).ok(201)["digest"]
    run = api.run("", module={"digest": digest}, labels={"a": "b"})
    daemon.finish()
    daemon.start()
    api = daemon.api()
    assert api.get(f"/v1/modules/{digest}")["name"] == "h"
    assert api.run("", module={"digest": digest})["stdout"] == "hello, world\n"
    again = api.get(f"/v1/runs/{run['id']}")
    assert again == {key: value for key, value in run.items() if key not in ("stdout", "stderr")}
    assert api.logs(run["id"]) == b"hello, world\n"
