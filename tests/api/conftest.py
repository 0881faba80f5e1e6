"""Daemons to talk to, and what every test leaves behind: nothing."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from support.api import Api
from support.daemon import Daemon

OTHER = 65534  # the uid of a caller that is not root
# Promises of memory, of which no test keeps any; and a test that fails is not waited for.
LIMITS = {"memory": "64GiB", "drain": "2s"}
UNIQUE = '(module (memory (export "memory") 1) (func (export "_start") (drop (i64.const {}))))'


@pytest.fixture(scope="session")
def programs(guests: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The guests of these tests, by the names that the fake core knows them by."""
    import wasmtime

    folder = tmp_path_factory.mktemp("programs")
    slow, broken = folder / "slow.wasm", folder / "broken.wasm"
    # Nobody has compiled it before.
    slow.write_bytes(wasmtime.wat2wasm(UNIQUE.format(secrets.randbits(62))))
    broken.write_bytes(b"\0asm\x01\0\0\0" + b"\xff" * 64)
    built = {name: guests.c(name) for name in ("hello", "stdio", "tell", "quota")}
    return {**built, "slow": slow, "broken": broken}


@pytest.fixture(scope="package", params=["fake", "real"])
def core(request: pytest.FixtureRequest) -> str:
    """Which core the daemons of a test have."""
    return str(request.param)


Make = Callable[..., Daemon]


def _made(stack: ExitStack, core: str, env: dict[str, str], programs: dict[str, Path]) -> Make:
    def make(config: dict[str, Any] | None = None, **options: Any) -> Daemon:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="wasisup-api-", dir="/tmp"))
        )
        os.chmod(folder, 0o755)
        config = {**(config or {}), "limits": {**LIMITS, **(config or {}).get("limits", {})}}
        daemon = Daemon(core, env, folder, programs, config, **options)
        stack.callback(_end, daemon)
        daemon.start()
        os.chmod(daemon.socket, 0o666)
        return daemon

    return make


def _end(daemon: Daemon) -> None:
    """Ends it, unless a test has done so."""
    daemon.let_go()
    if daemon.pidfd >= 0:
        daemon.finish()


@pytest.fixture(scope="package")
def daemon(core: str, base_env: dict[str, str], programs: dict[str, Path]) -> Iterator[Daemon]:
    """A daemon with an ordinary configuration, shared by these tests."""
    # Tests stop its zygote, on a machine that may be busy: it is not taken for lost.
    patient = "import wasisup.supervisor.keeper as k; k.PATIENCE_SECONDS = 120.0"
    with ExitStack() as stack:
        yield _made(stack, core, base_env, programs)(preset=patient)


@pytest.fixture
def make_daemon(core: str, base_env: dict[str, str], programs: dict[str, Path]) -> Iterator[Make]:
    """Starts daemons with configurations of their own; they end with the test."""
    with ExitStack() as stack:
        yield _made(stack, core, base_env, programs)


@pytest.fixture
def no_leak(daemon: Daemon) -> Iterator[None]:
    """After the test the daemon holds no more than at rest."""
    yield
    daemon.hang_up()
    assert not daemon.leaked()


@pytest.fixture
def api(daemon: Daemon, no_leak: None) -> Api:
    """The API of the shared daemon."""
    return daemon.api()


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[FileIO, FileIO]]]:
    """Makes pipes (reader, writer) that are closed after the test."""
    with ExitStack() as stack:

        def new() -> tuple[FileIO, FileIO]:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            return (
                stack.enter_context(FileIO(reader, "r")),
                stack.enter_context(FileIO(writer, "w")),
            )

        yield new


@pytest.fixture
def root() -> None:
    """For tests of several callers."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
