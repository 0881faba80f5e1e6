"""The compile cache as runs see it: what is compiled, how often, and what is never loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command import SAFETY_NET


@pytest.fixture
def cache(room) -> Path:
    """A cache of the test's own."""
    return room / "cache"


@pytest.fixture
def env(cache) -> dict[str, str]:
    return {"WASISUP_CACHE_DIR": str(cache)}


@pytest.fixture
def module(room, guests) -> Path:
    """A module that is old enough for its stat to be trusted."""
    path = room / "module.wasm"
    path.write_bytes(guests.c("hello").read_bytes())
    os.utime(path, (1, 1))
    return path


def artifacts(cache: Path) -> list[Path]:
    return sorted(cache.glob("artifacts/*/*.cwasm"))


def test_compiled_once(wasisup, module, cache, env) -> None:
    """The second run finds what the first one stored, and leaves it alone."""
    assert wasisup.run(module, env=env).ok().text.startswith("hello")
    (first,) = artifacts(cache)
    before = first.stat()
    assert wasisup.run(module, env=env).ok().text.startswith("hello")
    assert artifacts(cache) == [first]
    assert first.stat() == before
    assert before.st_mode & 0o777 == 0o444
    assert cache.stat().st_mode & 0o777 == 0o700


def test_the_content_counts(wasisup, module, cache, env, room) -> None:
    """A copy under another name is the same module."""
    wasisup.run(module, env=env).ok()
    copy = room / "copy.wasm"
    copy.write_bytes(module.read_bytes())
    wasisup.run(copy, env=env).ok()
    assert len(artifacts(cache)) == 1


