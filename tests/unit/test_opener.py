"""Openers, with real processes: what they are, whose rights count, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support import mirror
from support.needs import unavailable
from support.openers import (
    NOBODY,
    OTHER,
    SELF,
    SOON,
    Caller,
    inode,
    needs_root,
    outcome,
    play,
    started,
)
from support.processes import wait_gone
from wasisup.runtime import opener as wire
from wasisup.supervisor.daemon.opener import Openers
from wasisup.supervisor.errors import SetupError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_layout_is_the_header_s(tmp_path: Path) -> None:
    """Magic, version, operations, sizes and offsets are those of core/opener/protocol.h."""
    if mirror.compiler() is None:
        unavailable("a C compiler")
    expected = {
        "OPENER_MAGIC": wire.MAGIC,
        "OPENER_VERSION": wire.VERSION,
        "OPENER_PATH": wire.PATH_MAX,
        "OPENER_MODULE": wire.MODULE,
        "OPENER_DIRECTORY": wire.DIRECTORY,
        "OPENER_LOOK": wire.LOOK,
        "OPENER_COPY": wire.COPY,
        "sizeof(struct opener_hello)": wire.HELLO.size,
        "offsetof(struct opener_request, limit)": wire.REQUEST.size - 8,
        "offsetof(struct opener_request, path)": wire.REQUEST.size,
        "offsetof(struct opener_answer, path)": wire.ANSWER.size,
        "sizeof(struct opener_answer)": wire.ANSWER.size + wire.PATH_MAX,
        "offsetof(struct opener_answer, stat)": 24,
        "offsetof(struct opener_answer, after)": 24 + 56,
        "offsetof(struct opener_stat, gid)": 24,
        "offsetof(struct opener_stat, size)": 32,
        "offsetof(struct opener_stat, ctime_ns)": 48,
    }
    assert mirror.values(list(expected), ["opener/protocol.h"], tmp_path) == expected


@pytest.mark.parametrize(
    "caller",
    [
        pytest.param(NOBODY._replace(groups=(4243, 4242, 4242)), marks=needs_root, id="nobody"),
        pytest.param(Caller(0, 0, (0, 4242)), marks=needs_root, id="root"),
        pytest.param(SELF, id="self"),
    ],
)
def test_it_is_the_caller_and_nothing_more(caller: Caller) -> None:
    """Ids, groups, capabilities, limits, descriptors: read from /proc."""

    async def body(openers: Openers) -> dict[str, list[str]]:
        pid = await started(openers, caller)
        # The descriptor of an answer is closed before the next request is read.
        assert await outcome(openers.module(caller, "/nothing")) == errno.ENOENT
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        if os.getuid() == 0:  # not even the same user may look at these
            names = os.listdir(f"/proc/{pid}/fd")
            targets = {os.readlink(f"/proc/{pid}/fd/{name}") for name in names if name != "3"}
            assert (sorted(names), targets) == (["0", "1", "2", "3"], {"/dev/null"})
            names = Path(f"/proc/{pid}/environ").read_text().split("\0")
            assert not [name for name in names if "SAN_OPTIONS=" not in name and name]
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        assert [line.split()[-3:-1] for line in limits if "processes" in line] == [["0", "0"]]
        assert [line.split()[-3:-1] for line in limits if "core file" in line] == [["0", "0"]]
        assert os.getsid(pid) == pid
        return {line.split(":")[0]: line.split(":")[1].split() for line in lines}

    status = play(body)
    assert status["Uid"] == [str(caller.uid)] * 4
    assert status["Gid"] == [str(caller.gid)] * 4
    assert {*map(int, status["Groups"]), caller.gid} == {*caller.groups, caller.gid}
    kinds = ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if os.getuid() == 0 else []))
    assert {int(status[kind][0], 16) for kind in kinds} == {0}
    assert (status["NoNewPrivs"], status["Umask"]) == (["1"], ["0077"])
    if "ASAN_OPTIONS" not in os.environ:  # a sanitizer's calls are not in the filter
        assert status["Seccomp"] == ["2"]


def test_it_dies_with_the_daemon() -> None:
    """Stopped, it does not see its socket's end: the death signal ends it."""
    program = (
        "import os, select, sys\n"
        "from wasisup.runtime import engine, opener\n"
        "made = opener.start(engine.find_core(), os.getuid(), os.getgid(), os.getgroups())\n"
        "select.select([made.socket], [], [])\n"
        "opener.check_hello(made.receive()[0])\n"
        "print(made.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout
        pid = int(daemon.stdout.readline())
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
        daemon.kill()
        daemon.wait()
        assert not wait_gone({pid: pidfd}, SOON)


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        pytest.param(Caller(2**32 - 1, 0), "ended without an answer", id="no uid"),
        pytest.param(Caller(0, 0, (2**32 - 1,)), "ended without an answer", id="no gid"),
        pytest.param(
            Caller(os.getuid() + 1, os.getgid()),
            "become the caller: .*not permitted",
            id="somebody else",
            marks=pytest.mark.skipif(os.getuid() == 0, reason="root may"),
        ),
    ],
)
def test_whom_it_cannot_become(caller: Caller, words: str) -> None:
    """It leaves without having served."""

    async def body(openers: Openers) -> None:
        with pytest.raises(SetupError, match=words):
            await openers.module(caller, "/etc/passwd")

    play(body)


