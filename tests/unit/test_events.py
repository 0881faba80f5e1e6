"""The hub of events: everybody gets what they want, and nobody can hold it up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from wasisup.supervisor import wire
from wasisup.supervisor.daemon.events import Hub, Subscription

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def event(run: str, kind: str = "queued") -> wire.Event:
    return wire.Event(time=NOW, type=kind, run=run)


async def read(events: Subscription) -> list[str]:
    """What is left of an ended subscription: runs, or how many events were lost."""
    return [f"lost {one.count}" if one.type == "lost" else str(one.run) async for one in events]


def test_everybody_gets_what_they_want() -> None:
    """From when they subscribed, in order, each for themselves."""

    async def scenario() -> None:
        hub = Hub()
        assert not hub.heard
        hub.publish(event("unheard"))
        everything = hub.subscribe()
        assert hub.heard
        hub.publish(event("a"))
        ends = hub.subscribe(lambda one: one.type == "ended")
        hub.publish(event("a", "ended"))
        hub.publish(event("b"))
        hub.close()
        assert not hub.heard
        assert await read(everything) == ["a", "a", "b"]
        assert await read(ends) == ["a"]
        hub.publish(event("late"))
        assert await read(hub.subscribe()) == []

    asyncio.run(scenario())


def test_a_reader_that_waits_is_woken() -> None:
    """By an event that it wants, by no other, and by the end."""

    async def scenario() -> None:
        hub = Hub()
        events = hub.subscribe(lambda one: one.run != "b")
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        hub.publish(event("b"))
        hub.publish(event("a"))
        hub.publish(event("c"))
        assert (await first).run == "a"
        assert (await anext(events)).run == "c"
        rest = asyncio.ensure_future(read(events))
        await asyncio.sleep(0)
        hub.close()
        assert await rest == []

    asyncio.run(scenario())


def test_a_slow_reader_loses_events() -> None:
    """The others do not; where events are missing, one event says how many."""

    async def scenario() -> None:
        hub = Hub()
        slow, quick = hub.subscribe(buffer=3), hub.subscribe()
        for number in range(10):
            hub.publish(event(str(number)))
        assert [(await anext(slow)).run for _ in range(2)] == ["0", "1"]
        for number in range(10, 14):
            hub.publish(event(str(number)))
        hub.close()
        assert await read(slow) == ["2", "lost 7", "10", "lost 3"]
        assert await read(quick) == [str(number) for number in range(14)]

    asyncio.run(scenario())


def test_a_loss_that_was_read_is_over() -> None:
    """The next one is counted from the start."""

    async def scenario() -> None:
        hub = Hub()
        events = hub.subscribe(buffer=1)
        for number in range(3):
            hub.publish(event(str(number)))
        assert (await anext(events)).run == "0"
        assert (await anext(events)).count == 2
        for number in range(3, 5):
            hub.publish(event(str(number)))
        hub.close()
        assert await read(events) == ["3", "lost 1"]

    asyncio.run(scenario())


def test_leaving() -> None:
    """A closed subscription costs nothing any more and holds nothing; closing twice is harmless."""

    async def scenario() -> None:
        hub = Hub()
        with hub.subscribe() as events:
            hub.publish(event("a"))
        assert not hub.heard
        assert await read(events) == []
        events.close()
        hub.close()
        hub.close()

    asyncio.run(scenario())


def test_a_cancelled_reader_misses_nothing() -> None:
    """What comes after its wait was cancelled is there for the next one."""

    async def scenario() -> None:
        hub = Hub()
        events = hub.subscribe()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        waiting.cancel()
        hub.publish(event("a"))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await anext(events)).run == "a"

    asyncio.run(scenario())
