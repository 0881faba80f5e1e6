"""The confused deputy: root's daemon gives nobody what the kernel would not give them."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading

import pytest

from support.needs import unavailable

from .conftest import OTHER

pytestmark = pytest.mark.usefixtures("root")
SWAPS = 2000  # while some hundred requests go on
_CLONE_NEWNS, _MS_RDONLY, _MS_REMOUNT, _MS_BIND = 0x20000, 1, 32, 4096
_MS_REC, _MS_PRIVATE = 16384, 1 << 18


@pytest.fixture
def other(daemon, api):
    """An ordinary user of root's daemon."""
    return daemon.api(OTHER)


@pytest.fixture
def closed(room, api):
    """What is root's alone: a module that can be run, and a directory with a secret."""
    folder = room / "closed"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text("secret\n")
    (folder / "m.wasm").write_bytes(api.programs["tell"].read_bytes())
    (folder / "inner").mkdir(mode=0o755)
    (folder / "inner" / "secret").write_text("secret\n")
    return folder


@pytest.fixture
def theirs(room):
    """A directory of the other's own."""
    folder = room / "theirs"
    folder.mkdir()
    os.chown(folder, OTHER, OTHER)
    return folder


def test_a_module_that_the_caller_cannot_read(other, closed, theirs, api):
    """By path, or by a link of their own: it is denied, as open(2) would."""
    private = theirs / "private.wasm"
    private.write_bytes(api.programs["hello"].read_bytes())
    private.chmod(0o600)
    (theirs / "link.wasm").symlink_to(closed / "m.wasm")
    for path in (closed / "m.wasm", private, theirs / "link.wasm"):
        answer = other.ask("POST", "/v1/runs", {"module": {"path": str(path)}, "wait": True})
        assert answer.refused(403, str(path))["code"] == "denied"


def test_a_file_is_not_told_from_none(other, closed):
    """Behind a closed door, what is there and what is not look the same."""
    answers = [
        other.ask("POST", "/v1/runs", {"module": {"path": str(closed / name)}})
        for name in ("m.wasm", "nothing.wasm")
    ]
    assert [answer.status for answer in answers] == [403, 403]
    said = {answer.error["message"].replace("nothing", "m") for answer in answers}
    assert len(said) == 1


def test_a_directory_that_the_caller_cannot_enter(other, closed, theirs):
    """So with directories, also open ones behind a closed one."""
    (theirs / "link").symlink_to(closed)
    for path in (closed, closed / "inner", theirs / "link", theirs / "link" / "inner"):
        body = other.request("tell", "show", "/d/secret", dirs=[{"path": str(path), "guest": "/d"}])
        other.ask("POST", "/v1/runs", body).refused(403, "dirs[0]")


def test_magic_links(other, daemon):
    """/proc leads nobody to the daemon's own files."""
    for path in (f"/proc/{daemon.pid}/cwd", f"/proc/{daemon.pid}/root", "/proc/self/root/root"):
        body = other.request("hello", dirs=[{"path": path, "guest": "/d"}])
        answer = other.ask("POST", "/v1/runs", body)
        assert answer.status in (403, 422), path
    for fd in range(10):
        module = {"path": f"/proc/{daemon.pid}/fd/{fd}"}
        assert other.ask("POST", "/v1/runs", {"module": module}).status in (403, 404, 422)


def test_the_daemons_state(other, daemon):
    """Its records and modules are behind a closed door."""
    for path in (daemon.state, daemon.state / "logs", daemon.state / "modules"):
        body = other.request("hello", dirs=[{"path": str(path), "guest": "/d"}])
        other.ask("POST", "/v1/runs", body).refused(403)


