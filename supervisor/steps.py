"""Failed steps of the core, as errors: one translation for the zygote's answers and the records."""

import os

from .errors import SetupError, WallMissing
from .model import MAY_MISS, printable

# The core names the step that failed; these steps are a wall's going up.
_WALL_OF_STEP = {"user namespace": "namespaces"}


def failed_step(errno: int, step: str, detail: str) -> SetupError:
    """The error for a step of the set-up that failed; WallMissing when the step is a wall's.

    errno: 0 when no system call failed.  step and detail: the core's words, not yet printable.
    """
    step, detail = printable(step), printable(detail)
    text = f"{step}: {detail}" if detail else step or "the set-up failed"
    if errno > 0 and os.strerror(errno) not in text:
        text = f"{text}: {os.strerror(errno)}"
    wall = _WALL_OF_STEP.get(step, step)
    if wall not in MAY_MISS:
        return SetupError(text, step=step, errno=errno)
    hint = f"`wasisup doctor` explains; --allow-missing={wall} would run without this wall"
    return WallMissing(text, hint, wall=wall, step=step, errno=errno)
