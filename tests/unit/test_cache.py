"""The compile cache: what it trusts, what it throws away, and what it keeps."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasisup.runtime import cache as cache_module
from wasisup.runtime import upkeep
from wasisup.runtime.cache import ArtifactCache, Ephemeral, default_root
from wasisup.runtime.engine import ENGINE_RELEASE, engine_key
from wasisup.supervisor.errors import CacheError

KEY = "50.0.1_cranelift_0"
DIGEST = "ab" * 32


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ArtifactCache]:
    with ArtifactCache(str(tmp_path / "cache")) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """An artifact as a compile worker leaves it."""
    path = tmp_path / "artifact"
    path.write_bytes(b"native code" * 1000)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def artifact_path(cache: ArtifactCache, key: str = KEY, digest: str = DIGEST) -> Path:
    return Path(cache.root, "artifacts", key, f"{digest}.cwasm")


def content(cache: ArtifactCache, digest: str = DIGEST) -> bytes | None:
    fd = cache.open_artifact(KEY, digest)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        return file.read()


def names(cache: ArtifactCache) -> list[str]:
    return sorted(path.name for path in artifact_path(cache).parent.iterdir())


def test_stored_and_found(cache: ArtifactCache, source: int) -> None:
    """An artifact comes back as it was, read-only, with its description."""
    assert content(cache) is None
    cache.store(KEY, DIGEST, source, b"described")
    assert content(cache) == b"native code" * 1000
    assert artifact_path(cache).stat().st_mode & 0o777 == 0o444
    assert cache.read_file(f"artifacts/{KEY}/{DIGEST}.desc") == b"described"
    assert Path(cache.root).stat().st_mode & 0o777 == 0o700
    assert names(cache) == [f"{DIGEST}.{ending}" for ending in ("cwasm", "desc", "ok")]


def test_stored_where_there_are_no_unnamed_files(
    cache: ArtifactCache, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without O_TMPFILE gets a temporary name and a rename."""
    monkeypatch.setattr(cache_module.os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    cache.store(KEY, DIGEST, source, b"described")
    assert content(cache) == b"native code" * 1000
    assert len(names(cache)) == 3


def test_damaged_content_is_thrown_away(cache: ArtifactCache, source: int) -> None:
    """Changed bytes do not agree with the stamp, nor with the hash."""
    cache.store(KEY, DIGEST, source, b"")
    path = artifact_path(cache)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"NATIVE")
    path.chmod(0o444)
    assert content(cache) is None


def test_touched_artifact_is_hashed_and_kept(cache: ArtifactCache, source: int) -> None:
    """A backup that restored the file, or a new inode: the hash says that it is the same."""
    cache.store(KEY, DIGEST, source, b"")
    path = artifact_path(cache)
    before = os.readlink(path.with_suffix(".ok"))
    os.utime(path, (1, 1))
    assert content(cache) is not None
    assert os.readlink(path.with_suffix(".ok")) != before
    assert content(cache) is not None


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_artifact_that_others_can_write_is_not_loaded(
    cache: ArtifactCache, source: int, mode: int
) -> None:
    """Whoever can write it could have it run as native code."""
    cache.store(KEY, DIGEST, source, b"")
    artifact_path(cache).chmod(mode)
    assert content(cache) is None
    assert not artifact_path(cache).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_artifact_of_somebody_else_is_not_loaded(cache: ArtifactCache, source: int) -> None:
    """A file planted by another user."""
    cache.store(KEY, DIGEST, source, b"")
    os.chown(artifact_path(cache), 65534, 65534)
    assert content(cache) is None


def test_symlink_and_fifo_are_not_followed(cache: ArtifactCache, source: int) -> None:
    """The artifact's name has to be the artifact."""
    cache.store(KEY, DIGEST, source, b"")
    path = artifact_path(cache)
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))
    assert content(cache) is None
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert content(cache) is None  # and does not wait for a writer


def test_missing_stamp_means_no_artifact(cache: ArtifactCache, source: int) -> None:
    """Between the artifact and its stamp: not there yet, and not to be removed either."""
    cache.store(KEY, DIGEST, source, b"")
    artifact_path(cache).with_suffix(".ok").unlink()
    assert content(cache) is None
    assert artifact_path(cache).exists()
    cache.store(KEY, DIGEST, source, b"")
    assert content(cache) is not None


