"""What hostile code finds around itself: descriptors, memory of others, the root, its own name."""

from __future__ import annotations

import os
import re
import secrets
import signal
import struct

import pytest

from wasisup.runtime import zygote

from . import driver
from .driver import Core, Grant, Setting
from .steps import call, out, result, text, words
from .world import World

BARE = Setting(None)
# A sanitized core's heap is not where the C library's is.
DUMPS = ["dump-stack"] if driver.SANITIZED else ["dump-stack", "dump-heap"]
O_DIRECTORY = 0o200000
EMPTY_PATH = 0x1000
# Offsets in the x86-64 struct stat.
ST_DEV, ST_INO = 0, 8


def shown(output: bytes, step: int) -> bytes:
    """The buffer that a step printed."""
    found = re.search(rb"^%d> ([0-9a-f]*)$" % step, output, re.MULTILINE)
    assert found, output
    return bytes.fromhex(found[1].decode())


def identify(fd: int) -> str:
    """A step that prints the struct stat of a descriptor."""
    return call("newfstatat", fd, text(""), out(144), EMPTY_PATH)


@pytest.mark.parametrize("grants", [0, 1, 2])
def test_inherited_descriptors(core: Core, world: World, grants: int) -> None:
    """Open are stdio, the grants, and at most the artifact, which the engine keeps."""
    given = (Grant(world.writable), Grant(world.read_only, read_only=True))[:grants]
    leak = os.memfd_create("leak")
    os.set_inheritable(leak, True)
    found = core.run(["descriptors 65536"], Setting(grants=given))
    os.close(leak)
    assert found.code == 0, found
    numbers = [int(n) for n in re.findall(rb"^open (\d+)$", found.output, re.MULTILINE)]
    assert numbers[: 3 + grants] == list(range(3 + grants))
    assert len(numbers) <= 4 + grants
    steps = [identify(number) for number in numbers]
    stats = core.run(steps, Setting(None, given)).output
    seen = [struct.unpack_from("<QQ", shown(stats, step)) for step in range(len(numbers))]
    wanted = [os.stat(path) for path in (*(g.path for g in given), core.artifact)]
    assert seen[3:] == [(info.st_dev, info.st_ino) for info in wanted][: len(seen) - 3]


def test_artifact_cannot_be_written(core: Core) -> None:
    """A large artifact is the one file that is there without being granted: it stays as it is."""
    before = core.large.read_bytes()
    for how in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        step = call("openat2", -100, text("/artifact"), words(how, 0, 0), 24)
        found = core.run([step], BARE, artifact=core.large)
        assert found.steps[0].errno in (13, 30), found  # EACCES, EROFS
    for step in (call("ftruncate", 3, 0), call("fchmod", 3, 0o777)):
        core.run([step], BARE, artifact=core.large)
    assert core.large.read_bytes() == before
    assert core.large.stat().st_mode & 0o777 == 0o644


def test_root_is_empty(core: Core, world: World) -> None:
    """The root holds the mount points of this run and nothing of the host."""
    grants = (Grant(world.writable), Grant(world.read_only, read_only=True))
    steps = [
        call("openat2", -100, text("/"), words(O_DIRECTORY, 0, 0), 24),
        call("getdents64", result(0), out(4096), 4096),
    ]
    found = core.run(steps, Setting(None, grants))
    if found.steps[0].errno == 13:  # EACCES: Landlock hides even the list
        return
    listing = shown(found.output, 1)[: found.steps[1].result]
    names = {name.decode() for name in re.findall(rb"[\w.]+", listing) if name.isalnum()}
    assert names <= {"0", "1", "artifact"}


@pytest.mark.parametrize("what", ["environ", *DUMPS])
def test_environment_of_the_supervisor(
    hostile_core: str, monkeypatch: pytest.MonkeyPatch, core: Core, what: str
) -> None:
    """No variable of the supervisor's is anywhere in the memory that a worker starts with."""
    token = secrets.token_hex(16)
    monkeypatch.setenv("SECRET_OF_THE_SUPERVISOR", token)
    fresh = driver.Core(hostile_core, "cranelift", core.artifact.parent)
    try:
        found = fresh.run([what], BARE)
    finally:
        fresh.close()
    assert found.steps, found
    assert token.encode() not in found.output
    if what != "environ":
        assert len(found.output) > 4096, "nothing was dumped"


