"""`wasisup run`: from a parsed command line to an exit status."""

import os
import sys

from ...policies.build import Given, build
from ..errors import InvalidModule, ModuleNotFound, UsageError, WasisupError
from .options import BY_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...policies.build import Plan
    from ...policies.policy import Policy
    from ..model import Outcome, RunRequest
    from .fast import Parsed
    from .handover import Sources


def run(parsed: "Parsed", environ: "Mapping[str, str]" = os.environ) -> int:
    """Carries out `wasisup run` and returns its exit status.

    Raises WasisupError for whatever went wrong before there was an outcome; with --report the
    report has been written then, too.
    """
    values = parsed.values
    explain_only = "--explain" in values
    if "--json" in values and not explain_only:
        raise UsageError(
            "--json goes with --explain", "how the run ended is written as JSON by --report FILE"
        )
    socket = _socket(values, environ)
    plan, policy = _plan(parsed, environ)
    if explain_only:
        from . import explain

        try:
            explain.show(plan, as_json="--json" in values)
        except ModuleNotFound as error:
            help_to_find(error, plan.request.module)
            raise
        return 0

    if plan.request.net or plan.request.net_host:
        _warn_of_net(plan.request)

    def carry_out() -> "Outcome":
        if socket is None:
            from .. import embedded

            return embedded.run(plan.request, progress=Progress())
        from . import thin

        return thin.run(plan, _sources(values, policy), socket)

    if "--detach" in values:
        assert socket is not None
        return _detach(plan, _sources(values, policy), socket)
    if "--report" in values:
        return _run_with_report(plan, carry_out, values["--report"][0])
    return _finish(plan, _run(plan, carry_out))


def _plan(parsed: "Parsed", environ: "Mapping[str, str]") -> "tuple[Plan, Policy | None]":
    flags: dict[str, list[Given]] = {}
    for flag, texts in parsed.values.items():
        key = BY_FLAG[flag].key
        if key is not None:
            flags[key] = [Given(text, flag) for text in texts]
    policy = None
    if "--policy" in parsed.values:
        from ...policies import policy as policies

        policy = policies.load(parsed.values["--policy"][0], environ)
        if policy.warnings:
            from .term import say

            for warning in policy.warnings:
                say("warning", warning)
    args = [os.fsencode(arg) for arg in parsed.args]
    return build(parsed.module, args, flags, policy, environ), policy


def _warn_of_net(request: "RunRequest") -> None:
    """Says which grants are of no use to a module that is no component."""
    from .. import launch, network

    unused = network.useless(request)
    try:
        if not unused or launch.is_component_file(request.module):
            return
    except OSError:
        return  # it cannot be read: the run will say so
    from .term import say

    say(
        "warning",
        f"{request.module} is a module of WASI preview 1, which cannot use --net"
        f" {', '.join(unused)}: only components connect; listen:tcp:ADDRESS:PORT works for both",
    )


def _socket(values: "Mapping[str, list[str]]", environ: "Mapping[str, str]") -> "str | None":
    """The socket of the daemon that is to run it; None: nobody's, it is run here."""
    detached = "--detach" in values
    if "--no-daemon" in values:
        for flag in ("--socket", "--detach"):
            if flag in values:
                raise UsageError(f"{flag} and --no-daemon contradict each other")
    if detached and "--report" in values:
        raise UsageError(
            "--detach and --report contradict each other: there is no end to report yet",
            "later: wasisup inspect RUN --json",
        )
    socket = None
    if "--socket" in values:
        socket = values["--socket"][0]
        if not socket:
            raise UsageError("--socket: it is empty")
    elif "--no-daemon" not in values:
        socket = environ.get("WASISUP_SOCKET") or None
    if socket is None and detached:
        from ..client import sockets

        socket = sockets.default(environ)
    if socket is None and "--label" in values:
        raise UsageError(
            "--label: labels are kept by a daemon, and this run has none",
            "ask one: --socket PATH, or --detach",
        )
    return socket


def _sources(values: "Mapping[str, list[str]]", policy: "Policy | None") -> "Sources":
    from .handover import Sources

    flags = {
        key: len(texts) for flag, texts in values.items() if (key := BY_FLAG[flag].key) is not None
    }
    labels: dict[str, str] = {}
    for text in values.get("--label", ()):
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--label: {text!r} is not NAME=VALUE")
        labels[name] = value
    return Sources(flags, policy, labels, values.get("--net", ()))


def _detach(plan: "Plan", sources: "Sources", socket: str) -> int:
    from . import thin
    from .term import out

    try:
        out(thin.detach(plan, sources, socket))
    except ModuleNotFound as error:
        help_to_find(error, plan.request.module)
        raise
    return 0


def _run(plan: "Plan", carry_out: "Callable[[], Outcome]") -> "Outcome":
    try:
        return carry_out()
    except ModuleNotFound as error:
        help_to_find(error, plan.request.module)
        raise
    except InvalidModule as error:
        invoke, module = plan.request.invoke, plan.request.module
        if invoke is not None and "--invoke" in error.message:
            from .hints import shell_word

            error.message = f"--invoke {invoke}: {error.message}"
            error.hint = error.hint or f"what it exports: wasisup inspect {shell_word(module)}"
        name_module(error, module)
        raise


def name_module(error: InvalidModule, module: str) -> None:
    """Puts the module's name in front of what is wrong with it, if it is not there yet."""
    message = error.message.rstrip()
    if not message.startswith(module):
        message = f"{module}: {message}"
    if "<anon>:" in message:  # the text format's parser, which takes whatever is not binary
        what = message[len(module) :].lstrip(": ").replace("<anon>", os.path.basename(module))
        message = f"{module}: neither a WebAssembly binary nor its text format: {what}"
    error.message = message


def help_to_find(error: ModuleNotFound, module: str) -> None:
    """Says what may have been meant by a module that is not there."""
    if not module:
        error.message = "MODULE is empty"
    elif module == "-":
        error.hint = "a module cannot come from stdin, which is the guest's: put it in a file"
    else:
        for name in (f"{module}.wasm", f"{module}.wat"):
            if os.path.isfile(name):
                error.hint = f"did you mean {name}?"
                break


class Progress:
    """Says what takes so long, to a terminal only (a log needs no such line), each thing once.

    Once, and not with a running clock: nobody says when to clear the line for the guest's output.
    """

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, event: str, _seconds: float) -> None:
        """`event` has been going on for so many seconds."""
        if event not in self._said and sys.stderr is not None and sys.stderr.isatty():
            from .term import say

            self._said.add(event)
            say("note", event)


def _finish(plan: "Plan", outcome: "Outcome") -> int:
    # A guest that ended by itself, and well, is the usual case and has nothing to be told.
    if outcome.status != 0:
        from . import hints, words
        from .term import say

        ending = words.ending(outcome, plan.request)
        if ending:
            say("error", ending)
        for hint in hints.hints(outcome, plan.request, plan.forbidden):
            say("hint", hint)
    return outcome.status


def _run_with_report(plan: "Plan", carry_out: "Callable[[], Outcome]", path: str) -> int:
    from . import report

    target = report.Target(path)
    try:
        outcome = _run(plan, carry_out)
    except WasisupError as error:
        target.write(report.of_error(plan, error))
        raise
    status = _finish(plan, outcome)
    if path == "-" and sys.stdout is None:
        return status
    target.write(report.of_outcome(plan, outcome))
    return status