# --- whose rights count ---


@needs_root
def test_files_of_others(room: Path) -> None:
    """0600 of another uid, also for a root without capabilities; a group's gives access."""
    private, shared = room / "private", room / "shared"
    for path, uid, mode in ((private, 65534, 0o600), (shared, 0, 0o640)):
        path.write_bytes(b"x")
        os.chown(path, uid, 4242)
        path.chmod(mode)
    cases = [
        (private, NOBODY, 0),
        (private, OTHER, errno.EACCES),
        (private, SELF, errno.EACCES),
        (private, Caller(0, 4242, ()), errno.EACCES),
        (shared, SELF, 0),
        (shared, NOBODY, errno.EACCES),
        (shared, NOBODY._replace(groups=(1, 4242)), 0),
        (shared, NOBODY._replace(gid=4242), 0),
    ]

    async def body(openers: Openers) -> None:
        for path, caller, expected in cases:
            assert await outcome(openers.module(caller, str(path))) == expected, (path, caller)
            # A descriptor that was only found cannot be read either.
            place = os.open(path, os.O_PATH)
            assert await outcome(openers.copy(caller, place, 10)) == expected, (path, caller)
            os.close(place)

    play(body)


@needs_root
def test_directories_of_others(room: Path) -> None:
    """Nobody gets a directory that he may not search, nor below one."""
    for mode in (0o700, 0o744, 0o750, 0o711):
        (room / f"{mode:o}" / "below").mkdir(parents=True)
        os.chown(room / f"{mode:o}", 0, 4242)
        (room / f"{mode:o}").chmod(mode)

    async def body(openers: Openers) -> None:
        member = NOBODY._replace(groups=(4242,))
        for caller, allowed in ((NOBODY, {"711"}), (member, {"711", "750"})):
            for name in ("700", "744", "750", "711"):
                expected = 0 if name in allowed else errno.EACCES
                for path in (room / name, room / name / "below"):
                    assert await outcome(openers.directory(caller, str(path))) == expected, path

    play(body)


@needs_root
def test_a_link_that_changes_its_target(room: Path) -> None:
    """10,000 swaps while files are opened: what comes out is what the caller may read."""
    good, secret, link = room / "good", room / "secret", room / "link"
    for path, mode in ((good, 0o644), (secret, 0o600)):
        path.write_bytes(b"x")
        path.chmod(mode)
    link.symlink_to(good)
    program = (
        "import os, sys\n"
        "for turn in range(10000):\n"
        "    os.symlink(sys.argv[1 + turn % 2], 'next')\n"
        "    os.rename('next', 'link')\n"
    )

    async def body(openers: Openers) -> set[int]:
        swapper = subprocess.Popen([sys.executable, "-c", program, secret, good], cwd=room)
        seen = set()
        while swapper.poll() is None or len(seen) < 2:
            try:
                opened = await openers.module(NOBODY, str(link))
            except OSError as error:
                assert error.errno == errno.EACCES  # noqa: PT017
                seen.add(error.errno)
                if swapper.returncode is not None:
                    break
                continue
            seen.add(0)
            assert (opened.stat.dev, opened.stat.ino) == inode(good)
            assert os.fstat(opened.fd).st_ino == opened.stat.ino
            os.close(opened.fd)
        assert swapper.wait() == 0
        return seen

    assert play(body) == {0, errno.EACCES}


# --- what is opened ---


def test_a_module(room: Path) -> None:
    """The place and not an open file, its stat, and the path without links."""
    path, link = room / "m.wasm", room / "link"
    path.write_bytes(b"\0asm")
    link.symlink_to(path)

    async def body(openers: Openers) -> None:
        opened = await openers.module(SELF, str(link))
        found = os.stat(path)
        assert os.fstat(opened.fd) == found
        assert fcntl.fcntl(opened.fd, fcntl.F_GETFL) & os.O_PATH
        assert not os.get_inheritable(opened.fd)
        assert opened.stat == (
            *(found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid),
            *(found.st_size, found.st_mtime_ns, found.st_ctime_ns),
        )
        assert opened.path == os.path.realpath(path)
        assert not opened.read_only
        assert not opened.close_may_hang
        os.close(opened.fd)

    play(body)


