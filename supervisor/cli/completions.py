"""`wasisup completion SHELL`: click's completion, without the environment variable to know of."""

import contextlib
import io

import click
from click.shell_completion import get_completion_class


def script(cli: click.Command, shell: str) -> str:
    """The script for `shell`, to be evaluated by it."""
    from .app import COMPLETE_VARIABLE, NAME

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completions for {shell}")
    # click asks the bash that is installed for its version and complains about an old one, or
    # about none, on stderr; the script may be meant for another machine.
    with contextlib.redirect_stderr(io.StringIO()):
        return kind(cli, {}, NAME, COMPLETE_VARIABLE).source()
