"""Opening what a run is granted, and finding one directory inside another."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasisup.supervisor import grants
from wasisup.supervisor.errors import SetupError, UsageError
from wasisup.supervisor.model import DirGrant, ListenGrant, RunRequest, TmpfsGrant


@pytest.fixture
def held() -> Iterator[grants.Descriptors]:
    with grants.Descriptors() as made:
        yield made


def directory(held: grants.Descriptors, path: Path | str) -> int:
    return held.own(grants.open_directory(DirGrant(str(path), "/")))


def test_paths_below(tmp_path: Path, held: grants.Descriptors) -> None:
    """Relative to whatever was granted, also through a symlink, and nothing for a stranger."""
    inner = tmp_path / "a" / "b c" / "d"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    deep = directory(held, inner)
    assert grants.path_below(directory(held, tmp_path / "a"), deep) == b"b c/d"
    assert grants.path_below(directory(held, tmp_path / "link"), deep) == b"b c/d"
    assert grants.path_below(directory(held, inner), deep) == b""
    assert grants.path_below(deep, directory(held, tmp_path)) is None
    assert grants.path_below(directory(held, "/proc"), deep) is None
    whole = grants.path_below(directory(held, "/"), deep)
    assert whole == os.fsencode(os.path.realpath(inner))[1:]


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


def test_listening(held: grants.Descriptors) -> None:
    """The socket listens already; a taken port is an error that names the flag."""
    listener = grants.open_listener(ListenGrant("127.0.0.1", 0))
    fd = held.own_socket(listener)
    assert not os.get_inheritable(fd)
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
