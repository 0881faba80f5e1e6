"""`wasisup serve`: requests to a real guest over real sockets."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.needs import unavailable
from support.processes import all_pidfds, children, wait_gone
from support.serving import PATIENCE, Answer, Serving, drain, until

REQUEST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
PAGE = {502: b"502 Bad Gateway\n", 504: b"504 Gateway Timeout\n"}


@pytest.fixture(scope="module")
def cgi(guests) -> Path:
    if os.getuid() == 0:  # which serves as nobody
        reached = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "--", "test", "-r", os.__file__],
            check=False,
        )
        if reached.returncode != 0:
            unavailable(f"a Python that other users can reach ({os.__file__} is not)")
    return guests.c("serve/cgi")


@pytest.fixture(scope="module")
def server(wasisup, cgi) -> Iterator[Serving]:
    """With no particular limits, for tests that leave no trace."""
    with Serving(
        wasisup, "--env", "GREETING=hello", "--env", "HTTP_FIXED=ours", "--memory", "32MiB", cgi,
        "first", "second",
    ) as serving:  # fmt: skip
        yield serving


def variables(answer: Answer) -> dict[str, str]:
    assert answer.status == 200
    return dict(line.split("=", 1) for line in answer.text.splitlines())


def test_the_request_is_told_by_variables(server) -> None:
    """CGI/1.1: method, path (decoded), query (not), peer, names, headers; the operator's own."""
    headers = {
        "Host": "site.test:99",
        "User-Agent": "tests",
        "Content-Type": "text/x",
    }
    two = [("X-Two", "a"), ("X-Two", "b")]
    client = server.connection()
    client.putrequest("PUT", "/env?a=%20b&c", skip_host=True)
    for name, value in [*headers.items(), *two, ("Content-Length", "3")]:
        client.putheader(name, value)
    client.endheaders(b"abc")
    found = variables(Answer(client.getresponse()))
    client.close()
    host, port = server.address
    expected = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "PUT",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "site.test",
        "SERVER_PORT": str(port),
        "SCRIPT_NAME": "",
        "PATH_INFO": "/env",
        "QUERY_STRING": "a=%20b&c",
        "REMOTE_ADDR": host,
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "site.test:99",
        "HTTP_USER_AGENT": "tests",
        "HTTP_X_TWO": "a, b",
        "X_FULL_URL": "http://site.test:99/env?a=%20b&c",
        "X_MATCHED_ROUTE": "/...",
        "GREETING": "hello",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert len(found["HTTP_X_REQUEST_ID"]) == 16
    assert "PATH" not in found
    assert variables(server.get("/e%6Ev"))["X_RAW_PATH_INFO"] == "/e%6Ev"


def test_what_a_client_cannot_set(server) -> None:
    """No HTTP_PROXY (httpoxy), nothing by a name with an underscore, nothing of the operator's."""
    found = variables(
        server.ask("GET", "/env", headers={
            "Proxy": "http://evil.test", "X_Forwarded": "a", "Fixed": "theirs", "Connection": "x",
            "Te": "trailers",
        })
    )  # fmt: skip
    assert found["HTTP_FIXED"] == "ours"
    assert not {"HTTP_PROXY", "HTTP_X_FORWARDED", "HTTP_CONNECTION", "HTTP_TE"} & set(found)


def test_arguments_come_from_the_command_only(server) -> None:
    """Not from the query string, as RFC 3875, 4.4 would have it."""
    assert server.get("/args?-d+evil").text == "first\nsecond\n"


def test_each_request_has_a_fresh_worker(server) -> None:
    assert [server.get("/state").text for _ in range(3)] == ["1\n"] * 3


