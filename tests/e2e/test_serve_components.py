"""`wasisup serve` with components: CGI programs as modules are, and a network that --net grants.

The guest is guests/components/c/network.c as a CGI program: stdio and variables through the preview
1 adapter, wasi:sockets by itself.
"""

from __future__ import annotations

import http.client
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.network import upper_tcp, witnesses
from support.processes import all_pidfds, children, wait_gone
from support.serving import PATIENCE, Serving, drain, until

# What an exchange and its broker may have open (supervisor/serve/server.py), and the connection.
DESCRIPTORS = 10 + 5 + 1


@pytest.fixture(scope="module")
def guest(guests) -> Path:
    return guests.made_by("c")


@pytest.fixture(scope="module")
def server(wasisup, guest) -> Iterator[Serving]:
    """Without a network."""
    with Serving(wasisup, "--env", "GREETING=hello", guest, "cgi") as serving:
        yield serving


# --- a component as a CGI program ---


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_a_component_answers(wasisup, guest, engine) -> None:
    """It has the request by variables and stdin, the operator's own variables, and its stdout is
    the answer; each request has a fresh worker."""
    options = ("--engine", engine, "--env", "GREETING=hello")
    with Serving(wasisup, *options, guest, "cgi") as server:
        for body in (b"one", b"three" * 20_000):
            answer = server.ask("POST", "/echo?a%20b", body)
            said = f"POST a%20b {len(body)} hello\n".encode()
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain")
            assert answer.body == said + body.upper()
        assert server.get("/echo?x").text == "GET x  hello\n"
        assert server.get("/none").status == 404
        assert server.request_event("/none")["reason"] == "exit"


def test_a_component_that_traps(server) -> None:
    """Before its answer it is a 502 that tells nothing; what it said on stderr, and why it ended,
    are in the log."""
    answer = server.get("/trap?early")
    assert (answer.status, answer.body) == (502, b"502 Bad Gateway\n")
    event = server.request_event("/trap?early")
    assert (event["reason"], event["exit"], event["status"]) == ("trap", 134, 502)
    assert "unreachable" in event["message"]
    said = [one["line"] for one in server.events("stderr") if one["request"] == event["request"]]
    assert said == ["trapping early"]


def test_a_component_that_traps_amid_its_answer(server) -> None:
    """The connection is cut: the client sees that something is missing."""
    with pytest.raises(http.client.IncompleteRead) as cut:
        server.get("/trap?late")
    assert cut.value.partial in {b"", b"half of it\n"}
    assert server.request_event("/trap?late")["reason"] == "trap"


def test_without_a_grant(server) -> None:
    """A served component has no network, and the log says what it asked for."""
    with witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        target = f"/try?{other.address}"
        assert server.get(target).text == f"{other.address} access-denied\n"
        assert not other.heard
    assert server.request_event(target)["denied"] == [f"network {other.address}"]


# --- with a network ---


def brokers(server: Serving) -> list[int]:
    """The brokers of runs that are under way."""
    found = []
    for pid in children(server.process.pid):
        try:
            if Path(f"/proc/{pid}/comm").read_text() == "wasisup-broker\n":
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def rest(server: Serving) -> bool:
    """Whether nothing is under way: two zygotes, and a worker that is forked ahead.

    The server knows of that one a moment after it is there.
    """
    held = server.held()
    known = held["anon_inode:[pidfd]"]
    return held["children"] == known == 3 and len(server.workers()) == 1


def test_each_request_has_its_own_network(wasisup, guest) -> None:
    """Each reaches the address that was granted, many at once too, and no other; what one was
    refused is in its line of the log, as the value of --net that would have allowed it."""
    with upper_tcp() as port, witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        granted = f"tcp:127.0.0.1:{port}"
        with Serving(wasisup, "--net", granted, guest, "cgi") as server:

            def ask(number: int) -> str:
                return server.ask("POST", f"/ask?{granted}", f"words {number}").text

            connected = f"connected to 127.0.0.1:{port}\n"
            with ThreadPoolExecutor(16) as pool:
                answers = [*pool.map(ask, range(48))]
            assert answers == [f"{connected}WORDS {number}\n" for number in range(48)]
            assert "denied" not in server.request_event(f"/ask?{granted}")
            for address in (other.address, "tcp:192.0.2.1:80", f"listen:tcp:127.0.0.1:{port}"):
                assert server.get(f"/try?{address}").text == f"{address} access-denied\n"
                assert server.request_event(f"/try?{address}")["denied"] == [f"network {address}"]
            until(lambda: rest(server))
        assert not other.heard


