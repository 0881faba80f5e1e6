"""`wasisup policy syscalls`: which system calls a worker may make, and why."""

import errno as _errno

from ...policies import syscalls
from ..errors import UsageError
from .term import out, out_json, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...policies.syscalls import Rule

_ARGUMENTS = ("first", "second", "third", "fourth", "fifth", "sixth")
_WHOLE = (syscalls.INT, syscalls.POINTER)


def show_profiles(as_json: bool) -> None:
    """Prints the profiles there are, and how many system calls each admits for the guest."""
    counts = {name: syscalls.count_admitted(name) for name in syscalls.PROFILES}
    if as_json:
        out_json([{"profile": name, "admitted": count} for name, count in counts.items()])
        return
    for line in table([(name, str(count)) for name, count in counts.items()]):
        out(line)


def show(profile: str, as_json: bool) -> None:
    """Prints the rules that hold while the guest of that profile runs.  Raises UsageError."""
    try:
        rules = syscalls.rules(profile, 2)
    except (KeyError, ValueError):
        raise UsageError(
            f"there is no profile {profile!r}", "`wasisup policy syscalls` lists them"
        ) from None
    if as_json:
        out_json(
            [
                {
                    "call": rule.name,
                    "reason": rule.reason,
                    "admitted": rule.errno is None,
                    "condition": _condition(rule),
                }
                for rule in rules
            ]
        )
        return
    for line in table([(rule.name, rule.reason, _when(rule)) for rule in rules]):
        out(line)


def show_page() -> None:
    """Prints policies/SYSCALLS.md."""
    out(markdown().rstrip("\n"))


def markdown() -> str:
    """policies/SYSCALLS.md: the profiles, and each set of rules as a table."""
    lines = [
        "# System calls",
        "",
        "What a worker's seccomp filters admit, made from [the one table](syscalls.py) by",
        "`wasisup policy syscalls --markdown`. A call that is in none of a profile's sets is not",
        "carried out: it ends the worker, and the report names it. In a component the calls that",
        "would make, bind or connect a socket become questions to the run's broker instead.",
        "",
        "While the guest runs, so many calls are admitted:",
        "",
        *_table(
            ("profile", "system calls"),
            [(f"`{name}`", str(syscalls.count_admitted(name))) for name in syscalls.PROFILES],
        ),
    ]
    for title, rules in syscalls.SETS.items():
        rows = [(f"`{rule.name}`", _when(rule), rule.reason) for rule in rules]
        lines += ["", f"## {title.capitalize()}", "", *_table(("call", "when", "why"), rows)]
    return "\n".join(lines) + "\n"


def _table(head: "tuple[str, ...]", rows: "Iterable[tuple[str, ...]]") -> "list[str]":
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def _when(rule: "Rule") -> str:
    return "; ".join(filter(None, (_condition(rule), _answer(rule))))


def _answer(rule: "Rule") -> str:
    if rule.errno is None:
        return ""
    if rule.errno == 0:
        return "answered with success, not carried out"
    return f"answered with {_errno.errorcode[rule.errno]}, not carried out"


def _condition(rule: "Rule") -> str:
    parts = []
    for argument, mask, value in rule.when:
        masked = "" if mask in _WHOLE else f" & {mask:#x}"
        shown = str(value) if value < 10 else f"{value:#x}"
        parts.append(f"{_ARGUMENTS[argument]} argument{masked} = {shown}")
    for argument, value in rule.unless:
        parts.append(f"{_ARGUMENTS[argument]} argument is not {value}")
    return ", ".join(parts)
