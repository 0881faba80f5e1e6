"""What the commands that ask a daemon have in common."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from .. import wire
from ..client.sync import Client
from ..errors import WasisupError
from .term import out_json, say

# Seconds; a daemon that is silent for longer hangs.
_TIMEOUT = 30.0
SHORT = 12  # digits of an id that are shown


def connect(socket: str | None) -> Client:
    """A client of the daemon at `socket`, or of the usual one."""
    return Client(socket, timeout=_TIMEOUT)


def out_data(value: Any) -> None:
    """Answers of the daemon as JSON."""
    out_json(msgspec.to_builtins(value))


def each(names: Iterable[str], act: Callable[[str], int]) -> int:
    """Does `act` for each; says what goes wrong and goes on.  The first status that is not 0."""
    status = 0
    for name in names:
        try:
            done = act(name)
        except WasisupError as error:
            say("error", error.message)
            if error.hint:
                say("hint", error.hint)
            done = error.exit_status
        status = status or done
    return status


def state_of(run: wire.Run) -> str:
    """`running`, `stopped`, or how it ended: `exit 0`, `timeout 124`."""
    if run.outcome is None:
        return "stopped" if run.stopped else run.state
    ended = f"{run.outcome.reason} {run.outcome.status}"
    return f"{ended} (interrupted)" if run.outcome.interrupted else ended


def module_of(run: wire.Run) -> str:
    """A module's file name."""
    return os.path.basename(run.module) or run.module


def ago(when: datetime) -> str:
    """How long ago that was, roughly."""
    return f"{_rough(time.time() - when.timestamp())} ago"


def took(run: wire.Run) -> str:
    """How long it ran, or has been running, roughly; empty before it has begun."""
    if run.started is None:
        return ""
    end = time.time() if run.ended is None else run.ended.timestamp()
    return _rough(end - run.started.timestamp())


def user_name(uid: int) -> str:
    """A user's name, or the number of one who has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _rough(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