def test_stored_again_replaces(cache: ArtifactCache, source: int, tmp_path: Path) -> None:
    """A recompiled artifact takes the place of the refused one."""
    cache.store(KEY, DIGEST, source, b"old")
    (tmp_path / "other").write_bytes(b"other")
    other = os.open(tmp_path / "other", os.O_RDONLY)
    cache.store(KEY, DIGEST, other, b"new")
    os.close(other)
    assert content(cache) == b"other"


def test_modules_are_remembered_when_they_are_old_enough(
    cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file changed within the clock's grain of the look could change again unseen."""
    module = tmp_path / "module.wasm"
    module.write_bytes(b"one")
    info = module.stat()
    cache.remember(info, DIGEST)
    assert cache.digest_of(info) is None
    later = info.st_ctime_ns + cache_module.RACY_NS + 1
    monkeypatch.setattr(cache_module.time, "time_ns", lambda: later)
    cache.remember(info, DIGEST)
    assert cache.digest_of(module.stat()) == DIGEST
    module.write_bytes(b"two")
    assert cache.digest_of(module.stat()) is None


def test_a_digest_is_a_digest(cache: ArtifactCache, tmp_path: Path) -> None:
    """What is read from the cache ends up in paths: nothing but hex digits passes."""
    info = tmp_path.stat()
    cache.fileno()
    os.makedirs(os.path.join(cache.root, "modules"), exist_ok=True)
    path = os.path.join(cache.root, "modules", cache_module._stat_key(info))
    for bad in ("../../etc/passwd", "AB" * 32, "a" * 63, "a" * 65):
        os.symlink(bad, path)
        assert cache.digest_of(info) is None
        os.unlink(path)


def test_one_at_a_time(cache: ArtifactCache) -> None:
    """Two that want to compile the same: one gets the lock, and gives it back without a trace."""
    lock = cache.try_lock(KEY, DIGEST)
    assert lock is not None
    with ArtifactCache(cache.root) as other:
        assert other.try_lock(KEY, DIGEST) is None
        cache.unlock(KEY, DIGEST, lock)
        lock = other.try_lock(KEY, DIGEST)
        assert lock is not None
        other.unlock(KEY, DIGEST, lock)
    assert names(cache) == []


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_root_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """It says what to do about it."""
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(CacheError, match="writable by nobody else") as caught:
        ArtifactCache(str(root)).fileno()
    assert caught.value.hint


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="Not a directory"):
        ArtifactCache(str(tmp_path / "file" / "cache")).fileno()


