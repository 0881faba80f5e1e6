"""Programs by the toolchains that people use for components: CPython and JavaScript, whole.

What holds for every component is in `test_components.py` and `test_network.py`, with guests that
compile in an instant; these have 18 and 12 MB of engine in them, and take seconds.
"""

from __future__ import annotations

import socket

import pytest

from support.network import free_port, upper_tcp, upper_udp, web, witnesses


@pytest.fixture(scope="session")
def python(guests):
    return guests.made_by("python")


@pytest.fixture(scope="session")
def javascript(guests):
    return guests.made_by("javascript")


def denied(result, kind: str = "network") -> set[str]:
    return {d["path"] for d in result.report["denials"] if d["kind"] == kind}


# --- componentize-py ---


def test_python_words(wasisup, python):
    """CPython in a component has its arguments, variables and stdin."""
    assert wasisup.run(python, "words", "a", "b c").ok().text == "['a', 'b c']\n"
    result = wasisup.run("--env", "COLOUR=blue", python, "env").ok()
    assert result.text == "[('COLOUR', 'blue')]\n"
    assert wasisup.run(python, "upper", stdin="été\n".encode()).ok().text == "ÉTÉ\n"


def test_python_files(wasisup, python, room):
    """It reads, writes, lists and renames in the directory that it was granted."""
    (room / "in.txt").write_text("content é\n")
    room.chmod(0o777)

    def step(*args):
        return wasisup.run(f"--dir={room}::/d", python, *args).ok().text

    assert step("cat", "/d/in.txt", "/d/in.txt") == "content é\n" * 2
    step("write", "/d/out", "one")
    step("append", "/d/out", " two")
    step("move", "/d/out", "/d/moved")
    assert (room / "moved").read_text() == "one two"
    assert step("stat", "/d/moved") == "7\n"
    assert step("list", "/d") == "in.txt\nmoved\n"
    step("remove", "/d/moved")
    assert not (room / "moved").exists()


def test_python_may_only_read(wasisup, python, room):
    """In a read-only directory it is refused, and in none it finds nothing, with a hint."""
    (room / "in.txt").write_text("content\n")
    refused = wasisup.run(f"--dir={room}::/d::ro", python, "write", "/d/new", "x")
    assert refused.status == 1
    assert not (room / "new").exists()
    missing = wasisup.run(python, "cat", room / "in.txt")
    assert missing.status == 1
    assert f"--dir {room}" in missing.errors


def test_python_ends(wasisup, python):
    """A failure it reports is an exit, an exception that nobody catches a trap with a traceback."""
    failed = wasisup.run(python, "fail")
    assert (failed.status, failed.report["reason"], failed.err) == (1, "exit", b"failing\n")
    raised = wasisup.run(python, "raise")
    assert (raised.status, raised.report["reason"]) == (134, "trap")
    assert "RuntimeError: not caught" in raised.errors


def test_python_quotas(wasisup, python):
    """Its quotas end it for the right reason, or are a MemoryError of its own."""
    spun = wasisup.run("--cpu-time=300ms", python, "spin")
    assert (spun.status, spun.report["reason"]) == (152, "cpu_time")
    said = wasisup.run("--output=100000", python, "chatter")
    assert (said.report["reason"], len(said.out)) == ("output", 100000)
    grown = wasisup.run("--memory=64MiB", python, "grow", "200")
    assert grown.status == 134
    assert "MemoryError" in grown.errors
    assert wasisup.run("--memory=128MiB", python, "grow", "50").ok().text == "held 50\n"


