"""Readiness, redirection, many vectors and several preopens: what programs do with descriptors."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def streams(guests):
    return guests.c("preview1/streams")


@pytest.fixture
def places(room):
    """Two directories of one file system."""
    for name in ("a", "b"):
        (room / name).mkdir()
    return room, [f"--dir={room}/a::a", f"--dir={room}/b::b"]


def test_more_vectors_than_the_kernel_takes(wasisup, streams, room):
    """A call with more vectors than IOV_MAX moves what it can; its caller goes on from there."""
    result = wasisup.run(f"--dir={room}::.", streams, "vectors").ok()
    assert result.text == (
        "written 2000\nread 2000 ends 0123456789\nzero-length vector: SUCCESS 0\n"
    )


def test_stdout_can_be_redirected_by_the_guest(wasisup, streams, room):
    """fd_renumber onto 1 sends what follows into the file, and that is no output any more."""
    result = wasisup.run("--output=20", f"--dir={room}::.", streams, "redirect").ok()
    assert (result.out, result.err) == (b"before\n", b"moved\n")
    assert (room / "redirected").read_text() == "after\n"
    assert result.report["usage"]["output"] == 13


def test_poll_on_stdin(wasisup, streams):
    """Input that is there is ready, and so is its end."""
    result = wasisup.run(streams, "poll-stdin", stdin=b"abc").ok()
    assert [line.split(" hangup")[0] for line in result.text.splitlines()] == [
        "data: SUCCESS 1",
        "  1 SUCCESS type 1",
        "3 bytes",
        "end: SUCCESS 1",
        "  1 SUCCESS type 1",
    ]


def test_waiting_for_stdin(wasisup, streams):
    """An empty pipe is not ready, a non-blocking read of it is EAGAIN, and later data wakes up."""
    reader, writer = os.pipe()
    with wasisup.popen("run", streams, "patience", stdin=reader) as process:
        assert [process.stdout.readline() for _ in range(6)] == [
            b"nothing yet: SUCCESS 1\n",
            b"  2 SUCCESS type 0 hangup 0\n",
            b"set_flags nonblock: SUCCESS\n",
            b"read, non-blocking: AGAIN\n",
            b"set_flags none: SUCCESS\n",
            b"empty\n",
        ]
        assert os.get_blocking(reader), "the caller's pipe keeps its flags"
        os.write(writer, b"late")
        assert process.stdout.read().splitlines() == [
            b"data: SUCCESS 1",
            b"  1 SUCCESS type 1 hangup 0",
            b"read: SUCCESS 4 [late]",
        ]
        assert process.wait(30) == 0
    os.close(reader)
    os.close(writer)


def test_two_grants_are_two_file_systems(wasisup, streams, places):
    """Between two grants rename and link are EXDEV (each is a mount), and symlinks lead nowhere."""
    room, grants = places
    result = wasisup.run(*grants, streams, "two-places").ok()
    assert result.text.splitlines() == [
        "rename across: XDEV",
        "stat there: NOENT",
        "link across: XDEV",
        "symlink there: SUCCESS",
        "open through it: PERM",
        "renumber a preopen: SUCCESS",
        "stat soft in 3: SUCCESS type 7",
    ]
    assert sorted(p.name for p in (room / "b").iterdir()) == ["soft"]


def test_flags_and_rights_of_an_open(wasisup, streams, room):
    """Flags given to path_open are kept and told; a descriptor does what its rights say."""
    result = wasisup.run(f"--dir={room}::.", streams, "flags").ok()
    assert result.text.splitlines() == [
        "open with flags 0: SUCCESS 0",
        "open with flags 1: SUCCESS 1",
        "open with flags 4: SUCCESS 4",
        "open with flags 2: SUCCESS 2",
        "open with flags 8: SUCCESS 8",
        "open with flags 16: SUCCESS 16",
        "open with flags 5: SUCCESS 5",
        "open with rights 0: SUCCESS",
        "  reads 0 writes 0",
        "open with rights 2: SUCCESS",
        "  reads 1 writes 0",
        "open with rights 64: SUCCESS",
        "  reads 0 writes 1",
        "open with rights 66: SUCCESS",
        "  reads 1 writes 1",
    ]


def test_many_runs_at_once(wasisup, guests, room):
    """Twenty runs side by side do not see each other."""
    import concurrent.futures

    def one(number: int) -> bytes:
        folder = room / str(number)
        folder.mkdir()
        (folder / "foo.txt").write_text(str(number))
        wasisup.run(f"--dir={folder}::.", guests.c("copy"), "foo.txt", "bar.txt").ok()
        return (folder / "bar.txt").read_bytes()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(20))) == [str(n).encode() for n in range(20)]
