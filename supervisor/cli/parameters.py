"""Parameters that several commands have, and what a shell completes them with."""

import click

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONTEXT: "dict[str, Any]" = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
# Seconds that a shell waits for a daemon before it completes nothing.
_PATIENCE = 1.0
_MOST = 100

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Name(click.Path):
    """A path for the shell to complete; what is wrong with it is said by whoever opens it."""

    def convert(
        self,
        value: "Any",
        param: "click.Parameter | None",  # noqa: ARG002  (click's signature)
        ctx: "click.Context | None",  # noqa: ARG002
    ) -> "Any":
        """The text as it is."""
        return value


daemon = click.option(
    "--socket",
    metavar="PATH",
    type=Name(),
    help="The daemon's socket. [default: $WASISUP_SOCKET, your own daemon's, the system's]",
)


def complete_words(
    words: "str | tuple[str, ...]",
) -> "Callable[[click.Context, click.Parameter, str], list[str]]":
    """Completes with one of `words`."""

    def complete(_: click.Context, __: click.Parameter, prefix: str) -> "list[str]":
        return [word for word in words if word.startswith(prefix)]

    return complete


def complete_policy(_: click.Context, __: click.Parameter, prefix: str) -> "list[str]":
    """Completes with the policies' names."""
    from ...policies.policy import names

    return [name for name in names() if name.startswith(prefix)]


def complete_run(context: click.Context, _: click.Parameter, prefix: str) -> "list[Any]":
    """Completes with the ids of the daemon's latest runs; with files where one may be meant."""
    from click.shell_completion import CompletionItem

    from ..client.sync import Client
    from ..errors import WasisupError

    found: list[Any] = []
    try:
        with Client(context.params.get("socket"), timeout=_PATIENCE) as client:
            found = [
                CompletionItem(run.id, help=f"{run.state} {run.module}")
                for run in client.runs(limit=_MOST)
                if run.id.startswith(prefix)
            ]
    except WasisupError:
        pass  # a shell has no use for the words
    if context.info_name == "inspect":
        found.append(CompletionItem(prefix, type="file"))
    return found
