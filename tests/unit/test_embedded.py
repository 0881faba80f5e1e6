"""What a run without a daemon decides by itself; the rest is in the end-to-end tests."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wasisup.runtime.cache import ArtifactCache
from wasisup.runtime.describe import Import
from wasisup.runtime.engine import engine_key
from wasisup.supervisor import embedded, launch, upkeep
from wasisup.supervisor.errors import SetupError
from wasisup.supervisor.model import RunRecord, RunRequest


@pytest.mark.parametrize(
    ("status", "record", "again"),
    [
        (126 << 8, RunRecord(outcome="rejected"), True),
        (126 << 8, RunRecord(outcome="rejected", running_ns=5), False),
        (0, RunRecord(outcome="rejected"), False),
        (9, RunRecord(outcome="rejected"), False),
        (126 << 8, RunRecord(outcome="invalid"), False),
    ],
)
def test_only_what_never_ran_is_run_again(status: int, record: RunRecord, again: bool) -> None:
    """A guest that broke out and writes "rejected" has its effects once."""
    assert launch.was_rejected(status, record) is again


def test_an_artifact_pruned_on_the_way(tmp_path: Path) -> None:
    """Removed between its opening and its mounting: tried once more."""
    path = tmp_path / "artifact"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    failed = RunRecord(outcome="setup", step="mounts", errno=errno.ENOENT)
    try:
        assert not launch.was_pruned(125 << 8, failed, fd)
        path.unlink()
        assert launch.was_pruned(125 << 8, failed, fd)
        assert not launch.was_pruned(0, failed, fd)
        assert not launch.was_pruned(125 << 8, RunRecord(outcome="exit"), fd)
    finally:
        os.close(fd)


def test_a_limit_on_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit -f 0` in the caller's shell."""

    def fail(*_: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    module = tmp_path / "m.wasm"
    module.touch()
    monkeypatch.setattr(embedded, "Session", fail)
    with pytest.raises(SetupError, match="ulimit -f"):
        embedded.run(RunRequest(module=str(module)))


def test_descriptions_of_what_was_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by digest, engine and fuel; None for what is not there, or damaged."""
    monkeypatch.setenv("WASISUP_CACHE_DIR", str(tmp_path / "cache"))
    digest = "ab" * 32
    assert upkeep.stored_description(digest, "pulley", fuel=False) is None
    raw = b"i\0" + b"".join(len(word).to_bytes(4, "little") + word for word in (b"m", b"f", b"t"))
    with ArtifactCache() as cache:
        folder = f"artifacts/{engine_key('pulley', fuel=False)}"
        os.makedirs(os.path.join(cache.root, folder), exist_ok=True)
        cache.write_file(f"{folder}/{digest}.desc", raw)
        found = upkeep.stored_description(digest, "pulley", fuel=False)
        assert found == [Import("m", "f", "function", "t")]
        assert upkeep.stored_description(digest, "pulley", fuel=True) is None
        cache.write_file(f"{folder}/{digest}.desc", raw[:-1])
        assert upkeep.stored_description(digest, "pulley", fuel=False) is None
