"""Fixtures of the whole suite: the command, the guests, and what a missing wall means."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from support import guests as build
from support import toolchains
from support.command import Command, command_path
from support.needs import unavailable

# The same examples in every run, and nothing written beside the tests, where not everybody may.
hypothesis.settings.register_profile("suite", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def cache_root() -> Iterator[Path]:
    """The session's compile cache: every module is compiled once.

    Not below /tmp, which tests grant for writing: a cache may not lie within a guest's reach.
    """
    with tempfile.TemporaryDirectory(prefix="wasisup-cache-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """$TMPDIR of the commands: whatever appears in it was left behind by one of them."""
    with tempfile.TemporaryDirectory(prefix="wasisup-scratch-") as folder:
        os.chmod(folder, 0o1777)
        yield Path(folder)


@pytest.fixture(scope="session")
def base_env(cache_root: Path, scratch: Path) -> dict[str, str]:
    """A small environment: no policy, socket or locale of the caller's leaks into the tests."""
    kept = ("PATH", "HOME", "USER", "LANG", "LSAN_OPTIONS", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    return {
        **env,
        "WASISUP_CACHE_DIR": str(cache_root),
        "TMPDIR": str(scratch),
        "NO_COLOR": "1",
        "TERM": "dumb",
    }


@pytest.fixture(scope="session")
def wasisup(base_env: dict[str, str]) -> Command:
    """The installed command."""
    if not os.path.exists(command_path()):
        pytest.fail(f"{command_path()} is not there: install the checkout first (pip install -e .)")
    return Command(base_env)


@pytest.fixture(scope="session")
def as_user(base_env: dict[str, str]) -> Iterator[Command]:
    """The command as an ordinary user; root only, since nobody else can become one."""
    if os.getuid() != 0:
        pytest.skip("already an ordinary user")
    if not shutil.which("setpriv"):
        unavailable("setpriv (util-linux)")
    with tempfile.TemporaryDirectory(prefix="wasisup-user-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        home = os.path.join(folder, "home")
        os.mkdir(home)
        os.chown(home, 65534, 65534)
        env = {**base_env, "HOME": home, "WASISUP_CACHE_DIR": os.path.join(home, "cache")}
        prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
        allowed = subprocess.run(
            [*prefix, "test", "-x", command_path()], env=env, check=False
        ).returncode
        if allowed != 0:
            unavailable(f"a checkout that other users can reach ({command_path()} is not)")
        yield Command(env, prefix)


class Guests:
    """Guest programs by language and name; each is built at its first use."""

    def c(self, name: str, *flags: str) -> Path:
        return build.build_c(name if "/" in name else f"c/{name}", *flags)

    def rust(self, name: str) -> Path:
        try:
            return build.build_rust(f"rust/{name}")
        except LookupError as missing:
            unavailable(str(missing))

    def go(self, name: str) -> Path:
        return build.build_go(f"go/{name}")

    def wat(self, text: str, name: str = "module") -> Path:
        return build.build_wat(text, name)

    def component(self, name: str) -> Path:
        """A component from guests/wat/NAME.wat: no toolchain is needed for these."""
        return build.build_wat((build.SOURCES / "wat" / f"{name}.wat").read_text(), name)

    def foreign(self, name: str) -> Path:
        return build.foreign(name)

    def made_by(self, toolchain: str) -> Path:
        """The component by c, rust, javascript or python: see support.toolchains."""
        make = toolchains.COMPONENTS[toolchain]
        try:
            return make()
        except LookupError as missing:
            unavailable(str(missing))


@pytest.fixture(scope="session")
def guests() -> Guests:
    return Guests()


@pytest.fixture
def room() -> Iterator[Path]:
    """An empty directory that other users can reach too, unlike pytest's own tmp_path."""
    with tempfile.TemporaryDirectory(prefix="wasisup-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
