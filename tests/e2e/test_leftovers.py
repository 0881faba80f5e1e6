"""Nothing is left behind, however a run ends: no process, no mount, no file, no cgroup."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.processes import all_pidfds, children, is_worker, wait_gone, worker_pidfd

GONE = 10.0  # seconds until what should be gone must be


@pytest.fixture
def traces(cache_root, wasisup):
    """Compares what a run could leave before and after the test."""
    before = look(cache_root, Path(wasisup.env["TMPDIR"]))
    yield
    assert look(cache_root, Path(wasisup.env["TMPDIR"])) == before


def look(cache_root: Path, temporary: Path) -> dict[str, list[str]]:
    """Mounts of this namespace, temporary files, cgroups, half-written artifacts, own children."""
    return {
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
        "temporary": sorted(str(p) for p in temporary.rglob("*")),
        "cgroups": sorted(str(p) for p in Path("/sys/fs/cgroup").glob("**/*wasisup*")),
        "half": sorted(str(p) for p in cache_root.rglob("tmp-*")),
        "children": [str(pid) for pid in children(os.getpid())],
    }


ENDINGS = {
    "exit": (["exit", "0"], [], 0),
    "exit 3": (["exit", "3"], [], 3),
    "trap": (["trap"], [], 134),
    "timeout": (["block"], ["--timeout=200ms"], 124),
    "cpu time": (["spin"], ["--cpu-time=200ms"], 152),
    "output": (["pour", "100000"], ["--output=10"], 153),
    "set-up": (["exit", "0"], ["--dir=/does/not/exist"], 125),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_after_a_run(wasisup, guests, traces, ending):
    """A command that has ended leaves no process below it and nothing on disk."""
    args, options, status = ENDINGS[ending]
    reader, writer = os.pipe()
    try:
        with Subreaper() as reaper:
            result = wasisup("run", *options, guests.c("stdio"), *args, stdin=reader)
            assert result.status == status
            assert reaper.adopted() == []
    finally:
        os.close(reader)
        os.close(writer)


class Subreaper:
    """While it holds, orphans of ended commands become our children, and so can be counted."""

    def __enter__(self) -> Subreaper:
        self.set(1)
        self.before = set(children(os.getpid()))
        return self

    def __exit__(self, *_: object) -> None:
        self.set(0)

    @staticmethod
    def set(value: int) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(36, value, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER

    def adopted(self) -> list[int]:
        """Orphans, once those that are ending have ended: an orphan that stays is a leftover."""
        left = []
        for pid in set(children(os.getpid())) - self.before:
            fd = os.pidfd_open(pid)
            if wait_gone({pid: fd}, GONE):
                left.append(pid)
            else:
                os.waitpid(pid, 0)
        return left


def test_after_a_killed_worker(wasisup, guests, traces):
    """A worker killed from outside takes nothing with it that would stay."""
    with Subreaper() as reaper:
        with wasisup.popen("run", guests.c("stdio"), "block") as process:
            assert process.stdout.readline() == b"ready\n"
            worker = worker_pidfd(process.pid)
            signal.pidfd_send_signal(worker, signal.SIGKILL)
            os.close(worker)
            process.stdin.close()
            assert process.wait(30) == 137
        assert reaper.adopted() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_a_signal_to_the_command(wasisup, guests, traces, number):
    """A signal that ends the command ends the run."""
    with Subreaper() as reaper:
        with wasisup.popen("run", guests.c("stdio"), "block") as process:
            assert process.stdout.readline() == b"ready\n"
            pidfds = all_pidfds(process.pid)
            process.send_signal(number)
            assert process.wait(30) == 128 + number or process.returncode == -number
            assert wait_gone(pidfds, GONE) == set()
        assert reaper.adopted() == []


@pytest.mark.parametrize("what", ["block", "spin", "sleep"])
def test_the_worker_dies_with_its_supervisor(wasisup, guests, traces, what):
    """SIGKILL of the supervisor ends a guest that waits, computes or sleeps: its pipe closes."""
    with Subreaper() as reaper:
        with wasisup.popen("run", guests.c("stdio"), what, "60000") as process:
            assert process.stdout.readline() == b"ready\n"
            pidfds = all_pidfds(process.pid)
            assert len(pidfds) >= 2
            process.kill()
            process.wait(30)
            assert wait_gone(pidfds, GONE) == set()
            # End of file: nobody holds the guest's stdout any more.
            assert process.stdout.read() == b""
        assert reaper.adopted() == []


def test_the_worker_dies_before_its_first_instruction(wasisup, guests, traces):
    """SIGKILL of the supervisor at any moment of a start leaves nothing."""
    module = guests.c("stdio")
    wasisup("run", module, "exit", "0").ok()
    with Subreaper() as reaper:
        for step in range(40):
            with wasisup.popen("run", module, "spin") as process:
                # The moment is what varies: from the first instruction to the running guest.
                deadline = time.monotonic() + step * 0.002
                while time.monotonic() < deadline:
                    pass
                pidfds = all_pidfds(process.pid)
                process.kill()
                process.wait(30)
                assert wait_gone(pidfds, GONE) == set()
                process.stdout.read()
            assert reaper.adopted() == []


def test_a_compile_dies_with_its_supervisor(wasisup, guests, traces, room, base_env):
    """SIGKILL of the supervisor while it compiles ends the compiler and leaves no artifact."""
    cache = room / "cache"
    cache.mkdir(mode=0o700)
    python = guests.foreign("python")  # the largest module: it compiles for seconds
    env = {"WASISUP_CACHE_DIR": str(cache)}
    with Subreaper() as reaper:
        with wasisup.popen("run", python, "--version", env=env) as process:
            while not any(is_worker(pid) for pid in children(process.pid)):
                assert process.poll() is None
            pidfds = all_pidfds(process.pid)
            process.kill()
            process.wait(30)
            assert wait_gone(pidfds, GONE) == set()
            assert process.stdout.read() == b""
        assert reaper.adopted() == []
    assert list(cache.rglob("*.cwasm")) == []
    assert list(cache.rglob("tmp-*")) == []
    result = wasisup("run", python, "--version", env=env).ok()
    assert result.out.startswith(b"Python 3")


def test_the_zygote_dies_with_its_supervisor(wasisup, guests):
    """No process of the core outlives the command, whichever is killed first."""
    with wasisup.popen("run", guests.c("stdio"), "block") as process:
        assert process.stdout.readline() == b"ready\n"
        pidfds = all_pidfds(process.pid)
        for pid, fd in pidfds.items():
            if pid != process.pid:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        status = process.wait(30)
        assert status in (125, 137)
        assert wait_gone(pidfds, GONE) == set()


def test_a_tmpfs_is_not_on_the_host(wasisup, guests, traces, room):
    """Scratch space is a mount of the worker's namespace only."""
    (room / "foo.txt").write_text("x")
    with Subreaper() as reaper:
        wasisup(
            "run", f"--dir={room}::.", "--tmpfs=/t:1MiB", guests.c("copy"), "foo.txt", "/t/bar.txt"
        ).ok()
        assert reaper.adopted() == []
    assert sorted(p.name for p in room.iterdir()) == ["foo.txt"]


def test_the_command_leaves_no_open_terminal_settings(wasisup, guests):
    """Descriptors that the user shares (stdin, stdout) keep their flags: no O_NONBLOCK is left."""
    import fcntl

    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            wasisup.argv("run", guests.c("preview1/descriptors"), "stdio"),
            env=wasisup.env,
            stdin=reader,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0
        assert fcntl.fcntl(reader, fcntl.F_GETFL) & os.O_NONBLOCK == 0
    finally:
        os.close(reader)
        os.close(writer)
