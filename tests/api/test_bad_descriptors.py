"""Descriptors that are not what the request says, or that nobody asked for: refused and closed."""

from __future__ import annotations

import json
import os
import select
import socket
import tempfile

import pytest

from support.api import connect, talk

DIR = {"dirs": [{"fd": 0, "guest": "/d"}]}
MODULE = {"module": {"fd": 0}}
GET = b"GET /v1/healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def post(body: dict) -> bytes:
    data = json.dumps(body).encode()
    return b"POST /v1/runs HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)


@pytest.fixture(params=[
    "pipe", "socket", "connected socket", "file", "O_PATH file", "O_PATH link", "device", "memfd",
    "pidfd", "eventfd", "epoll", "namespace", "directory",
])  # fmt: skip
def thing(request):
    """An open descriptor of some kind."""
    name = request.param
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x")
        held = []
        if name == "pipe":
            fd, other = os.pipe()
            held.append(other)
        elif name == "socket":
            fd = socket.socket(socket.AF_UNIX).detach()
        elif name == "connected socket":
            one, two = socket.socketpair()
            fd = one.detach()
            held.append(two.detach())
        elif name == "epoll":
            fd = os.dup((epoll := select.epoll()).fileno())
            epoll.close()
        elif name == "O_PATH link":
            os.symlink("/", path)
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        else:
            fd = {
                "file": lambda: os.open(path, os.O_RDWR | os.O_CREAT),
                "O_PATH file": lambda: os.open("/etc/passwd", os.O_PATH),
                "device": lambda: os.open("/dev/null", os.O_RDWR),
                "memfd": lambda: os.memfd_create("x"),
                "pidfd": lambda: os.pidfd_open(os.getpid()),
                "eventfd": lambda: os.eventfd(0),
                "namespace": lambda: os.open("/proc/self/ns/net", os.O_RDONLY),
                "directory": lambda: os.open(folder, os.O_RDONLY),
            }[name]()
        yield name, fd
        for one in (fd, *held):
            os.close(one)


def test_as_a_directory(api, thing):
    """Only directories can be granted."""
    name, fd = thing
    answer = api.ask("POST", "/v1/runs", api.request("hello", **DIR, wait=True), fds=[fd])
    if name == "directory":
        assert answer.ok(200)["outcome"]["status"] == 0
    else:
        answer.refused(422, "not a directory")


def test_as_a_module(api, thing):
    """Only a regular file that can be read is a module."""
    _, fd = thing
    answer = api.ask("POST", "/v1/runs", {**MODULE, "wait": True}, fds=[fd])
    assert answer.refused(422)["code"] == "invalid_module"


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_as_a_stream(api, thing, stream):
    """Anything that may be read or written is a stream; what fails is the guest's matter."""
    name, fd = thing
    quotas = {"timeout": "50ms"}
    body = api.request("stdio", "cat", **{stream: {"fd": 0}}, wait=True, quotas=quotas)
    answer = api.ask("POST", "/v1/runs", body, fds=[fd])
    if name.startswith("O_PATH"):
        answer.refused(422, "O_PATH")
    else:
        assert answer.ok(200)["outcome"]["reason"] in ("exit", "timeout")


def test_as_a_listener(api, thing):
    """Only a socket that listens."""
    _, fd = thing
    body = api.request("hello", listens=[{"fd": 0, "name": "x"}])
    api.ask("POST", "/v1/runs", body, fds=[fd]).refused(422, "listens[0]")


@pytest.mark.parametrize("fields", [
    DIR, MODULE, {"stdin": {"fd": 0}}, {"stdout": {"fd": 0}}, {"stderr": {"fd": 0}},
    {"listens": [{"fd": 0, "name": "x"}]},
])  # fmt: skip
@pytest.mark.parametrize("sent", [0, 3])
def test_out_of_range(api, fields, sent):
    """A place at which no descriptor came."""
    text = json.dumps(api.request("hello", **fields)).replace('"fd": 0', f'"fd": {sent}')
    answer = api.ask("POST", "/v1/runs", json.loads(text), fds=[0] * sent)
    answer.refused(422, f"no descriptor {sent}")


def test_files_that_cannot_be_read(api, room):
    """A module that is open for writing only."""
    with open(room / "x", "wb") as file:
        answer = api.ask("POST", "/v1/runs", MODULE, fds=[file.fileno()])
    answer.refused(422, "cannot be read")


