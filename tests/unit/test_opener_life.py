"""Openers that are spoken to badly, hang, die, or are not needed any more."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from support import silent_fuse
from support.openers import (
    NOBODY,
    OTHER,
    SELF,
    ended,
    needs_root,
    outcome,
    play,
    started,
)
from support.processes import children
from wasisup.runtime import opener as wire
from wasisup.runtime.engine import find_core
from wasisup.supervisor.daemon.opener import Openers
from wasisup.supervisor.errors import OpenerTimeout, SetupError

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# --- the conversation ---


def exchange(opener: wire.Opener, message: bytes, *fds: int) -> tuple[bytes, list[int]]:
    socket.send_fds(opener.socket, [message], fds)
    return opener.receive()


def test_malformed_requests() -> None:
    """EBADMSG, and the next request is answered."""
    head = wire.REQUEST.pack(wire.MAGIC, wire.VERSION, wire.LOOK, 0, 0)
    fd = os.open("/", os.O_PATH)
    opener = wire.start(find_core(), *SELF)
    opener.socket.setblocking(True)
    wire.check_hello(opener.receive()[0])
    cases: list[tuple[bytes, tuple[int, ...]]] = [
        (b"x", ()),
        (head[:-1], (fd,)),
        (head, ()),
        (head, (fd, fd)),
        (head, (fd,) * 9),
        (head + b"/", (fd,)),
        (wire.encode(wire.MODULE, b"/"), (fd,)),
        (wire.encode(wire.MODULE, b"/" * wire.PATH_MAX), ()),
        (wire.encode(0, b"/"), ()),
        (wire.encode(5, b"/"), ()),
        (wire.REQUEST.pack(wire.MAGIC, wire.VERSION, wire.MODULE, 1, 0) + b"/", ()),
        (wire.REQUEST.pack(wire.MAGIC, wire.VERSION + 1, wire.MODULE, 0, 0) + b"/", ()),
        (wire.REQUEST.pack(wire.MAGIC + 1, wire.VERSION, wire.MODULE, 0, 0) + b"/", ()),
    ]
    for message, fds in cases:
        answer, received = exchange(opener, message, *fds)
        assert (wire.decode(answer).err, received) == (errno.EBADMSG, []), message
        assert wire.decode(exchange(opener, head, fd)[0]).err == 0
    for path in (b"", b"relative", b"/a\0b"):
        answer, received = exchange(opener, wire.encode(wire.MODULE, path))
        assert (wire.decode(answer).err, received) == (errno.EINVAL, [])
    if os.getuid() == 0 and "ASAN_OPTIONS" not in os.environ:
        assert len(os.listdir(f"/proc/{opener.pid}/fd")) == 4
    os.close(fd)
    # Its socket's end is its own.
    opener.socket.close()
    assert os.waitstatus_to_exitcode(os.waitpid(opener.pid, 0)[1]) == 0
    os.close(opener.pidfd)


@pytest.mark.parametrize("text", ["exit 7", "printf nonsense >&3; exec sleep 100"])
def test_a_core_that_is_none(room: Path, text: str) -> None:
    """It is tried twice at the most, and the request fails."""
    core = room / "core"
    core.write_text(f"#!/bin/sh\n{text}\n")
    core.chmod(0o755)

    async def main() -> None:
        openers = Openers(core=str(core))
        with pytest.raises(SetupError, match=r"without an answer|another protocol"):
            await openers.module(SELF, "/etc/passwd")
        await openers.close()
        with pytest.raises(SetupError, match="stopping"):
            await openers.module(SELF, "/etc/passwd")

    asyncio.run(main())


def test_a_core_that_is_not_there(room: Path) -> None:
    """SetupError for everybody in the line, however long it is."""

    async def main() -> None:
        openers = Openers(core=str(room / "nothing"))
        asked = [openers.module(SELF, "/etc/passwd") for _ in range(3000)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(result) for result in results} == {SetupError}
        await openers.close()

    asyncio.run(main())


def test_no_number_for_a_descriptor() -> None:
    """EMFILE here is said as such, and passes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def body(openers: Openers) -> None:
        await started(openers, SELF)
        probe = os.open("/", os.O_PATH)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe, limits[1]))
        try:
            assert await outcome(openers.module(SELF, "/etc/passwd")) == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert await outcome(openers.module(SELF, "/etc/passwd")) == 0

    play(body)


# --- openers that hang, die, or are not needed any more ---


def test_a_hung_opener() -> None:
    """OpenerTimeout for whom it served and who waited behind; then there is a new one."""

    async def body(openers: Openers) -> None:
        pid = await started(openers, SELF)
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(OpenerTimeout, match=r"/etc/passwd: no answer .* in 1 s"):
            await openers.module(SELF, "/etc/passwd")
        await ended(pidfd)
        assert await outcome(openers.module(SELF, "/etc/passwd")) == 0

    play(body, patience=1)


