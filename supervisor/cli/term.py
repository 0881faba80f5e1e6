"""What goes to a person: stderr messages, colours, tables.  Colours only on a terminal."""

import os
import sys

from ..model import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

RED, GREEN, YELLOW, BOLD, DIM = "31", "32", "33", "1", "2"

_LABELS = {
    "error": (RED, "wasisup: error:"),
    "warning": (YELLOW, "wasisup: warning:"),
    "hint": (GREEN, "hint:"),
    "note": (DIM, "wasisup:"),
}


def say(kind: str, message: str) -> None:
    """One message on stderr: "error", "warning", "hint" or "note".

    A stderr that is gone is no error.
    Guests, file names and modules have a say in messages: control characters are escaped, and
    further lines are indented, so that none of them looks like one of ours.
    """
    stream = sys.stderr
    if stream is None:
        return
    colour, label = _LABELS[kind]
    if "\\udc" in message:
        # What repr() made of a byte that is not UTF-8; elsewhere it is written as \xNN.
        import re

        message = re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", message)
    text = printable(message, "\n\t").replace("\n", "\n  ")
    try:
        stream.write(f"{paint(label, colour, stream)} {text}\n")
        stream.flush()
    except (OSError, ValueError):
        pass


def colours(stream: "TextIO | None") -> bool:
    """Whether `stream` is a terminal whose user wants colours (https://no-color.org)."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def paint(text: str, colour: str, stream: "TextIO | None") -> str:
    """`text` in a colour (an SGR parameter), if `stream` shows colours."""
    return f"\x1b[{colour}m{text}\x1b[0m" if colours(stream) else text


def out(text: str = "") -> None:
    """One line on stdout, control characters escaped.

    Raises BrokenPipeError when the reader is gone; `main` ends the command then.
    """
    if sys.stdout is not None:
        sys.stdout.write(printable(text, "\n\t") + "\n")


def out_painted(text: str, colour: str) -> None:
    """As `out`, in a colour."""
    if sys.stdout is not None:
        sys.stdout.write(paint(printable(text, "\n\t"), colour, sys.stdout) + "\n")


def table(rows: "Iterable[Sequence[str]]", indent: str = "") -> "list[str]":
    """Lines with the cells of `rows` in columns, two blanks between; the last column is ragged."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append((indent + "  ".join([*padded, row[-1]])).rstrip())
    return lines


def out_json(value: object) -> None:
    """A value as indented JSON on stdout."""
    if sys.stdout is not None:
        sys.stdout.write(json_text(value, indent=2) + "\n")


def json_text(value: object, indent: "int | None" = None) -> str:
    """JSON that every reader takes: bytes of a path that are not UTF-8 are written as \\xNN."""
    import json

    return json.dumps(_utf8(value), indent=indent)


def _utf8(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_utf8(item) for item in value]
    return value
