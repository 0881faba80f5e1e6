"""Listening sockets handed to a guest: it may accept, and nothing else of the network is there."""

from __future__ import annotations

import socket

import pytest

from support.preview1 import tree


def free_port(family=socket.AF_INET, host="127.0.0.1") -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "flag", ["--tcplisten=127.0.0.1", "--tcplisten=localhost", "--net=listen:tcp:127.0.0.1"]
)
def test_serving_a_connection(wasisup, guests, flag):
    """A guest waits for a connection on its listener, reads, answers and shuts down."""
    port = free_port()
    with wasisup.popen("run", f"{flag}:{port}", guests.c("preview1/sockets"), "serve") as process:
        lines = []
        while not lines or lines[-1] != "listening":
            line = process.stdout.readline().decode()
            assert line, process.stderr.read()
            lines.append(line.rstrip())
        with socket.create_connection(("127.0.0.1", port), 10) as peer:
            peer.sendall(b"hello, socket")
            peer.shutdown(socket.SHUT_WR)
            answer = b""
            while part := peer.recv(100):
                answer += part
        rest = process.stdout.read().decode().splitlines()
        assert process.wait(30) == 0
    assert answer == b"HELLO, SOCKETbye\n"
    assert lines == [
        "fdstat of the listener: SUCCESS type 6",
        "set_flags nonblock: SUCCESS",
        "accept, nobody there: AGAIN",
        "set_flags none: SUCCESS",
        "listening",
    ]
    assert rest[:3] == [
        "poll: SUCCESS 1",
        "accept: SUCCESS",
        "fdstat of the connection: SUCCESS type 6",
    ]
    assert rest[-5:] == [
        "recv at the end: SUCCESS 0",
        "fd_write: SUCCESS 4",
        "shutdown nothing: INVAL",
        "shutdown: SUCCESS",
        "close: SUCCESS",
    ]


def test_a_port_that_is_taken(wasisup, guests):
    """A port that somebody else has is a set-up error that names it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = wasisup.run(f"--tcplisten=127.0.0.1:{port}", guests.c("hello"))
    assert result.status == 125
    assert str(port) in result.errors
    assert result.out == b""


def test_the_port_is_free_afterwards(wasisup, guests):
    """The listener goes with the run."""
    port = free_port()
    for _ in range(2):
        wasisup.run(f"--tcplisten=127.0.0.1:{port}", guests.c("hello")).ok()


def test_a_listener_and_a_directory(wasisup, guests, room):
    """Directories keep their places: the grant is descriptor 3, the listener comes after."""
    inside = tree(room)
    result = wasisup.run(
        f"--dir={inside}::.", f"--tcplisten=127.0.0.1:{free_port()}",
        guests.c("preview1/descriptors"), "preopens",
    ).ok()  # fmt: skip
    assert result.text.splitlines()[0] == "prestat 3: SUCCESS tag 0 len 1"


def test_timeout_while_waiting_for_a_connection(wasisup, guests):
    """A guest that waits for a peer ends at its timeout."""
    result = wasisup.run(
        "--timeout=300ms", f"--tcplisten=127.0.0.1:{free_port()}",
        guests.c("preview1/sockets"), "serve",
    )  # fmt: skip
    assert (result.status, result.report["reason"]) == (124, "timeout")
