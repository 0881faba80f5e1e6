"""`wasisup cache`: list, prune, path."""

import os

from ...policies.units import UnitError, format_size, parse_size
from .. import upkeep
from ..errors import UsageError
from .term import out, out_json, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...runtime.upkeep import Entry


def show(as_json: bool) -> None:
    """Prints what is in the cache.  Raises CacheError."""
    with upkeep.open_cache() as cache:
        entries = cache.list()
        root = cache.root
    if as_json:
        out_json({"path": root, "entries": [entry.as_dict() for entry in entries]})
        return
    for line in _lines(entries):
        out(line)
    total = sum(entry.size for entry in entries)
    out(f"{len(entries)} compiled modules, {format_size(total)} in {root}")


def prune(max_size: "str | None", as_json: bool) -> None:
    """Removes artifacts and prints them.  Raises UsageError, CacheError."""
    limit = None
    if max_size is not None:
        try:
            # Zero is a size here, as it is for no quota: keep nothing.
            limit = 0 if max_size.strip().rstrip("Bb") == "0" else parse_size(max_size)
        except UnitError as error:
            raise UsageError(f"--max-size: {error}") from None
    with upkeep.open_cache() as cache:
        removed = cache.prune(limit)
        root = cache.root
    if as_json:
        out_json({"path": root, "removed": [entry.as_dict() for entry in removed]})
        return
    for line in _lines(removed):
        out(line)
    total = sum(entry.size for entry in removed)
    out(f"removed {len(removed)} compiled modules, {format_size(total)}")


def path() -> None:
    """Prints where the cache is, whether it exists yet or not."""
    with upkeep.open_cache() as cache:
        out(os.path.abspath(cache.root))


def _lines(entries: "Iterable[Entry]") -> "list[str]":
    rows = [
        (
            entry.digest[:12],
            f"wasmtime {entry.engine}",
            entry.target,
            format_size(entry.size),
            _ago(entry.last_used),
            "" if entry.usable else "stale",
        )
        for entry in entries
    ]
    if not rows:
        return []
    return table([("MODULE", "ENGINE", "TARGET", "SIZE", "LAST USED", ""), *rows])


def _ago(when: float) -> str:
    import time

    seconds = max(0, int(time.time() - when))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now"
