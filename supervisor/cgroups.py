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
_WANTED = ("cpu",)
_LEAF = "wasisup-supervisor"
_RUN = "wasisup-run-"
_CPU_PERIOD_US = 100_000  # the kernel's own default for cpu.max


class Delegation:
    """A cgroup v2 directory that is this process's to manage; the process is in a leaf of it.

    controllers: those that groups made here have.  `leave` undoes what `enter` did.
    """

    __slots__ = ("_leaf", "_left", "base", "controllers")

    def __init__(self, base: str, leaf: str, controllers: "frozenset[str]") -> None:
        self.base = base
        self._leaf = leaf
        self._left: list[str] = []  # closed, with a process that was still ending
        self.controllers = controllers

    def make(self, name: str) -> "RunGroup":
        """A new group for the run of that name.  Raises OSError."""
        self._remove_left()
        path = f"{self.base}/{_RUN}{name}"
        os.mkdir(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return RunGroup(path, fd, self._left)
        except BaseException:
            _rmdir(path)
            raise

    def clear(self) -> "list[str]":
        """Kills what is left in groups of runs and removes them: after a supervisor was killed.

        For a supervisor that has the directory to itself.  Returns the names of the runs.
        """
        found = [name for name in os.listdir(self.base) if name.startswith(_RUN)]
        for name in found:
            _kill(f"{self.base}/{name}")
            _rmdir(f"{self.base}/{name}")
        return [name.removeprefix(_RUN) for name in found]

    def leave(self) -> None:
        """Takes this process back to where it was, and removes the leaf."""
        self._remove_left()
        _leave(self.base, self._leaf, self.controllers)

    def _remove_left(self) -> None:
        self._left[:] = [path for path in self._left if not _rmdir(path)]


class RunGroup:
    """The group of one run.  fd: its directory, owned by this object; `close` removes the group.

    left: where `close` puts the path of a group that cannot be removed yet.  delegation: left as
    well at `close`, where it was entered for this run alone.
    """

    __slots__ = ("_delegation", "_left", "_run", "fd")

    def __init__(
        self, run: str, fd: int, left: "list[str]", delegation: "Delegation | None" = None
    ) -> None:
        self._run = run
        self._left = left
        self._delegation = delegation
        self.fd = fd

    def limit(self, *, memory: "int | None", processes: int, cpus: "float | None" = None) -> None:
        """Sets the group's limits: bytes (None for none), tasks, and processors' worth of time.

        Raises OSError.  Swap is not allowed: it would make the memory limit a matter of speed.
        """
        _write(f"{self._run}/memory.max", "max" if memory is None else str(memory))
        _write(f"{self._run}/pids.max", str(processes))
        if cpus is not None:
            _write(f"{self._run}/cpu.max", f"{round(cpus * _CPU_PERIOD_US)} {_CPU_PERIOD_US}")
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

    def memory_peak(self) -> "int | None":
        """Bytes that the group held at the most; None where the kernel (before 5.19) cannot say."""
        try:
            return int(_read(f"{self._run}/memory.peak"))
        except (OSError, ValueError):
            return None

    def kill(self) -> None:
        """Kills every process of the group."""
        _kill(self._run)

    def close(self) -> None:
        """Removes the group, whose processes have ended or are about to.

        A launch that was given up may just have put its worker there, or a broker: then that is
        killed, and the group goes with the next that is made.
        """
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
            if not _rmdir(self._run):
                _kill(self._run)
                self._left.append(self._run)
            if self._delegation is not None:
                self._delegation.leave()


def enter() -> "RunGroup | None":
    """Makes a group for a run; None where no cgroup v2 directory is this process's to manage.

    Has to be called before this process has children: they would be in the way.
    """
    base = delegated()
    if base is None:
        return None
    _remove_abandoned(base)
    delegation = _take(base)
    if delegation is None:
        return None
    try:
        group = delegation.make(str(os.getpid()))
    except OSError:
        delegation.leave()
        return None
    return RunGroup(group._run, group.fd, delegation._left, delegation)


def delegate() -> "Delegation | None":
    """Takes the cgroup v2 directory that this process is in, for many runs, if it may manage it.

    Has to be called before this process has children: they would be in the way.
    """
    base = delegated()
    return None if base is None else _take(base)


def _take(base: str) -> "Delegation | None":
    leaf = f"{base}/{_LEAF}"
    try:
        os.mkdir(leaf)
    except FileExistsError:
        pass  # of a run that was killed
    except OSError:
        return None
    try:
        there = _read(f"{base}/cgroup.controllers").split()
        controllers = frozenset(name for name in (*_NEEDED, *_WANTED) if name in there)
        _write(f"{leaf}/cgroup.procs", str(os.getpid()))
        _write(f"{base}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
    except OSError:
        _leave(base, leaf, frozenset((*_NEEDED, *_WANTED)))
        return None
    return Delegation(base, leaf, controllers)


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


def _leave(base: str, leaf: str, controllers: "frozenset[str]") -> None:
    # In this order: no process may enter a group whose children have controllers.
    for path, text in (
        (f"{base}/cgroup.subtree_control", " ".join(f"-{name}" for name in sorted(controllers))),
        (f"{base}/cgroup.procs", str(os.getpid())),
    ):
        try:
            _write(path, text)
        except OSError:
            pass  # the manager of the group removes what is left
    _rmdir(leaf)


def _kill(path: str) -> None:
    try:
        _write(f"{path}/cgroup.kill", "1")
    except OSError:
        pass  # no such group any more, or a kernel before 5.14, where the pidfd does it alone


def _remove_abandoned(base: str) -> None:
    """Removes the groups of runs whose supervisor was killed; those of living ones stay."""
    for name in os.listdir(base):
        number = name.removeprefix(_RUN)
        if name.startswith(_RUN) and number.isdigit() and not os.path.exists(f"/proc/{number}"):
            _rmdir(f"{base}/{name}")


def _rmdir(path: str) -> bool:
    """Removes a group; whether it is gone.  It is not while there is a process in it."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


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
