"""The daemon's brokers, with the real core: launched, heard, ended, and nothing of them left."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from support.processes import children
from wasisup.runtime import filters, spec
from wasisup.supervisor import broker
from wasisup.supervisor import keeper as keepers
from wasisup.supervisor.brokers import Brokers, LookUps, RunNetwork
from wasisup.supervisor.errors import SetupError, UsageError, WallMissing
from wasisup.supervisor.model import NetGrant, RunRecord, RunRequest

PROGRAM = filters.build(broker.PROFILE, 1)
GRANTS = [NetGrant("connect", "tcp", "127.0.0.1", 80, 80)]


def nothing() -> None:
    """For what is told and not asked about."""


def add_filter(writer: spec.SpecWriter) -> None:
    writer.filter(1, PROGRAM)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """No descriptor and no process outlives a test."""
    before = os.listdir("/proc/self/fd"), children(os.getpid())
    yield
    assert (os.listdir("/proc/self/fd"), children(os.getpid())) == before


def run(test: Callable[[Brokers, keepers.Keeper], Awaitable[None]]) -> None:
    """Runs the test's steps with brokers whose workers' keeper has no zygote."""

    async def steps() -> None:
        workers = keepers.Keeper(nothing)
        brokers = Brokers(nothing, workers)
        try:
            await test(brokers, workers)
        finally:
            await brokers.close()

    asyncio.run(asyncio.wait_for(steps(), 30))


def launch(
    brokers: Brokers,
    adds: Callable[[spec.SpecWriter], None] = add_filter,
    **grants: Any,
) -> Awaitable[RunNetwork]:
    request = RunRequest(module="m", **(grants or {"net": GRANTS}))
    identity = (65534, 65534, []) if os.geteuid() == 0 else None
    return brokers.launch(request, identity, missing=0, cgroup=None, add_filter=adds)


async def ended(made: RunNetwork) -> tuple[resource.struct_rusage, RunRecord]:
    """Ends it, and waits for that."""
    done: asyncio.Future[tuple[resource.struct_rusage, RunRecord]] = asyncio.Future()
    made.end(lambda usage, record: done.set_result((usage, record)))
    return await done


def pid_of(made: RunNetwork) -> int:
    return made._worker.pid


async def gone(pidfd: int) -> None:
    """Waits for the end of a process; the descriptor is closed."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, over.set)
    await over.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)


def test_a_broker_comes_and_goes() -> None:
    """Ready when it is returned; its record is told with its end."""

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        for _ in range(3):
            made = await launch(brokers)
            assert pid_of(made) in workers.workers
            _, record = await ended(made)
            assert "seccomp" in record.walls
            assert not workers.workers

    run(steps)


def test_many_at_a_time() -> None:
    """Each gets its own, and all go."""

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        made = await asyncio.gather(*[launch(brokers) for _ in range(40)])
        assert len({pid_of(one) for one in made}) == 40 == len(workers.workers)
        await asyncio.gather(*[ended(one) for one in made])

    run(steps)


def test_a_wall_that_does_not_stand_is_a_failed_launch() -> None:
    """The broker says which, and nothing is left of it."""

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        with pytest.raises(WallMissing, match="broker"):
            await launch(brokers, lambda _: None)
        while workers.workers:
            await asyncio.sleep(0)

    run(steps)


def test_a_plan_that_fails_is_a_failed_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is any process."""

    def fails(*_: object) -> None:
        raise UsageError("no such host")

    monkeypatch.setattr("wasisup.supervisor.brokers.plan", fails)

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        before = children(os.getpid())
        with pytest.raises(UsageError, match="no such host"):
            await launch(brokers)
        assert children(os.getpid()) == before

    run(steps)


def test_one_that_ends_by_itself() -> None:
    """The worker's end sees that, and the run's end is told all the same."""

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        made = await launch(brokers)
        os.kill(pid_of(made), signal.SIGKILL)
        while workers.workers:
            await asyncio.sleep(0)
        assert made.ends.end.recv(10, socket.MSG_DONTWAIT) == b""
        _, record = await ended(made)
        assert record.phase == "running"
        other = await launch(brokers)
        os.kill(pid_of(other), signal.SIGKILL)
        while workers.workers:
            await asyncio.sleep(0)
        await other.gone()

    run(steps)


def test_a_launch_that_nobody_waits_for_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled at every turn of the event loop: nothing is left, wherever that was."""

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        await ended(await launch(brokers))
        for turns in range(25):
            task = asyncio.ensure_future(launch(brokers))
            for _ in range(turns):
                await asyncio.sleep(0.0001 * (turns % 5))
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await ended(task.result())
        await ended(await launch(brokers))  # and by now all of them are answered
        while workers.workers:
            await asyncio.sleep(0)

    run(steps)


