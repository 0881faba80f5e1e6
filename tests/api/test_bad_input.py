"""Requests that are HTTP and make no sense: 4xx with words, and never anything else."""

from __future__ import annotations

import base64
import json

import pytest

from support.api import connect, talk

UNKNOWN = {"digest": "0" * 64}  # a module that nobody has: whatever is accepted ends in 404
NUL = base64.b64encode(b"a\0b").decode()


@pytest.fixture(autouse=True)
def still_well(api):
    """Afterwards the daemon still answers, and nothing runs."""
    yield
    assert api.get("/v1/healthz")["status"] == "ok"
    assert api.get("/v1/stats")["stats"] == []


NOT_JSON = [
    b"",
    b" ",
    b"{",
    b'{"module"',
    b'{"module": {}} x',
    b'{"module": {}}{}',
    b"{'module': 1}",
    b"{module: 1}",
    b"NaN",
    b'{"umask": NaN}',
    b'{"umask": Infinity}',
    b'{"umask": 0x10}',
    b'{"umask": 01}',
    b'{"labels": {"a": "\xff"}}',
    b'{"labels": {"a": "\xc0\x80"}}',
    b'{"labels": {"a": "\xed\xa0\x80"}}',
    b'{"labels": {"a": "\\ud800"}}',
    b'{"labels": {"a": "\\x"}}',
    b'{"labels": {"a": "\n"}}',
    b'\xef\xbb\xbf{"module": {}}',
    b"\0",
    '{"module": {}}'.encode("utf-16"),
]


@pytest.mark.parametrize("body", NOT_JSON)
def test_not_json(api, body):
    """What is no JSON is told as that."""
    headers = {"content-type": "application/json"}
    error = api.ask("POST", "/v1/runs", body, headers=headers).refused(400, "JSON")
    assert error["code"] == "invalid_request"


DEEP = 100_000
NOT_A_REQUEST = [
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"{}",
    b"[" * DEEP,
    b'{"module":' * DEEP,
    b'{"x":' * DEEP + b"1" + b"}" * DEEP,
    b'{"args": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"labels": {"a": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
    b'{"module": null}',
    b'{"module": {}, "module": 1}',
]


@pytest.mark.parametrize("body", NOT_A_REQUEST, ids=range(len(NOT_A_REQUEST)))
def test_not_a_request(api, body):
    """JSON that is not a run's is refused with where it is wrong; depth is no danger."""
    headers = {"content-type": "application/json"}
    answer = api.ask("POST", "/v1/runs", body, headers=headers)
    assert answer.error["code"] in ("invalid", "invalid_request")


def test_a_key_twice(api):
    """Of a key that is there twice the last counts, as everywhere."""
    body = b'{"module": {"path": "/a"}, "module": {"path": "/b"}}'
    api.ask("POST", "/v1/runs", body, headers={"content-type": ""}).refused(404, "/b")


VALUES = [
    None, True, 0, 1, -1, 2**63, 2**64, 10**30, 10**400, -(10**400), 0.0, -0.0, 1.5, -1.5, 1e300,
    5e-324, "", "x", "\0", "none", "-1", "1e400", "9" * 50, "9" * 64, "nan", "inf", "\u202e",
    [], {}, [[]], [None], [{}], {"": ""}, {"x": None}, {"base64": "!"}, {"base64": "AA"},
    {"fd": 0}, {"fd": -1}, {"fd": 128}, {"path": "relative", "guest": "x"},
]  # fmt: skip
FIELDS = [
    "module", "args", "argv0", "env", "policy", "dirs", "tmpfs", "listens", "net", "quotas",
    "engine", "invoke", "clock_resolution", "allow_missing", "stdin", "stdout", "stderr", "umask",
    "labels", "wait", "attach", "unknown",
]  # fmt: skip
QUOTAS = ["memory", "cpu_time", "timeout", "fds", "file_size", "output", "fuel", "cpus"]


def refused(answer) -> None:
    """An error of the caller's, or none but that there is no such module."""
    assert answer.error["code"] != "internal"
    assert answer.status in (400, 403, 404, 422), answer.body


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_values(api, field):
    """Any value in any field: an answer, and never 5xx."""
    for value in VALUES:
        refused(api.ask("POST", "/v1/runs", {"module": UNKNOWN, field: value}))
        for within in ([value], {"a": value}, [{"guest": "x", "path": value}], {"fd": value}):
            refused(api.ask("POST", "/v1/runs", {"module": UNKNOWN, field: within}))


