"""`wasisup policy`: list, show and check the named policies."""

import sys

from ...policies import policy as policies
from ...policies.build import build
from ..errors import PolicyError, UsageError
from .term import out, out_json, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def show_all(as_json: bool) -> None:
    """Prints every named policy, where it is and what it says of itself."""
    rows = []
    for name, path in policies.names().items():
        try:
            description = policies.load(name).description
            error = None
        except PolicyError as failure:
            description, error = "", failure.message
        rows.append({"name": name, "path": path, "description": description, "error": error})
    if as_json:
        out_json(rows)
        return
    for line in table(
        [
            (str(row["name"]), str(row["error"] or row["description"] or ""), str(row["path"]))
            for row in rows
        ]
    ):
        out(line)


def show_daemons(socket: str, as_json: bool) -> None:
    """Prints the policies that the daemon at `socket` lets the caller use.  Raises ClientError."""
    from . import asking

    with asking.connect(socket) as client:
        found = client.policies()
    if as_json:
        asking.out_data(found)
        return
    for line in table([(one.name, one.error or one.description, one.path) for one in found]):
        out(line)


def show(wanted: str) -> None:
    """Prints a policy's file as it is.  Raises PolicyError."""
    policy = policies.load(wanted)
    with open(policy.path, encoding="utf-8") as file:
        text = file.read()
    if sys.stdout is not None and sys.stdout.isatty():
        out(f"# {policy.path}\n")
    out(text.rstrip("\n"))


def check(wanted: "Sequence[str]") -> int:
    """Checks policies as a run would, and says what is wrong; 1 when something is, else 0."""
    status = 0
    for name in wanted:
        try:
            policy = policies.load(name)
            for warning in policy.warnings:
                say("warning", warning)
            build("module.wasm", (), {}, policy)
        except UsageError as error:
            say("error", error.message)
            if error.hint:
                say("hint", error.hint)
            status = 1
        else:
            out(f"{name}: good" if name == policy.path else f"{name}: good ({policy.path})")
    return status