def test_what_is_no_module(room: Path) -> None:
    """Neither opened nor waited for: FIFOs, devices, directories; names that are none."""
    os.mkfifo(room / "fifo")
    (room / "folder").mkdir()
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(room / "socket"))
    bound.close()
    (room / "loop").symlink_to("loop")
    cases = {
        f"{room}/fifo": errno.EINVAL,
        f"{room}/socket": errno.EINVAL,
        f"{room}/folder": errno.EISDIR,
        f"{room}/loop": errno.ELOOP,
        f"{room}/nothing": errno.ENOENT,
        f"{room}/fifo/x": errno.ENOTDIR,
        "/dev/null": errno.EINVAL,
        "/proc/self/exe": errno.ELOOP,  # the opener's, which is not what the caller means
        "m.wasm": errno.EINVAL,
        "": errno.EINVAL,
        f"{room}/a\0b": errno.EINVAL,
        str(room) + "/\ud800": errno.EILSEQ,
        str(room) + "/\udcff": errno.ENOENT,  # a byte that is not UTF-8
        "/" + "./" * 2047 + "x": errno.ENAMETOOLONG,
        "/" + "./" * 2046 + "xx": errno.ENOENT,
    }

    async def body(openers: Openers) -> None:
        for path, expected in cases.items():
            assert await outcome(openers.module(SELF, path)) == expected, path
        with pytest.raises(OSError, match=r"Not a regular file.*fifo") as refused:
            await openers.module(SELF, f"{room}/fifo")
        assert refused.value.filename == f"{room}/fifo"
        assert await outcome(openers.directory(SELF, f"{room}/fifo")) == errno.ENOTDIR

    play(body)


def test_look(room: Path) -> None:
    """Descriptors of any kind, as they are; mount flags tell what is read-only."""
    reader, writer = os.pipe()
    folder = os.open(room, os.O_PATH)
    kernel = os.open("/proc", os.O_RDONLY)

    async def body(openers: Openers) -> None:
        opened = await openers.look(SELF, reader)
        assert stat.S_ISFIFO(opened.stat.mode)
        assert (opened.fd, opened.path.split(":")[0]) == (reader, "pipe")
        opened = await openers.look(SELF, writer)
        assert opened.open_flags & os.O_ACCMODE == os.O_WRONLY
        opened = await openers.look(SELF, folder)
        assert stat.S_ISDIR(opened.stat.mode)
        assert opened.open_flags & os.O_PATH
        assert opened.path == os.path.realpath(room)
        opened = await openers.look(SELF, kernel)
        assert opened.mount_flags == os.fstatvfs(kernel).f_flag
        with pytest.raises(OSError, match="Bad file descriptor"):
            await openers.look(SELF, 1 << 20)

    play(body)
    for fd in (reader, writer, folder, kernel):
        os.close(fd)


def test_copy(room: Path) -> None:
    """All bytes, wherever the offset is, in a memfd that cannot change any more."""
    content = os.urandom(700_001)
    path = room / "m.wasm"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 5, os.SEEK_SET)
    write_only = os.open(path, os.O_WRONLY)

    async def body(openers: Openers) -> None:
        place = await openers.module(SELF, str(path))
        for source in (fd, place.fd):
            made = await openers.copy(SELF, source, len(content))
            assert os.pread(made.fd, len(content) + 1, 0) == content
            assert (made.size, made.changed) == (len(content), False)
            assert made.before.ino == place.stat.ino
            with pytest.raises(PermissionError):
                os.pwrite(made.fd, b"x", 0)
            with pytest.raises(PermissionError):
                os.ftruncate(made.fd, 0)
            os.close(made.fd)
            assert await outcome(openers.copy(SELF, source, len(content) - 1)) == errno.EFBIG
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
        assert await outcome(openers.copy(SELF, write_only, 1 << 20)) == errno.EBADF
        os.close(place.fd)

    play(body)
    os.close(fd)
    os.close(write_only)


def test_copies_of_what_does_not_hold_still() -> None:
    """A size of 0 that is none counts as changed; and the limit holds against what is read."""
    fd = os.open("/proc/self/status", os.O_RDONLY)
    reader, writer = os.pipe()

    async def body(openers: Openers) -> None:
        made = await openers.copy(SELF, fd, 1 << 20)
        assert made.size > 0
        assert made.changed
        os.close(made.fd)
        assert await outcome(openers.copy(SELF, fd, 10)) == errno.EFBIG
        assert await outcome(openers.copy(SELF, reader, 10)) == errno.EINVAL

    play(body)
    for each in (fd, reader, writer):
        os.close(each)