@pytest.mark.parametrize("quota", QUOTAS)
def test_wrong_quotas(api, quota):
    """Any value for any quota."""
    for value in VALUES:
        refused(api.ask("POST", "/v1/runs", {"module": UNKNOWN, "quotas": {quota: value}}))


@pytest.mark.parametrize("field", ["path", "digest", "base64", "fd", "name"])
def test_wrong_modules(api, field):
    """Any value for any way to name a module, alone or beside another."""
    for value in VALUES:
        refused(api.ask("POST", "/v1/runs", {"module": {field: value}}))
        refused(api.ask("POST", "/v1/runs", {"module": {**UNKNOWN, field: value}}))


WITH_NUL = [
    {"args": ["a\0b"]},
    {"args": [{"base64": NUL}]},
    {"argv0": "a\0b"},
    {"env": {"A\0": "1"}},
    {"env": {"A": "1\0"}},
    {"env": {"A": {"base64": NUL}}},
    {"env": {"": "1"}},
    {"env": {"A=B": "1"}},
    {"policy": "default\0"},
    {"policy": "../default"},
    {"policy": "/etc/passwd"},
    {"policy": "default.toml"},
    {"dirs": [{"path": "/tmp\0", "guest": "/d"}]},
    {"dirs": [{"path": "/tmp", "guest": "/d\0"}]},
    {"dirs": [{"path": "/tmp", "guest": "/d", "host": "\0", "fd": 0}]},
    {"dirs": [{"path": "tmp", "guest": "/d"}]},
    {"dirs": [{"guest": "/d"}]},
    {"tmpfs": [{"guest": "/t\0"}]},
    {"tmpfs": [{"guest": "/t", "size": "1\0"}]},
    {"tmpfs": [{"guest": "/t", "size": 0}]},
    {"tmpfs": [{"guest": "/t"}, {"guest": "/t/"}]},
    {"net": ["tcp:a\0:80"]},
    {"net": ["http://example.org"]},
    {"net": ["tcp:example.org"]},
    {"net": ["tcp:10.0.0.1/8:80"]},
    {"net": ["listen:tcp:example.org:80"]},
    {"net": [""]},
    {"net": "host"},
    {"invoke": "f\0"},
    {"labels": {"a": "\0"}},
    {"labels": {"\0": "a"}},
    {"stdin": {"base64": "", "open": True}},
    {"wait": True, "attach": True},
    {"umask": 0o1000},
    {"module": {"path": "/x\0"}},
    {"module": {"path": "x.wasm"}},
    {"module": {**UNKNOWN, "path": "/x"}},
    {"module": {"digest": "A" * 64}},
]