def test_names_of_a_served_component(wasisup, guest) -> None:
    """A granted name is known to it, another is not, and is a denial."""
    with upper_tcp() as port, Serving(
        wasisup, "--net", f"tcp:localhost:{port}", guest, "cgi"
    ) as server:  # fmt: skip
        assert server.get("/try?name:localhost").text.endswith(" ok\n")
        assert server.get(f"/try?tcp:127.0.0.1:{port}").text.endswith(" ok\n")
        assert not server.get("/try?name:other.invalid").text.endswith(" ok\n")
        assert server.request_event("/try?name:other.invalid")["denied"] == ["name other.invalid"]


@contextmanager
def talking(server: Serving, listener: socket.socket) -> Iterator[socket.socket]:
    """A client of a request whose guest has connected to `listener`, and waits."""
    with server.connect() as client:
        address = "tcp:{}:{}".format(*listener.getsockname())
        client.sendall(f"GET /drain?{address} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection, _ = listener.accept()
        with connection:
            assert client.recv(12) == b"HTTP/1.1 200"
            yield client


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(PATIENCE)
        yield made


def test_nothing_is_left_of_networks(wasisup, guest, listener) -> None:
    """A client that leaves takes its worker and its broker along; descriptors and children are as
    before, and during a request no more than the server reckons with."""
    address = "tcp:{}:{}".format(*listener.getsockname())
    with Serving(wasisup, "--net", "host", guest, "cgi") as server:
        assert server.get(f"/try?{address}").text == f"{address} ok\n"  # opens what stays open
        listener.accept()[0].close()
        until(lambda: rest(server))
        before = server.held()
        for _ in range(3):
            with talking(server, listener) as client:
                assert len(brokers(server)) == 1
                more = server.held() - before
                more.pop("children")
                assert more.total() <= DESCRIPTORS
                client.close()
                until(lambda: rest(server))
        assert server.request_event(f"/drain?{address}")["why"] == "the client has gone"
        assert server.get("/trap?x").status == 502
        # In the middle of a launch: before there is a broker, and after.
        for at in range(40):
            with server.connect() as client:
                client.sendall(f"GET /drain?{address} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                until(lambda at=at: at % 2 == 0 or bool(brokers(server)))
        until(lambda: rest(server) and not server.held() - before)


def test_a_timeout_takes_the_broker_along(wasisup, guest, listener) -> None:
    """The run's end is its network's end."""
    net = "tcp:{}:{}".format(*listener.getsockname())
    with Serving(wasisup, "--timeout", "2s", "--net", net, guest, "cgi") as server:
        with talking(server, listener) as client:
            try:
                assert b"\r\n0\r\n" not in drain(client)
            except ConnectionResetError:
                pass  # cut off, as half of an answer is
            until(lambda: rest(server))
        assert server.request_event(f"/drain?{net}")["reason"] == "timeout"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_leaves_no_broker(wasisup, guest, listener, number) -> None:
    """In good order or killed: no process of it is left."""
    net = "tcp:{}:{}".format(*listener.getsockname())
    with Serving(wasisup, "--grace", "100ms", "--net", net, guest, "cgi") as server:
        with talking(server, listener):
            assert len(brokers(server)) == 1
            family = all_pidfds(server.process.pid)
            assert len(family) >= 5
            server.process.send_signal(number)
            status = server.process.wait(PATIENCE)
            assert wait_gone(family, PATIENCE) == set()
        assert status == (0 if number == signal.SIGTERM else -number)


def test_networks_that_cannot_be(wasisup, guest, guests) -> None:
    """Each with words, before anything is served: a name that nobody has, and a socket that a
    module would be handed."""
    cgi = guests.c("serve/cgi")
    for args, status, words in (
        (("--net", "tcp:nobody.invalid:80", guest, "cgi"), 125, "nobody.invalid"),
        (("--net", "listen:tcp:127.0.0.1:8080", cgi), 2, "the modules it serves do not"),
        (("--tcplisten", "127.0.0.1:8080", guest), 2, "--tcplisten"),
    ):
        result = wasisup("serve", "--listen", "127.0.0.1:0", *args)
        assert (result.status, words in result.errors) == (status, True), result.errors
        assert "serving" not in result.text


def test_a_module_cannot_use_a_network(wasisup, guests) -> None:
    """It is served all the same, with a warning, and without a broker."""
    with Serving(wasisup, "--net", "tcp:127.0.0.1:80", guests.c("serve/cgi")) as server:
        assert server.get("/state").text == "1\n"
        words = "a module of WASI preview 1 cannot use --net: only components connect"
        (warning,) = server.events(words)
        assert warning["net"] == ["tcp:127.0.0.1:80"]
        until(lambda: len(children(server.process.pid)) == 2)


def test_an_ordinary_users_network(as_user, guest) -> None:
    """Without any privilege it is the same."""
    with upper_tcp() as port:
        granted = f"tcp:127.0.0.1:{port}"
        with Serving(as_user, "--net", granted, guest, "cgi") as server:
            assert server.ask("POST", f"/ask?{granted}", "words").text.endswith("\nWORDS\n")
