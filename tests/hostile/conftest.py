"""Fixtures of the attacks: one hostile core and one world for all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import driver
from .world import World


@pytest.fixture(scope="package")
def hostile_folder() -> Iterator[Path]:
    """A directory that every user can reach: some attacks run as somebody else."""
    with tempfile.TemporaryDirectory(prefix="wasisup-hostile-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="package")
def hostile_core(hostile_folder: Path) -> str:
    """The path of the hostile core; WASISUP_HOSTILE_CORE names one that is already built."""
    return os.environ.get("WASISUP_HOSTILE_CORE") or driver.build(hostile_folder / "build")


@pytest.fixture(scope="package")
def core(hostile_core: str, hostile_folder: Path) -> Iterator[driver.Core]:
    """A zygote with the Cranelift engine."""
    running = driver.Core(hostile_core, "cranelift", hostile_folder)
    yield running
    running.close()


@pytest.fixture(scope="package")
def pulley_core(hostile_core: str, hostile_folder: Path) -> Iterator[driver.Core]:
    """A zygote with the Pulley engine."""
    running = driver.Core(hostile_core, "pulley", hostile_folder)
    yield running
    running.close()


@pytest.fixture(scope="package")
def world(hostile_folder: Path, core: driver.Core) -> Iterator[World]:
    """The outside.  After `core`: a zygote must not inherit anything from it."""
    root = hostile_folder / "world"
    root.mkdir()
    made = World(root)
    yield made
    made.close()
