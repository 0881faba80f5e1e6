"""A component's worker has threads: how many, and what native code in one of them can do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.needs import unavailable

from . import driver
from .driver import Core, Setting
from .steps import call

COMPONENT = Setting("run-cranelift-component", component=True)
SOME_TIME = 300_000_000  # ns
# What pid_max can be lowered to bounds the PIDs, of which one is the worker's own.
LEAST_PID_MAX = 301


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


def _most() -> int:
    """How many threads there can be beside the first one here."""
    if os.geteuid() != 0:
        return driver.THREADS - 1  # a user namespace of the worker's own: RLIMIT_NPROC counts
    if _kernel() < (6, 14):
        unavailable("a PID namespace with a pid_max of its own (Linux 6.14)")
    return LEAST_PID_MAX - 2


@pytest.mark.parametrize("filtered", [True, False])
def test_threads_are_bounded(core: Core, filtered: bool) -> None:
    """Native code gets so many threads and no more, with the filter and without it."""
    profile = COMPONENT.profile if filtered else None
    found = core.run(["thread-bomb 100000"], Setting(profile, component=True))
    assert 0 < found.steps[0].result <= _most(), found
    assert "threads" in found.record.walls


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
def test_threads_of_a_root_with_no_say_are_bounded(hostile_core: str, tmp_path: Path) -> None:
    """Root without CAP_SYS_ADMIN needs a user namespace, and no RLIMIT_NPROC holds it in there."""
    start = tmp_path / "core"
    start.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-sys_admin {hostile_core} "$@"\n')
    start.chmod(0o755)
    core = driver.Core(str(start), "cranelift", tmp_path)
    try:
        found = core.run(["thread-bomb 100000"], COMPONENT)
    finally:
        core.close()
    assert 0 < found.steps[0].result <= _most(), found
    assert "threads" in found.record.walls


def test_the_machine_s_own_limit_stays(core: Core) -> None:
    """What is lowered is the namespace's; outside nothing has changed."""
    before = Path("/proc/sys/kernel/pid_max").read_text()
    core.run(["thread-bomb 10"], COMPONENT)
    assert Path("/proc/sys/kernel/pid_max").read_text() == before


@pytest.mark.parametrize("filtered", [True, False])
def test_a_module_s_worker_has_one_thread(core: Core, filtered: bool) -> None:
    """A module's worker gets none: by the filter, and without it by the limit on processes."""
    found = core.run(["thread-bomb 100"], Setting("run-cranelift" if filtered else None))
    if filtered:
        assert found.trapped is not None
    elif os.geteuid() != 0:  # RLIMIT_NPROC binds everybody but root
        assert found.steps[0].result == 0, found


@pytest.mark.parametrize(
    ("how", "code", "outcome"),
    [(0, 159, "syscall"), (1, 134, "abort"), (2, 152, "cpu_time")],
    ids=["a forbidden call", "abort", "the CPU timer"],
)
def test_ends_in_another_thread(core: Core, how: int, code: int, outcome: str) -> None:
    """Whichever thread it is: the whole process ends, and the record says why."""
    setting = Setting(COMPONENT.profile, component=True, cpu_ns=SOME_TIME)
    found = core.run([f"leave-elsewhere {how}"], setting)
    assert (found.code, found.record.outcome) == (code, outcome), found


def test_no_other_task_than_a_thread(core: Core) -> None:
    """clone with anything but a thread's flags is trapped; clone3 is not there."""
    for flags in (17, 0x3D0F00 & ~0x10000, 0x3D0F00 | 0x20000000, 0x3D0F00 | 1 << 32):
        found = core.run([call("clone", flags, 0, 0, 0, 1 << 62)], COMPONENT)
        assert found.trapped == 56, found
    found = core.run([call("clone3", 0, 0)], COMPONENT)
    assert found.steps[0].errno == 38, found


@pytest.mark.parametrize("number", [signal.SIGPROF, signal.SIGXFSZ, signal.SIGSYS, signal.SIGABRT])
def test_handlers_stay(core: Core, number: int) -> None:
    """A handler that keeps a quota cannot be replaced; only the C library's own can be set."""
    found = core.run([call("rt_sigaction", number, 0, 0, 8)], COMPONENT)
    assert found.trapped == 13, found