@pytest.mark.parametrize("count", [129, 200, 253])
def test_too_many(daemon, api, count):
    """More than a request may bring: one answer, and the connection is closed."""
    with connect(daemon.socket) as sock:
        (answer,) = talk(sock, post({"module": {"path": "/x"}}), [0] * count, hang_up=False)
    answer.refused(413, "descriptors")


def test_too_many_by_and_by(daemon, api):
    """So when they come in several parts."""
    data = post({"module": {"path": "/x"}})
    with connect(daemon.socket) as sock:
        for at in range(3):
            socket.send_fds(sock, [data[at : at + 1]], [0] * 50)
        (answer,) = talk(sock, data[3:], hang_up=False)
    answer.refused(413, "descriptors")


def test_as_many_as_may_be(api):
    """128 are taken, and those that nobody names are closed."""
    with open(os.devnull, "rb") as null:
        body = api.request("stdio", "cat", stdin={"fd": 127}, wait=True)
        run = api.ask("POST", "/v1/runs", body, fds=[null.fileno()] * 128).ok(200)
    assert run["outcome"]["status"] == 0


def test_in_parts(daemon, api, pipe):
    """Descriptors belong to the request whose bytes they came with, in their order."""
    reader, writer = pipe()
    body = api.request("stdio", "both", stdout={"fd": 0}, stderr={"fd": 1}, wait=True)
    data = post(body)
    with connect(daemon.socket) as sock, tempfile.TemporaryFile() as file:
        socket.send_fds(sock, [data[:10]], [writer.fileno()])
        socket.send_fds(sock, [data[10:20]], [file.fileno()])
        (answer,) = talk(sock, data[20:])
        assert answer.ok(200)["outcome"]["status"] == 0
        file.seek(0)
        assert file.read() == b"err\n"
    writer.close()
    assert reader.readall() == b"out\n"


@pytest.mark.parametrize("data", [
    GET,
    b"GET /nowhere HTTP/1.1\r\n\r\n",
    b"DELETE /v1/runs HTTP/1.1\r\n\r\n",
    b"POST /v1/modules HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
    b"POST /v1/runs HTTP/1.1\r\ncontent-length: 1\r\n\r\n{",
    b"POST /v1/runs HTTP/1.1\r\ncontent-length: 100\r\n\r\n{",
    b"POST /v1/runs HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"what?\r\n\r\n",
    b"\r\n",
    b"G",
    GET * 20,
])  # fmt: skip
def test_where_nobody_wants_them(daemon, api, pipe, data):
    """With any request, good or bad: they are closed at the latest when it has been answered."""
    reader, writer = pipe()
    for _ in range(5):
        with connect(daemon.socket) as sock:
            talk(sock, data, [writer.fileno()] * 20)
    writer.close()
    # The end of it: nobody has the other end any more.
    assert reader.readall() == b""


def test_with_a_pipelined_request(daemon, api, pipe):
    """Descriptors of the second request are not the first one's."""
    reader, writer = pipe()
    first = api.request("stdio", "both", stdout={"fd": 0}, wait=True)
    with connect(daemon.socket) as sock:
        sock.sendall(post(first))
        answers = talk(sock, post(first), [writer.fileno()])
    writer.close()
    answers[0].refused(422, "none came")
    assert answers[1].ok(200)["outcome"]["status"] == 0
    assert reader.readall() == b"out\n"


def test_two_requests_in_one_write(daemon, api, pipe):
    """With one write for both, they belong to the last that began in it."""
    reader, writer = pipe()
    body = api.request("stdio", "both", stdout={"fd": 0}, wait=True)
    with connect(daemon.socket) as sock:
        answers = talk(sock, GET + post(body), [writer.fileno()])
    writer.close()
    assert [answer.status for answer in answers] == [200, 200]
    assert reader.readall() == b"out\n"


def test_gone_before_it_was_answered(daemon, api, pipe):
    """A client that sends descriptors and goes away, a hundred times."""
    reader, writer = pipe()
    body = post(api.request("stdio", "spin", stdout={"fd": 0}, wait=True))
    for at in range(100):
        with connect(daemon.socket) as sock:
            socket.send_fds(sock, [body[: at * 37] or b"P"], [writer.fileno()] * 10)
    writer.close()
    reader.readall()
    for run in api.get("/v1/runs?state=running")["runs"]:
        api.wait(run["id"])


def test_the_connection_itself(daemon, api):
    """A client may send its own end of the connection; it is closed with the run."""
    with connect(daemon.socket) as sock:
        body = api.request("stdio", "exit", "0", stdin={"fd": 0}, wait=True)
        (answer,) = talk(sock, post(body), [sock.fileno()])
        assert answer.ok(200)["outcome"]["status"] == 0
