"""A control group for one run, where this command was given a cgroup v2 directory to manage.

That is so for `systemd-run --user --scope -p Delegate=yes wasisup run ...`, for a service with
Delegate=yes, and hardly ever for a plain shell.  It counts what the other quotas do not: kernel
memory, page cache, the whole process.  Where there is no such directory nothing is done, and the
other quotas stand alone.

cgroup v2 forbids processes in a group whose children have controllers, so this process moves into a
leaf of its own meanwhile, and back at the end (the kernel's admin-guide/cgroup-v2.rst, "No Internal
Process Constraint").
"""

import os

ROOT = "/sys/fs/cgroup"
_NEEDED = ("memory", "pids")
_LEAF = "wasisup-supervisor"
_RUN = "wasisup-run-"


class RunGroup:
    """The group of one run.  fd: its directory, owned by this object; `close` undoes everything."""

    __slots__ = ("_base", "_leaf", "_run", "fd")

    def __init__(self, base: str, leaf: str, run: str, fd: int) -> None:
        self._base = base
        self._leaf = leaf
        self._run = run
        self.fd = fd

    def limit(self, *, memory: "int | None", processes: int) -> None:
        """Sets the group's limits: bytes (None for none), and number of tasks.

        Raises OSError.  Swap is not allowed: it would make the memory limit a matter of speed.
        """
        _write(f"{self._run}/memory.max", "max" if memory is None else str(memory))
        _write(f"{self._run}/pids.max", str(processes))
        try:
            _write(f"{self._run}/memory.swap.max", "0")
        except FileNotFoundError:
            pass  # a kernel without swap accounting

    def oom_kills(self) -> int:
        """How many of the group's processes the kernel has killed for want of memory."""
        try:
            events = _read(f"{self._run}/memory.events")
        except OSError:
            return 0
        for line in events.splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
        return 0

    def close(self) -> None:
        """Removes the group, whose processes have ended, and takes this process back."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
            _rmdir(self._run)
            _leave(self._base, self._leaf)


def enter() -> "RunGroup | None":
    """Makes a group for a run; None where no cgroup v2 directory is this process's to manage.

    Has to be called before this process has children: they would be in the way.
    """
    base = delegated()
    if base is None:
        return None
    leaf = f"{base}/{_LEAF}"
    run = f"{base}/{_RUN}{os.getpid()}"
    _remove_abandoned(base)
    try:
        os.mkdir(leaf)
    except FileExistsError:
        pass  # of a run that was killed
    except OSError:
        return None
    try:
        _write(f"{leaf}/cgroup.procs", str(os.getpid()))
        _write(f"{base}/cgroup.subtree_control", " ".join(f"+{name}" for name in _NEEDED))
        os.mkdir(run)
        fd = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        _rmdir(run)
        _leave(base, leaf)
        return None
    return RunGroup(base, leaf, run, fd)


def delegated() -> "str | None":
    """The cgroup v2 directory that this process is in, if it is alone there and may manage it."""
    try:
        base = _own_directory(_read("/proc/self/cgroup"))
        if base is None or not _is_ours(base):
            return None
        if not set(_NEEDED) <= set(_read(f"{base}/cgroup.controllers").split()):
            return None
        if _read(f"{base}/cgroup.procs").split() != [str(os.getpid())]:
            return None
    except OSError:
        return None
    return base


def _own_directory(memberships: str) -> "str | None":
    for line in memberships.splitlines():
        if line.startswith("0::/"):
            return (ROOT + line[len("0::") :]).rstrip("/")
    return None


def _is_ours(base: str) -> bool:
    """Whether the directory was delegated: given to this user or, for root, marked by systemd.

    root could write into any group; one that was not delegated is its service manager's alone
    (systemd.resource-control(5), Delegate=).
    """
    uid = os.geteuid()
    if uid != 0:
        return os.stat(base).st_uid == uid and os.access(f"{base}/cgroup.procs", os.W_OK)
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(base, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _leave(base: str, leaf: str) -> None:
    # In this order: no process may enter a group whose children have controllers.
    for path, text in (
        (f"{base}/cgroup.subtree_control", " ".join(f"-{name}" for name in _NEEDED)),
        (f"{base}/cgroup.procs", str(os.getpid())),
    ):
        try:
            _write(path, text)
        except OSError:
            pass  # the manager of the group removes what is left
    _rmdir(leaf)


def _remove_abandoned(base: str) -> None:
    """Removes the groups of runs whose supervisor was killed; those of living ones stay."""
    for name in os.listdir(base):
        number = name.removeprefix(_RUN)
        if name.startswith(_RUN) and number.isdigit() and not os.path.exists(f"/proc/{number}"):
            _rmdir(f"{base}/{name}")


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        pass


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16).decode()
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    # One write(2): a buffered file would report the kernel's refusal at its end, or not at all.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
