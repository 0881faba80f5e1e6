"""`wasisup ps`, `stats`, `kill`, `wait`, and `inspect RUN`: a daemon's runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ...policies.units import format_duration, format_size
from .. import wire
from ..errors import NotFound
from . import asking
from .term import BOLD, out, out_painted, say, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client.sync import Client

LIVE = ("running", "starting", "queued")
_PAGE = 200
_SHOWN_DENIALS = 20


def ps(
    socket: str | None,
    *,
    ended: bool,
    labels: Sequence[str],
    limit: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Prints runs, the newest first: the live ones, or with `ended` all."""
    with asking.connect(socket) as client:
        if ended:
            runs = list(islice(_all(client, None, labels), limit))
        else:
            found = [run for state in LIVE for run in _all(client, state, labels)]
            # One may have gone from one state to the next between two questions.
            known = {run.id: run for run in found}
            runs = sorted(known.values(), key=lambda run: run.created, reverse=True)[:limit]
    if as_json:
        asking.out_data(runs)
    elif quiet:
        for run in runs:
            out(run.id)
    else:
        rows = [
            (
                run.id[: asking.SHORT],
                asking.state_of(run),
                asking.module_of(run),
                run.policy,
                asking.user_name(run.uid),
                asking.ago(run.created),
                asking.took(run),
                _labels(run),
            )
            for run in runs
        ]
        heads = ("RUN", "STATE", "MODULE", "POLICY", "USER", "CREATED", "RAN", "LABELS")
        for line in table([heads, *rows]):
            out(line)


def _all(client: Client, state: str | None, labels: Sequence[str]) -> Iterator[wire.Run]:
    before: wire.Run | None = None
    while True:
        page = client.runs(state=state, label=labels, limit=_PAGE, before=before)
        yield from page
        if len(page) < _PAGE:
            return
        before = page[-1]


def stats(socket: str | None, run: str | None, as_json: bool) -> None:
    """Prints what live runs use, beside their quotas."""
    with asking.connect(socket) as client:
        found = client.stats(run)
    if as_json:
        asking.out_data(found)
        return
    rows = [
        (
            one.id[: asking.SHORT],
            one.state,
            f"{format_duration(one.cpu_ns)} / {format_duration(one.quotas.cpu_time)}",
            f"{format_duration(one.wall_ns)} / {format_duration(one.quotas.timeout)}",
            f"{format_size(one.rss)} / {format_size(one.quotas.memory)}",
            f"{format_size(one.output)} / {format_size(one.quotas.output)}",
        )
        for one in found
    ]
    for line in table([("RUN", "STATE", "CPU TIME", "TIME", "MEMORY", "OUTPUT"), *rows]):
        out(line)


def kill(socket: str | None, runs: Sequence[str], signal: str | None) -> int:
    """Kills runs, or sends them a signal; prints the ids of those that it reached."""
    with asking.connect(socket) as client:

        def one(run: str) -> int:
            if signal is None:
                out(client.kill(run).id)
            else:
                client.signal(run, signal)
                out(run)
            return 0

        return asking.each(runs, one)


def wait(socket: str | None, runs: Sequence[str]) -> int:
    """Waits for runs; the first status that is not 0.  Of several it says how each ended."""
    with asking.connect(socket) as client:

        def one(name: str) -> int:
            run = client.wait(name)
            while run.outcome is None:
                run = client.wait(name)
            if len(runs) > 1:
                out(f"{run.id}  {asking.state_of(run)}")
            elif run.outcome.reason != "exit" and run.outcome.message:
                say("error", run.outcome.message)
                if run.outcome.hint:
                    say("hint", run.outcome.hint)
            return run.outcome.status

        return asking.each(runs, one)


def inspect(socket: str | None, run: str, as_json: bool) -> bool:
    """Prints a run's record; False: there is no such run.  Raises ClientError."""
    try:
        with asking.connect(socket) as client:
            record = client.get(run)
    except NotFound:
        return False
    if as_json:
        asking.out_data(record)
    else:
        _as_words(record)
    return True


def _as_words(run: wire.Run) -> None:
    rows = [
        ("run", run.id),
        ("state", asking.state_of(run)),
        ("module", run.module),
        ("digest", run.digest or "not read yet"),
        ("arguments", " ".join(run.args) or "none"),
        ("policy", run.policy),
        ("engine", run.engine),
        ("user", f"{asking.user_name(run.uid)} (uid {run.uid}, gid {run.gid})"),
        ("created", f"{run.created.astimezone():%Y-%m-%d %H:%M:%S}, {asking.ago(run.created)}"),
    ]
    if run.started is not None:
        rows.append(("ran", asking.took(run)))
    if run.pid is not None and run.outcome is None:
        rows.append(("pid", str(run.pid)))
    if run.invoke is not None:
        rows.append(("invoked", run.invoke))
    if run.labels:
        rows.append(("labels", _labels(run)))
    if run.allow_missing:
        rows.append(("may miss", " ".join(run.allow_missing)))
    for line in table(rows):
        out(line)
    _section("Granted", _grants(run.grants) or ["nothing"])
    quotas = run.quotas
    _section(
        "Quotas",
        table(
            [
                ("memory", format_size(quotas.memory)),
                ("CPU time", format_duration(quotas.cpu_time)),
                ("time", format_duration(quotas.timeout)),
                ("descriptors", str(quotas.fds)),
                ("file size", format_size(quotas.file_size)),
                ("output", format_size(quotas.output)),
                ("fuel", "unlimited" if quotas.fuel is None else str(quotas.fuel)),
                ("processors", "unlimited" if quotas.cpus is None else f"{quotas.cpus:g}"),
            ]
        ),
    )
    if run.outcome is not None:
        _section("Used", _usage(run.outcome.usage))
        if run.outcome.message:
            _section("Said", run.outcome.message.rstrip("\n").split("\n"))
        if run.outcome.denials:
            denied = run.outcome.denials[:_SHOWN_DENIALS]
            _section(
                "Denied", table([(one.kind, f"{one.count} times", one.path) for one in denied])
            )


def _section(title: str, lines: Sequence[str]) -> None:
    out()
    out_painted(title, BOLD)
    for line in lines:
        out("  " + line)


def _grants(grants: wire.Grants) -> list[str]:
    rows = [
        ("directory", f"{one.host} as {one.guest}, {'read' if one.read_only else 'read and write'}")
        for one in grants.dirs
    ]
    rows += [("scratch", f"{one.guest}, {format_size(one.size)}") for one in grants.tmpfs]
    rows += [("socket", name) for name in grants.listens]
    rows += [("network", text) for text in grants.net]
    if grants.env:
        rows.append(("variables", " ".join(grants.env)))
    if grants.clock_resolution:
        rows.append(("clocks", f"no finer than {format_duration(grants.clock_resolution)}"))
    return table(rows)


def _usage(usage: wire.Usage) -> list[str]:
    cpu = usage.cpu_user_ns + usage.cpu_system_ns
    return table(
        [
            ("CPU time", format_duration(cpu)),
            ("time", format_duration(usage.wall_ns)),
            ("linear memory", format_size(usage.memory)),
            ("whole process", format_size(usage.max_rss)),
            ("output", format_size(usage.output)),
            ("page faults", f"{usage.minor_faults} minor, {usage.major_faults} major"),
        ]
    )


def _labels(run: wire.Run) -> str:
    return " ".join(f"{name}={value}" if value else name for name, value in run.labels.items())
