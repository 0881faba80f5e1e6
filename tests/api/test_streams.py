"""stdin, stdout and stderr: kept by the daemon, or the caller's own descriptors."""

from __future__ import annotations

import base64

import pytest


@pytest.mark.parametrize(
    ("stdin", "text"),
    [
        (None, ""),
        ("", ""),
        ("text é\n", "text é\n"),
        ({"base64": base64.b64encode(b"bytes").decode()}, "bytes"),
        ({"base64": ""}, ""),
    ],
)
def test_stdin_in_the_request(api, stdin, text):
    """Nothing, text, or bytes."""
    assert api.run("stdio", "cat", stdin=stdin)["stdout"] == text


def test_large_stdin(api):
    """More than a pipe holds."""
    text = "0123456789abcdef" * (64 << 10)
    assert api.run("stdio", "cat", stdin=text)["stdout"] == text


def test_stdin_by_descriptor(api, pipe):
    """The guest reads from the caller's pipe, to its end."""
    reader, writer = pipe()
    writer.write(b"from the pipe")
    writer.close()
    assert (
        api.run("stdio", "cat", stdin={"fd": 0}, fds=[reader.fileno()])["stdout"] == "from the pipe"
    )


def test_open_stdin(api):
    """What is posted arrives, in order, and the end of it when it is closed."""
    run = api.start("stdio", "cat", stdin={"open": True})
    for part in (b"one ", b"", b"two ", b"x" * 100_000):
        api.write(run, part).ok(204)
    api.write(run, b" three", close=True).ok(204)
    assert api.wait(run)["outcome"]["status"] == 0
    assert api.logs(run) == b"one two " + b"x" * 100_000 + b" three"


def test_stdin_that_is_not_open(api):
    """Writing to a stdin that is closed, or never was open, is a conflict; so is one that ended."""
    run = api.start("stdio", "block")
    api.write(run, b"x").refused(409, "not open")
    api.wait(run)
    api.write(run, b"x").refused(409, "has ended")
    run = api.start("stdio", "block", stdin={"open": True})
    api.ready(run)
    api.write(run, b"", close=True).ok(204)
    assert api.wait(run)["outcome"]["exit_code"] == 0
    api.write(run, b"x").refused(409)


def test_stdin_of_a_guest_that_does_not_read(api):
    """A write that waits for the guest ends with the run."""
    run = api.start("stdio", "sleep", "60000", stdin={"open": True})
    api.ready(run)
    with api.connection() as other:
        other.request("POST", f"/v1/runs/{run}/stdin", b"x" * (1 << 20))
        # Answers of one connection come in order; on this one the write is under way or to come.
        api.kill(run)
        response = other.getresponse()
        assert response.status == 409
        response.read()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_by_descriptor(api, pipe, stream):
    """The guest writes straight into the caller's pipe; the other stream is kept."""
    reader, writer = pipe()
    run = api.run("stdio", "both", **{stream: {"fd": 0}}, fds=[writer.fileno()])
    writer.close()
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    assert stream not in run
    assert run[other] == {"stdout": "out\n", "stderr": "err\n"}[other]
    # To its end: neither the daemon nor a worker holds the pipe any more.
    assert reader.readall() == {"stdout": b"out\n", "stderr": b"err\n"}[stream]


def test_all_streams_by_descriptor(api, pipe):
    """Three descriptors, in any order; nothing is kept."""
    stdin, out = pipe(), pipe()
    stdin[1].write(b"text")
    stdin[1].close()
    fds = [out[1].fileno(), stdin[0].fileno()]
    streams = {"stdin": {"fd": 1}, "stdout": {"fd": 0}, "stderr": {"fd": 0}}
    run = api.run("stdio", "cat", **streams, fds=fds)
    out[1].close()
    assert {"stdout", "stderr"}.isdisjoint(run)
    assert out[0].readall() == b"text"
    assert api.logs(run["id"]) == b""


def test_nobody_reads(api, pipe):
    """A pipe that nobody reads fails the guest's write, and not the daemon."""
    reader, writer = pipe()
    reader.close()
    run = api.run("stdio", "pour", "10", stdout={"fd": 0}, fds=[writer.fileno()])
    assert run["outcome"]["reason"] in ("exit", "killed")
    assert run["outcome"]["status"] != 0


def test_text_and_bytes(api):
    """Output that is not UTF-8 comes as base64."""
    run = api.run("stdio", "cat", stdin={"base64": base64.b64encode(b"\xff\0").decode()})
    assert "stdout" not in run
    assert base64.b64decode(run["stdout_base64"]) == b"\xff\0"
    run = api.run("stdio", "cat", stdin="\0")
    assert run["stdout"] == "\0"


def test_one_way_of_stdin(api):
    """Two ways at once are refused."""
    for stdin in ({"open": True, "base64": ""}, {"fd": 0, "open": True}):
        body = api.request("stdio", "cat", stdin=stdin)
        api.ask("POST", "/v1/runs", body).refused(422, "stdin")