def test_answers_of_the_guest(server) -> None:
    """Status, Location, several cookies; the framing is not the guest's."""
    text = b"Status: 404 Not Here\r\nSet-Cookie: a=1\nSet-Cookie: b=2\nTransfer-Encoding: gzip\n\n"
    answer = server.ask("POST", "/raw", text + b"body")
    assert (answer.status, answer.body) == (404, b"body")
    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert answer.headers["Transfer-Encoding"] == "chunked"
    moved = server.ask("POST", "/raw", b"Location: /there\n\n")
    assert (moved.status, moved.headers["Location"]) == (302, "/there")
    empty = server.ask("POST", "/raw", b"Status: 204\n\nignored")
    assert (empty.status, empty.body) == (204, b"")
    assert server.get("/exit?3").text == "whole\n"


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"no header\n\n",
        b"Content-Type: text/plain\n",
        b"X: y\n\n",
        b"Content-Type: a\nX: a\x01b\n\n",
        b"Status: 99\n\n",
        b"Status: 101 Switching\n\n",
        b"Content-Length: -1\nContent-Type: a\n\n",
        b"Content-Type: a\n folded\n\n",
        b"X: " + b"y" * 70_000,
    ],
)
def test_what_is_no_answer(server, output: bytes) -> None:
    """It is a 502, and the client is not told more."""
    answer = server.ask("POST", "/raw", output)
    assert (answer.status, answer.body) == (502, PAGE[502])


@pytest.mark.parametrize("path", ["/trap", "/silent", "/grow?100000000"])
def test_a_run_that_fails_before_its_answer(server, path: str) -> None:
    """502, nothing of the reason to the client, the reason in the log."""
    answer = server.get(path)
    assert (answer.status, answer.body) == (502, PAGE[502])
    assert server.request_event(path)["reason"] == ("exit" if path == "/silent" else "trap")


@pytest.mark.parametrize("path", ["/trap-late", "/trap-sized"])
def test_a_run_that_fails_amid_its_answer(server, path: str) -> None:
    """The connection is cut: the client sees that something is missing."""
    with pytest.raises(http.client.IncompleteRead):
        server.get(path)
    with server.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        if path == "/trap-late":
            with pytest.raises(ConnectionResetError):
                drain(sock)
        else:
            assert drain(sock).endswith(b"half of")


def test_bodies_stream_both_ways(server) -> None:
    """What is sent comes back before the rest of it is sent."""
    with server.connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream = sock.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.readline()
        for word in (b"one", b"three"):
            sock.sendall(b"%x\r\n%b\r\n" % (len(word), word))
            assert stream.readline() == b"%x\r\n" % len(word)
            assert stream.readline() == word + b"\r\n"
        sock.sendall(b"0\r\nTrailer: x\r\n\r\n")
        assert stream.readline() == b"0\r\n"
        stream.close()