def test_python_sockets(wasisup, python):
    """TCP and UDP clients, a look-up and a TCP server, through the bindings that it generates."""
    with upper_tcp() as port:
        grant = f"--net=tcp:127.0.0.1:{port}"
        assert wasisup.run(grant, python, "tcp", "127.0.0.1", port, "words").ok().text == "WORDS\n"
        grant = f"--net=tcp:localhost:{port}"
        assert "127.0.0.1\n" in wasisup.run(grant, python, "resolve", "localhost").ok().text
    with upper_udp() as port:
        result = wasisup.run(
            f"--net=udp:127.0.0.1:{port}", python, "udp", "127.0.0.1", port, "words"
        ).ok()
        assert result.text == f"WORDS from 127.0.0.1:{port}\n"
    port = free_port()
    with wasisup.popen(
        "run", f"--net=listen:tcp:127.0.0.1:{port}", python, "serve", "127.0.0.1", str(port)
    ) as process:
        assert process.stdout.readline() == f"listening 127.0.0.1:{port}\n".encode()
        with socket.create_connection(("127.0.0.1", port), 10) as peer:
            peer.sendall(b"words")
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(100) == b"WORDS"
        assert process.communicate(timeout=30) == (b"", b"")


def test_python_http(wasisup, python):
    """An HTTP client by wasi:http reaches the server that was granted, by address and by name."""
    with web() as server:
        result = wasisup.run(
            f"--net=tcp:localhost:{server.port}", python, "get", server.url("/a"),
            f"http://localhost:{server.port}/b", server.url(f"/to/127.0.0.1:{server.port}/c"),
        ).ok()  # fmt: skip
        assert result.text.splitlines() == [
            "200 /a", "200 /b", f"302 http://127.0.0.1:{server.port}/c", "200 /c",
        ]  # fmt: skip
        grant = f"--net=tcp:127.0.0.1:{server.port}"
        assert wasisup.run(grant, python, "post", server.url(), "words").ok().text == "200 WORDS\n"


# --- componentize-js, and what wasi:http may not ---


def test_javascript_arguments(wasisup, javascript):
    """JavaScript has its arguments, and an exception that nobody catches is a failure."""
    assert wasisup.run(javascript, "args", "a", "b c").ok().text == '["a","b c"]\n'
    assert wasisup.run(javascript, "other").status != 0


def test_javascript_fetch(wasisup, javascript):
    """fetch reaches the server that was granted."""
    with web() as server:
        grant = f"--net=tcp:127.0.0.1:{server.port}"
        result = wasisup.run(
            grant, javascript, "fetch", server.url("/a"),
            server.url(f"/to/127.0.0.1:{server.port}/b"),
        ).ok()  # fmt: skip
        assert server.paths == ["/a", f"/to/127.0.0.1:{server.port}/b", "/b"]
    assert result.text.splitlines() == ["200 /a", f"302 http://127.0.0.1:{server.port}/b", "200 /b"]


@pytest.mark.parametrize("toolchain", ["python", "javascript"])
def test_no_http_without_a_grant(wasisup, guests, toolchain):
    """Without --net no request arrives, by address or name, and the report says what was tried."""
    command = {"python": "get", "javascript": "fetch"}[toolchain]
    with web() as server:
        result = wasisup.run(
            guests.made_by(toolchain), command, server.url("/a"),
            f"http://localhost:{server.port}/b",
        ).ok()  # fmt: skip
        assert server.paths == []
    assert [line.split()[0] for line in result.text.splitlines()] == ["error", "error"]
    assert denied(result) == {f"tcp:127.0.0.1:{server.port}"}
    assert denied(result, "name") == {"localhost"}


@pytest.mark.parametrize("toolchain", ["python", "javascript"])
def test_a_redirect_leads_nowhere_else(wasisup, guests, toolchain):
    """A server that was granted cannot send a client on to another port of the same host, nor to a
    name; what it tried is in the report."""
    command = {"python": "get", "javascript": "fetch"}[toolchain]
    with web() as server, witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        result = wasisup.run(
            f"--net=tcp:127.0.0.1:{server.port}", guests.made_by(toolchain), command,
            server.url(f"/to/127.0.0.1:{other.port}/x"), server.url(f"/to/localhost:{other.port}/"),
        ).ok()  # fmt: skip
        assert not other.heard
        assert len(server.paths) == 2
    lines = result.text.splitlines()
    assert [line.split()[0] for line in lines] == ["302", "error", "302", "error"]
    assert denied(result) == {other.address}
    assert denied(result, "name") == {"localhost"}
