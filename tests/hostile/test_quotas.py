"""Quotas against native code: the kernel keeps them, and not the engine's good will."""

from __future__ import annotations

import os

import pytest

from . import driver
from .driver import Core, Grant, Setting
from .steps import call, number, result, text, words
from .world import World

DIRECTORIES = "run-cranelift-directories"
CREATE = os.O_CREAT | os.O_RDWR
SOME_TIME = 300_000_000  # ns


def create(name: str) -> str:
    """A step that makes a file in the writable grant."""
    return call("openat2", 3, text(name), words(CREATE, 0o644, 0), 24)


def test_cpu_time(core: Core) -> None:
    """The timer ends a loop within 50 ms of the quota."""
    found = core.run([f"spin {1 << 60}"], Setting(cpu_ns=SOME_TIME))
    assert (found.code, found.record.outcome) == (152, "cpu_time"), found
    assert abs(found.usage - SOME_TIME / 1e9) < 0.05


def test_cpu_time_with_signals_blocked(core: Core) -> None:
    """A worker that has the timer's signal blocked is killed by the limit that stands behind it."""
    found = core.run(["block-signals", f"spin {1 << 60}"], Setting(cpu_ns=SOME_TIME))
    assert found.code == -9, found
    assert found.usage < 2.5


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize(
    "grow",
    [
        call("pwritev", result(0), words(text("x"), 1), 1, driver.FILE_SIZE, 0),
        call("ftruncate", result(0), driver.FILE_SIZE + 1),
        call("fallocate", result(0), 0, 0, driver.FILE_SIZE + 1),
    ],
    ids=["write", "truncate", "allocate"],
)
def test_file_size(core: Core, world: World, grow: str, filtered: bool) -> None:
    """No way of growing a file gets past the quota, nor does blocking the signal help."""
    setting = Setting(DIRECTORIES if filtered else None, (Grant(world.writable),))
    found = core.run([create("big"), grow], setting)
    assert (found.code, found.record.outcome) == (153, "file_size"), found
    found = core.run(
        [
            "block-signals",
            call("openat2", 3, text("big"), words(2, 0, 0), 24),
            grow.replace("r0", "r1"),
        ],
        setting,
    )
    assert found.steps[-1].errno == 27, found  # EFBIG
    assert (world.writable / "big").stat().st_size <= driver.FILE_SIZE
    assert not world.damage(b"")


def test_descriptors(core: Core, world: World) -> None:
    """Opening again and again ends at RLIMIT_NOFILE: the quota, stdio, grants, the engine."""
    again = f"repeat {number('openat2')} 3 {text('.')} {words(0, 0, 0)} 24"
    found = core.run([again], Setting(DIRECTORIES, (Grant(world.writable),)))
    assert found.code == 0, found
    assert 0 < found.steps[0].result <= driver.DESCRIPTORS + 3 + 1 + 8


def test_processes(core: Core, world: World) -> None:
    """Without the filter there is still only one process, for everybody but root."""
    identity = (65534, 65534) if os.getuid() == 0 else None
    found = core.run(["fork-bomb 8"], Setting(None, identity=identity))
    assert found.steps[0].result == 0, found
    assert not world.damage(b"")


@pytest.mark.parametrize("value", [0, 1, 0x7F, 0xFF])
@pytest.mark.parametrize("kept", [0, 8], ids=["all", "body"])
def test_forged_record(core: Core, value: int, kept: int) -> None:
    """A worker that writes nonsense over its report is read without harm, and its status stands."""
    found = core.run([f"forge {value} {kept}", call("exit_group", 7)], Setting())
    assert found.steps[0].result == 1, "the record was not found"
    assert found.code == 7
    assert len(found.record.denials) <= 96
    assert len(found.record.message) <= 8192 * 4
    assert found.record.outcome in ("none", "exit")
