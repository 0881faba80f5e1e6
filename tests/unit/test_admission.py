"""Admission: limits that hold, turns that are fair, and a queue that is bounded."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from wasisup.supervisor.daemon.admission import (
    MAX_PASSES,
    Admission,
    Full,
    NeverFits,
    Stopped,
    Ticket,
    Usage,
)

MIB = 1 << 20
PLENTY = 1_000_000


class House:
    """An Admission with a clock of its own; `log` has the names of the runs that were started."""

    def __init__(self, runs: int = PLENTY, queued: int = PLENTY, memory: int = PLENTY) -> None:
        self.now = 0.0
        self.admission = Admission(runs, queued, memory, clock=lambda: self.now)
        self.log: list[str] = []
        self.tickets: dict[str, Ticket] = {}

    def ask(
        self,
        name: str,
        memory: int = 1,
        uid: int = 0,
        runs: int = PLENTY,
        queued: int = PLENTY,
        share: int | None = None,
    ) -> Ticket:
        def start() -> None:
            self.log.append(name)

        ticket = self.admission.enqueue(uid, memory, runs, queued, start, share=share)
        self.tickets[name] = ticket
        return ticket

    def finish(self, name: str) -> None:
        self.admission.finished(self.tickets[name])


def test_room_is_used_at_once() -> None:
    """Within the call; what finishes makes room for the next, within that call."""
    house = House(runs=2)
    for name in "abc":
        house.ask(name, memory=5)
    assert house.log == ["a", "b"]
    admission = house.admission
    assert (admission.running, admission.queued, admission.promised) == (2, 1, 10)
    assert admission.of(0) == Usage(2, 1, 10)
    assert admission.of(1) == Usage(0, 0, 0)
    house.finish("b")
    assert house.log == ["a", "b", "c"]
    house.finish("a")
    house.finish("c")
    assert (admission.running, admission.queued, admission.promised) == (0, 0, 0)
    assert admission.of(0) == Usage(0, 0, 0)


def test_each_limit_holds() -> None:
    """Of all runs, of their memory, and of one caller's."""
    house = House(runs=3, memory=100)
    house.ask("a1", uid=1, runs=1)
    house.ask("a2", uid=1, runs=1)
    house.ask("b", uid=2, memory=90)
    house.ask("c", uid=3, memory=20)
    house.ask("d", uid=4)
    house.ask("e", uid=5)
    assert house.log == ["a1", "b", "d"]
    house.finish("b")
    assert house.log == ["a1", "b", "d", "c"]
    house.finish("a1")
    assert house.log == ["a1", "b", "d", "c", "a2"]
    house.finish("c")
    assert house.log[-1] == "e"


def test_callers_take_turns() -> None:
    """One with many waiting runs delays another by one run, not by all of them."""
    house = House(runs=1)
    for number in range(50):
        house.ask(f"flood{number}", uid=1)
    house.ask("quiet0", uid=2)
    house.ask("quiet1", uid=2)
    for _ in range(4):
        house.finish(house.log[-1])
    assert house.log == ["flood0", "flood1", "quiet0", "flood2", "quiet1"]


def test_full() -> None:
    """Refused at once, by whose limit, and with a time to come back; nothing is left of it."""
    house = House(runs=1, queued=2)
    house.ask("a", uid=1, queued=1)
    house.ask("b", uid=1, queued=1)
    with pytest.raises(Full) as share:
        house.ask("c", uid=1, queued=1)
    assert (share.value.what, share.value.retry_after) == ("share", 1)
    assert "your share of the queue is full: 1 runs" in share.value.message
    house.ask("d", uid=2)
    with pytest.raises(Full) as queue:
        house.ask("e", uid=3)
    assert queue.value.what == "queue"
    assert house.admission.of(3) == Usage(0, 0, 0)
    assert house.admission.queued == 2


def test_no_queue_at_all() -> None:
    """What can start at once needs no place in the queue."""
    house = House(runs=1, queued=0)
    house.ask("a", queued=0)
    with pytest.raises(Full):
        house.ask("b")
    house.finish("a")
    house.ask("c", queued=0)
    assert house.log == ["a", "c"]


@pytest.mark.parametrize(
    ("lasted", "waiting", "seconds"), [(0.01, 3, 1), (2.5, 4, 10), (100, 3, 60)]
)
def test_when_to_try_again(lasted: float, waiting: int, seconds: int) -> None:
    """As long as those who wait will take, from how long runs took; from 1 to 60 seconds."""
    house = House(runs=1)
    for name in "abc":
        house.ask(name)
        house.now += lasted
        house.finish(name)
    house.admission.reconfigure(1, waiting, PLENTY)
    house.ask("d")
    for number in range(waiting):
        house.ask(str(number))
    with pytest.raises(Full) as full:
        house.ask("e")
    assert full.value.retry_after == seconds