class Swapper:
    """Exchanges two names again and again while it holds (renameat2(2), RENAME_EXCHANGE)."""

    def __init__(self, one, two) -> None:
        self._paths = os.fsencode(one), os.fsencode(two)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._swap)
        self.swaps = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _swap(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        while not self._over.is_set():
            assert libc.renameat2(-100, self._paths[0], -100, self._paths[1], 2) == 0
            self.swaps += 1


def test_a_module_that_is_swapped(other, closed, theirs, api):
    """A link that changes between the caller's own file and root's gives the own one or nothing."""
    own = theirs / "own.wasm"
    own.write_bytes(api.programs["hello"].read_bytes())
    good, bad = theirs / "m.wasm", theirs / "other.wasm"
    good.symlink_to(own)
    bad.symlink_to(closed / "m.wasm")
    seen = {201: 0, 403: 0}
    with Swapper(good, bad) as swapper:
        while sum(seen.values()) < 300 or swapper.swaps < SWAPS:
            answer = other.ask("POST", "/v1/runs", {"module": {"path": str(good)}, "wait": True})
            if answer.status == 403:
                seen[403] += 1
                continue
            run = answer.ok(200)
            assert (run["stdout"], run["module"]) == ("hello, world\n", str(good))
            seen[201] += 1
    assert min(seen.values()) > 0, seen


def test_a_directory_that_is_swapped(other, closed, theirs):
    """So with a directory: the guest sees the caller's, or there is no run."""
    own = theirs / "own"
    own.mkdir()
    (own / "secret").write_text("mine\n")
    good, bad = theirs / "d", theirs / "e"
    good.symlink_to(own)
    bad.symlink_to(closed)
    dirs = [{"path": str(good), "guest": "/d", "read_only": True}]
    digest = other.run("tell", "args")["digest"]
    body = other.request("", "show", "/d/secret", dirs=dirs, module={"digest": digest}, wait=True)
    seen = {200: 0, 403: 0}
    with Swapper(good, bad) as swapper:
        while sum(seen.values()) < 300 or swapper.swaps < SWAPS:
            answer = other.ask("POST", "/v1/runs", body)
            if answer.status == 200:
                assert answer.json["stdout"] == "mine\n"
            seen[answer.status] += 1
    assert min(seen.values()) > 0, seen


def test_a_directory_below_that_is_swapped(daemon, other, closed, theirs):
    """A link inside a granted directory leads out of it neither now nor later."""
    (theirs / "link").symlink_to(closed)
    dirs = [{"path": str(theirs), "guest": "/d"}]
    run = other.run("tell", "show", "/d/link/secret", dirs=dirs)
    assert run["outcome"]["status"] == 1
    assert run["stdout"] == ""


@pytest.fixture
def mounted_read_only(room):
    """A descriptor of a directory from a read-only mount that only its namespace has."""
    folder = room / "shared"
    folder.mkdir()
    (folder / "a.txt").write_text("it\n")
    os.chown(folder, OTHER, OTHER)
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        unavailable("mount namespaces")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _mount_read_only(os.fsencode(folder))
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                ours.close()
                socket.send_fds(theirs, [b"x"], [fd])
                theirs.recv(1)  # the namespace lives as long as somebody is in it
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        yield folder, *fds
        os.close(fds[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _mount_read_only(path: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        lambda: libc.unshare(_CLONE_NEWNS),
        lambda: libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None),
        lambda: libc.mount(path, path, None, _MS_BIND, None),
        lambda: libc.mount(None, path, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, None),
    ):
        assert call() == 0, os.strerror(ctypes.get_errno())


def test_a_descriptor_from_a_read_only_mount(other, mounted_read_only):
    """What the caller has for reading only is granted for reading only."""
    folder, fd = mounted_read_only
    dirs = [{"fd": 0, "guest": "/d"}]
    run = other.run("tell", "show", "/d/a.txt", dirs=dirs, fds=[fd])
    assert run["stdout"] == "it\n"
    assert run["grants"]["dirs"][0]["read_only"] is True
    run = other.run("tell", "write", "/d/b.txt", "x", dirs=dirs, fds=[fd])
    assert "Read-only file system" in run["stderr"]
    assert not (folder / "b.txt").exists()
