"""Looking at a running command's processes, and knowing when they are gone."""

from __future__ import annotations

import os
import select
from pathlib import Path


def children(pid: int) -> list[int]:
    """The direct children of `pid`, zombies included."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            if not Path(f"/proc/{pid}").exists():
                raise
            continue  # a thread that has just ended
    return found


def pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # gone, or (not dumpable, another user's) not ours to read
        return None


def is_worker(pid: int) -> bool:
    """Whether `pid` is a worker: not the zygote, which stays in the supervisor's namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
    return len(inside) > len(own_depth()) and inside[-1] == "1"


def own_depth() -> list[str]:
    status = Path("/proc/self/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("NSpid:")).split()


def worker_pidfd(supervisor: int) -> int:
    """A pidfd of the supervisor's worker; the caller owns it."""
    for pid in children(supervisor):
        if is_worker(pid):
            return os.pidfd_open(pid)
    raise AssertionError(f"no worker among the children of {supervisor}: {children(supervisor)}")


def all_pidfds(supervisor: int) -> dict[int, int]:
    """pid -> pidfd of the supervisor and of everything below it."""
    found, todo = {}, [supervisor]
    while todo:
        pid = todo.pop()
        try:
            found[pid] = os.pidfd_open(pid)
            todo += children(pid)
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def wait_gone(pidfds: dict[int, int], timeout: float) -> set[int]:
    """Waits until every process has ended; returns the pids of those that have not in time.

    Closes the descriptors.
    """
    left = dict(pidfds)
    poller = select.poll()
    for fd in left.values():
        poller.register(fd, select.POLLIN)
    owner = {fd: pid for pid, fd in left.items()}
    while left:
        ready = poller.poll(timeout * 1000)
        if not ready:
            break
        for fd, _ in ready:
            poller.unregister(fd)
            del left[owner[fd]]
    for fd in pidfds.values():
        os.close(fd)
    return set(left)