def test_each_engine_has_its_own(wasisup, module, cache, env) -> None:
    """Machine code, bytecode, and code that counts fuel."""
    wasisup.run(module, env=env).ok()
    wasisup.run("--engine=pulley", module, env=env).ok()
    wasisup.run("--fuel=1000000000", module, env=env).ok()
    assert len(artifacts(cache)) == 3


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_damaged_artifact_is_compiled_again(wasisup, module, cache, env) -> None:
    """It does not agree with its stamp any more."""
    wasisup.run(module, env=env).ok()
    (path,) = artifacts(cache)
    good = path.read_bytes()
    rewrite(path, good[: len(good) // 2])
    assert wasisup.run(module, env=env).ok().text.startswith("hello")
    assert len(path.read_bytes()) == len(good)


@pytest.mark.parametrize("content", [b"", b"junk" * 1000, "foreign"])
def test_a_foreign_artifact_is_compiled_again(wasisup, module, cache, env, content) -> None:
    """Under a stamp that agrees: then the engine refuses it, and the run goes on all the same."""
    wasisup.run(module, env=env).ok()
    (path,) = artifacts(cache)
    if content == "foreign":
        wasisup.run("--engine=pulley", module, env=env).ok()
        (other,) = (found for found in artifacts(cache) if found != path)
        content = other.read_bytes()
    rewrite(path, content)
    info = path.stat()
    stamp = "-".join(
        f"{n:x}" for n in (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    )
    path.with_suffix(".ok").unlink()
    path.with_suffix(".ok").symlink_to(f"{stamp}-{'0' * 64}")
    assert wasisup.run(module, env=env).ok().text.startswith("hello")
    assert path.read_bytes() != content
    assert wasisup.run(module, env=env).ok().text.startswith("hello")


def test_an_artifact_others_could_write_is_not_loaded(wasisup, module, cache, env) -> None:
    """Whoever could write it could have run native code."""
    wasisup.run(module, env=env).ok()
    (path,) = artifacts(cache)
    path.chmod(0o666)
    wasisup.run(module, env=env).ok()
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_cache_others_can_write_is_refused(wasisup, module, cache, env) -> None:
    """125, and a hint."""
    cache.mkdir()
    cache.chmod(0o777)
    result = wasisup.run(module, env=env)
    assert result.status == 125
    assert "writable by nobody else" in result.errors
    assert "WASISUP_CACHE_DIR" in result.errors


def test_no_cache_at_all(wasisup, module) -> None:
    """A home that cannot be written: compiled for this run only, and nothing stays behind."""
    env = {"WASISUP_CACHE_DIR": "/proc/nowhere/cache", "TMPDIR": str(module.parent)}
    before = sorted(module.parent.iterdir())
    assert wasisup.run(module, env=env).ok().text.startswith("hello")
    assert sorted(module.parent.iterdir()) == before


# Counts compiles by appending to a file; otherwise the command as it is.
COUNTING = """
import sys
from wasisup.runtime.compile import Compiler
from wasisup.supervisor.cli import main
real = Compiler._compile
def counted(self, *args, **options):
    with open({log!r}, "a") as log:
        log.write("x")
    return real(self, *args, **options)
Compiler._compile = counted
sys.exit(main())
"""


def test_at_the_same_time_one_compiles(guests, wasisup, env, room, cache) -> None:
    """Five commands start with one new module: one compile, five good runs, no lock left."""
    log = room / "compiles"
    module = guests.go("routines")  # takes seconds to compile
    code = COUNTING.format(log=str(log))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, "run", str(module)],
            env={**wasisup.env, **env},
            stdout=subprocess.PIPE,
        )
        for _ in range(5)
    ]
    outputs = [process.communicate(timeout=SAFETY_NET)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 5
    assert len(set(outputs)) == 1
    assert log.read_text() == "x"
    assert not list(cache.glob("artifacts/*/*.lock"))
    assert not list(cache.glob("artifacts/*/tmp-*"))


def test_a_writable_directory_above_the_cache_is_refused(
    wasisup, guests, module, cache, env, room
) -> None:
    """There or not yet, in use or the default; what the guest left would run as native code."""
    home = {"HOME": str(room), "XDG_CACHE_HOME": str(room / "xdg")}
    for place in (env, home) if os.geteuid() else (env,):
        for _ in ("not yet", "there"):
            result = wasisup.run("--dir", room, module, env=place)
            assert result.status == 125
            assert "could write to the compile cache" in result.errors
            assert "--allow-missing=cache" in result.errors
            wasisup.run(module, env=place).ok()
    (room / "data").mkdir()
    for grant in (f"{room}::ro", str(room / "data")):
        wasisup.run("--dir", grant, module, env=env).ok()
    taken = wasisup.run("--dir", room, "--allow-missing=cache", module, env=env).ok()
    assert taken.report["allow_missing"] == ["cache"]


def test_another_cache_does_not_uncover_the_usual_one(wasisup, module, cache_root, room) -> None:
    """WASISUP_CACHE_DIR for one run: the next may be without it."""
    if os.geteuid() == 0:
        usual, above = {}, "/var/cache"
    else:
        usual, above = {"HOME": str(room), "XDG_CACHE_HOME": ""}, str(room / ".cache")
        (room / ".cache").mkdir()
    elsewhere = {"WASISUP_CACHE_DIR": str(cache_root)}
    result = wasisup.run("--dir", above, module, env={**usual, **elsewhere})
    assert result.status == 125
    assert "could write to the compile cache" in result.errors


def test_a_stopped_compile_holds_nobody_up(wasisup, guests, env) -> None:
    """Ctrl-Z in another terminal: after a while the others compile for themselves."""
    module = guests.go("routines")  # takes seconds to compile
    first = wasisup.popen("run", module, env=env)
    try:
        cache = Path(env["WASISUP_CACHE_DIR"])
        wait_for(lambda: list(cache.glob("artifacts/*/*.lock")))
        first.send_signal(signal.SIGSTOP)
        wasisup.run(module, env=env).ok()
        assert list(cache.glob("artifacts/*/*.lock"))
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    wasisup("cache", "prune", env=env)
    assert not list(cache.glob("artifacts/*/*.lock"))


def wait_for(condition) -> None:
    """Polls until `condition` holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_cache_is_granted_to_nobody(wasisup, module, cache, env) -> None:
    """Neither the cache itself nor a part of it, nor by another name."""
    wasisup.run(module, env=env).ok()
    link = cache.with_name("link")
    link.symlink_to(cache)
    for path in (cache, cache / "artifacts", link):
        result = wasisup.run("--dir", path, module, env=env)
        assert result.status == 125
        assert "granted to nobody" in result.errors
