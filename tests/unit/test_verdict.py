"""From wait status and record to outcome: every ending, and endings that lie about themselves."""

from __future__ import annotations

import resource
import signal

import pytest

from wasisup.supervisor.child import Ended
from wasisup.supervisor.errors import InvalidModule, SetupError, WallMissing
from wasisup.supervisor.model import Outcome, Quotas, RunRecord
from wasisup.supervisor.verdict import judge


def usage(cpu: float = 0.0) -> resource.struct_rusage:
    return resource.struct_rusage((cpu, 0.25, 1000, 0, 0, 0, 7, 2, 0, 0, 0, 0, 0, 0, 0, 0))


def verdict(
    status: int,
    record: RunRecord | None = None,
    *,
    cause: int | str | None = None,
    cpu: float = 0.0,
    quotas: Quotas | None = None,
    out_of_memory: bool = False,
) -> Outcome:
    return judge(
        Ended(status, usage(cpu), cause, 5),
        record or RunRecord(),
        quotas or Quotas(),
        out_of_memory=out_of_memory,
        name_of=lambda number: f"call{number}",
    )


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize("code", [0, 1, 77, 124, 255])
def test_exit(code: int) -> None:
    """The guest's own status, also where it looks like one of ours."""
    outcome = verdict(exited(code), RunRecord(outcome="exit", code=code))
    assert (outcome.reason, outcome.status, outcome.exit_code) == ("exit", code, code)


def test_exit_code_of_more_than_eight_bits() -> None:
    """proc_exit takes 32; a record that contradicts the wait status is not believed."""
    outcome = verdict(exited(255), RunRecord(outcome="exit", code=256))
    assert (outcome.status, outcome.exit_code) == (255, 256)
    outcome = verdict(exited(3), RunRecord(outcome="exit", code=256))
    assert (outcome.status, outcome.exit_code) == (3, 3)


@pytest.mark.parametrize(
    ("said", "code", "reason", "status"),
    [
        ("trap", 9, "trap", 134),
        ("fuel", 11, "fuel", 134),
        ("output", 0, "output", 153),
        ("file_size", 0, "file_size", 153),
        ("cpu_time", 0, "cpu_time", 152),
        ("memory", 0, "memory", 137),
        ("syscall", 41, "syscall", 159),
        ("raised", 15, "killed", 143),
        ("abort", 0, "killed", 134),
    ],
)
def test_endings_that_the_worker_reports(said: str, code: int, reason: str, status: int) -> None:
    """Each has the status of the contract, and no exit code."""
    outcome = verdict(exited(status), RunRecord(phase="done", outcome=said, code=code))
    assert (outcome.reason, outcome.status, outcome.exit_code) == (reason, status, None)


def test_details() -> None:
    """A trap has its name, a forbidden call its name, a raised signal its number."""
    assert verdict(0, RunRecord(outcome="trap", code=7)).trap == "integer divide by zero"
    assert verdict(0, RunRecord(outcome="trap", code=0xFFFFFFFF)).trap is None
    assert verdict(0, RunRecord(outcome="syscall", code=41)).syscall == "call41"
    assert verdict(0, RunRecord(outcome="raised", code=6)).signal == 6


def test_the_kernel_s_word_comes_first() -> None:
    """A record that claims a good end does not make a killed worker one."""
    lie = RunRecord(phase="done", outcome="exit", code=0)
    outcome = verdict(signal.SIGSEGV | 0x80, lie)
    assert (outcome.reason, outcome.status, outcome.signal) == ("killed", 139, signal.SIGSEGV)
    assert "crashed" in outcome.message
    assert verdict(signal.SIGKILL, lie).status == 137


def test_killed_by_us() -> None:
    """The clock, and signals that were sent to the command."""
    outcome = verdict(signal.SIGKILL, cause="timeout")
    assert (outcome.reason, outcome.status) == ("timeout", 124)
    outcome = verdict(signal.SIGKILL, cause=signal.SIGTERM)
    assert (outcome.reason, outcome.status, outcome.signal) == ("killed", 143, signal.SIGTERM)


def test_an_end_that_came_before_the_kill() -> None:
    """The clock ran out while the guest exited: it exited."""
    outcome = verdict(exited(3), RunRecord(outcome="exit"), cause="timeout")
    assert (outcome.reason, outcome.status) == ("exit", 3)


def test_sigkill_from_elsewhere() -> None:
    """The kernel for want of memory, the hard CPU limit, or somebody."""
    assert verdict(signal.SIGKILL, out_of_memory=True).reason == "memory"
    spent = verdict(signal.SIGKILL, cpu=3.1, quotas=Quotas(cpu_time=2 * 10**9))
    assert (spent.reason, spent.status) == ("cpu_time", 152)
    assert verdict(signal.SIGKILL, cpu=3.1).reason == "killed"


def test_signals_of_quotas() -> None:
    """SIGSYS, SIGXCPU and SIGXFSZ that no handler took."""
    assert verdict(signal.SIGSYS).status == 159
    assert verdict(signal.SIGXCPU).status == 152
    assert verdict(signal.SIGXFSZ).status == 153


def test_usage() -> None:
    """Times in ns, memory in bytes; the guest's figures from its record."""
    outcome = verdict(0, RunRecord(outcome="exit", memory=65536, output=3, fuel=4), cpu=1.5)
    used = outcome.usage
    assert (used.cpu_user_ns, used.cpu_system_ns) == (1_500_000_000, 250_000_000)
    assert (used.max_rss, used.minor_faults, used.major_faults) == (1000 * 1024, 7, 2)
    assert (used.memory, used.output, used.fuel, used.wall_ns) == (65536, 3, 4, 5)


def test_setup_that_failed() -> None:
    """The step and errno of the core, as an error; a wall's step names the wall."""
    record = RunRecord(phase="setup", outcome="setup", errno=28, step="mounts", message="tmpfs")
    with pytest.raises(SetupError, match="mounts: tmpfs: No space left on device") as caught:
        verdict(exited(125), record)
    assert (caught.value.step, caught.value.errno) == ("mounts", 28)
    record = RunRecord(outcome="setup", errno=95, step="landlock", message="no Landlock")
    with pytest.raises(WallMissing) as missing:
        verdict(exited(125), record)
    assert missing.value.wall == "landlock"
    assert "--allow-missing=landlock" in str(missing.value.hint)


def test_a_module_that_cannot_run() -> None:
    """An import that nobody offers, say."""
    with pytest.raises(InvalidModule, match="unknown import"):
        verdict(exited(126), RunRecord(outcome="invalid", message="unknown import"))


def test_a_worker_that_said_nothing() -> None:
    """It left without a record: that is a failure of ours, never a good end."""
    with pytest.raises(SetupError, match="status 0"):
        verdict(exited(0), RunRecord(phase="running"))


def test_messages_are_made_printable() -> None:
    """The record is untrusted: no escape sequence of it reaches a terminal."""
    outcome = verdict(0, RunRecord(outcome="trap", message="\x1b]0;title\x07\nline"))
    assert outcome.message == "\\x1b]0;title\\x07\nline"


def test_a_limit_of_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit -v` leaves no room for the engine: it is named, and not the guest's quota."""
    said = RunRecord(outcome="memory", message="mmap failed to reserve 0x104000000 bytes")
    assert verdict(exited(137), said).reason == "memory"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2 << 30, 2 << 30))
    with pytest.raises(SetupError, match="ulimit -v"):
        verdict(exited(137), said)
    assert verdict(exited(137), RunRecord(outcome="memory", message="other")).reason == "memory"
