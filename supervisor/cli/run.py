"""`wasisup run`: from a parsed command line to an exit status."""

import os
import sys

from ...policies.build import Given, build
from ..errors import InvalidModule, ModuleNotFound, UsageError, WasisupError
from .options import BY_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...policies.build import Plan
    from ..model import Outcome
    from .fast import Parsed


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
    _refuse_daemon(values, environ)
    plan = _plan(parsed, environ)
    if explain_only:
        from . import explain

        try:
            explain.show(plan, as_json="--json" in values)
        except ModuleNotFound as error:
            help_to_find(error, plan.request.module)
            raise
        return 0
    if "--report" in values:
        return _run_with_report(plan, values["--report"][0])
    return _finish(plan, _run(plan))


def _plan(parsed: "Parsed", environ: "Mapping[str, str]") -> "Plan":
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
    return build(parsed.module, args, flags, policy, environ)


def _refuse_daemon(values: "Mapping[str, list[str]]", environ: "Mapping[str, str]") -> None:
    if "--no-daemon" in values:
        if "--socket" in values:
            raise UsageError("--socket and --no-daemon contradict each other")
        return
    if "--socket" in values:
        said = f"--socket {values['--socket'][0]}"
    elif environ.get("WASISUP_SOCKET"):
        said = f"WASISUP_SOCKET={environ['WASISUP_SOCKET']}"
    else:
        return
    raise UsageError(f"{said}: there is no daemon in this release", "run it here: --no-daemon")


def _run(plan: "Plan") -> "Outcome":
    from .. import embedded

    try:
        return embedded.run(plan.request, progress=Progress())
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


def _run_with_report(plan: "Plan", path: str) -> int:
    from . import report

    target = report.Target(path)
    try:
        outcome = _run(plan)
    except WasisupError as error:
        target.write(report.of_error(plan, error))
        raise
    status = _finish(plan, outcome)
    if path == "-" and sys.stdout is None:
        return status
    target.write(report.of_outcome(plan, outcome))
    return status