def test_names_are_looked_up_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer holds neither the loop, nor others, nor the end."""
    slow = threading.Event()

    def look_up(question: bytes) -> bytes:
        if question == b"slow.example":
            slow.wait(20)
        return b"\0\0\0\0" + question

    monkeypatch.setattr(broker, "look_up", look_up)

    async def ask(made: RunNetwork, name: bytes) -> bytes:
        assert made.ends.resolver is not None
        made.ends.resolver.send(name)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, made.ends.resolver.recv, 100)

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        one, other = await launch(brokers, net_host=True), await launch(brokers, net_host=True)
        assert one.ends.resolver is not None
        one.ends.resolver.send(b"slow.example")
        assert await ask(other, b"fast.example") == b"\0\0\0\0fast.example"
        assert await ask(other, b"again.example") == b"\0\0\0\0again.example"
        await asyncio.gather(ended(one), ended(other))
        assert not slow.is_set()

    try:
        run(steps)
    finally:
        slow.set()


def test_look_ups_are_bounded() -> None:
    """One more waits for a thread, whose place is taken until it has ended."""

    async def steps() -> None:
        look_ups = LookUps(2)
        go, begun = threading.Event(), [threading.Event() for _ in range(3)]

        def work(at: int) -> int:
            begun[at].set()
            assert go.wait(20)
            return at

        tasks = [asyncio.ensure_future(look_ups.run(lambda at=at: work(at))) for at in range(3)]
        loop = asyncio.get_running_loop()
        for at in (0, 1):
            assert await loop.run_in_executor(None, begun[at].wait, 20)
        tasks[0].cancel()
        await asyncio.sleep(0.01)
        assert not begun[2].is_set()
        go.set()
        assert await tasks[1] == 1
        assert await tasks[2] == 2

        def fails() -> None:
            raise SetupError("no")

        with pytest.raises(SetupError, match="no"):
            await look_ups.run(fails)

    asyncio.run(asyncio.wait_for(steps(), 30))


def test_the_brokers_zygote_is_replaced() -> None:
    """Killed, it takes no broker with it, and the next launch has another."""

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        made = await launch(brokers)
        zygote = brokers._keeper.pid
        assert zygote is not None
        over = gone(os.pidfd_open(zygote))
        os.kill(zygote, signal.SIGKILL)
        await over
        await ended(await launch(brokers))
        assert brokers._keeper.pid not in (None, zygote)
        assert made.ends.end.send(b"x") == 1  # it still listens
        await ended(made)

    run(steps)


@pytest.mark.parametrize("becomes_known", [True, False])
def test_a_lost_zygote_of_workers_and_a_broker_nobody_knows_yet(becomes_known: bool) -> None:
    """While a launch of a broker is under way, a child may be that; afterwards it is or it goes.

    A worker that was just taken over can look like a broker from outside.
    """

    async def steps(brokers: Brokers, workers: keepers.Keeper) -> None:
        await workers.start()
        made = await launch(brokers)
        pid = pid_of(made)
        under_way: asyncio.Future[Any] = asyncio.Future()
        workers.workers.discard(pid)
        brokers._keeper._under_way.append(under_way)
        workers._lost("as a test has it")
        await asyncio.sleep(2 * keepers._DOUBT_SECONDS)
        os.kill(pid, 0)  # it lives
        if becomes_known:
            workers.workers.add(pid)
        else:
            asyncio.get_running_loop().remove_reader(made._worker.pidfd)
        brokers._keeper._under_way.remove(under_way)
        await asyncio.sleep(2 * keepers._DOUBT_SECONDS)
        if becomes_known:
            os.kill(pid, 0)
            await ended(made)
        else:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            os.close(made._worker.pidfd)
            made.ends.close()
        await workers.close()

    run(steps)
