"""Running openers, and who they are run for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from support.processes import children
from wasisup.supervisor.daemon.opener import Openers

T = TypeVar("T")
SOON = 30.0  # for what takes milliseconds


class Caller(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


NOBODY = Caller(65534, 65534)
OTHER = Caller(65533, 65533)
SELF = Caller(os.getuid(), os.getgid(), tuple(os.getgroups()))
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")


def play(
    body: Callable[[Openers], Awaitable[T]],
    *,
    limit: int = 64,
    idle: float = 60,
    patience: float = SOON,
) -> T:
    """Runs `body` with openers that are closed afterwards."""

    async def main() -> T:
        openers = Openers(limit=limit, idle_seconds=idle, patience=patience)
        try:
            return await body(openers)
        finally:
            await openers.close()

    return asyncio.run(main())


async def outcome(request: Awaitable[object]) -> int:
    """The errno of a request, 0 when it succeeded; closes what it got."""
    try:
        opened = await request
    except OSError as error:
        return error.errno or -1
    os.close(opened.fd)  # type: ignore[attr-defined]
    return 0


def inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


async def ended(pidfd: int) -> None:
    """Waits until the process has ended; closes the pidfd."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, over.set)
    await asyncio.wait_for(over.wait(), SOON)
    loop.remove_reader(pidfd)
    os.close(pidfd)


async def started(openers: Openers, caller: Caller) -> int:
    """The pid of that caller's opener, which is made to exist."""
    before = set(children(os.getpid()))
    assert await outcome(openers.directory(caller, "/")) == 0
    (pid,) = set(children(os.getpid())) - before
    return pid
