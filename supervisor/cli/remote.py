"""The click side of the commands that ask a daemon, or are one."""

import click

from .parameters import JSON, Name, complete_run, complete_words, daemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIGNALS = ("HUP", "INT", "QUIT", "TERM", "KILL", "STOP", "TSTP", "TTIN", "TTOU", "CONT")
_EVENTS = ("queued", "starting", "running", "ended", "signal", "module", "reloaded", "stopping")
_SORTS = ("cpu", "cpu-time", "time", "memory", "output")


def _runs(many: bool) -> "Callable[[Callable[..., Any]], Callable[..., Any]]":
    """RUN..., or RUN."""
    name, nargs = ("runs", -1) if many else ("run", 1)
    metavar = "RUN..." if many else "RUN"
    return click.argument(
        name, metavar=metavar, nargs=nargs, required=True, shell_complete=complete_run
    )


@click.command(short_help="List a daemon's runs.")
@click.option("-a", "--all", "ended", is_flag=True, help="Those that have ended, too.")
@click.option("--label", "labels", metavar="NAME[=VALUE]", multiple=True, help="Only with this.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone.")
@JSON
@daemon
def ps(  # noqa: PLR0917  (click gives them by name)
    ended: bool,
    labels: "tuple[str, ...]",
    limit: int,
    quiet: bool,
    as_json: bool,
    socket: "str | None",
) -> None:
    """List the runs that a daemon has and that you may see, the newest first."""
    from . import runs

    runs.ps(socket, ended=ended, labels=labels, limit=limit, quiet=quiet, as_json=as_json)


@click.command(short_help="Watch a daemon's live runs.")
@click.option(
    "--sort", type=click.Choice(_SORTS), default="cpu", show_default=True, help="The most first."
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Time between two looks.",
)
@daemon
def top(sort: str, interval: float, socket: "str | None") -> None:
    """Watch what live runs use of their quotas. If stdout is no terminal, look once.

    Keys: c, p, t, m and o sort by another column, q ends it.
    """
    from . import top as body

    body.top(socket, sort, interval)


@click.command(short_help="Print what a run wrote.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--stream", type=click.Choice(("stdout", "stderr")), help="Only this one.")
@daemon
@_runs(many=False)
def logs(run: str, follow: bool, stream: "str | None", socket: "str | None") -> None:
    """Print what the daemon kept of RUN's output: its stdout on stdout, its stderr on stderr."""
    from . import streams

    streams.logs(socket, run, follow=follow, stream=stream)


@click.command(short_help="Kill runs, or send them a signal.")
@click.option(
    "-s",
    "--signal",
    metavar="NAME",
    help="Send this and do not wait: HUP, INT, QUIT, TERM, KILL end a run, STOP halts it, CONT"
    " lets it go on.",
    shell_complete=complete_words(_SIGNALS),
)
@daemon
@_runs(many=True)
def kill(runs: "tuple[str, ...]", signal: "str | None", socket: "str | None") -> int:
    """Kill RUNs and wait for their end, or send them a signal. Prints the ids."""
    from . import runs as body

    if signal is not None:
        signal = signal.upper().removeprefix("SIG")
        if signal not in _SIGNALS:
            raise click.UsageError(f"--signal: {signal!r} is none of {', '.join(_SIGNALS)}")
    return body.kill(socket, runs, signal)


@click.command(short_help="Wait for the end of runs.")
@daemon
@_runs(many=True)
def wait(runs: "tuple[str, ...]", socket: "str | None") -> int:
    """Wait for RUNs and exit as they did: with the first status that is not 0.

    Of several, each one's end is printed.
    """
    from . import runs as body

    return body.wait(socket, runs)


@click.command(short_help="Show what live runs use.")
@click.argument("run", required=False, shell_complete=complete_run)
@JSON
@daemon
def stats(run: "str | None", as_json: bool, socket: "str | None") -> None:
    """Show what RUN, or every live run that you may see, uses now, beside its quotas."""
    from . import runs

    runs.stats(socket, run, as_json)


@click.command(short_help="Watch what happens.")
@click.option("--run", metavar="RUN", help="Only of this run.", shell_complete=complete_run)
@click.option(
    "--type",
    metavar="TYPE",
    help="Only of this type: " + ", ".join(_EVENTS) + ".",
    shell_complete=complete_words(_EVENTS),
)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Leave after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@daemon
def events(
    run: "str | None",
    type: "str | None",
    limit: "int | None",
    as_json: bool,
    socket: "str | None",
) -> None:
    """Watch what happens to the runs and modules that you may see, from now on."""
    from . import streams

    streams.events(socket, run=run, type=type, limit=limit, as_json=as_json)


@click.group(short_help="The modules that a daemon keeps.")
def module() -> None:
    """Add, list and remove modules that a daemon keeps, to be run by digest."""


@module.command("add")
@click.argument("path", metavar="MODULE", type=Name())
@click.option("--name", help="What it is called. [default: its file name]")
@JSON
@daemon
def module_add(path: str, name: "str | None", as_json: bool, socket: "str | None") -> None:
    """Upload MODULE, have it compiled, and print its digest."""
    from . import modules

    modules.add(socket, path, name, as_json)


@module.command("list")
@JSON
@daemon
def module_list(as_json: bool, socket: "str | None") -> None:
    """List the modules that you may run by digest."""
    from . import modules

    modules.show_all(socket, as_json)


@module.command("rm")
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@daemon
def module_rm(digests: "tuple[str, ...]", socket: "str | None") -> int:
    """Forget modules; the beginning of a digest will do."""
    from . import modules

    return modules.remove(socket, digests)


@click.command("daemon", short_help="Be the daemon.")
@click.option("--socket", metavar="PATH", type=Name(), help="Where to listen.")
@click.option("--config", metavar="FILE", type=Name(), help="Read this configuration.")
@click.option("--check", is_flag=True, help="Check the configuration and leave.")
def daemon_(socket: "str | None", config: "str | None", check: bool) -> int:
    """Run programs for others, asked over a Unix socket.

    \b
    As root:  /etc/wasisup/wasisup.toml, /run/wasisup/wasisup.sock
    As user:  ~/.config/wasisup/wasisup.toml, $XDG_RUNTIME_DIR/wasisup/wasisup.sock

    Without a configuration it serves with the defaults. SIGHUP reads it again, SIGTERM ends it when
    its runs have ended, or their time is over.
    """
    from . import daemon as body

    return body.daemon(socket, config, check)


@click.command(short_help="Place the systemd units.")
@click.option("--user", is_flag=True, help="For this user's systemd, and not the system's.")
@click.option("--root", metavar="DIR", default="/", type=Name(), help="Place them below DIR.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--uninstall", is_flag=True, help="Remove what was placed.")
@click.option("--force", is_flag=True, help="Replace files that were changed.")
def install(user: bool, root: str, dry_run: bool, uninstall: bool, force: bool) -> int:
    """Place the daemon's systemd units and what belongs to them, or remove them."""
    from . import install as body

    return body.install(user, root, dry_run, uninstall, force)


COMMANDS = (ps, top, logs, kill, wait, stats, events, module, daemon_, install)
