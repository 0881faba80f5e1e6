"""Attacks by which one caller's requests would cost the others: places, memory, time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from support.command import SAFETY_NET
from support.puppet import MODULE, Inside, play
from wasisup.supervisor.core import Core, Source
from wasisup.supervisor.daemon.access import Caller
from wasisup.supervisor.daemon.failures import HttpError
from wasisup.supervisor.daemon.modules import ModuleStore, Taken
from wasisup.supervisor.daemon.peers import Budget, Budgets
from wasisup.supervisor.daemon.routes import Table
from wasisup.supervisor.model import RunRecord

SELF = Caller(os.getuid(), os.getgid())


class Compilers(Core):
    """The real core with compilers that never come to an end.  begun, ended: of each."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.ended: asyncio.Queue[None] = asyncio.Queue()

    async def _run_compiler(self, *_: Any) -> Any:
        self.begun.put_nowait(None)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.put_nowait(None)


def _source() -> Source:
    data = b"(module)"
    fd = os.memfd_create("module")
    os.write(fd, data)
    return Source(fd, hashlib.sha256(data).hexdigest(), len(data))


def test_compile_ends_with_the_last_who_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has compilers at work by starting runs and going away."""

    async def attack() -> None:
        core, source = Compilers(), _source()
        waiting = [
            asyncio.create_task(core.compile(source, "m", "cranelift", SELF, fuel=False))
            for _ in range(2)
        ]
        await asyncio.wait_for(core.begun.get(), SAFETY_NET)
        for one in waiting:
            assert core.ended.empty()
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one
        await asyncio.wait_for(core.ended.get(), SAFETY_NET)
        # Whoever comes then is not told that nobody waits.
        again = asyncio.create_task(core.compile(source, "m", "cranelift", SELF, fuel=False))
        await asyncio.wait_for(core.begun.get(), SAFETY_NET)
        again.cancel()
        await asyncio.wait_for(core.ended.get(), SAFETY_NET)
        source.close()
        await core.close()

    monkeypatch.setenv("WASISUP_CACHE_DIR", str(tmp_path / "cache"))
    asyncio.run(attack())


class _Patient:
    """A core whose compiles end when they are told to."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.begun: asyncio.Queue[int] = asyncio.Queue()

    def compiled(self, *_: Any, **__: Any) -> bool:
        return False

    async def compile(self, _source: Any, _name: str, _engine: str, who: Caller, **__: Any) -> None:
        self.begun.put_nowait(who.uid)
        await self.over.wait()


def test_place_of_a_compile_is_not_lost_on_one_who_goes_away(tmp_path: Path) -> None:
    """A run that is killed in the moment in which its module's turn comes keeps no place."""

    async def attack() -> None:
        core = _Patient()
        store = ModuleStore(
            Mock(), core, Mock(), Budgets(1 << 30), folder=str(tmp_path / "modules"), compiles=1
        )
        first, second, third = (
            asyncio.create_task(store.ensure_compiled(_taken(uid), "cranelift", fuel=False))
            for uid in (1, 2, 3)
        )
        assert await core.begun.get() == 1
        core.over.set()
        second.cancel()  # the first is over before this one hears of it
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.wait_for(third, SAFETY_NET)

    asyncio.run(attack())


def _taken(uid: int) -> Taken:
    source = _source()
    return Taken(
        Caller(uid, uid), "m", source.digest, source.fd, source.size, budget=Budget(1 << 30)
    )


def _many(count: int) -> str:
    return ",".join(f'"{at:x}":""' for at in range(count))


@pytest.mark.parametrize(
    "lists",
    [
        f'"labels": {{{_many(1 << 20)}}}',
        f'"env": {{{_many(1 << 20)}}}',
        '"args": [' + ",".join(['""'] * (4 << 20)) + "]",
        '"dirs": [' + ",".join(['{"guest":"a"}'] * (1 << 20)) + "]",
    ],
    ids=["labels", "env", "args", "dirs"],
)
def test_long_lists_are_refused_before_they_are_read(lists: str) -> None:
    """A request takes none of the daemon's time for elements that are far too many."""
    table = Table(lambda _: Mock())
    request = Mock(method="POST", path="/v1/runs", query="", headers={})
    request.body = f'{{"module": {{"path": "/m"}}, {lists}}}'.encode()
    with pytest.raises(HttpError) as refused:
        asyncio.run(table.answer(request))
    assert refused.value.status == 413


def test_requests_sent_ahead_are_bounded(tmp_path: Path) -> None:
    """Thousands of requests in one write are not all kept until their turn comes."""

    async def attack(inside: Inside) -> None:
        run = await inside.start()
        with inside.connect() as sock:
            sock.setblocking(False)
            first = f"GET /v1/runs/{run}/wait HTTP/1.1\r\n\r\n".encode()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, first + b"GET /v1/healthz HTTP/1.1\r\n\r\n" * 2000)
            (await inside.core.worker(0)).end(0, RunRecord(phase="done", outcome="exit"))
            said = b""
            while part := await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), SAFETY_NET):
                said += part
        assert b" 429 " in said
        assert said.count(b"HTTP/1.1 200") < 300

    play(tmp_path, attack)


def test_run_that_cannot_be_written_down_keeps_no_place(tmp_path: Path) -> None:
    """Whatever a record fails of, its run's place is free again."""

    async def attack(inside: Inside) -> None:
        inside.state.records.begin = Mock(side_effect=UnicodeEncodeError("utf-8", "", 0, 1, "no"))
        answer = await inside.ask("POST", "/v1/runs", {"module": MODULE})
        answer.refused(500)
        assert inside.state.admission.running == 0

    play(tmp_path, attack)


def test_list_of_long_runs_ends_early(tmp_path: Path) -> None:
    """Records full of arguments come in several answers, each of which the daemon can bear."""

    async def attack(inside: Inside) -> None:
        args = ["x" * (1 << 19)]
        begun = [await inside.start(args=args) for _ in range(20)]
        for state in ("running", "ended"):
            found: list[str] = []
            target = f"/v1/runs?state={state}&limit=1000"
            following: str | None = ""
            while following is not None:
                answer = await inside.ask("GET", target + following)
                assert len(answer.body) < 10 << 20
                found += [run["id"] for run in answer.ok()["runs"]]
                last = answer.json["next"]
                following = None if last is None else f"&before={last}"
            assert sorted(found) == sorted(begun)
            for at in range(20):
                (await inside.core.worker(at)).end(0, RunRecord(phase="done", outcome="exit"))

    play(tmp_path, attack)