def test_default_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, then root's own place, then XDG."""
    monkeypatch.setenv("WASISUP_CACHE_DIR", "/x")
    assert default_root() == "/x"
    monkeypatch.delenv("WASISUP_CACHE_DIR")
    monkeypatch.setattr(cache_module.os, "geteuid", lambda: 0)
    assert default_root() == "/var/cache/wasisup"
    monkeypatch.setattr(cache_module.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_root() == "/xdg/wasisup"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_root() == "/home/u/.cache/wasisup"


def test_list_and_prune(cache: ArtifactCache, source: int, tmp_path: Path) -> None:
    """The most recently used stay; what no engine here can use goes first."""
    key = engine_key("cranelift", fuel=False)
    for age, digest in enumerate(("11" * 32, "22" * 32, "33" * 32)):
        cache.store(key, digest, source, b"")
        used = time.time() - age * 1000
        os.utime(
            artifact_path(cache, key, digest).with_suffix(".ok"),
            (used, used),
            follow_symlinks=False,
        )
    cache.store("49.0.0_pulley_any", DIGEST, source, b"")
    entries = cache.list()
    assert {e.digest for e in entries} == {"11" * 32, "22" * 32, "33" * 32, DIGEST}
    mine = [e for e in entries if e.engine == ENGINE_RELEASE]
    assert [e.digest for e in mine] == ["11" * 32, "22" * 32, "33" * 32]
    assert (mine[0].target, mine[0].size) == ("cranelift", 11000)
    assert os.path.isfile(mine[0].path)
    assert [e.digest for e in cache.prune()] == [DIGEST]
    assert [e.digest for e in cache.prune(25_000)] == ["33" * 32]
    assert [e.digest for e in cache.prune(0)] == ["11" * 32, "22" * 32]
    assert cache.list() == []
    assert list(Path(cache.root, "artifacts").iterdir()) == []


def test_pruning_forgets_modules_and_leftovers(
    cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests of dropped artifacts, files of compiles that were killed, and filters go."""
    info = tmp_path.stat()
    now = time.time()
    monkeypatch.setattr(cache_module.time, "time_ns", lambda: int((now + 10) * 1e9))
    cache.remember(info, DIGEST)
    cache.write_file("filters/old.bpf", b"12345678")
    lock = cache.try_lock(KEY, DIGEST)
    assert lock is not None
    left = artifact_path(cache).parent / "tmp-1-x"
    left.write_text("half")
    monkeypatch.setattr(cache_module.time, "time", lambda: now + 10_000)
    cache.prune()
    assert cache.digest_of(info) is None
    assert not left.exists()
    assert list(Path(cache.root, "filters").iterdir()) == []
    assert artifact_path(cache).with_suffix(".lock").exists()  # somebody is at work
    cache.unlock(KEY, DIGEST, lock)


def test_the_time_of_last_use_is_kept_without_a_write_a_run(
    cache: ArtifactCache, source: int
) -> None:
    """Once an hour; and the stamp goes on agreeing."""
    cache.store(KEY, DIGEST, source, b"")
    link = artifact_path(cache).with_suffix(".ok")
    old = time.time() - 2 * cache_module.LAST_USED_GRAIN_SECONDS
    os.utime(link, (old, old), follow_symlinks=False)
    assert content(cache) is not None
    first = link.lstat().st_mtime
    assert first > old + cache_module.LAST_USED_GRAIN_SECONDS
    assert content(cache) is not None
    assert link.lstat().st_mtime == first


def test_small_files_are_whole_or_absent(cache: ArtifactCache) -> None:
    """Written twice: the second one counts."""
    assert cache.read_file("filters/x") is None
    cache.write_file("filters/x", b"one")
    cache.write_file("filters/x", b"two")
    assert cache.read_file("filters/x") == b"two"


def test_a_cache_for_one_run_leaves_nothing() -> None:
    """Where the usual cache cannot be written."""
    made = Ephemeral()
    made.write_file("filters/x", b"one")
    assert os.path.isdir(made.root)
    made.close()
    assert not os.path.exists(made.root)


def test_locks_of_killed_compiles_are_swept(cache: ArtifactCache) -> None:
    """A lock that nobody holds goes, and its folder with it; a held one stays."""
    other = "cd" * 32
    held, killed = cache.try_lock(KEY, DIGEST), cache.try_lock(KEY, other)
    assert held is not None
    assert killed is not None
    os.close(killed)  # as the kernel does at the end of a process
    cache.prune()
    assert names(cache) == [f"{DIGEST}.lock"]
    os.close(held)
    cache.prune()
    assert not artifact_path(cache).parent.exists()


def test_two_prunes_at_once(cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other has removed already is no error."""
    cache.write_file("filters/run.bpf", b"x")
    real = upkeep._names

    def names_and_gone(of: ArtifactCache, folder: str) -> list[str]:
        found = real(of, folder)
        if folder == "filters":
            Path(of.root, "filters", "run.bpf").unlink()
        return found

    monkeypatch.setattr(upkeep, "_names", names_and_gone)
    assert cache.prune() == []


def test_what_killed_runs_left_of_their_own_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next such run removes it; caches of living ones, and what is not ours, stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Ephemeral() as living:
        (tmp_path / "wasisup-this-run-killed").mkdir()
        (tmp_path / "wasisup-this-run-killed" / "artifact").touch()
        (tmp_path / "wasisup-this-run-file").touch()
        (tmp_path / "wasisup-cache-other").mkdir()
        with Ephemeral() as own:
            expected = {Path(living.root).name, Path(own.root).name}
            expected |= {"wasisup-this-run-file", "wasisup-cache-other"}
            assert set(os.listdir(tmp_path)) == expected
    assert sorted(os.listdir(tmp_path)) == ["wasisup-cache-other", "wasisup-this-run-file"]