def test_an_answer_streams(server) -> None:
    """A first event comes while the guest still works on the next."""
    with server.connect() as sock:
        sock.sendall(b"GET /ticks?600000 HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while b"data: 1" not in got:
            got += sock.recv(4096)
        assert b"data: 2" not in got


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies(server, chunked: bool) -> None:
    """Megabytes come through whole, by length and in chunks."""
    body = os.urandom(1 << 20) * 5
    sent = iter([body[at : at + 70_001] for at in range(0, len(body), 70_001)]) if chunked else body
    assert server.ask("POST", "/echo", sent).body == body
    answer = server.get("/sized?3000000" if chunked else "/large?3000000")
    assert answer.body == b"x" * 3_000_000


def test_a_slow_reader_costs_the_others_nothing(server) -> None:
    """An answer that is not read is held back where it is made, not collected here."""
    status = Path(f"/proc/{server.process.pid}/status")

    def resident() -> int:
        return int(next(x for x in status.read_text().splitlines() if x[:6] == "VmRSS:").split()[1])

    before = resident()
    with server.connect() as slow:
        slow.sendall(b"GET /large?15000000 HTTP/1.0\r\n\r\n")
        for _ in range(5):
            assert server.get("/state").text == "1\n"
        assert resident() - before < 8 << 10
        assert len(drain(slow).partition(b"\r\n\r\n")[2]) == 15_000_000


def test_head_and_versions(server) -> None:
    """HEAD has no body; HTTP/1.0 is closed after, or kept by request, and gets no chunks."""
    with server.connect() as sock:
        sock.sendall(b"HEAD /sized?10 HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.sendall(b"GET /state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        first, _, rest = drain(sock).partition(b"\r\n\r\n")
        assert b"Content-Length: 10" in first
        assert rest.startswith(b"HTTP/1.1 200 OK")
    old = server.raw(b"GET /state HTTP/1.0\r\n\r\n")
    assert b"Transfer-Encoding" not in old
    assert old.endswith(b"\r\n\r\n1\n")
    with server.connect() as sock:
        for _ in range(2):
            sock.sendall(b"GET /sized?3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            got = b""
            while not got.endswith(b"xxx"):
                got += sock.recv(4096)


def test_requests_ahead_of_their_answers(server) -> None:
    """Pipelined requests are answered in their order, and an upgrade is not made."""
    one = b"GET /args HTTP/1.1\r\nHost: x\r\n\r\n" + REQUEST + b"Content-Length: 3\r\n\r\nabc"
    last = b"GET /state HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    got = server.raw(one * 5 + last)
    assert got.count(b"HTTP/1.1 200 OK") == 11
    assert got.count(b"abc") == 5
    assert got.rindex(b"abc") < got.index(b"\r\n1\n")


def test_expect(server) -> None:
    """100 Continue before the body is sent; another expectation is none."""
    with server.connect() as sock:
        sock.sendall(
            b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"\1\2")
        assert b"2 3\n" in sock.recv(1000)
    assert server.get("/count", Expect="tea").status == 417


SMUGGLED = b"GET /state HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /state\r\n\r\n", 505),
        (b"GET /state HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /state HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /state HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET state HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /state HTTP/3.0\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (REQUEST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (REQUEST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (REQUEST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (REQUEST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (REQUEST + b"Content-Length: +3\r\n\r\nabc", 400),
        (REQUEST + b"Content-Length : 3\r\n\r\nabc", 400),
        (REQUEST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (REQUEST + b"Transfer-Encoding: identity\r\n\r\n", 501),
        (REQUEST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (REQUEST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n", 400),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
        (REQUEST + b"X: a\rY: b\r\n\r\n", 400),
        (REQUEST + b"X: a\0b\r\n\r\n", 400),
        (REQUEST + b"X: a\r\n folded\r\n\r\n", 400),
        (REQUEST + b"X: " + b"y" * 100_000, 431),
        (REQUEST + b"X: y\r\n" * 200 + b"\r\n", 431),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 600_000, 431),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"t" * 600_000, 431),
        (b"GET /" + b"p" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (REQUEST + b"Content-Length: 99999999999\r\n\r\n", 413),
        (REQUEST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    ],
)
def test_bad_requests(server, data: bytes, status: int) -> None:
    """Each is refused, the connection closed, and what follows is never a request."""
    got = server.raw(data + SMUGGLED)
    statuses = [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [status], got
    assert b"Connection: close" in got


def test_a_chunked_body_over_the_limit(server) -> None:
    """Refused when it is over, not before; or cut off when the answer has begun."""

    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b"z" * (1 << 20)

    try:
        status = server.ask("POST", "/count?over", pieces()).status
    except (BrokenPipeError, ConnectionResetError):
        status = 413  # it is sent before the client has sent all, who may not read it
    assert status == 413
    assert server.request_event("/count?over")["status"] == 413


def test_stderr_goes_to_the_log(server) -> None:
    """With the request's id, bounded, no control characters."""
    assert server.get("/stderr").text == "said\n"
    request = server.request_event("/stderr")["request"]
    lines = [event["line"] for event in server.events("stderr") if event["request"] == request]
    assert lines[:2] == ["first line", "esc\\x1b[31mape"]
    assert lines[-1] == "(more is not logged)"
    assert sum(map(len, lines)) < 20_000


def test_the_line_of_a_request(server) -> None:
    """What people look for in an access log."""
    server.ask("POST", "/count?line", b"abc", {"User-Agent": "a\tb", "Referer": "http://r.test/"})
    event = server.request_event("/count?line")
    assert event.items() >= {
        "remote": server.address[0],
        "method": "POST",
        "status": 200,
        "received": 3,
        "reason": "exit",
        "exit": 0,
        "user_agent": "a\\x09b",
        "referer": "http://r.test/",
    }.items()  # fmt: skip


def test_a_client_that_leaves_takes_its_worker_along(server) -> None:
    """At once, and not when it would have ended; also with a body that nobody fetches."""
    until(lambda: len(server.workers()) == 1)  # the one that is forked ahead
    for tail in (b"\r\n", b"Content-Length: 9000000\r\n\r\n" + b"x" * 200_000):
        with server.connect() as sock:
            sock.sendall(b"POST /sleep?600000 HTTP/1.1\r\nHost: x\r\n" + tail)
            until(lambda: len(server.workers()) == 2)
        until(lambda: len(server.workers()) == 1)
    assert server.request_event("/sleep?600000")["status"] == 499


def test_nothing_is_left_of_requests(wasisup, cgi) -> None:
    """Descriptors and children are as before: after answers, failures and clients that left."""
    with Serving(wasisup, cgi) as server:
        # The zygote, and the worker that is forked ahead, which the server knows of.
        until(lambda: server.held()["anon_inode:[pidfd]"] == 2 and len(server.workers()) == 1)
        before = server.held()
        for path in ("/state", "/trap", "/trap-late", "/silent", "/stderr", "/sized?100"):
            sock = server.connect()
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            sock.recv(10)
            sock.close()
        server.ask("POST", "/count", b"x" * 200_000)
        server.raw(b"nonsense\r\n\r\n")
        # The copy of the compiled module is kept open from the first run on.
        until(lambda: not (server.held() - before) and len(server.workers()) == 1)


def test_limits_of_time(wasisup, cgi) -> None:
    """504 for a guest that takes too long, on the clock or on the processor."""
    with Serving(wasisup, "--timeout", "500ms", "--cpu-time", "100ms", cgi) as server:
        for path, reason in (("/sleep?600000", "timeout"), ("/spin", "cpu_time")):
            answer = server.get(path)
            assert (answer.status, answer.body) == (504, PAGE[504])
            assert server.request_event(path)["reason"] == reason
        # A client that does not send what it promised: its own fault.
        got = server.raw(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nxyz")
        assert got.startswith(b"HTTP/1.1 408 ")


def test_as_many_at_once_as_allowed(wasisup, cgi) -> None:
    """One works, one waits, the next is told to come again; a slow small body holds no place."""
    options = ("--concurrency", "1", "--queue", "1", "--timeout", "1h")
    with Serving(wasisup, *options, cgi) as server:
        with server.connect() as slow:
            slow.sendall(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
            assert server.get("/state").status == 200
            slow.sendall(b"cd")
            assert slow.recv(12) == b"HTTP/1.1 200"
        with server.connect() as busy, ThreadPoolExecutor(1) as pool:
            busy.sendall(b"GET /ticks?600000 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert busy.recv(12) == b"HTTP/1.1 200"
            second = server.connect()
            second.sendall(b"GET /state HTTP/1.1\r\nHost: x\r\n\r\n")
            # Whoever comes now is turned away, once the second has its place in the queue.
            until(lambda: pool.submit(server.get, "/args").result().status == 503)
            full = server.get("/args")
            assert (full.status, full.headers["Retry-After"]) == (503, "1")
            body = server.ask("POST", "/count", b"x", {"Expect": "100-continue"})
            assert body.status == 503
            busy.close()
            assert second.recv(12) == b"HTTP/1.1 200"
            second.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping(wasisup, cgi, number: int) -> None:
    """What is being answered is finished; nobody new is taken; then it ends with 0."""
    with Serving(wasisup, cgi) as server, server.connect() as idle, server.connect() as busy:
        idle.sendall(b"GET /state HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        busy.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x")
        assert busy.recv(12) == b"HTTP/1.1 200"
        server.process.send_signal(number)
        drain(idle)  # closed, as it has nothing to do
        with pytest.raises(ConnectionRefusedError):
            until(lambda: server.connect().close() is not None)
        busy.sendall(b"#" * 99_999)
        assert drain(busy).count(b"#") == 99_999
        idle.close()
        busy.close()
        assert server.process.wait(PATIENCE) == 0


def test_stopping_has_an_end(wasisup, cgi) -> None:
    """What is not done by then is killed; a second signal does not wait at all."""
    for grace, signals in (("100ms", 1), ("1h", 2)):
        with Serving(wasisup, "--grace", grace, cgi) as server, server.connect() as busy:
            assert server.get("/state").text == "1\n"
            until(lambda server=server: len(server.workers()) == 1)
            busy.sendall(b"GET /sleep?600000 HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda server=server: len(server.workers()) == 2)
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                until(lambda server=server: bool(server.events("stopping")))
            assert drain(busy).startswith(b"HTTP/1.1 503 ")
            busy.close()
            assert server.process.wait(PATIENCE) == 0


def test_a_killed_server_leaves_nothing(wasisup, cgi) -> None:
    """Nor does SIGKILL: its workers and its zygote end with it."""
    with Serving(wasisup, cgi) as server, server.connect() as busy:
        busy.sendall(b"GET /ticks?600000 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert busy.recv(12) == b"HTTP/1.1 200"
        family = all_pidfds(server.process.pid)
        assert len(family) >= 3
        server.process.kill()
        server.process.wait()
        assert wait_gone(family, PATIENCE) == set()


def test_many_at_once(server) -> None:
    """More clients than places: every request is answered, by a worker of its own."""

    def ask(_: int) -> str:
        return server.get("/state").text

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(ask, range(300))) == ["1\n"] * 300


def test_a_unix_socket(wasisup, cgi, room) -> None:
    """unix:PATH: there while it serves, gone after; TCP beside it."""
    os.chmod(room, 0o777)  # so that it can be removed by whoever the server has become
    path = room / "web.sock"
    with Serving(wasisup, "--listen", f"unix:{path}", "--listen", "127.0.0.1:0", cgi) as server:
        found = variables(server.get("/env"))
        assert (found["SERVER_NAME"], found["REMOTE_ADDR"]) == ("localhost", "")
        second = server.process.stdout.readline().decode()
        port = int(second.rpartition(":")[2])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        client.request("GET", "/state")
        assert client.getresponse().read() == b"1\n"
        client.close()
    assert not path.exists()


def test_an_inherited_socket(wasisup, cgi) -> None:
    """LISTEN_FDS: the service manager's socket is served, and --listen is not needed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # LISTEN_PID is the server's own, which a shell that becomes it knows.
        become = f'LISTEN_PID=$$ exec "$@" 3<&{listener.fileno()}'
        done = subprocess.Popen(
            ["/bin/bash", "-c", become, "bash", *wasisup.argv("serve", "--log", "json", cgi)],
            env={**wasisup.env, "LISTEN_FDS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(listener.fileno(),),
        )
        port = listener.getsockname()[1]
        assert done.stdout.readline().decode().endswith(f"http://127.0.0.1:{port}\n")
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        client.request("GET", "/state")
        assert client.getresponse().read() == b"1\n"
        client.close()
        done.terminate()
        assert done.wait(PATIENCE) == 0
        done.stdout.close()


def test_directories(wasisup, cgi, room) -> None:
    """Granted as for `run`; without the grant there is nothing."""
    os.chmod(room, 0o777)
    with Serving(wasisup, "--dir", f"{room}::/data", cgi) as server:
        assert server.get("/write").text == "written\n"
        assert (room / "file").read_text() == "written\n"


def test_root_becomes_somebody_else(wasisup, cgi) -> None:
    """Before it serves; nothing of root is left in it, its zygote and its workers."""
    if os.getuid() != 0:
        pytest.skip("for root")
    for option, uid in ((), "65534"), (("--user", "1234:2345"), "1234"), (("--user", "root"), "0"):
        with Serving(wasisup, *option, cgi) as server:
            assert server.get("/state").text == "1\n"
            for pid in (server.process.pid, *server.workers()):
                status = Path(f"/proc/{pid}/status").read_text()
                fields = dict(line.split(":\t", 1) for line in status.splitlines())
                assert fields["Uid"].split() == [uid] * 4
                # Those of a worker that sets itself up are of its own user namespace.
                if uid != "0" and pid == server.process.pid:
                    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
                    assert fields["NoNewPrivs"] == "1"


@pytest.fixture
def readable(cgi, room) -> Path:
    """The same where an ordinary user can read it."""
    copy = room / "cgi.wasm"
    shutil.copyfile(cgi, copy)
    copy.chmod(0o644)
    return copy


def test_an_ordinary_user(as_user, readable) -> None:
    """Serves as itself; a port of root's is refused in words, and so is another user."""
    with Serving(as_user, readable) as server:
        assert server.get("/state").text == "1\n"
    refused = as_user("serve", "--listen", "127.0.0.1:0", "--user", "root", readable)
    assert refused.status == 2
    assert "only root can become somebody else" in refused.errors


def test_a_lost_zygote_is_replaced(wasisup, cgi) -> None:
    """The next request is answered."""
    with Serving(wasisup, cgi) as server:
        server.errors_expected = True
        for _ in range(3):
            # What the zygote has just forked looks like it for a moment.
            until(lambda: len(children(server.process.pid)) - len(server.workers()) == 1)
            zygote = min(set(children(server.process.pid)) - set(server.workers()))
            os.kill(zygote, signal.SIGKILL)
            assert server.get("/state").text == "1\n"


def test_a_pruned_cache(as_user, wasisup, readable) -> None:
    """`wasisup cache prune` meanwhile: compiled again, and answered."""
    with Serving(as_user, readable) as server:
        assert server.get("/state").text == "1\n"
        as_user("cache", "prune", "--max-size", "0").ok()
        answer = server.ask("POST", "/echo", b"z" * 50_000)
        assert answer.body == b"z" * 50_000


def test_what_cannot_be_served(wasisup, cgi, tmp_path) -> None:
    """Each with words, before anything listens."""
    component = tmp_path / "proxy.wasm"
    name = b"wasi:http/incoming-handler@0.2.0"
    section = b"\x01\x00" + bytes([len(name)]) + name + b"\x05\x00\x00"
    component.write_bytes(b"\0asm\x0d\0\x01\0" + bytes([11, len(section)]) + section)
    for args, status, words in (
        ((component,), 126, "a wasi:http/proxy component; they cannot be served"),
        ((tmp_path / "none.wasm",), 127, "no such module"),
        (("--listen", "nonsense", cgi), 2, "is not an address"),
        (("--listen", "::1:80", cgi), 2, "goes in brackets"),
        (("--listen", "192.0.2.1:1", cgi), 125, "no such address"),
        (("--concurrency", "0", cgi), 2, "--concurrency"),
        (("--dir", tmp_path / "none", cgi), 2, "there is no directory"),
        (("--policy", "service", "--env", "A", "--user", "nobody-knows", cgi), 2, "no user"),
    ):
        result = wasisup("serve", "--listen", "127.0.0.1:0", *args)
        assert (result.status, words in result.errors) == (status, True), result.errors


def test_the_readmes_page(wasisup, tmp_path) -> None:
    """What the README shows works as it stands there."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    block = text.split("$ cat > page.wat <<'END'\n")[1].split("\n    END\n")[0]
    module = tmp_path / "page.wat"
    module.write_text(block)
    with Serving(wasisup, module) as server:
        answer = server.get("/")
        assert (answer.status, answer.text) == (200, "hello, web\n")
        assert answer.headers["Content-Type"] == "text/plain"
