"""Commands whose options come from a table (`options`), in its groups in the help."""

import click

from . import options
from .parameters import Name, complete_policy, complete_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .options import Option


class GroupedCommand(click.Command):
    """A command with its options in the groups of the table."""

    def __init__(self, name: str, *, table: "Sequence[Option]", **more: "Any") -> None:
        self._table = table
        super().__init__(name, params=_parameters(table), **more)

    def format_options(
        self,
        ctx: click.Context,  # noqa: ARG002  (click's signature)
        formatter: click.HelpFormatter,
    ) -> None:
        """Writes one section for each group."""
        groups = [
            group for group in options.GROUPS if any(one.group == group for one in self._table)
        ]
        for group in groups:
            records = [
                (_shown(option), option.help) for option in self._table if option.group == group
            ]
            if group == groups[-1]:
                records.append(("-h, --help", "Show this."))
            with formatter.section(group):
                formatter.write_dl(records, col_max=34)


def values(table: "Sequence[Option]", given: "dict[str, Any]") -> "dict[str, list[str]]":
    """What click found, by flag, as `fast` has it."""
    found: dict[str, list[str]] = {}
    for option in table:
        value = given[_identifier(option.flag)]
        if option.metavar is None:
            if value:
                found[option.flag] = [""]
        elif option.repeatable:
            if value:
                found[option.flag] = list(value)
        elif value is not None:
            found[option.flag] = [value]
    return found


def _parameters(table: "Sequence[Option]") -> "list[click.Parameter]":
    parameters: list[click.Parameter] = []
    for option in table:
        extra: dict[str, Any] = {"help": option.help}
        names = [option.flag, _identifier(option.flag)]
        if option.short is not None:
            names.insert(0, option.short)
        if option.metavar is None:
            extra["is_flag"] = True
        else:
            extra |= {"metavar": option.metavar, "multiple": option.repeatable, "type": str}
            if option.complete == "dir":
                extra["type"] = Name(file_okay=False)
            elif option.complete == "file":
                extra["type"] = Name()
            elif option.complete == "policy":
                extra["shell_complete"] = complete_policy
            elif option.complete:
                extra["shell_complete"] = complete_words(option.complete)
        # The flag itself as the parameter's name: the callback gives them to `run` by flag.
        parameters.append(click.Option(names, **extra))
    parameters.append(click.Argument(["module"], type=Name()))
    parameters.append(
        click.Argument(["args"], nargs=-1, type=Name(), metavar="[ARGS]...", required=False)
    )
    return parameters


def _shown(option: "Option") -> str:
    flags = option.flag if option.short is None else f"{option.short}, {option.flag}"
    return f"{flags} {option.metavar or ''}".rstrip()


def _identifier(flag: str) -> str:
    return flag[2:].replace("-", "_")
