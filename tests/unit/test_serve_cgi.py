"""CGI/1.1 as text: variables of a request, the head of an answer, and its framing."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasisup.supervisor.serve import cgi
from wasisup.supervisor.serve.messages import Framing, Refused, Request, head

PLACE = cgi.Place("127.0.0.1", 8080)


def variables(target: str = "/", headers=(("host", "x"),), **more) -> dict[str, str]:
    given_ = {
        "method": "GET",
        "version": "1.1",
        "remote": "192.0.2.1",
        "remote_port": 1,
        "place": PLACE,
        "software": "wasisup/1",
        "length": None,
        **more,
    }
    return cgi.variables(target=target, headers=headers, **given_)


def test_paths() -> None:
    """PATH_INFO is decoded, the query is not, a fragment is nobody's; UTF-8 or not."""
    found = variables("/a%2Fb%20c?d=%20#e")
    assert found["PATH_INFO"] == "/a/b c"
    assert found["QUERY_STRING"] == "d=%20"
    assert found["X_RAW_PATH_INFO"] == "/a%2Fb%20c"
    assert variables("/%C3%A9")["PATH_INFO"] == "/é"
    assert variables("/%FF")["PATH_INFO"].encode("utf-8", "surrogateescape") == b"/\xff"
    assert variables("/100%")["PATH_INFO"] == "/100%"


def test_an_absolute_target_names_the_host() -> None:
    """RFC 9112, 3.2.2: it wins over the Host header."""
    found = variables("http://other.test:1/p?q")
    assert (found["PATH_INFO"], found["QUERY_STRING"]) == ("/p", "q")
    assert (found["HTTP_HOST"], found["SERVER_NAME"]) == ("other.test:1", "other.test")
    assert variables("http://other.test?q")["PATH_INFO"] == "/"
    assert variables("http://other.test?q")["QUERY_STRING"] == "q"


@pytest.mark.parametrize("target", ["*", "x", "ftp://a/", "/%00", "/a b", "/\x7f", "/é", ""])
def test_bad_targets(target: str) -> None:
    with pytest.raises(cgi.BadTarget):
        variables(target)


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "[::1", "a:b", "a:123456", "a\tb"])
def test_bad_hosts(host: str) -> None:
    with pytest.raises(cgi.BadTarget):
        variables(headers=[("host", host)])


def test_hosts() -> None:
    """Name and port; the port that the client believes in does not count but on a Unix socket."""
    assert variables(headers=[("host", "[::1]:9")])["SERVER_NAME"] == "[::1]"
    assert variables(headers=[("host", "a:9")])["SERVER_PORT"] == "8080"
    unix = cgi.Place("localhost", 0)
    assert variables(headers=[("host", "a:9")], place=unix)["SERVER_PORT"] == "9"
    assert variables(headers=[], place=unix)["SERVER_NAME"] == "localhost"


def test_headers_that_come_twice() -> None:
    """Lists are joined by commas, cookies by semicolons."""
    accents = variables(headers=[("a", "\xc3\xa9"), ("a", "\xff")])["HTTP_A"]
    assert accents.encode("utf-8", "surrogateescape") == b"\xc3\xa9, \xff"
    found = variables(headers=[("a", "1"), ("a", "2"), ("cookie", "b=1"), ("cookie", "c=2")])
    assert (found["HTTP_A"], found["HTTP_COOKIE"]) == ("1, 2", "b=1; c=2")


HEADER_NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
HEADER_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12)


@given(
    st.lists(st.tuples(HEADER_NAMES.map(str.lower) | st.just("proxy"), HEADER_VALUES), max_size=8)
)
def test_no_header_becomes_another_variable(headers) -> None:
    """Whatever comes: only HTTP_ names are the client's, never HTTP_PROXY; all can be passed."""
    fixed = set(variables(headers=[]))
    headers = [(name, value) for name, value in headers if name != "host"]
    found = variables(headers=headers)
    assert "HTTP_PROXY" not in found
    assert all(re.fullmatch("HTTP_[A-Z0-9_]+", name) for name in set(found) - fixed - {
        "CONTENT_TYPE"})  # fmt: skip
    for name, value in found.items():
        assert "\0" not in f"{name}={value}"
        f"{name}={value}".encode("utf-8", "surrogateescape")


ANSWER = b"Status: 201 Made\r\nContent-Type: text/plain\nX-A: b\r\n\r\nbody\n\nmore"


