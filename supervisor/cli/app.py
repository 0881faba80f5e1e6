"""The click side of the command: every command but a well-formed `run`, all help, all usage errors.

What the commands do is in a module each, imported when it is wanted.
"""

import os
import sys

import click

from ..errors import PolicyError, UsageError
from . import grouped, options, print_error, remote, serve
from .fast import Parsed
from .parameters import CONTEXT, JSON, Name, complete_policy, complete_run, daemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NAME = "wasisup"
COMPLETE_VARIABLE = "_WASISUP_COMPLETE"

RUN_EPILOG = """\
Options end at MODULE: what follows belongs to the guest, whatever it looks like.

\b
Sizes are written like 64MiB or 1.5GiB (MB is a million bytes), times like
500ms, 10s or 1h30m; a number alone is bytes, or seconds.

\b
Examples:
  wasisup run hello.wasm                      no files, default quotas
  wasisup run --dir . copy.wasm a.txt b.txt   may read and write here
  wasisup run --dir /srv/in::/in::ro --env LANG report.wasm /in/a.csv
  wasisup run --policy pure --cpu-time 500ms filter.wasm < in > out
  wasisup run --dir . --explain copy.wasm     what would it be granted?
  wasisup run -d --label job=7 report.wasm    by a daemon: wasisup ps, logs, wait

\b
Exit status: the guest's own, or
  124 wall-clock timeout   125 wasisup failed        126 no module that can run
  127 no such module       134 trap, fuel used up    137 memory, or killed
  152 CPU time             153 output or file size   159 forbidden system call
"""


def main(argv: "Sequence[str]") -> int:
    """Runs any command through click and returns its exit status; wasisup's errors pass through."""
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        # A file name that is not UTF-8 is printed as it is and not as a traceback.
        sys.stdout.reconfigure(errors="surrogateescape")
    if COMPLETE_VARIABLE in os.environ:
        cli.main(list(argv), prog_name=NAME, complete_var=COMPLETE_VARIABLE)  # leaves the process
    try:
        # And not cli.main: that has an exit status of its own for a closed pipe.
        with cli.make_context(NAME, list(argv)) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.UsageError as error:
        return _usage_error(error, argv)
    except click.ClickException as error:
        print_error(error.format_message())
        return error.exit_code
    except click.Abort:
        return 128 + 2
    except UsageError as error:
        if argv[:1] == ["run"]:
            raise
        print_error(error.message, error.hint)
        return 125 if isinstance(error, PolicyError) else 2
    return result if isinstance(result, int) else 0


def _usage_error(error: click.UsageError, argv: "Sequence[str]") -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    path = error.ctx.command_path if error.ctx is not None else _command_path(argv)
    message = " ".join(error.format_message().rstrip(".").split())
    hint = f"{path} --help"
    if isinstance(error, click.exceptions.NoSuchCommand):
        message = f"there is no command {error.command_name!r}"
        if error.possibilities:
            message += f"; did you mean {error.possibilities[0]}?"
        if error.command_name.endswith((".wasm", ".wat")) or os.path.isfile(error.command_name):
            hint = f"to run a module: {NAME} run {error.command_name}"
    elif isinstance(error, click.MissingParameter) and path == f"{NAME} run":
        message = "which module is to be run? MODULE is missing"
        hint = f"{NAME} run [OPTIONS] MODULE [ARGS]...; {path} --help shows the options"
        option = options.BY_FLAG.get(argv[-2]) if len(argv) > 2 else None
        if option is not None and option.metavar:
            hint = f"{argv[-1]!r} was taken for the value of {argv[-2]}"
    elif isinstance(error, click.NoSuchOption) and path == f"{NAME} run":
        hint = f"options of the guest go after MODULE; {path} --help shows wasisup's own"
    print_error(message[:1].lower() + message[1:], hint)
    # As `docker run`: 2 could be the guest's own, 125 says that it is wasisup that failed.
    return 125 if argv[:1] == ["run"] else error.exit_code


def _command_path(argv: "Sequence[str]") -> str:
    """`wasisup cache prune` for an error that click raised without saying where it was."""
    path = NAME
    command: click.Command = cli
    for word in argv:
        found = command.commands.get(word) if isinstance(command, click.Group) else None
        if found is None:
            break
        path, command = f"{path} {word}", found
    return path