def test_what_can_never_start() -> None:
    """Refused, in place of waiting for ever."""
    house = House(memory=10)
    with pytest.raises(NeverFits, match="11 bytes"):
        house.ask("a", memory=11)
    with pytest.raises(NeverFits):
        house.ask("b", runs=0)
    house.ask("c", memory=10)
    assert house.log == ["c"]
    with pytest.raises(ValueError, match="at least one"):
        Admission(0, 0, 0)


def test_a_big_run_is_not_starved() -> None:
    """Small runs of others pass it over so many times; then they wait until it has started."""
    house = House(memory=10)
    house.ask("first", memory=5)
    house.ask("big", memory=10, uid=1)
    for number in range(MAX_PASSES + 5):
        house.ask(f"small{number}", uid=2)
        house.ask(f"more{number}", uid=3)
        for name in ("small", "more"):
            if f"{name}{number}" in house.log:
                house.finish(f"{name}{number}")
    assert len(house.log) == 1 + MAX_PASSES
    assert "big" not in house.log
    house.finish("first")
    assert house.log[-1] == "big"
    assert house.admission.running == 1
    house.finish("big")
    assert house.admission.running == 10


def test_a_starved_run_that_waits_for_its_caller() -> None:
    """Its caller's own limit is no reason for others to wait."""
    house = House(memory=10)
    house.ask("first", memory=5)
    house.ask("big", memory=10, uid=1, runs=1)
    for number in range(MAX_PASSES):
        house.ask(f"small{number}", uid=2)
        house.finish(f"small{number}")
    house.ask("blocked", uid=2)
    assert house.log[-1] == f"small{MAX_PASSES - 1}"
    house.admission.cancel(house.tickets["big"])
    assert house.log[-1] == "blocked"


def test_nobody_takes_all_the_memory() -> None:
    """Each caller has a share; one who waits for their own never holds up the others."""
    house = House(memory=100)
    house.ask("a", memory=60, uid=1, share=60)
    house.ask("b", memory=10, uid=1, share=60)
    with pytest.raises(NeverFits, match="all of yours together 60"):
        house.ask("never", memory=61, uid=1, share=60)
    for number in range(MAX_PASSES + 2):
        house.ask(f"other {number}", memory=2, uid=2)
    assert house.log == ["a", *(f"other {number}" for number in range(MAX_PASSES + 2))]
    house.finish("a")
    assert house.log[-1] == "b"


def test_cancel() -> None:
    """Of a run that waits, and of no other; it makes way for those behind it."""
    house = House(memory=10)
    running = house.ask("a", memory=5)
    waiting = house.ask("big", memory=6)
    house.ask("small", memory=5)
    assert house.log == ["a"]
    house.admission.cancel(waiting)
    assert house.log == ["a", "small"]
    for ticket in (running, waiting):
        with pytest.raises(ValueError, match="not queued"):
            house.admission.cancel(ticket)
    house.finish("a")
    with pytest.raises(ValueError, match="not running"):
        house.finish("a")
    with pytest.raises(ValueError, match="not running"):
        house.finish("big")


def test_reconfigure() -> None:
    """More room starts what waits; what no longer fits at all is given back."""
    house = House(runs=1, memory=100)
    house.ask("a", memory=50)
    big = house.ask("big", memory=60, uid=1)
    house.ask("b", memory=1, uid=2)
    house.ask("c", memory=1, uid=3)
    assert house.admission.reconfigure(2, 0, 55) == [big]
    assert house.log == ["a", "b"]
    assert house.admission.reconfigure(1, 0, 55) == []
    house.finish("a")
    assert house.log == ["a", "b"]
    house.finish("b")
    assert house.log == ["a", "b", "c"]
    with pytest.raises(ValueError, match="not running"):
        house.admission.finished(big)


def test_stop() -> None:
    """What waits is given back, what runs may finish, and nothing else starts."""
    house = House(runs=1)
    house.ask("a")
    waiting = [house.ask("b"), house.ask("c", uid=1)]
    assert house.admission.stop() == waiting
    with pytest.raises(Stopped):
        house.ask("d")
    house.finish("a")
    house.admission.reconfigure(5, 5, 5)
    assert house.log == ["a"]
    assert (house.admission.running, house.admission.queued) == (0, 0)
    assert house.admission.stop() == []


