"""As an ordinary user: when the suite runs as root, its key tests run once more without root.

Continuous integration runs the whole suite as an ordinary user besides.
"""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def shelf(room, guests):
    """Guests where the other user can read them."""

    def put(path):
        target = room / path.name
        shutil.copyfile(path, target)
        target.chmod(0o644)
        return target

    return put


@pytest.fixture
def mine(room):
    """A directory that belongs to the ordinary user."""
    folder = room / "mine"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    return folder


def test_hello(as_user, guests, shelf):
    """A run needs no root, and all walls stand."""
    result = as_user.run(shelf(guests.c("hello")), cwd="/").ok()
    assert result.out == b"hello, world\n"
    assert {"namespaces", "network", "root", "identity", "rlimits", "seccomp"} <= set(
        result.report["walls"]
    )


def test_files(as_user, guests, shelf, mine):
    """Files in a granted directory are made as the caller."""
    (mine / "foo.txt").write_text("x")
    as_user.run(f"--dir={mine}::.", shelf(guests.c("copy")), "foo.txt", "bar.txt", cwd="/").ok()
    assert (mine / "bar.txt").read_text() == "x"
    assert (mine / "bar.txt").stat().st_uid == 65534


def test_read_only(as_user, guests, shelf, mine):
    """A read-only grant is one for an ordinary user, too."""
    (mine / "foo.txt").write_text("x")
    result = as_user.run(
        f"--dir={mine}::.::ro", shelf(guests.c("copy")), "foo.txt", "bar.txt", cwd="/"
    )
    assert result.status == 1
    assert "Read-only file system" in result.errors


def test_what_the_caller_may_not_read(as_user, guests, shelf, mine):
    """A grant gives no more than the caller has: another user's file stays closed."""
    (mine / "foo.txt").write_text("secret")
    (mine / "foo.txt").chmod(0o600)
    os.chown(mine / "foo.txt", 0, 0)
    result = as_user.run(f"--dir={mine}::.", shelf(guests.c("copy")), "foo.txt", "bar.txt", cwd="/")
    assert result.status == 1
    assert "Permission denied" in result.errors
    assert any(denial["kind"] == "permission" for denial in result.report["denials"])


def test_a_directory_the_caller_may_not_enter(as_user, guests, shelf, room):
    """A grant of a closed directory is refused by name, before anything runs."""
    closed = room / "closed"
    closed.mkdir(mode=0o700)
    result = as_user.run(f"--dir={closed}", shelf(guests.c("hello")), cwd="/")
    assert result.status == 125
    assert "closed" in result.errors


@pytest.mark.parametrize(
    ("options", "args", "status", "reason"),
    [
        (["--cpu-time=200ms"], ["spin"], 152, "cpu_time"),
        (["--timeout=200ms"], ["sleep", "60000"], 124, "timeout"),
        (["--output=10"], ["pour", "1000"], 153, "output"),
        ([], ["trap"], 134, "trap"),
    ],
)
def test_quotas_and_outcomes(as_user, guests, shelf, options, args, status, reason):
    """Quotas hold and reasons are right without root."""
    result = as_user.run(*options, shelf(guests.c("stdio")), *args, cwd="/")
    assert (result.status, result.report["reason"]) == (status, reason)


def test_tmpfs(as_user, guests, shelf, mine):
    """Scratch space works without root."""
    (mine / "foo.txt").write_text("x")
    as_user.run(
        f"--dir={mine}::.", "--tmpfs=/t", shelf(guests.c("copy")), "foo.txt", "/t/x", cwd="/"
    ).ok()


def test_the_worker_dies_with_its_supervisor(as_user, guests, shelf):
    """SIGKILL of an ordinary user's command ends its worker."""
    from support.processes import all_pidfds, wait_gone

    with as_user.popen("run", shelf(guests.c("stdio")), "spin", cwd="/") as process:
        assert process.stdout.readline() == b"ready\n"
        pidfds = all_pidfds(process.pid)
        process.kill()
        process.wait(30)
        assert wait_gone(pidfds, 10) == set()


def test_doctor(as_user):
    """doctor tells an ordinary user what stands."""
    assert "seccomp" in as_user("doctor", cwd="/").text


def test_nobody_elses_cache(as_user, guests, shelf, cache_root):
    """A cache that belongs to another user is not used."""
    result = as_user.run(
        shelf(guests.c("hello")), cwd="/", env={"WASISUP_CACHE_DIR": str(cache_root)}
    )
    assert result.status == 125
    assert str(cache_root) in result.errors
