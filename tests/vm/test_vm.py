"""Debian 12's kernel 6.1 (Landlock ABI 2), and control groups with memory and pids controllers.

One boot carries out every case of inside.py; here each is a test of its own.  root makes the image,
and inside everything is tried as root and as an ordinary user: this runs once, in root's suite.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from support.needs import unavailable

from . import inside, machine

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="root's suite boots the machine, for both"),
    pytest.mark.skipif(
        os.environ.get("WASISUP_SANITIZE") == "1", reason="the machine has the shipped build"
    ),
]


@pytest.fixture(scope="module")
def results(guests) -> dict[str, str]:
    lacking = machine.missing()
    if lacking:
        unavailable(f"{', '.join(lacking)} (Debian: qemu-system-x86, mmdebstrap)")
    modules = {name: guests.c(name) for name in ("hello", "copy", "quota")}
    modules["wait"] = guests.wat(machine.WAIT, "wait")
    modules["spin"] = guests.wat(machine.SPIN, "spin")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wasisup-vm-") as folder:
        os.chmod(folder, 0o755)
        machine.project(Path(folder), modules)
        return machine.boot(machine.image(), Path(folder))


@pytest.mark.parametrize("case", inside.names())
def test_inside(results: dict[str, str], case: str) -> None:
    """The case of that name in inside.py or daemon_cases.py."""
    if results[case] != "ok":
        pytest.fail(results[case], pytrace=False)