@needs_root
def test_a_hung_file_system(room: Path) -> None:
    """A caller's FUSE server that keeps silent: others are served, and its openers are few."""

    async def body(openers: Openers) -> None:
        loop = asyncio.get_running_loop()
        before = len(children(os.getpid()))  # daemons that other tests share
        await started(openers, OTHER)
        with silent_fuse.mounted(room) as device:
            # Once read, a request keeps its process from ending.
            loop.add_reader(device, os.read, device, 1 << 17)
            for _ in range(6):
                asked = asyncio.ensure_future(openers.module(NOBODY, str(room / "x")))
                assert await outcome(openers.module(OTHER, "/etc/passwd")) == 0
                await asyncio.wait([asked])
                assert isinstance(asked.exception(), OpenerTimeout)
            loop.remove_reader(device)
            assert len(children(os.getpid())) - before == 1 + 4
        assert await outcome(openers.module(NOBODY, "/etc/passwd")) == 0

    play(body, patience=0.5)


def test_a_killed_opener() -> None:
    """Idle or at work: one restart, and the request is answered; not a second one."""

    async def body(openers: Openers) -> None:
        pid = await started(openers, SELF)
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        await ended(pidfd)
        pid = await started(openers, SELF)
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(openers.module(SELF, "/etc/passwd"))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        assert await outcome(asked) == 0

    play(body)


def test_a_cancelled_request() -> None:
    """Its answer is nobody's, also not the next one's."""

    async def body(openers: Openers) -> None:
        pid = await started(openers, SELF)
        os.kill(pid, signal.SIGSTOP)
        asked = [asyncio.ensure_future(openers.module(SELF, "/etc/passwd")) for _ in range(3)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        os.kill(pid, signal.SIGCONT)
        opened = await openers.directory(SELF, "/usr")
        assert opened.path == "/usr"
        os.close(opened.fd)

    play(body)


def test_cancelled_when_the_answer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the answer's arrival and the asker's turn: the descriptor is closed."""

    async def body(openers: Openers) -> None:
        await started(openers, SELF)
        asked = asyncio.ensure_future(openers.module(SELF, "/etc/passwd"))
        decode = wire.decode

        def cancel_and_decode(message: bytes) -> wire.Answer:
            asyncio.get_running_loop().call_soon(asked.cancel)
            return decode(message)

        monkeypatch.setattr(wire, "decode", cancel_and_decode)
        await asyncio.wait([asked])
        assert asked.cancelled()

    play(body)


def test_idle_openers_are_ended() -> None:
    """After idle_seconds without a request."""

    async def body(openers: Openers) -> None:
        pidfd = os.pidfd_open(await started(openers, SELF))
        await ended(pidfd)
        assert await outcome(openers.module(SELF, "/etc/passwd")) == 0

    play(body, idle=0.05)


@needs_root
def test_the_limit() -> None:
    """The one that was idle longest makes room; while all are busy, one more waits."""

    async def body(openers: Openers) -> None:
        before = set(children(os.getpid()))  # daemons that other tests share
        first = await started(openers, NOBODY)
        second = await started(openers, OTHER)
        pidfd = os.pidfd_open(first)
        assert await outcome(openers.directory(SELF, "/")) == 0
        await ended(pidfd)
        busy = [second, *set(children(os.getpid())) - before - {first, second}]
        for pid in busy:
            os.kill(pid, signal.SIGSTOP)
        asked = [asyncio.ensure_future(openers.module(c, "/etc/passwd")) for c in (OTHER, SELF)]
        await asyncio.sleep(0)
        waits = asyncio.ensure_future(openers.module(NOBODY, "/etc/passwd"))
        await asyncio.sleep(0)
        assert set(children(os.getpid())) - before <= {first, *busy}
        os.kill(second, signal.SIGCONT)
        assert await outcome(waits) == 0
        for pid in busy[1:]:
            os.kill(pid, signal.SIGCONT)
        assert [await outcome(each) for each in asked] == [0, 0]

    play(body, limit=2)


def test_closing_fails_what_is_under_way() -> None:
    """Nobody waits for an answer that does not come."""

    async def body(openers: Openers) -> None:
        os.kill(await started(openers, SELF), signal.SIGSTOP)
        asked = [asyncio.ensure_future(openers.module(SELF, "/etc/passwd")) for _ in range(3)]
        await asyncio.sleep(0)
        await openers.close()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(result) for result in results} == {"the daemon is stopping"}

    play(body)
