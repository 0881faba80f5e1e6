"""`wasisup module`: the modules that a daemon keeps, to be run by digest."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...policies.units import format_size
from ..errors import ModuleNotFound
from . import asking
from .run import help_to_find
from .term import out, table


def add(socket: str | None, path: str, name: str | None, as_json: bool) -> None:
    """Uploads a module and prints its digest.  Raises ModuleNotFound, InvalidModule."""
    with asking.connect(socket) as client:
        try:
            module = client.add_module(path, name)
        except ModuleNotFound as error:
            help_to_find(error, path)
            raise
    if as_json:
        asking.out_data(module)
    else:
        out(f"sha256:{module.digest}")


def show_all(socket: str | None, as_json: bool) -> None:
    """Prints the modules that the caller may run by digest."""
    with asking.connect(socket) as client:
        found = client.modules()
    if as_json:
        asking.out_data(found)
        return
    rows = [
        (
            one.digest[: asking.SHORT],
            os.path.basename(one.name or ""),
            format_size(one.size),
            asking.ago(one.added),
            " ".join(one.compiled),
            "kept" if one.stored else "",
        )
        for one in found
    ]
    for line in table([("DIGEST", "NAME", "SIZE", "ADDED", "COMPILED FOR", ""), *rows]):
        out(line)


def remove(socket: str | None, digests: Sequence[str]) -> int:
    """Has the daemon forget modules; a digest may be shortened as far as it stays the only one."""
    with asking.connect(socket) as client:
        known = [one.digest for one in client.modules()]

        def one(wanted: str) -> int:
            start = wanted.removeprefix("sha256:")
            fits = [digest for digest in known if start and digest.startswith(start)]
            client.remove_module(fits[0] if len(fits) == 1 else start)
            return 0

        return asking.each(digests, one)
