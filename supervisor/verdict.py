"""From a worker's wait status and its record to how the run ended.

The kernel's word comes first.  The record only tells endings apart that look the same from outside,
and by then it may have been written by a guest that broke out of the engine.
"""

from errno import ENOMEM

from .errors import InvalidModule, SetupError, WasisupError
from .model import Outcome, Usage, printable
from .steps import failed_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .child import Ended
    from .model import Quotas, RunRecord

SIGABRT = 6
SIGKILL = 9
SIGXCPU = 24
SIGXFSZ = 25
SIGSYS = 31

STATUS_TIMEOUT = 124
STATUS_TRAP = 134
STATUS_MEMORY = 137
STATUS_CPU_TIME = 152
STATUS_FILE_SIZE = 153
STATUS_SYSCALL = 159

# Exit statuses of the endings that a worker reports by itself.
_REPORTED = {
    "trap": ("trap", STATUS_TRAP),
    "fuel": ("fuel", STATUS_TRAP),
    "output": ("output", STATUS_FILE_SIZE),
    "cpu_time": ("cpu_time", STATUS_CPU_TIME),
    "file_size": ("file_size", STATUS_FILE_SIZE),
    "memory": ("memory", STATUS_MEMORY),
    "syscall": ("syscall", STATUS_SYSCALL),
}

# enum wasmtime_trap_code of the engine's C interface, for those a core module can run into.
_TRAPS = {
    0: "call stack exhausted",
    1: "out of bounds memory access",
    2: "unaligned atomic",
    3: "undefined element: out of bounds table access",
    4: "uninitialized element",
    5: "indirect call type mismatch",
    6: "integer overflow",
    7: "integer divide by zero",
    8: "invalid conversion to integer",
    9: "wasm `unreachable` instruction executed",
    10: "interrupt",
    11: "all fuel consumed",
    12: "atomic wait on non-shared memory",
    13: "null reference",
    14: "out of bounds array access",
    15: "allocation size too large",
    16: "cast failure",
    20: "continuation already consumed",
    49: "uncaught exception",
}


def usage_of(ended: "Ended", record: "RunRecord") -> Usage:
    """What the run used: times and memory by the kernel, the guest's own figures by the record."""
    account = ended.usage
    return Usage(
        cpu_user_ns=round(account.ru_utime * 1e9),
        cpu_system_ns=round(account.ru_stime * 1e9),
        wall_ns=ended.wall_ns,
        max_rss=account.ru_maxrss * 1024,
        memory=record.memory,
        output=record.output,
        fuel=record.fuel,
        minor_faults=account.ru_minflt,
        major_faults=account.ru_majflt,
    )


def judge(
    ended: "Ended",
    record: "RunRecord",
    quotas: "Quotas",
    *,
    out_of_memory: bool,
    name_of: "Callable[[int], str]",
) -> Outcome:
    """How the run ended.

    out_of_memory: the kernel killed something in the run's cgroup for want of memory.  name_of:
    number -> name of a system call.  Raises SetupError or WallMissing when the guest never ran for
    lack of a wall or a step, InvalidModule when it cannot run here.
    """
    outcome = Outcome(
        reason="exit",
        status=0,
        usage=usage_of(ended, record),
        denials=record.denials,
        walls=record.walls,
        message=printable(record.message, keep="\n\t"),
    )
    number = ended.status & 0x7F
    if number:
        _killed(
            outcome,
            number,
            ended,
            record=record,
            quotas=quotas,
            out_of_memory=out_of_memory,
            name_of=name_of,
        )
    else:
        _exited(outcome, ended.status >> 8 & 0xFF, record, name_of)
    return outcome


def _killed(
    outcome: Outcome,
    number: int,
    ended: "Ended",
    *,
    record: "RunRecord",
    quotas: "Quotas",
    out_of_memory: bool,
    name_of: "Callable[[int], str]",
) -> None:
    outcome.signal = number
    if ended.cause == "timeout":
        outcome.reason, outcome.status = "timeout", STATUS_TIMEOUT
    elif isinstance(ended.cause, int):
        outcome.signal = ended.cause
        outcome.reason, outcome.status = "killed", 128 + ended.cause
    elif number == SIGXCPU or (number == SIGKILL and _cpu_is_spent(outcome.usage, quotas)):
        outcome.reason, outcome.status = "cpu_time", STATUS_CPU_TIME
    elif number == SIGKILL and out_of_memory:
        outcome.reason, outcome.status = "memory", STATUS_MEMORY
    elif number == SIGSYS:
        outcome.reason, outcome.status = "syscall", STATUS_SYSCALL
        outcome.syscall = name_of(record.code) if record.outcome == "syscall" else None
    elif number == SIGXFSZ:
        outcome.reason, outcome.status = "file_size", STATUS_FILE_SIZE
    else:
        outcome.reason, outcome.status = "killed", 128 + number
        if number != SIGKILL:
            outcome.message = f"the worker crashed (signal {number}) while {_doing(record)}"


def _exited(
    outcome: Outcome, code: int, record: "RunRecord", name_of: "Callable[[int], str]"
) -> None:
    said = record.outcome
    if said == "exit":
        outcome.status = code
        # proc_exit takes 32 bits, of which a process can leave with 8.
        outcome.exit_code = record.code if min(record.code, 255) == code else code
    elif said == "memory" and _address_space_is_limited() and "to reserve" in record.message:
        raise SetupError(
            "the engine reserves more address space than the limit on it (ulimit -v) leaves",
            "ulimit -v unlimited: what a run may use is limited by --memory",
            step="limits",
            errno=ENOMEM,
        )
    elif said in _REPORTED:
        outcome.reason, outcome.status = _REPORTED[said]
        if said == "trap":
            outcome.trap = _TRAPS.get(record.code)
        elif said == "syscall":
            outcome.syscall = name_of(record.code)
    elif said == "raised":
        outcome.reason = "killed"
        outcome.signal = record.code & 0x7F
        outcome.status = 128 + outcome.signal
        outcome.message = f"the guest raised signal {outcome.signal}"
    elif said == "abort":
        outcome.reason, outcome.signal, outcome.status = "killed", SIGABRT, 128 + SIGABRT
        outcome.message = f"the engine gave up while {_doing(record)}"
    else:
        raise _never_ran(code, record)


def _never_ran(code: int, record: "RunRecord") -> WasisupError:
    text = printable(record.message, keep="\n\t")
    if record.outcome == "setup":
        return failed_step(record.errno, record.step, record.message)
    if record.outcome in ("invalid", "rejected"):
        return InvalidModule(text or "the engine refuses this module")
    return SetupError(
        f"the worker left with status {code} while {_doing(record)}", step=record.phase
    )


def _cpu_is_spent(usage: Usage, quotas: "Quotas") -> bool:
    import resource

    spent = usage.cpu_user_ns + usage.cpu_system_ns
    # The caller's own limit (ulimit -t) is in force as well, in whole seconds.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY and spent >= hard * 10**9:
        return True
    return quotas.cpu_time is not None and spent >= quotas.cpu_time


def _address_space_is_limited() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _doing(record: "RunRecord") -> str:
    return {
        "setup": "the walls went up",
        "loading": "the compiled module was loaded",
        "running": "the guest ran",
        "done": "leaving",
    }.get(record.phase, "starting")
