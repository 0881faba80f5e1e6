"""Every attack on the network wall, in every setting: nobody is reached whom no rule allows.

Whatever an attack comes to inside, the outside is looked at after it (outside.py), the broker has
to have ended by itself and well, and what was refused has to be in the report.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .driver import BROKER_ENDS, DESCRIPTORS, Core, Result, Setting
from .network import ATTACKS
from .network_shapes import BROKER, MSG_DONTWAIT, Attack
from .outside import Outside
from .shapes import Fails, NotTried
from .steps import call, data, number, text, words
from .test_walls import CALLERS, NOBODY, judge

SETTINGS = {
    "closed": "run-cranelift-component",
    "net": "run-cranelift-component-network",
    "bare": None,
}
EACCES, EMFILE, EINPROGRESS = 13, 24, 115


@pytest.fixture(scope="module")
def outside(core: Core, hostile_folder: Path) -> Iterator[Outside]:
    """After `core`: a zygote must not inherit anything from it."""
    made = Outside(hostile_folder)
    yield made
    made.close()


def cases() -> list[object]:
    """One case for each attack and setting that has something to say."""
    return [
        pytest.param(attack, setting, id=f"{attack.name}-{setting}")
        for attack in ATTACKS
        for setting in SETTINGS
        if not isinstance(getattr(attack, setting), NotTried)
    ]


@pytest.mark.parametrize(("attack", "setting"), cases())
def test_attack(core: Core, outside: Outside, attack: Attack, setting: str) -> None:
    """The attack ends as its row says, reaches nobody that it may not, and is in the report."""
    rules = None if setting == "closed" else outside.rules
    identity = NOBODY if "other" in CALLERS else None
    steps = outside.spell(attack.steps)
    result = core.run(
        steps, Setting(SETTINGS[setting], component=True, rules=rules, identity=identity)
    )
    knocks, visits = outside.knocks(), outside.visits()
    assert not knocks, f"{knocks}\n{result}"
    assert visits == int(attack.reaches and setting == "net"), f"{visits} visits\n{result}"
    assert result.record.phase in ("running", "done"), f"it never ran: {result}"
    assert result.broker_status in (None, *BROKER_ENDS), result
    wrong = judge(getattr(attack, setting), steps, result)
    assert not wrong, f"{wrong}\n{result}"
    if setting != "bare":
        check_report(attack, outside, setting, result)


def check_report(attack: Attack, outside: Outside, setting: str, result: Result) -> None:
    """Each refusal is in the report that it belongs to, and nothing else is in there."""
    said = result.record if result.broker is None else result.broker
    paths = [denial.path for denial in said.denials]
    assert all(denial.kind == "network" for denial in said.denials)
    refused = [step for step in result.steps if step.errno == EACCES]
    assert sum(denial.count for denial in said.denials) == len(refused), f"{paths}\n{result}"
    if setting == "net":
        wanted = outside.spell(attack.denied)
        assert len(paths) == len(wanted), f"{paths}\n{result}"
        for path, start in zip(paths, wanted, strict=True):
            assert path == start or (start.endswith(":") and path.startswith(start))
        assert not result.record.denials
    expected = getattr(attack, setting)
    if isinstance(expected, Fails) and EACCES in expected.errnos:
        assert paths


def test_harmless_component_reaches_what_it_may(core: Core, outside: Outside) -> None:
    """The attacks fail for what they do, and not because nothing gets anywhere."""
    allowed = next(attack for attack in ATTACKS if attack.reaches)
    steps = outside.spell(allowed.steps)
    setting = Setting(SETTINGS["net"], component=True, rules=outside.rules)
    result = core.run(steps, setting)
    assert outside.visits() == 1
    assert result.record.outcome == "exit", result


# --- others ---

SOCKET, SENDMSG = number("socket"), number("sendmsg")
# 253 descriptors, the most that a message takes, all of them stdin: the control message's length
# (SCM_RIGHTS of SOL_SOCKET), and zeros.
_DESCRIPTORS = 253
_CONTROL = data(struct.pack("<QII", 16 + 4 * _DESCRIPTORS, 1, 1) + bytes(4 * _DESCRIPTORS))
_MESSAGE = words(0, 0, words(text("flood"), 5), 1, _CONTROL, 16 + 4 * _DESCRIPTORS + 4, 0)
FLOOD = f"repeat {SENDMSG} {BROKER} {_MESSAGE} {MSG_DONTWAIT}"


def test_sockets_are_bounded(core: Core, outside: Outside) -> None:
    """A worker has as many sockets as it may have descriptors, whoever makes them."""
    steps = [f"repeat {SOCKET} 2 1 0", call("socket", 2, 1, 0)]
    result = core.run(steps, Setting(SETTINGS["net"], component=True, rules=outside.rules))
    assert 0 < result.steps[0].result <= DESCRIPTORS + 3 + 2 + 8, result
    assert result.steps[1].errno == EMFILE
    assert result.broker_status in BROKER_ENDS


@pytest.mark.parametrize("filtered", [True, False])
def test_flood_is_no_neighbour_s_business(
    core: Core, pulley_core: Core, outside: Outside, filtered: bool
) -> None:
    """While one worker floods its broker with descriptors, the user's next run is served."""
    identity = NOBODY if "other" in CALLERS else None
    setting = Setting(
        SETTINGS["net"] if filtered else None,
        component=True,
        rules=outside.rules,
        identity=identity,
    )
    neighbour = Setting(
        "run-pulley-component-network",
        engine="pulley",
        component=True,
        rules=outside.rules,
        identity=identity,
    )
    allowed = next(attack for attack in ATTACKS if attack.reaches)
    with ThreadPoolExecutor() as pool:
        flooding = pool.submit(core.run, [*[FLOOD] * 40, "spin 300000000"], setting)
        while not flooding.done():
            result = pulley_core.run(outside.spell(allowed.steps), neighbour)
            assert result.steps[-1].errno == EINPROGRESS, result
            assert outside.visits() == 1
            assert result.broker_status in BROKER_ENDS
    flooded = flooding.result()
    assert flooded.steps[0].result > 0, flooded
    assert flooded.broker_status in BROKER_ENDS
    assert not outside.knocks()
