"""Each fuzz target still builds, takes its seeds and survives a moment; CI runs them for longer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.needs import unavailable

HERE = Path(__file__).parent
TARGETS = sorted(path.stem for path in HERE.glob("fuzz_*.c"))


@pytest.mark.parametrize("target", TARGETS)
def test_target(target: str, tmp_path: Path) -> None:
    """A few seconds of the target find nothing."""
    if shutil.which("clang") is None:
        unavailable("clang with libFuzzer (Debian: clang, libclang-rt-14-dev)")
    env = {
        **os.environ,
        "FUZZ_SECONDS": "3",
        "FUZZ_FOLDER": str(tmp_path),
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        [str(HERE / "run.sh"), target],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