@pytest.mark.parametrize("what", DUMPS)
def test_memory_of_an_earlier_run(core: Core, what: str) -> None:
    """What one run was told, the next cannot find: the zygote never reads a launch spec."""
    token = secrets.token_hex(16)
    told = Setting(None, environment=(("SECRET", token),))
    mine = core.run([what], told)
    assert what == "dump-stack" or token.encode() in mine.output, "the search itself finds nothing"
    assert token.encode() not in core.run([what], BARE).output


def test_host_name(core: Core) -> None:
    """Without the filter, uname tells the sandbox's name and not the host's."""
    found = core.run([call("uname", out(390))], BARE)
    nodename = shown(found.output, 0)[65:130].rstrip(b"\0").decode()
    assert nodename == "wasisup"


def test_process_numbers(core: Core) -> None:
    """The worker is process 1 of its own namespace, and its parent is outside of it."""
    found = core.run([call("getpid"), call("getppid")], BARE)
    assert [step.result for step in found.steps] == [1, 0]


def test_no_capability(core: Core) -> None:
    """Permitted, effective and inheritable sets are empty, and the bounding set as well."""
    steps = [
        call("capget", words(0x20080522), out(24)),
        *(call("prctl", 23, cap, 0, 0, 0) for cap in range(41)),
    ]
    found = core.run(steps, BARE)
    assert shown(found.output, 0) == bytes(24)
    assert not any(step.result for step in found.steps[1:]), found


def test_not_dumpable(core: Core) -> None:
    """Neither dumpable nor able to gain privileges."""
    found = core.run([call("prctl", 3, 0, 0, 0, 0), call("prctl", 39, 0, 0, 0, 0)], BARE)
    assert [step.result for step in found.steps] == [0, 1]


def sleeping(running: Core, setting: Setting) -> zygote.Worker:
    """A worker in the guest's phase that waits to be looked at."""
    worker = running.start(["sleep 60"], setting)
    while True:
        syscall = _try_read(f"/proc/{worker.pid}/syscall")
        if syscall is None or syscall.startswith("271 "):  # ppoll
            return worker


def end(worker: zygote.Worker) -> None:
    """Kills and reaps it."""
    signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
    driver.reap(worker)


def _try_read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except PermissionError:
        return None


@pytest.mark.parametrize("kind", ["cranelift", "pulley"])
def test_executable_memory(core: Core, pulley_core: Core, kind: str) -> None:
    """Executable are the binary, libraries and, with Cranelift, the artifact: files all of them."""
    if os.getuid() != 0:
        pytest.skip("only root may look at the memory of a process that is not dumpable")
    running = core if kind == "cranelift" else pulley_core
    worker = sleeping(running, Setting(f"run-{kind}", engine=kind))
    try:
        maps = _try_read(f"/proc/{worker.pid}/maps") or ""
    finally:
        end(worker)
    rows = [line.split(maxsplit=5) for line in maps.splitlines()]
    assert rows
    assert not [row for row in rows if "w" in row[1] and "x" in row[1]]
    executable = {os.path.basename(row[5]) if len(row) > 5 else "" for row in rows if "x" in row[1]}
    expected = re.compile(
        r"wasisup-core-hostile|_libwasmtime\.so|ld-linux.*|lib[\w+-]+\.so[.\d]*|\[v\w+\]|artifact"
    )
    strangers = {name for name in executable if not expected.fullmatch(name)}
    assert not strangers
    if kind == "pulley":
        assert "artifact" not in executable


def test_unreadable_from_outside(core: Core) -> None:
    """An ordinary user cannot look into a worker, not even a user's own."""
    if os.getuid() == 0:
        pytest.skip("root may")
    worker = sleeping(core, Setting())
    try:
        with pytest.raises(PermissionError):
            open(f"/proc/{worker.pid}/mem").close()
    finally:
        end(worker)
