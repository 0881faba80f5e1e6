"""The log of a server, by structlog: to the journal, as JSON lines, or for a person at a terminal.

Whoever reads the log must not be able to stop the server: nothing here waits, and what cannot be
written at once is dropped and counted.  Much of what is logged comes from guests and callers, so
every control character leaves as an escape.
"""

import json
import logging
import os
import sys
from typing import Any, Literal, Protocol

import structlog
from structlog.typing import EventDict, WrappedLogger

from .journal import SOCKET, Journal
from .model import printable
from .sink import Sink

Format = Literal["auto", "journal", "json", "pretty"]
Level = Literal["debug", "info", "warning", "error"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class _Output(Protocol):
    dropped: int

    def write(self, event: EventDict) -> None: ...
    def close(self) -> None: ...


class _Lines:
    """Writes events as lines of text; `render` makes them."""

    def __init__(self, sink: Sink, render: Any) -> None:
        self.dropped = 0
        self._sink = sink
        self._render = render

    def write(self, event: EventDict) -> None:
        text: str = self._render(None, "", event)
        if not self._sink.write(text.encode("utf-8", "backslashreplace") + b"\n"):
            self.dropped += 1

    def close(self) -> None:
        self._sink.close()


class _Logger:
    """What structlog hands the finished event to; one method a level."""

    def __init__(self, output: _Output) -> None:
        self._output = output

    def msg(self, event: EventDict) -> None:
        try:
            self._output.write(event)
        except Exception:  # a value that cannot even be shown is no reason to end the server
            self._output.dropped += 1

    debug = info = warning = error = critical = msg


class _State:
    """The output in force and structlog's logger for it, and what earlier ones dropped."""

    output: _Output | None = None
    bound: Any = structlog.get_logger()
    dropped_before = 0


class _Follower:
    """A logger that follows `configure`.

    structlog's own either keeps the level and the output that it began with, or is put together
    anew for each event.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(_State.bound, name)


def configure(
    format: Format = "auto",  # as the configuration file has it
    level: Level = "info",
    stream: _HasDescriptor | None = None,
    *,
    journal: str = SOCKET,
) -> None:
    """Starts logging, or goes on in another way: loggers that exist already follow.

    stream: where lines go, standard error by default; it stays the caller's.  journal: the path of
    journald's socket.
    """
    fd = _descriptor(sys.stderr if stream is None else stream)
    chosen = detect(fd) if format == "auto" else format
    output: _Output
    if chosen == "journal":
        output = Journal(journal)
    elif chosen == "pretty":
        colours = os.isatty(fd) and not os.environ.get("NO_COLOR")
        output = _Lines(Sink(fd), _console(colours))
    else:
        output = _Lines(Sink(fd), _to_json)
    old, _State.output = _State.output, output
    structlog.configure(
        processors=_processors(chosen),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Logger(output),
        cache_logger_on_first_use=False,
    )
    _State.bound = structlog.get_logger().bind()
    _bridge(level)
    if old is not None:
        _State.dropped_before += old.dropped
        old.close()


def logger(**fields: Any) -> Any:
    """A logger with `fields` in every event: `log.info("run ended", run=id, reason="exit")`.

    The fields run, uid and policy are the journal's RUN_ID, UID and POLICY.
    """
    return structlog.get_logger(**fields) if fields else _Follower()


def dropped() -> int:
    """How many events could not be written since the start."""
    current = _State.output
    return _State.dropped_before + (0 if current is None else current.dropped)


def detect(fd: int) -> Literal["journal", "json", "pretty"]:
    """What `auto` stands for when standard error is `fd`; -1: there is none.

    $JOURNAL_STREAM is device and inode of what systemd connected with the journal
    (systemd.exec(5)); a child that redirected its stderr has the variable, too.
    """
    try:
        file = os.fstat(fd)
    except OSError:
        return "json"
    if os.environ.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}":
        return "journal"
    return "pretty" if os.isatty(fd) else "json"


def _descriptor(stream: _HasDescriptor | None) -> int:
    try:
        return -1 if stream is None else stream.fileno()
    except (OSError, ValueError):  # closed, or no file at all
        return -1


def _console(colours: bool) -> Any:
    formatter = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=formatter)


def _processors(chosen: str) -> list[Any]:
    steps: list[Any] = [structlog.stdlib.add_log_level]
    if chosen != "journal":  # which has times of its own
        steps.append(structlog.processors.TimeStamper(fmt="iso", utc=chosen == "json"))
    steps.append(structlog.processors.ExceptionRenderer())
    if chosen == "pretty":
        steps.append(_make_printable)
    return [*steps, _to_output]


def _to_output(_logger: WrappedLogger, _name: str, event: EventDict) -> Any:
    return (event,), {}


def _make_printable(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable(value, "\n\t" if key == "exception" else "")
        elif isinstance(value, bytes):
            event[key] = printable(value)
    return event


def _to_text(value: Any) -> str:
    return printable(value) if isinstance(value, bytes) else str(value)


# ASCII only: a surrogate of a file name that is not UTF-8 stays readable, too.
_encode_json = json.JSONEncoder(default=_to_text).encode


def _to_json(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    return _encode_json(event)


class _Bridge(logging.Handler):
    """Hands what libraries log (asyncio, above all) to the same output."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, Any] = {"logger": record.name}
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
            _State.bound.log(level, record.getMessage(), **fields)
        except Exception:
            self.handleError(record)


def _bridge(level: Level) -> None:
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Bridge)]
    root.addHandler(_Bridge())
    # What libraries tell about themselves is for debugging.
    root.setLevel(logging.DEBUG if level == "debug" else max(logging.WARNING, _LEVELS[level]))
    logging.raiseExceptions = False