def test_start_may_come_back() -> None:
    """It may finish, cancel and ask: thousands of runs that end at once need no deep stack."""
    house = House(runs=1)
    admission = house.admission
    tickets: list[Ticket] = []
    ended: list[int] = []

    def ender(number: int) -> Callable[[], None]:
        def start() -> None:
            ended.append(number)
            admission.finished(tickets[number])

        return start

    house.ask("first")
    tickets += [admission.enqueue(1, 1, PLENTY, PLENTY, ender(n)) for n in range(5000)]

    def last() -> None:
        admission.cancel(house.tickets["doomed"])
        house.ask("asked")
        house.ask("too late")
        admission.reconfigure(2, PLENTY, PLENTY)

    admission.enqueue(1, 1, PLENTY, PLENTY, last)
    house.ask("doomed", uid=1)
    house.finish("first")
    assert ended == list(range(5000))
    assert house.log == ["first", "asked"]
    assert (admission.running, admission.queued) == (2, 1)


CALLERS = {1: (3, 4), 2: (50, 50), 3: (1, 2), 4: (8, 0)}  # uid: runs, queued


class Crowd:
    """Callers that do anything at any time; checks every promise after each step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.admission = Admission(10, 30, 100 * MIB, clock=self.random.random)
        self.limits = (10, 30, 100 * MIB)
        self.waiting: dict[object, Ticket] = {}
        self.running: dict[object, Ticket] = {}
        self.started: set[object] = set()
        self.over = 0
        self.admitted = 0

    def step(self) -> None:
        choice = self.random.random()
        if choice < 0.55:
            self.ask()
        elif choice < 0.9 and self.running:
            self.admission.finished(self.running.pop(self.random.choice([*self.running])))
            self.over += 1
        elif choice < 0.95 and self.waiting:
            self.admission.cancel(self.waiting.pop(self.random.choice([*self.waiting])))
            self.over += 1
        elif choice > 0.99:
            self.reconfigure()
        self.settle()

    def ask(self) -> None:
        uid = self.random.choice([*CALLERS])
        runs, queued = CALLERS[uid]
        memory = self.random.choice([0, MIB, 10 * MIB, 60 * MIB, 100 * MIB])
        name = object()
        before, all_queued = self.admission.of(uid), self.admission.queued
        try:
            self.waiting[name] = self.admission.enqueue(
                uid, memory, runs, queued, lambda: self.started.add(name)
            )
            self.admitted += 1
        except Full:
            assert before.queued >= queued or all_queued >= self.limits[1]
        except NeverFits:
            assert memory > self.limits[2]

    def reconfigure(self) -> None:
        self.limits = self.random.choice(
            [(10, 30, 100 * MIB), (2, 5, 70 * MIB), (40, 100, 300 * MIB)]
        )
        dropped = self.admission.reconfigure(*self.limits)
        for name in [name for name, ticket in self.waiting.items() if ticket in dropped]:
            assert self.waiting.pop(name).memory > self.limits[2]
            self.over += 1

    def settle(self) -> None:
        """Runs that were started are running now, once each; then every promise holds."""
        grown = bool(self.started)
        for name in self.started:
            self.running[name] = self.waiting.pop(name)
        self.started.clear()
        admission = self.admission
        assert self.admitted == self.over + len(self.waiting) + len(self.running)
        assert (admission.queued, admission.running) == (len(self.waiting), len(self.running))
        assert admission.promised == sum(ticket.memory for ticket in self.running.values())
        if grown:
            assert admission.running <= self.limits[0]
            assert admission.promised <= self.limits[2]
        for uid, (runs, _) in CALLERS.items():
            assert admission.of(uid).running <= runs
        if self.waiting and not self.running:
            pytest.fail("nothing runs and something waits")


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_events(seed: int) -> None:
    """No limit is exceeded, no run lost or started twice, and all end when the running ones do."""
    crowd = Crowd(seed)
    for _ in range(1500):
        crowd.step()
    while crowd.running:
        crowd.admission.finished(crowd.running.pop(next(iter(crowd.running))))
        crowd.over += 1
        crowd.settle()
    assert not crowd.waiting
    assert crowd.admitted == crowd.over > 300


@pytest.mark.parametrize("seed", range(5))
def test_a_flooder_and_a_quiet_caller(seed: int) -> None:
    """However much one caller keeps waiting, a single run of another is among the next two."""
    chance = random.Random(seed)
    house = House(runs=4, queued=100)
    number = 0
    for _ in range(200):
        while house.admission.of(1).queued < 50:
            house.ask(f"flood{number}", uid=1)
            number += 1
        house.ask(f"quiet{number}", uid=2)
        before = len(house.log)
        running = [name for name, ticket in house.tickets.items() if ticket.state == "running"]
        for name in chance.sample(running, 2):
            house.finish(name)
        assert f"quiet{number}" in house.log[before:]
        house.finish(f"quiet{number}")
        number += 1
