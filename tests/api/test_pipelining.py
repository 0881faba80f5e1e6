"""Many requests on one connection, and clients that are slow, silent, or too many."""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import ExitStack

import pytest

from support.api import PATIENCE, connect, talk

from .conftest import OTHER

GET = b"GET /v1/healthz HTTP/1.1\r\nhost: x\r\n"
HTTP = "from wasisup.supervisor.daemon import http"


def test_twenty(daemon, api):
    """Requests that are sent ahead are answered in their order."""
    runs = [api.start("stdio", "exit", str(at)) for at in range(20)]
    data = b"".join(b"GET /v1/runs/%b/wait HTTP/1.1\r\n\r\n" % run.encode() for run in runs)
    with connect(daemon.socket) as sock:
        answers = talk(sock, data)
    assert [answer.json["outcome"]["exit_code"] for answer in answers] == list(range(20))


def test_errors_between(daemon, api):
    """An error that leaves the connection whole does not end it; one of HTTP itself does."""
    data = (
        b"GET /nowhere HTTP/1.1\r\n\r\nGET /v1/runs/0?x=1 HTTP/1.1\r\n\r\n"
        b"POST /v1/runs HTTP/1.1\r\ncontent-length: 1\r\n\r\n{"
        b"DELETE /v1/runs HTTP/1.1\r\n\r\n" + GET + b"\r\n"
        b"what?\r\n\r\n" + GET + b"\r\n"
    )
    with connect(daemon.socket) as sock:
        answers = talk(sock, data, hang_up=False)
    assert [answer.status for answer in answers] == [404, 422, 400, 405, 200, 400]
    assert answers[3].headers["allow"] == "GET, POST"


def test_the_last_one_says_so(daemon, api):
    """After `connection: close` nothing more is answered."""
    data = GET + b"connection: close\r\n\r\n"
    with connect(daemon.socket) as sock:
        (answer,) = talk(sock, data, hang_up=False)
    assert answer.headers["connection"] == "close"


def test_a_flood(daemon, api):
    """A client that sends far ahead is read from only as far as it is answered."""
    run = api.start("stdio", "block", stdin={"open": True})
    api.ready(run)
    wait = f"GET /v1/runs/{run}/wait HTTP/1.1\r\n\r\n".encode()
    flood = memoryview(wait + (GET + b"pad: " + b"x" * 8000 + b"\r\n\r\n") * 1000)
    with connect(daemon.socket) as sock:
        sock.setblocking(False)
        sent = blocked = 0
        while blocked < 50 and sent < len(flood):
            try:
                sent += sock.send(flood[sent:])
                blocked = 0
            except BlockingIOError:
                # An answer to somebody else: the daemon has had time to read.
                assert api.get("/v1/healthz")["status"] == "ok"
                blocked += 1
        assert sent < 2 << 20
        api.write(run, b"\0").ok(204)
        sock.settimeout(PATIENCE)
        # From then on all of it is answered, and all of the rest is taken.
        rest = threading.Thread(target=sock.sendall, args=[flood[sent:]])
        rest.start()
        answers = talk(sock, b"", hang_up=False, count=1001)
        rest.join()
    assert [answer.status for answer in answers] == [200] * 1001


def test_gone_after_a_flood(daemon, api, pipe):
    """A client that has sent far ahead and goes away is noticed, though nothing more is read."""
    reader, writer = pipe()
    body = api.request("stdio", "spin", attach=True, stdout={"fd": 0}, quotas={"cpu_time": "60s"})
    with api.connection() as own:
        run = own.ask("POST", "/v1/runs", body, fds=[writer.fileno()]).ok(201)["id"]
        assert reader.read(6) == b"ready\n"
        wait = f"GET /v1/runs/{run}/wait HTTP/1.1\r\n\r\n".encode()
        own.sock.sendall(wait + (GET + b"\r\n") * 2000)
        # Whatever it has read of it by now, the answer to the first is still to come.
        assert api.get(f"/v1/runs/{run}")["state"] == "running"
    assert api.wait(run)["outcome"]["reason"] == "killed"


def test_one_who_stops_amid_a_request(daemon, api):
    """Others are answered meanwhile."""
    slow = [connect(daemon.socket) for _ in range(50)]
    for at, sock in enumerate(slow):
        sock.sendall((GET + b"\r\n")[: at % 40 + 1])
    assert api.run("hello")["outcome"]["status"] == 0
    for sock in slow:
        sock.close()


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"], ids=["first", "second"])
def test_too_slow(make_daemon, before):
    """A request that does not become whole is refused in the end, also the second one."""
    daemon = make_daemon(preset=f"{HTTP}; http.REQUEST_SECONDS = 0.1")
    with connect(daemon.socket) as sock:
        answers = talk(sock, before + GET, hang_up=False)
    assert answers[-1].refused(408)["code"] == "timeout"
    assert len(answers) == 1 + bool(before)


def test_idle(make_daemon):
    """A connection on which nothing happens is closed in the end."""
    daemon = make_daemon(preset=f"{HTTP}; http.IDLE_SECONDS = 0.1")
    for data in (b"", GET + b"\r\n"):
        with connect(daemon.socket) as sock:
            assert len(talk(sock, data, hang_up=False)) == bool(data)


def test_one_who_does_not_read(make_daemon):
    """A large answer that nobody reads is given up in the end."""
    daemon = make_daemon(preset=f"{HTTP}; http.WRITE_SECONDS = 0.1")
    api = daemon.api()
    run = api.run("stdio", "pour", str(4 << 20))["id"]
    with connect(daemon.socket) as sock:
        sock.sendall(f"GET /v1/runs/{run}/logs?stream=stdout HTTP/1.1\r\n\r\n".encode())
        # The daemon's end is closed: nothing more comes of the answer than fits the buffers.
        poll = select.poll()
        poll.register(sock, select.POLLHUP)
        assert poll.poll(30_000)
        received = 0
        while part := sock.recv(1 << 20):
            received += len(part)
    assert received < 4 << 20
    daemon.hang_up()
    assert not daemon.leaked()


def test_many_connections(make_daemon):
    """One user's connections are bounded: 503 for the next, and nothing for others."""
    preset = "from wasisup.supervisor.daemon import server; server.MOST_OF_ONE_USER = 10"
    daemon = make_daemon(preset=preset)
    with ExitStack() as held:
        for _ in range(9):  # and one more asks for the daemon's health
            held.enter_context(connect(daemon.socket))
        with connect(daemon.socket) as sock:
            (answer,) = talk(sock, b"", hang_up=False)
        assert answer.refused(503, "connections")["code"] == "unavailable"
        if os.getuid() == 0:
            assert daemon.api(OTHER).get("/v1/healthz")["status"] == "ok"
    daemon.hang_up()
    assert not daemon.leaked()
    assert daemon.api().get("/v1/healthz")["status"] == "ok"


def test_connections_come_and_go(daemon, api):
    """Some hundred connections at once, idle, are nothing."""
    held = [connect(daemon.socket) for _ in range(300)]
    assert api.run("hello")["outcome"]["status"] == 0
    for sock in held[::2]:
        sock.shutdown(socket.SHUT_RDWR)
    assert api.get("/v1/healthz")["status"] == "ok"
    for sock in held:
        sock.close()
