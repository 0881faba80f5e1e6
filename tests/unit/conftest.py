"""Fixtures of the tests that run no worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import children
from support.stand_in import Supervisor
from wasisup.supervisor import embedded


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Supervisor:
    """A stand-in, no daemon in the environment, and a module m.wasm in the working directory."""
    stand_in = Supervisor()
    monkeypatch.setattr(embedded, "run", stand_in.run)
    monkeypatch.delenv("WASISUP_SOCKET", raising=False)
    monkeypatch.delenv("WASISUP_DEBUG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WASISUP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("m.wasm").write_bytes(b"\0asm\x01\0\0\0")
    return stand_in


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no process outlives a test."""
    before = os.listdir("/proc/self/fd"), children(os.getpid())
    yield
    assert (os.listdir("/proc/self/fd"), children(os.getpid())) == before
