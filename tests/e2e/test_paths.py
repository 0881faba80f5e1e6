"""Paths and names: what can be reached, what cannot, and names that are only bytes."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from support.command import Command
from support.needs import unavailable
from support.preview1 import snapshot, tree


@pytest.fixture
def paths(guests):
    return guests.c("preview1/paths")


@pytest.fixture
def readdir(guests):
    return guests.c("preview1/readdir")


def lines(result) -> dict[str, str]:
    """The guest's observations by name."""
    return dict(line.split(": ", 1) for line in result.ok().text.splitlines() if ": " in line)


ESCAPES = [
    "..",
    "../",
    "../outside",
    "dir/../../outside",
    "/",
    "/file",
    "/etc/passwd",
    "//file",
    "./..",
    "out",
    "abs",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_leaves_its_preopen_is_eperm(wasisup, paths, room, path):
    """Going up, being absolute and symlinks that lead out are EPERM (63), never another file."""
    seen = lines(wasisup.run(f"--dir={tree(room)}::.", paths, "opens"))
    assert seen[f"open [{path}] follow 1 oflags 0"] == "PERM"


def test_an_escape_is_reported(wasisup, paths, room):
    """The report counts the attempts to leave, with the path as the guest wrote it."""
    result = wasisup.run(f"--dir={tree(room)}::.", paths, "unlinks").ok()
    escapes = {d["path"]: d for d in result.report["denials"] if d["kind"] == "escape"}
    assert "../outside" in escapes
    assert escapes["../outside"]["errno"] == 63


def test_symlinks_made_by_the_guest_lead_nowhere(wasisup, paths, room):
    """A guest may make `..` symlinks, but not follow them out; absolute ones it may not make."""
    seen = lines(wasisup.run(f"--dir={tree(room)}::.", paths, "symlinks"))
    assert seen["symlink [/etc/passwd] [s4]"] == "PERM"
    assert seen["open [s3] follow 1 oflags 0"] == "PERM"
    assert seen["open [s8/file] follow 1 oflags 0"] == "PERM"
    assert not os.path.lexists(room / "t" / "s4")


@pytest.mark.parametrize(
    "case", ["creates", "directories", "unlinks", "renames", "links", "symlinks", "times"]
)
def test_nothing_beside_the_preopen_changes(wasisup, paths, room, case):
    """Whatever a guest tries with paths, its preopen's neighbours stay as they were."""
    inside = tree(room)
    before = snapshot(room / "outside")
    wasisup.run(f"--dir={inside}::.", paths, case).ok()
    assert snapshot(room / "outside") == before
    assert sorted(p.name for p in room.iterdir()) == ["outside", "t"]


@pytest.mark.parametrize("case", ["creates", "directories", "unlinks", "renames", "links", "times"])
def test_nothing_changes_below_a_read_only_preopen(wasisup, paths, room, case):
    """Below a ::ro grant no function changes anything, not even a time stamp."""
    inside = tree(room)
    before = snapshot(inside), os.stat(inside / "file").st_mtime_ns
    wasisup.run(f"--dir={inside}::.::ro", paths, case).ok()
    assert (snapshot(inside), os.stat(inside / "file").st_mtime_ns) == before


def test_read_only_answers_erofs(wasisup, paths, room):
    """Below a ::ro grant a change is refused with EROFS."""
    seen = lines(wasisup.run(f"--dir={tree(room)}::.::ro", paths, "directories"))
    assert seen["mkdir [d1]"] == "ROFS"
    assert seen["rmdir [dir]"] in ("ROFS", "NOTEMPTY")


NAMES = [b"\xff\xfe", b"caf\xe9", b"new\nline", b"\x01", b"sp ace", "\u96ea".encode()]


def test_names_that_are_not_utf8(wasisup, readdir, room):
    """Names are bytes: what is no UTF-8 is listed as it is, and opens."""
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(room), name))).write_bytes(name)
    result = wasisup.run(f"--dir={room}::.", readdir, "raw-names").ok()
    for name in NAMES:
        start = result.text.index(name.hex() + "\n")
        assert result.text[start:].splitlines()[1:3] == [
            f"stat: SUCCESS size {len(name)}",
            "open: SUCCESS",
        ]


def test_a_directory_that_is_not_utf8_is_granted(wasisup, guests, room):
    """A grant whose host path is not UTF-8 works."""
    odd = os.path.join(os.fsencode(room), b"d\xffr")
    os.mkdir(odd)
    Path(os.fsdecode(odd), "foo.txt").write_text("x")
    wasisup.run(f"--dir={os.fsdecode(odd)}::/d", guests.c("copy"), "/d/foo.txt", "/d/bar.txt").ok()
    assert os.path.exists(os.path.join(odd, b"bar.txt"))