@given(st.lists(st.integers(0, len(ANSWER)), max_size=6))
def test_a_head_in_pieces(cuts: list[int]) -> None:
    """The same head and the same body, however the output was cut."""
    parser, body, found = cgi.HeadParser(), b"", None
    places = [0, *sorted(cuts), len(ANSWER)]
    for start, end in pairwise(places):
        if found is None:
            found = parser.feed(ANSWER[start:end])
            if found is not None:
                body = found[1]
        else:
            body += ANSWER[start:end]
    assert found is not None
    assert (found[0].status, found[0].reason, body) == (201, b"Made", b"body\n\nmore")
    assert found[0].headers == [(b"Content-Type", b"text/plain"), (b"X-A", b"b")]


@given(st.binary(max_size=200))
def test_any_output(output: bytes) -> None:
    """A head, the wait for more, or BadOutput; what is passed on cannot split an answer."""
    try:
        found = cgi.HeadParser().feed(output)
    except cgi.BadOutput:
        return
    if found is not None:
        for name, value in found[0].headers:
            assert b"\n" not in name + value
            assert b"\r" not in name + value
            assert b":" not in name
        assert 200 <= found[0].status <= 599
        assert b"\n" not in found[0].reason


@pytest.mark.parametrize(
    "output",
    [
        b"\n",
        b"Content-Type: a\nContent-Type: b\n\n",
        b"Content-Type : a\n\n",
        b"Status: 1000\n\n",
        b"Status: 200\x07\n\n",
        b"Status: 600\n\n",
        b"Status: 200\nContent-Length: 1\nContent-Length: 1\n\n",
        b"Status: 200\nContent-Length: 1_0\n\n",
        b"Status: 200\nX: a\rInjected: b\n\n",
        b"X: y\n" * 300 + b"\n",
        b"x" * (cgi.MAX_HEAD_BYTES + 1),
    ],
)
def test_bad_heads(output: bytes) -> None:
    with pytest.raises(cgi.BadOutput):
        cgi.HeadParser().feed(output)


def test_defaults_of_the_status() -> None:
    """200 with a type, 302 with a place, and what the guest says."""
    for text, status in ((b"Content-Type: a", 200), (b"Location: /", 302)):
        found = cgi.HeadParser().feed(text + b"\n\n")
        assert found is not None
        assert found[0].status == status


def request(method: str = "GET", version: str = "1.1") -> Request:
    return Request(method, "/", version, [("host", "x")], keep_alive=True)


def test_framing() -> None:
    """By length when there is one, by chunks for HTTP/1.1, by the end for HTTP/1.0."""
    sized = Framing.of(request(), 200, 5)
    assert (sized.part(b"abc"), sized.missing) == (b"abc", True)
    assert (sized.part(b"defgh"), sized.missing, sized.end()) == (b"de", False, b"")
    chunked = Framing.of(request(), 200, None)
    assert chunked.part(b"abc") + chunked.part(b"") + chunked.end() == b"3\r\nabc\r\n0\r\n\r\n"
    old = Framing.of(request(version="1.0"), 200, None)
    assert old.closes
    assert old.part(b"abc") + old.end() == b"abc"
    for mute in (Framing.of(request("HEAD"), 200, 5), Framing.of(request(), 304, None)):
        assert (mute.part(b"abc"), mute.end(), mute.missing, mute.closes) == (
            b"",
            b"",
            False,
            False,
        )


def test_a_head_has_a_date_once() -> None:
    """The server's, unless the guest has its own."""
    framing = Framing.of(request(), 200, 0)
    own = head(200, b"", [(b"date", b"now")], framing, keep=True, version="1.1")
    assert own.lower().count(b"date:") == 1
    made = head(299, b"", [], framing, keep=False, version="1.1")
    assert made.startswith(b"HTTP/1.1 299 Unknown\r\nDate: ")
    assert made.endswith(b"Connection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("2.0", [("host", "x")], 505),
        ("1.1", [], 400),
        ("1.1", [("host", "x"), ("content-length", "1"), ("transfer-encoding", "chunked")], 400),
        ("1.0", [("transfer-encoding", "chunked")], 400),
        ("1.1", [("host", "x"), ("transfer-encoding", "chunked")] * 2, 400),
        ("1.1", [("host", "x"), ("expect", "x")], 417),
    ],
)
def test_requests_that_the_parser_would_let_through(version, headers, status: int) -> None:
    with pytest.raises(Refused) as refused:
        Request("GET", "/", version, headers, keep_alive=True)
    assert refused.value.status == status
