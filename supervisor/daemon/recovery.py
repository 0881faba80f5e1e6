"""After a daemon was killed: its runs are found, ended, and marked; nothing of them is left.

Workers die with their daemon (PR_SET_PDEATHSIG); one that has not, for whatever reason, is known by
its process and the time at which that began, and is killed here.
"""

import os
import signal
from datetime import UTC, datetime

from .. import logs, wire
from . import output
from .records import Records

log = logs.logger()

_ID = 16  # digits


def recover(records: Records, folder: str) -> int:
    """Ends and marks what is unfinished in the records; returns how many runs that were.

    folder: of the kept output; files there that belong to no run are removed.
    """
    left = records.unfinished()
    boot = boot_id()
    for one in left:
        run = one.run
        if one.pid is not None and one.boot_id == boot:
            _end_left_over(one.pid, one.start_ticks)
        run.state, run.ended = "ended", datetime.now(UTC)
        run.outcome = wire.Outcome(
            reason="killed",
            status=128 + signal.SIGKILL,
            signal=int(signal.SIGKILL),
            message="the daemon that ran it was killed",
            interrupted=True,
        )
        small, size = _output(folder, run.id)
        records.end(run, small, size)
        log.warning("found a run of a daemon that was killed", run=run.id, uid=run.uid)
    _remove_strays(records, folder)
    return len(left)


def boot_id() -> str:
    """What tells this boot of the machine from others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5)); None if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _output(folder: str, run: str) -> tuple[tuple[bytes, bytes] | None, int]:
    """What a run wrote, if it is small enough for the records, or else how much it is."""
    kept = output.from_files(folder, run)
    if kept is None:
        return None, 0
    try:
        size = kept.size()
        if size > output.SMALL:
            return None, size
        return (kept.whole("stdout", size), kept.whole("stderr", size)), 0
    finally:
        kept.close()


def _remove_strays(records: Records, folder: str) -> None:
    """A kill between two steps leaves files whose run is forgotten, or is kept in the records."""
    for run in {name.partition(".")[0] for name in os.listdir(folder)}:
        if len(run) == _ID and (records.get(run) is None or records.output(run) is not None):
            output.remove(folder, run)


def _end_left_over(pid: int, ticks: int | None) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Once more with the descriptor in hand: the number cannot have been given on since.
        if start_ticks(pid) == ticks:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just ended
    finally:
        os.close(pidfd)
