"""How a run ended, in words: the line after `wasisup: error:`."""

from ...policies.units import format_duration, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Outcome, RunRequest

# Ctrl-C, a closed terminal, `kill`: whoever sent these knows why the run ended.
_ASKED_FOR = (1, 2, 15)


def ending(outcome: "Outcome", request: "RunRequest") -> "str | None":
    """One sentence without a full stop (a trap has its backtrace below), or None.

    None: the guest exited by itself, with a status that is its own business, or was stopped by a
    signal that somebody sent on purpose.
    """
    if outcome.reason == "exit" or (
        outcome.reason == "killed" and outcome.signal in _ASKED_FOR and not outcome.message
    ):
        return None
    quota = _quota(outcome, request)
    if quota is not None:
        return quota
    if outcome.reason == "trap":
        what = f"the guest trapped: {outcome.trap}" if outcome.trap else "the guest trapped"
        return _with_backtrace(what, outcome)
    if outcome.reason == "syscall":
        return (
            f"stopped: the engine tried the system call {outcome.syscall or 'unknown'}, which this"
            " run may not make"
        )
    if outcome.reason == "killed":
        return outcome.message or f"the run was killed by {_signal_name(outcome.signal)}"
    return outcome.message or f"the run ended with the reason {outcome.reason!r}"


def _quota(outcome: "Outcome", request: "RunRequest") -> "str | None":
    quotas = request.quotas
    limits = {
        "timeout": ("it took longer than", format_duration(quotas.timeout), "--timeout"),
        "cpu_time": (
            "it used the processor for longer than",
            format_duration(quotas.cpu_time),
            "--cpu-time",
        ),
        "output": ("it wrote more output than", format_size(quotas.output), "--output"),
        "file_size": ("it made a file larger than", format_size(quotas.file_size), "--file-size"),
        "memory": ("it needs more memory than", format_size(quotas.memory), "--memory"),
        "fuel": ("it used up its fuel of", str(quotas.fuel), "--fuel"),
    }
    if outcome.reason not in limits:
        return None
    what, limit, flag = limits[outcome.reason]
    return f"stopped: {what} {limit} ({flag})"


def _with_backtrace(what: str, outcome: "Outcome") -> str:
    """The engine's words below, without what would be said twice or does not hold here."""
    detail, cause, rest = outcome.message.partition("\nCaused by:")
    if cause and (not outcome.trap or outcome.trap not in rest):
        detail = outcome.message
    lines = [
        line
        for line in detail.strip("\n").split("\n")
        # The engine suggests a variable that only wasmtime's own command looks at.
        if line and "WASMTIME_BACKTRACE_DETAILS" not in line and line not in what
    ]
    return "\n".join([what, *lines])


def _signal_name(number: "int | None") -> str:
    import signal

    if number is None:
        return "a signal"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