def test_arguments_that_are_not_utf8(wasisup, guests, room):
    """An argument's bytes reach the guest unchanged."""
    (room / "foo.txt").write_text("x")
    name = os.fsdecode(b"b\xffr")
    wasisup.run(f"--dir={room}::.", guests.c("copy"), "foo.txt", name).ok()
    assert (room / name).exists()


def test_readdir_while_names_change(wasisup, readdir, room):
    """Names that stay are seen exactly once while others come and go."""
    result = wasisup.run(f"--dir={room}::.", readdir, "changing").ok()
    assert result.text == "seen wrongly: 0\n"


def test_a_fifo_in_the_tree_does_not_hang_the_open(wasisup, guests, room):
    """Opening a FIFO without its other end fails or waits only as long as the run may last."""
    os.mkfifo(room / "pipe")
    result = wasisup.run("--timeout=2s", f"--dir={room}::.", guests.c("copy"), "pipe", "x")
    assert result.status in (1, 124)


def test_a_socket_in_the_tree_cannot_be_opened(wasisup, guests, room):
    """A Unix socket in a granted directory is no way out."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(room / "sock"))
        result = wasisup.run(f"--dir={room}::.", guests.c("copy"), "sock", "x")
    assert result.status == 1


def test_devices_cannot_be_opened(wasisup, guests):
    """A device node in a granted directory is not a device inside (nodev)."""
    result = wasisup.run("--dir=/dev::/d", guests.c("copy"), "/d/zero", "/d/null")
    assert result.status == 1


def test_a_set_uid_bit_means_nothing(wasisup, guests, room):
    """A file made by the guest belongs to the caller and carries no set-uid bit."""
    (room / "foo.txt").write_text("x")
    wasisup.run(f"--dir={room}::.", guests.c("copy"), "foo.txt", "bar.txt").ok()
    made = os.stat(room / "bar.txt")
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.stat(room).st_gid)
    assert made.st_mode & 0o6000 == 0


def test_the_umask_is_the_callers(wasisup, guests, room):
    """New files obey the caller's umask."""
    (room / "foo.txt").write_text("x")
    old = os.umask(0o077)
    try:
        wasisup.run(f"--dir={room}::.", guests.c("copy"), "foo.txt", "bar.txt").ok()
    finally:
        os.umask(old)
    assert os.stat(room / "bar.txt").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_grant_of_no_directory_is_refused(wasisup, guests, room, kind):
    """--dir must name a directory; otherwise nothing runs, and the message names the path."""
    path = room / "x"
    if kind == "file":
        path.write_text("")
    result = wasisup.run(f"--dir={path}", guests.c("hello"))
    assert result.status == 125
    assert str(path) in result.errors
    assert result.out == b""
    assert "directory" in result.errors


def test_a_granted_symlink_is_the_directory_it_names(wasisup, guests, room):
    """The user may grant a directory by a symlink to it."""
    (room / "real").mkdir()
    (room / "real" / "foo.txt").write_text("x")
    (room / "alias").symlink_to("real")
    wasisup.run(f"--dir={room}/alias::/d", guests.c("copy"), "/d/foo.txt", "/d/bar.txt").ok()
    assert (room / "real" / "bar.txt").exists()


@pytest.fixture
def with_a_mount(wasisup, room):
    """The command in a mount namespace where room/inner/sub is a file system of its own."""
    (room / "inner" / "sub").mkdir(parents=True)
    unshare = (
        ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--map-root-user", "--mount")
    )
    script = f'mount -t tmpfs none {room}/inner/sub && echo text > {room}/inner/sub/f && exec "$@"'
    prefix = (*unshare, "/bin/sh", "-ec", script, "sh")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
        unavailable("unshare and mount")
    return Command(wasisup.env, prefix)


def test_a_mount_below_a_grant_is_carried_along(with_a_mount, guests, room):
    """What is mounted below a granted directory is part of it."""
    with_a_mount("run", f"--dir={room}::/r", guests.c("copy"), "/r/inner/sub/f", "/r/copied").ok()
    assert (room / "copied").read_text() == "text\n"


def test_a_mount_below_a_grant_is_read_only_too(with_a_mount, guests, room):
    """A ::ro grant is read-only in the mounts below it as well."""
    result = with_a_mount(
        "run", f"--dir={room}::/r::ro", guests.c("copy"), "/r/inner/sub/f", "/r/inner/sub/x"
    )
    assert result.status == 1
    assert "Read-only file system" in result.errors


def test_the_whole_file_system_as_a_grant(wasisup, guests):
    """Even / can be granted: read-only, it stays read-only everywhere."""
    result = wasisup.run("--dir=/::/host::ro", guests.c("copy"), "/host/etc/passwd", "/host/tmp/x")
    assert result.status == 1
    assert "Read-only file system" in result.errors
