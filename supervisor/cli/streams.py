"""`wasisup logs` and `wasisup events`: what a daemon has to say bit by bit."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import msgspec

from .. import wire
from . import asking
from .term import out


def logs(socket: str | None, run: str, *, follow: bool, stream: str | None) -> None:
    """Writes what a run wrote: its stdout to stdout and its stderr to stderr, byte by byte."""
    targets = {"stdout": _raw(sys.stdout), "stderr": _raw(sys.stderr)}
    with (
        asking.connect(socket) as client,
        client.logs(run, follow=follow, stream=stream) as chunks,
    ):
        for chunk in chunks:
            target = targets[chunk.stream]
            if target is not None:
                target.write(chunk.data)
                target.flush()


def events(
    socket: str | None,
    *,
    run: str | None,
    type: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Prints events as they come; a JSON object a line, or words."""
    with (
        asking.connect(socket) as client,
        client.events(run=run, type=type, limit=limit) as found,
    ):
        for event in found:
            out(msgspec.json.encode(event).decode() if as_json else _as_words(event))
            if sys.stdout is not None:
                sys.stdout.flush()


def _as_words(event: wire.Event) -> str:
    words = [f"{event.time.astimezone():%H:%M:%S}", f"{event.type:<9}"]
    if event.run is not None:
        words.append(event.run[: asking.SHORT])
    if event.module is not None:
        words.append(os.path.basename(event.module))
    if event.reason is not None:
        words.append(f"{event.reason} {event.status}")
    if event.signal is not None:
        words.append(event.signal)
    if event.count is not None:
        words.append(f"{event.count} events")
    words += [f"{name}={value}" for name, value in event.labels.items()]
    return " ".join(words)


def _raw(stream: object) -> BinaryIO | None:
    buffer: BinaryIO | None = getattr(stream, "buffer", None)
    return buffer