def _run(module: str, args: "tuple[str, ...]", **given: "Any") -> int:
    from . import run

    return run.run(Parsed(grouped.values(options.OPTIONS, given), module, list(args)))


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .version import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(context_settings=CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of wasisup and of its engine.",
)
def cli() -> None:
    """Run WebAssembly programs with only what you hand them, enforced twice.

    A guest reaches nothing but the directories, variables and sockets that its options grant: the
    WASI layer refuses the rest, and so does the Linux kernel.
    """


cli.add_command(
    grouped.GroupedCommand(
        "run",
        table=options.OPTIONS,
        callback=_run,
        help="Run MODULE, a WASI program, with ARGS, granting only what the options say.",
        short_help="Run a module.",
        epilog=RUN_EPILOG,
        context_settings={**CONTEXT, "allow_interspersed_args": False},
    )
)


cli.add_command(serve.COMMAND)


@cli.command(short_help="Show what a module needs, or a daemon's record of a run.")
@click.argument("name", metavar="MODULE|RUN", type=Name(), shell_complete=complete_run)
@daemon
@JSON
@click.option("--toml", "as_toml", is_flag=True, help="Print only the smallest policy, as a file.")
def inspect(name: str, socket: "str | None", as_json: bool, as_toml: bool) -> int:
    """Show what a module needs, or what became of a run.

    \b
    MODULE: what it imports, in words, and the smallest policy that could serve it.
    RUN:    the id of a daemon's run, or its beginning: the record of it.
    """
    from . import inspect as body

    if as_json and as_toml:
        raise click.UsageError("--json and --toml contradict each other")
    return body.inspect(name, socket, as_json=as_json, as_toml=as_toml)


@cli.command(short_help="Show which walls this machine can put up.")
@JSON
def doctor(as_json: bool) -> int:
    """Show what this kernel and this user can enforce, and how to get what is missing.

    Exit status: 0 when a run with every wall is possible, else 1.
    """
    from . import doctor as body

    return body.doctor(as_json)


@cli.group(short_help="The compiled modules.")
def cache() -> None:
    """List and prune the compiled modules."""


@cache.command("list")
@JSON
def cache_list(as_json: bool) -> None:
    """List what is in the cache, the most recently used first."""
    from . import cache as body

    body.show(as_json)


@cache.command("prune")
@click.option("--max-size", metavar="SIZE", help="Keep at most this much.")
@JSON
def cache_prune(max_size: "str | None", as_json: bool) -> None:
    """Remove what this engine and processor cannot use, or make room.

    With --max-size, remove the least recently used until the rest fits; 0 removes everything.
    """
    from . import cache as body

    body.prune(max_size, as_json)


@cache.command("path")
def cache_path() -> None:
    """Print the cache's directory."""
    from . import cache as body

    body.path()


@cli.group(short_help="Named sets of options.")
def policy() -> None:
    """List, show and check policies: TOML files with the options of a run."""


@policy.command("list")
@click.option("--socket", metavar="PATH", type=Name(), help="Those of the daemon at this socket.")
@JSON
def policy_list(socket: "str | None", as_json: bool) -> None:
    """List the named policies: yours, the system's and the shipped ones."""
    from . import policy as body

    if socket is None:
        body.show_all(as_json)
    else:
        body.show_daemons(socket, as_json)


@policy.command("show")
@click.argument("name", metavar="NAME|FILE", shell_complete=complete_policy)
def policy_show(name: str) -> None:
    """Print a policy's file."""
    from . import policy as body

    body.show(name)


@policy.command("syscalls")
@click.argument("profile", required=False)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print policies/SYSCALLS.md.")
@JSON
def policy_syscalls(profile: "str | None", as_markdown: bool, as_json: bool) -> None:
    """Show which system calls a worker may make, and why.

    PROFILE: a kind of worker and its grants; without one, the profiles there are.
    """
    from . import syscalls as body

    if as_markdown:
        body.show_page()
    elif profile is None:
        body.show_profiles(as_json)
    else:
        body.show(profile, as_json)


@policy.command("check")
@click.argument("names", metavar="NAME|FILE...", nargs=-1, required=True, type=Name())
def policy_check(names: "tuple[str, ...]") -> int:
    """Check policies for errors, as a run would; exit status 1 if there are any."""
    from . import policy as body

    return body.check(names)


@cli.command(short_help="Print a shell's completions.")
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: eval "$(wasisup completion bash)"   in ~/.bashrc
    zsh:  eval "$(wasisup completion zsh)"    in ~/.zshrc, after compinit
    fish: wasisup completion fish > ~/.config/fish/completions/wasisup.fish
    """
    from .completions import script

    click.echo(script(cli, shell))


for command in remote.COMMANDS:
    cli.add_command(command)
