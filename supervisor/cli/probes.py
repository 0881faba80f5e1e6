"""What this machine can enforce, asked of the kernel: the facts behind `wasisup doctor`.

Each probe answers with a Check and touches nothing that outlives it.  The trial run in `doctor` has
the last word; these say why, and what to do.
"""

import ctypes
import errno
import os

from .. import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Linux user API.
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_REC, MS_PRIVATE = 0x4000, 0x40000
SYS_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
LANDLOCK_CREATE_RULESET_VERSION = 1
# mount_setattr(2) is the youngest call that there is no way around.
OLDEST_KERNEL = (5, 12)
# The first whose PID namespaces have a pid_max of their own.
PID_MAX_KERNEL = (6, 14)

OK, LIMITED, OPTIONAL, MISSING = "ok", "limited", "optional", "missing"

IN_CONTAINER = (
    "in a container: start it with --security-opt seccomp=unconfined"
    " --security-opt apparmor=unconfined, or with --privileged"
)


class Check:
    """One line of `doctor`.

    state: OK; LIMITED (works, with less than there could be); OPTIONAL (absent, and a run does
    without); MISSING (a run with every wall is not possible).  fix: how to get it, or "".
    """

    __slots__ = ("detail", "fix", "name", "state")

    def __init__(self, name: str, state: str, detail: str, fix: str = "") -> None:
        self.name = name
        self.state = state
        self.detail = detail
        self.fix = fix


def kernel() -> Check:
    """The kernel's release and the machine's architecture."""
    system = os.uname()
    detail = f"Linux {system.release} on {system.machine}"
    numbers = system.release.split("-")[0].split(".")
    version = tuple(int(part) for part in numbers[:2] if part.isdigit())
    if version < OLDEST_KERNEL:
        return Check("kernel", MISSING, detail, "Linux 5.12 or newer is needed (mount_setattr)")
    if system.machine != "x86_64":
        return Check("kernel", MISSING, detail, "only x86_64 is supported")
    return Check("kernel", OK, detail)


def user() -> Check:
    """Who runs this, and so which way to the namespaces there is."""
    uid = os.geteuid()
    way = "namespaces are made directly" if uid == 0 else "namespaces are made in a user namespace"
    return Check("user", OK, f"uid {uid}: {way}")


def namespaces() -> Check:
    """Tries every namespace that a run is born into, and a mount inside."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    kinds = "mount, pid, ipc, uts and cgroup"
    if os.geteuid() != 0:
        flags |= CLONE_NEWUSER
        kinds = f"user, {kinds}"
    failed = in_child(lambda: _unshare_and_mount(flags))
    if failed == 0:
        return Check("namespaces", OK, kinds)
    return Check("namespaces", MISSING, f"refused: {os.strerror(failed)}", _why_no_namespaces())


def network() -> Check:
    """Tries an empty network namespace."""
    flags = CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() != 0 else 0)
    failed = in_child(lambda: _unshare(flags))
    if failed == 0:
        return Check("network", OK, "an empty network namespace")
    return Check("network", MISSING, f"refused: {os.strerror(failed)}", _why_no_namespaces())


def net_grants() -> Check:
    """Whether this user can make the sockets that --net stands for; no privilege is needed."""
    import socket

    families = []
    for name in ("AF_INET", "AF_INET6"):
        try:
            socket.socket(getattr(socket, name), socket.SOCK_STREAM).close()
        except OSError:
            continue
        families.append({"AF_INET": "IPv4", "AF_INET6": "IPv6"}[name])
    if not families:
        fix = "a service may be kept off the network (RestrictAddressFamilies=)"
        return Check("--net", OPTIONAL, "no socket of IPv4 or IPv6 can be made here", fix)
    return Check("--net", OK, f"{' and '.join(families)}, for components, as your user")


def landlock() -> Check:
    """The kernel's Landlock ABI and what it covers."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(
        ctypes.c_long(SYS_LANDLOCK_CREATE_RULESET),
        ctypes.c_void_p(None),
        ctypes.c_size_t(0),
        ctypes.c_uint32(LANDLOCK_CREATE_RULESET_VERSION),
    )
    if abi < 1:
        failed = ctypes.get_errno()
        fix = "Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK=y is needed"
        if failed == errno.EOPNOTSUPP:
            fix = "it is switched off: add landlock to lsm= on the kernel's command line"
        return Check("landlock", MISSING, f"none: {os.strerror(failed)}", fix)
    covers = ["files"]
    lacks: list[str] = []
    for since, what in ((4, "TCP"), (5, "device ioctls"), (6, "signals and abstract sockets")):
        (covers if abi >= since else lacks).append(what)
    detail = f"ABI {abi}: {', '.join(covers)}"
    if lacks:
        fix = f"a newer kernel would also cover {', '.join(lacks)}; the other walls cover them"
        return Check("landlock", LIMITED, detail, fix)
    return Check("landlock", OK, detail)


