"""Every attack of the table, in every setting: nothing gets anywhere.

The `bare` setting takes the filters away, so that the other walls are tested and not only the one
that every attack meets first.  `other` runs the attack as a worker of somebody else's, launched by
root; CI runs the whole suite once more as an ordinary user, where the walls stand in a user
namespace.
"""

from __future__ import annotations

import os
import re

import pytest

from .attacks import ATTACKS
from .driver import SANITIZED, Core, Grant, Result, Setting
from .shapes import (
    Answers,
    AtMost,
    Attack,
    Expectation,
    Fails,
    Harmless,
    Killed,
    NotTried,
    Stopped,
    Trapped,
)
from .steps import number
from .world import World

PROFILES = {"none": "run-cranelift", "dirs": "run-cranelift-directories", "bare": None}
CALLERS = ("self", "other") if os.getuid() == 0 else ("self",)
NOBODY = (65534, 65534)
# A sanitized core runs without RLIMIT_DATA, since the sanitizer's own shadow would be over it.
UNLIMITED_WHEN_SANITIZED = {"too much memory", "too much heap", "raise RLIMIT_DATA"}
# What a step that is not a call by number makes the kernel do first.
CALLS_OF_SPECIALS = {
    "fork-bomb": "clone",
    "run-anonymous": "mmap",
    "touch": "mmap",
    "block-signals": "rt_sigreturn",
}


def granted(world: World) -> tuple[Grant, ...]:
    """The two directories of the settings that have any; they become descriptors 3 and 4."""
    return Grant(world.writable), Grant(world.read_only, read_only=True)


def spell(attack: Attack, world: World, directories: bool) -> list[str]:
    """The attack's steps with the places filled in."""
    places = {
        **world.places,
        "rw": "3" if directories else "-100",
        "ro": "4" if directories else "-100",
    }
    return [re.sub(r"<([\w-]+)>", lambda found: places[found[1]], step) for step in attack.steps]


def cases() -> list[object]:
    """One case for each attack, setting and caller that has something to say."""
    return [
        pytest.param(attack, setting, caller, id=f"{attack.name}-{setting}-{caller}")
        for attack in ATTACKS
        for setting in PROFILES
        for caller in CALLERS
        if not isinstance(getattr(attack, setting), NotTried)
        and not (SANITIZED and attack.name in UNLIMITED_WHEN_SANITIZED)
    ]


@pytest.mark.parametrize(("attack", "setting", "caller"), cases())
def test_attack(core: Core, world: World, attack: Attack, setting: str, caller: str) -> None:
    """The attack ends as its row says, and the outside is as it was."""
    grants = () if setting == "none" else granted(world)
    identity = NOBODY if caller == "other" else None
    steps = spell(attack, world, bool(grants))
    stdin = os.open(world.root / "stdin.txt", os.O_RDONLY)
    try:
        result = core.run(steps, Setting(PROFILES[setting], grants, identity=identity), stdin)
    finally:
        os.close(stdin)
    damage = world.damage(result.output)
    assert not damage, f"{damage}\n{result}"
    assert result.record.phase in ("running", "done"), f"it never ran: {result}"
    wrong = judge(getattr(attack, setting), steps, result)
    assert not wrong, f"{wrong}\n{result}"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if not isinstance(a.bare, NotTried)], ids=lambda a: a.name
)
def test_attack_without_grants(core: Core, world: World, attack: Attack, caller: str) -> None:
    """In the empty mount namespace that such runs share, and without filters: nothing is harmed."""
    steps = spell(attack, world, directories=False)
    identity = NOBODY if caller == "other" else None
    result = core.run(steps, Setting(None, identity=identity))
    damage = world.damage(result.output)
    assert not damage, f"{damage}\n{result}"
    assert result.record.phase in ("running", "done"), f"it never ran: {result}"


def judge(expected: Expectation, steps: list[str], result: Result) -> str:
    """What is wrong with how an attack ended, or nothing."""
    last = result.steps[-1] if len(result.steps) == len(steps) else None
    match expected:
        case Harmless():
            return ""
        case Trapped(call):
            return judge_trap(call, steps, result)
        case Stopped(signals):
            stopped = result.trapped is not None or -result.code in signals
            return "" if stopped and last is None else "it was not stopped"
        case Killed(signals):
            died = -result.code in signals or result.code >= 128
            return "" if died and last is None else "it was not killed"
        case Fails(errnos):
            if last is None or result.code != 0:
                return "the last step did not come to an end"
            return (
                "" if last.errno in errnos or (not errnos and last.errno) else f"it came to {last}"
            )
        case Answers(value):
            return "" if last and last.result == value else f"it came to {last}"
        case AtMost(value):
            return "" if last and 0 <= last.result <= value else f"it came to {last}"
    return f"nothing is known of {expected}"


def judge_trap(call: str | None, steps: list[str], result: Result) -> str:
    """The worker has to have ended at the step after those that answered, by that step's call."""
    if result.trapped is None:
        return "no call was trapped"
    at = len(result.steps)
    if at == len(steps):
        return "every step was carried out"
    first = steps[at].split(" ")
    if first[0] == "repeat":
        first = first[1:]
    wanted = int(first[0]) if first[0].isdigit() else number(CALLS_OF_SPECIALS[first[0]])
    if call is not None:
        wanted = number(call)
    return "" if result.trapped == wanted else f"trapped {result.trapped}, not {wanted}"


def test_harmless_program_runs(core: Core, world: World) -> None:
    """The attacks fail for what they do, and not because nothing runs in here."""
    result = core.run(["descriptors 64"], Setting(PROFILES["dirs"], granted(world)))
    assert result.code == 0, result
    assert result.record.outcome == "exit", result
    assert result.steps[0].result >= 5, result
