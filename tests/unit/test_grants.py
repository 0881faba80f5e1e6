"""Opening what a run is granted."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasisup.supervisor import grants
from wasisup.supervisor.errors import SetupError, UsageError
from wasisup.supervisor.model import DirGrant, ListenGrant, Quotas, RunRequest, TmpfsGrant


@pytest.fixture
def held() -> Iterator[grants.Descriptors]:
    with grants.Descriptors() as made:
        yield made


def directory(held: grants.Descriptors, path: Path | str) -> int:
    return held.own(grants.open_directory(DirGrant(str(path), "/")))


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    """Missing, a file, or a name with a NUL: the flag and the reason are named."""
    (tmp_path / "file").write_text("")
    for path, words in (
        (str(tmp_path / "gone"), "no such file"),
        (str(tmp_path / "file"), "not a directory"),
        ("nul\0", "embedded null"),
    ):
        with pytest.raises(SetupError, match=words) as caught:
            grants.open_directory(DirGrant(path, "/"))
        assert caught.value.message.startswith("--dir ")


def test_guest_names_are_unique() -> None:
    """The guest finds its directories by name."""
    grants.check_names(RunRequest(module="m", dirs=[DirGrant(".", "/a"), DirGrant(".", "/b")]))
    for request in (
        RunRequest(module="m", dirs=[DirGrant(".", "/a"), DirGrant("..", "/a/")]),
        RunRequest(module="m", dirs=[DirGrant(".", "/a")], tmpfs=[TmpfsGrant("/a", 1)]),
    ):
        with pytest.raises(UsageError, match="twice"):
            grants.check_names(request)
    with pytest.raises(UsageError, match="name"):
        grants.check_names(RunRequest(module="m", dirs=[DirGrant(".", "")]))


def test_room_for_what_is_granted() -> None:
    """Every grant takes a descriptor; how many are needed is said."""
    dirs = [DirGrant(".", "/a"), DirGrant(".", "/b")]
    grants.check_names(RunRequest(module="m", dirs=dirs, quotas=Quotas(fds=5)))
    for fds, listens in ((4, []), (5, [ListenGrant("::1", 80)])):
        request = RunRequest(module="m", dirs=dirs, listens=listens, quotas=Quotas(fds=fds))
        with pytest.raises(UsageError, match=rf"--fds: {fds} .* takes {5 + len(listens)}"):
            grants.check_names(request)


def test_listening(held: grants.Descriptors) -> None:
    """The socket listens already; a taken port is an error that names the flag."""
    listener = grants.open_listener(ListenGrant("127.0.0.1", 0))
    fd = held.own_socket(listener)
    assert not os.get_inheritable(fd)
    # wasi/ waits by itself; a connection that goes away before accept must not hold it.
    assert not os.get_blocking(fd)
    port = listener.getsockname()[1]
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(SetupError, match=f"--tcplisten 127.0.0.1:{port}"):
        grants.open_listener(ListenGrant("127.0.0.1", port))
    with pytest.raises(SetupError, match=r"--tcplisten no\.such\.host\.invalid:1"):
        grants.open_listener(ListenGrant("no.such.host.invalid", 1))


def test_closed_stdio_is_closed() -> None:
    """A closed number comes out as None."""
    fd = os.dup(0)
    os.close(fd)
    assert grants.open_stdio((1, fd, 2)) == [1, None, 2]


def test_everything_held_is_closed() -> None:
    """At the end of the `with`, whatever happened in it."""
    with pytest.raises(RuntimeError), grants.Descriptors() as held:
        fd = directory(held, "/")
        connection = held.own_socket(grants.open_listener(ListenGrant("127.0.0.1", 0)))
        raise RuntimeError
    assert grants.open_stdio((fd, connection)) == [None, None]
