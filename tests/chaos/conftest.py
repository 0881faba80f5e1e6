"""Fixtures of the daemon's life and of what it survives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.chaos import Service, subreaper

Starter = Callable[..., Service]


@pytest.fixture
def service(base_env: dict[str, str], room: Path) -> Iterator[Starter]:
    """Starts daemons that are ended with the test, and leave no process."""
    with subreaper() as left, ExitStack() as stack:

        def start(config: str = "", **options: object) -> Service:
            made = Service(base_env, room, config, **options)  # type: ignore[arg-type]
            stack.enter_context(made)
            return made

        try:
            yield start
        finally:
            stack.close()
        assert left() == []