def seccomp() -> Check:
    """Whether the kernel filters system calls, and with the action that the core uses."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            actions = file.read().split()
    except OSError:
        return Check(
            "seccomp", MISSING, "not in this kernel", "a kernel with CONFIG_SECCOMP_FILTER=y"
        )
    if "trap" not in actions:
        return Check("seccomp", MISSING, "the action 'trap' is not available", "a newer kernel")
    return Check("seccomp", OK, "filters, with trap and kill")


def libseccomp() -> Check:
    """The library that compiles the filters; a filter once compiled is cached."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        fix = "Debian, Ubuntu: apt install libseccomp2; Fedora: dnf install libseccomp"
        return Check("libseccomp", MISSING, "libseccomp.so.2 is not installed", fix)
    return Check("libseccomp", OK, "libseccomp.so.2")


def cgroup() -> Check:
    """Whether a cgroup v2 with the memory controller is this command's to manage."""
    mount, own = _cgroup2_mount(), _own_cgroup2()
    without = "the other memory quotas hold without it"
    if mount is None or own is None:
        return Check("cgroup", OPTIONAL, f"no cgroup v2 here; {without}")
    path = os.path.normpath(mount + own)
    controllers = _read_words(f"{path}/cgroup.controllers")
    if "memory" not in controllers:
        return Check("cgroup", OPTIONAL, f"{path} has no memory controller; {without}")
    if cgroups.delegated() is None:
        whose = "" if os.geteuid() == 0 else " --user"
        fix = f"systemd-run{whose} --scope -p Delegate=yes wasisup run ... delegates one"
        return Check("cgroup", OPTIONAL, f"{path} is not delegated to this command; {without}", fix)
    return Check("cgroup", OK, f"{path}, with the memory controller")


def threads() -> Check:
    """What bounds the threads of a component's worker (core/jail/threads.c); modules have none."""
    if os.geteuid() != 0:
        return Check("threads", OK, "counted in the user namespace of each run")
    if cgroups.delegated() is not None:
        return Check("threads", OK, "counted in the control group of each run")
    release = os.uname().release.split("-")[0].split(".")
    if tuple(int(part) for part in release[:2] if part.isdigit()) >= PID_MAX_KERNEL:
        return Check("threads", OK, "bounded by the PID namespace of each run (some 300)")
    fix = "systemd-run --scope -p Delegate=yes wasisup run ..., or run them as an ordinary user"
    return Check("threads", LIMITED, "root's components have no bound here: modules only", fix)


def in_child(action: "Callable[[], int]") -> int:
    """Runs `action` in a child process and returns its errno (0: it worked)."""
    pid = os.fork()
    if pid == 0:
        failed = errno.EIO
        try:
            failed = action()
        finally:
            os._exit(min(failed, 255))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF


def _unshare(flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.unshare(ctypes.c_int(flags)) == 0 else ctypes.get_errno()


def _unshare_and_mount(flags: int) -> int:
    failed = _unshare(flags)
    if failed:
        return failed
    # Ubuntu's AppArmor lets the user namespace be made, and then takes its capabilities away.
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    return 0 if done == 0 else ctypes.get_errno()


def _why_no_namespaces() -> str:
    for name, bad, fix in (
        ("user.max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel.unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        if sysctl(name) == bad:
            return f"{name} is {bad}; as root: {fix}"
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return IN_CONTAINER
    if os.geteuid() == 0:
        return f"root without CAP_SYS_ADMIN? {IN_CONTAINER}"
    return f"user namespaces are refused here; {IN_CONTAINER}; or run it as root"


def sysctl(name: str) -> "str | None":
    """A kernel setting as text, None when this kernel does not have it."""
    try:
        with open("/proc/sys/" + name.replace(".", "/"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _cgroup2_mount() -> "str | None":
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                if rest.split(" ", 1)[0] == "cgroup2":
                    return fields.split(" ")[4]
    except OSError:
        pass
    return None


def _own_cgroup2() -> "str | None":
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n")
    except OSError:
        pass
    return None


def _read_words(path: str) -> "list[str]":
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []
