"""Timers that are moved often, on a loop whose clock the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from wasisup.supervisor.alarm import Alarm


class Loop(asyncio.SelectorEventLoop):
    """Time passes when `pass_by` says so."""

    now = 100.0

    def time(self) -> float:
        return self.now

    async def pass_by(self, seconds: float) -> None:
        self.now += seconds
        # A turn for a timer that is due, and one for what it has called.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    @property
    def timers(self) -> int:
        """Timers that the loop keeps and that are not cancelled."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]


Story = Callable[[Loop, Alarm, list[float]], Awaitable[None]]


async def moved_later(loop: Loop, alarm: Alarm, rung: list[float]) -> None:
    """Each `set` counts from its own moment on."""
    alarm.set(10)
    await loop.pass_by(9)
    alarm.set(10)
    await loop.pass_by(9)
    assert not rung
    await loop.pass_by(1)
    assert rung == [119]


async def moved_earlier(loop: Loop, alarm: Alarm, rung: list[float]) -> None:
    """A shorter time is not kept waiting by the longer one before."""
    alarm.set(600)
    alarm.set(1)
    await loop.pass_by(1)
    assert rung == [101]
    await loop.pass_by(600)
    assert len(rung) == 1


async def cleared(loop: Loop, alarm: Alarm, rung: list[float]) -> None:
    """It does not ring, and can be set again."""
    alarm.set(10)
    alarm.clear()
    assert not alarm.is_set
    await loop.pass_by(20)
    assert not rung
    alarm.set(5)
    assert alarm.is_set
    await loop.pass_by(5)
    assert rung == [125]


async def moved_often(loop: Loop, alarm: Alarm, rung: list[float]) -> None:
    """What it is for: one timer however often it is moved."""
    for _ in range(1000):
        alarm.set(10)
        await loop.pass_by(0.1)
        alarm.clear()
    assert loop.timers <= 1
    assert not rung


async def closed(loop: Loop, alarm: Alarm, rung: list[float]) -> None:
    """Nothing is left with the loop."""
    alarm.set(10)
    alarm.close()
    assert loop.timers == 0
    await loop.pass_by(20)
    assert not rung


@pytest.mark.parametrize("story", [moved_later, moved_earlier, cleared, moved_often, closed])
def test_alarm(story: Story) -> None:
    """It rings once, when it was last told to."""

    async def tell(loop: Loop) -> None:
        rung: list[float] = []
        await story(loop, Alarm(lambda: rung.append(loop.now)), rung)

    loop = Loop()
    try:
        loop.run_until_complete(tell(loop))
    finally:
        loop.close()