@pytest.mark.parametrize("fields", WITH_NUL, ids=json.dumps)
def test_no_sense(api, fields):
    """A run that would be one but for this is refused, and is in no record."""
    before = api.get("/v1/runs?limit=1")["runs"]
    error = api.ask("POST", "/v1/runs", api.request("hello", **fields)).refused(422)
    assert error["code"] == "invalid"
    assert api.get("/v1/runs?limit=1")["runs"] == before


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"args": ["x"] * 4097}, 422),
        ({"args": ["x" * (600 << 10)] * 2}, 413),
        ({"args": ["\U0001d11e" * (300 << 10)]}, 413),
        ({"env": {"A": "x" * (2 << 20)}}, 413),
        ({"env": {f"A{at}": "" for at in range(4097)}}, 422),
        ({"dirs": [{"path": "/", "guest": f"/{at}"} for at in range(65)]}, 422),
        ({"net": ["tcp:x:80"] * 257}, 422),
        ({"net": ["tcp:" + "x" * 600 + ":80"]}, 422),
        ({"labels": {f"a{at}": "" for at in range(33)}}, 422),
        ({"labels": {"a": "x" * 257}}, 422),
        ({"labels": {"a" * 65: ""}}, 422),
        ({"module": {"path": "/" + "x" * 4096}}, 422),
        ({"module": {"path": "/x" * 2000 + "/" * 95 + "y"}}, (404, 422)),
        ({"stdin": "x" * (17 << 20)}, 413),
    ],
    ids=range(14),
)
def test_too_much(api, fields, status):
    """Every size has a bound."""
    answer = api.ask("POST", "/v1/runs", api.request("hello", **fields))
    assert answer.error
    assert answer.status in (status if isinstance(status, tuple) else (status,)), answer.body


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "image/png"])
@pytest.mark.parametrize("target", ["/v1/runs", "/v1/modules", "/v1/runs/0/stdin"])
def test_media_types(api, kind, target):
    """A body of another kind than the operation takes."""
    answer = api.ask("POST", target, b"{}", headers={"content-type": kind})
    assert answer.refused(415, kind.partition(";")[0])["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/runs?limit=0", 422), ("/v1/runs?limit=-1", 422), ("/v1/runs?limit=1001", 422),
        ("/v1/runs?limit=x", 422), ("/v1/runs?limit=1.5", 422), ("/v1/runs?limit=", 422),
        ("/v1/runs?limit=1e400", 422), ("/v1/runs?limit=" + "9" * 5000, 422),
        ("/v1/runs?limit=1&limit=2", 422), ("/v1/runs?state=dead", 422), ("/v1/runs?x=1", 422),
        ("/v1/runs?label=%FF", 400), ("/v1/runs?label", 400), ("/v1/runs?&&&", 400),
        ("/v1/runs?=1", 422), ("/v1/runs?" + "label=a&" * 16 + "label=a", 422),
        ("/v1/runs?" + "label=a&" * 99 + "label=a", 400), ("/v1/runs?before=" + "0" * 17, 422),
        ("/v1/events?limit=0", 422), ("/v1/events?timeout=nan", 422),
        ("/v1/events?timeout=-1", 422), ("/v1/events?timeout=inf", 422),
        ("/v1/events?timeout=1e400", 422), ("/v1/runs/0/wait?timeout=nan", 422),
        ("/v1/runs/0/logs?follow=maybe", 422), ("/v1/runs/0/logs?stream=stdin", 422),
        ("/v1/runs/0/logs?stream=", 422), ("/v1/healthz?x=1", 422), ("/metrics?x=1", 422),
        ("/v1/info?", 200), ("/v1/runs?before=0000000000000000&label=%00", 200),
    ],
)  # fmt: skip
def test_queries(api, target, status):
    """A query that is none, or that the operation does not take."""
    answer = api.ask("GET", target)
    assert answer.status == status, answer.body
    assert status == 200 or answer.error


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404), ("GET", "//", 404), ("GET", "/v1", 404), ("GET", "/v1/", 404),
        ("GET", "/v2/runs", 404), ("GET", "/v1/runs/", 404), ("GET", "/v1/runs//", 404),
        ("GET", "/v1/runs/0/", 404), ("GET", "/v1/runs/0/x", 404), ("GET", "/v1/runs/0/0/0", 404),
        ("GET", "/v1/runs/..", 404), ("GET", "/v1/runs/%00", 404), ("GET", "/v1/runs/%2e", 404),
        ("GET", "/v1/runs/0%2flogs", 404), ("GET", "/v1/modules/../runs", 404),
        ("GET", "/v1/modules/x", 404), ("GET", "/v1/healthz/", 404), ("GET", "/metrics/", 404),
        ("GET", "*", 404), ("OPTIONS", "*", 404), ("PUT", "/v1/runs", 405),
        ("PATCH", "/v1/runs/0", 405), ("DELETE", "/v1/runs", 405), ("POST", "/v1/healthz", 405),
        ("GET", "/v1/runs/0/signal", 405), ("GET", "/v1/runs/0/stdin", 405),
        ("OPTIONS", "/v1/runs", 405), ("TRACE", "/v1/runs", 405), ("POST", "/metrics", 405),
    ],
)  # fmt: skip
def test_paths_and_methods(api, method, target, status):
    """What there is not, and what is not done there."""
    answer = api.ask(method, target)
    answer.refused(status)
    assert ("allow" in answer.headers) == (status == 405)


def test_an_absolute_target(daemon, api):
    """As a proxy sends it (RFC 9112, 3.2.2: a server must accept it)."""
    with connect(daemon.socket) as sock:
        (answer,) = talk(sock, b"GET http://localhost/v1/healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.status == 200


@pytest.mark.parametrize("signal", ["USR1", "SIGKILL", "kill", 9, None, ["KILL"], ""])
def test_signals(api, signal):
    """Only the listed ones."""
    run = api.run("hello")["id"]
    api.ask("POST", f"/v1/runs/{run}/signal", {"signal": signal}).refused(422, "signal")
