"""Requests that are none: each gets its answer or a closed connection, and costs nobody."""

from __future__ import annotations

import select

import pytest

from support.api import connect, talk

HOST = b"host: x\r\n"
GET = b"GET /v1/healthz HTTP/1.1\r\n" + HOST
POST = b"POST /v1/runs HTTP/1.1\r\n" + HOST
SIGNAL = b"POST /v1/runs/0/signal HTTP/1.1\r\n" + HOST
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
LENGTH = b"content-length: 2\r\n"
END = b"\r\n"


def length(text: str, body: bytes = b"") -> bytes:
    return b"content-length: " + text.encode() + b"\r\n\r\n" + body


BAD = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\xfc\x03", 400),
    "text": (b"hello\r\n\r\n", 400),
    "version 9.9": (b"GET /v1/healthz HTTP/9.9\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "unknown method": (b"FROB /v1/runs HTTP/1.1\r\n\r\n", 400),
    "lower-case method": (b"get /v1/runs HTTP/1.1\r\n\r\n", 400),
    "line ends in LF": (b"GET /v1/healthz HTTP/1.1\n\n", 400),
    "space before the colon": (GET + b"a : b\r\n\r\n", 400),
    "folded header": (GET + b"a: b\r\n c\r\n\r\n", 400),
    "no colon": (GET + b"abc\r\n\r\n", 400),
    "NUL in the target": (b"GET /v1/\0 HTTP/1.1\r\n\r\n", 400),
    "NUL in a header": (GET + b"a: b\0c\r\n\r\n", 400),
    "NUL in a header's name": (GET + b"a\0: b\r\n\r\n", 400),
    "NULs": (b"\0" * 1000, 400),
    "truncated line": (b"GET /v1/heal", 400),
    "truncated headers": (GET, 400),
    "truncated header": (GET + b"abc", 400),
    "truncated body": (POST + length("100", b"{"), 400),
    "truncated chunk": (POST + CHUNKED + b"10\r\nabc", 400),
    "no last chunk": (POST + CHUNKED + b"2\r\n{}\r\n", 400),
    "length too short": (POST + length("1", b"{}"), 400),
    "length negative": (POST + length("-1"), 400),
    "length signed": (POST + length("+2", b"{}"), 400),
    "length hexadecimal": (POST + length("0x2", b"{}"), 400),
    "length in words": (POST + length("two", b"{}"), 400),
    "length empty": (POST + length("", b"{}"), 400),
    "length twice": (POST + LENGTH + length("2", b"{}"), 400),
    "two lengths": (POST + b"content-length: 3\r\n" + length("2", b"{}"), 400),
    "list of lengths": (POST + length("2, 2", b"{}"), 400),
    "length of 23 digits": (POST + length("9" * 23), 400),
    "length of 5,000 digits": (POST + length("9" * 5000), 400),
    "length too large": (POST + length(str(1 << 40)), 413),
    "length too large for a signal": (SIGNAL + length("4097"), 413),
    "length and chunked": (POST + LENGTH + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 400),
    "gzip": (POST + b"transfer-encoding: gzip\r\n\r\n", 400),
    "chunked, then gzip": (POST + b"transfer-encoding: chunked, gzip\r\n\r\n", 400),
    "chunk of no size": (POST + CHUNKED + b"\r\n{}\r\n0\r\n\r\n", 400),
    "chunk of no number": (POST + CHUNKED + b"xyz\r\n{}\r\n0\r\n\r\n", 400),
    "chunk of a negative size": (POST + CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", 400),
    "chunk of 17 digits": (POST + CHUNKED + b"f" * 17 + b"\r\n{}\r\n", 400),
    "chunk longer than said": (POST + CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", 400),
    "chunks too large": (SIGNAL + CHUNKED + b"1001\r\n" + b"x" * 0x1001 + b"\r\n0\r\n\r\n", 413),
    "long target": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
    "large header": (GET + b"a: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    "large header name": (GET + b"x" * 40_000 + b": a\r\n\r\n", 431),
    "101 headers": (GET + b"".join(b"a%d: b\r\n" % at for at in range(101)) + END, 431),
    "10,000 headers": (GET + b"".join(b"a%d: b\r\n" % at for at in range(10_000)) + END, 431),
    "10,000 equal headers": (GET + b"a: b\r\n" * 10_000 + END, 431),
    "upgrade": (GET + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:1 HTTP/1.1\r\n\r\n", 400),
    "large body of a GET": (GET + length("5000", b"x" * 5000), 413),
}  # fmt: skip
ENDLESS = {
    "target": (b"GET /", b"a" * 1000, 414),
    "header": (GET + b"a: ", b"x" * 1000, 431),
    "header's name": (GET, b"x" * 1000, 431),
    "headers": (GET, b"a: b\r\n" * 100, 431),
    "trailer": (SIGNAL + CHUNKED + b"0\r\na: ", b"x" * 1000, 431),
    "trailers": (SIGNAL + CHUNKED + b"0\r\n", b"a: b\r\n" * 100, 431),
    "chunk extension": (SIGNAL + CHUNKED + b"1;a=", b"x" * 1000, 431),
    "chunks": (SIGNAL + CHUNKED, b"1\r\nx\r\n" * 100, 413),
}


@pytest.fixture
def raw(daemon, api):
    """A connection to say anything over; afterwards the daemon still answers."""
    with connect(daemon.socket) as sock:
        yield sock
    assert api.get("/v1/healthz")["status"] == "ok"


@pytest.mark.parametrize("name", BAD)
def test_bad(raw, name):
    """One answer, an error that fits, and the connection is closed."""
    data, status = BAD[name]
    answers = talk(raw, data)
    # What is left over of a request is an error of its own.
    answer = answers[-1] if name == "length too short" else answers[0]
    assert len(answers) == 1 + (name == "length too short")
    answer.refused(status)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("name", ENDLESS)
def test_endless(raw, name):
    """What has no end is refused when it is too much, however slowly its end does not come."""
    start, more, status = ENDLESS[name]
    raw.sendall(start)
    poll = select.poll()
    poll.register(raw, select.POLLIN)
    sent = 0
    while not poll.poll(0):
        raw.sendall(more)
        sent += len(more)
        assert sent < 4 << 20
    (answer,) = talk(raw, b"", hang_up=False)
    answer.refused(status)


@pytest.mark.parametrize("name", ["target", "header", "trailer"])
def test_endless_in_small_pieces(raw, name):
    """The daemon's answer is there as soon as the bound is passed."""
    start, more, status = ENDLESS[name]
    (answer,) = talk(raw, start + more * 400, hang_up=False)
    answer.refused(status)


def test_nothing(raw):
    """A connection without a request is closed without a word."""
    assert talk(raw, b"") == []


@pytest.mark.parametrize("cut", range(0, 160, 7))
def test_cut_anywhere(raw, api, cut):
    """A request that is cut off at any byte is an error; whole, it is answered."""
    body = b'{"module": {"digest": "' + b"0" * 64 + b'"}}'
    whole = POST + length(str(len(body)), body)
    answers = talk(raw, whole[:cut] if cut < len(whole) else whole)
    expected = [] if cut == 0 else [400] if cut < len(whole) else [404]
    assert [answer.status for answer in answers] == expected


@pytest.mark.parametrize("cut", range(1, 150, 13))
def test_in_pieces(raw, cut):
    """A request may come in any pieces."""
    body = b'{"module": {"digest": "' + b"0" * 64 + b'"}}'
    whole = POST + length(str(len(body)), body)
    raw.sendall(whole[:cut])
    (answer,) = talk(raw, whole[cut:])
    assert answer.refused(404)["code"] == "module_not_found"


def test_half_closed(raw):
    """Who says that nothing more comes still gets the answer."""
    (answer,) = talk(raw, GET + END)
    assert answer.json["status"] == "ok"


@pytest.mark.parametrize("data", [b"", GET, POST + length("100", b"{")])
def test_gone_without_a_word(daemon, api, data):
    """A client that just goes away, at any point."""
    for _ in range(20):
        with connect(daemon.socket) as sock:
            sock.sendall(data)
    assert api.get("/v1/healthz")["status"] == "ok"


def test_lines_before_a_request(raw):
    """Empty lines before a request are overlooked (RFC 9112, 2.2)."""
    (answer,) = talk(raw, b"\r\n\r\n" + GET + END)
    assert answer.status == 200


def test_old_http(raw, api):
    """HTTP/1.0: no chunks, and the connection ends with the answer."""
    run = api.run("stdio", "both")["id"]
    target = f"/v1/runs/{run}/logs?stream=stdout".encode()
    (answer,) = talk(raw, b"GET " + target + b" HTTP/1.0\r\n\r\n", hang_up=False)
    assert answer.body == b"out\n"
    assert "transfer-encoding" not in answer.headers


def test_expect(raw):
    """Who waits to be told to go on is told so, and not when it is of no use."""
    body = b'{"module": {"digest": "' + b"0" * 64 + b'"}}'
    raw.sendall(POST + b"expect: 100-continue\r\n" + length(str(len(body))))
    assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    (answer,) = talk(raw, body)
    answer.refused(404)


def test_expect_of_what_is_too_large(raw):
    """It is refused at once."""
    (answer,) = talk(raw, POST + b"expect: 100-continue\r\n" + length(str(1 << 40)), hang_up=False)
    answer.refused(413)
