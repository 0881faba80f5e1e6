"""What to do when this machine lacks what a test is about."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

MUST_WORK = os.environ.get("WASISUP_MUST_WORK") == "1"


def unavailable(what: str) -> NoReturn:
    """Skips; where everything must work (CI), fails instead: a silent skip is an untested wall."""
    if MUST_WORK:
        pytest.fail(f"needs {what}, and WASISUP_MUST_WORK=1 allows no skip")
    pytest.skip(f"needs {what}")
