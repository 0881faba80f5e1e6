"""What an attack is, and the words in which the tables say what it must come to."""

from __future__ import annotations

import errno
from dataclasses import dataclass


@dataclass(frozen=True)
class Trapped:
    """The filter ends the worker at a step's call, which is never carried out.

    call: its name, or None for whatever the step makes.
    """

    call: str | None = None


@dataclass(frozen=True)
class Fails:
    """The last step is carried out and answers with one of these; none named: with any error."""

    errnos: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Harmless:
    """The last step may do what it likes: the outside is the only judge."""


@dataclass(frozen=True)
class Killed:
    """The worker dies by one of these signals, whatever it was allowed to try."""

    signals: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Stopped:
    """Trapped by whatever number, or killed by one of these signals, before the last step ended."""

    signals: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Answers:
    """The last step answers exactly this."""

    value: int


@dataclass(frozen=True)
class AtMost:
    """The last step answers at most this."""

    value: int


@dataclass(frozen=True)
class NotTried:
    """This setting has nothing to say about the attack; the reason is the test's documentation."""

    why: str


Expectation = Trapped | Fails | Harmless | Killed | Stopped | Answers | AtMost | NotTried

TRAPPED = Trapped()
HARMLESS = Harmless()
FAILS = Fails()


def fails(*names: str) -> Fails:
    """Fails with one of these errnos, by name."""
    return Fails(frozenset(getattr(errno, name) for name in names))


@dataclass(frozen=True)
class Attack:
    """One attack: steps for payload.c and what they must come to in each setting.

    Steps may hold <rw> and <ro>, the descriptor numbers of the granted directories inside the
    worker, and the fields of world.World.places.
    """

    name: str
    steps: tuple[str, ...]
    none: Expectation = TRAPPED
    dirs: Expectation = TRAPPED
    bare: Expectation = FAILS


def attack(
    name: str,
    *steps: str,
    none: Expectation = TRAPPED,
    dirs: Expectation = TRAPPED,
    bare: Expectation = FAILS,
) -> Attack:
    """Spells an Attack; by default both shipped filters trap it, and without them it fails."""
    return Attack(name, steps, none, dirs, bare)
