"""Attacks on other processes, on the worker's own privileges, and on its being the only process."""

from __future__ import annotations

from .shapes import HARMLESS, Attack, Expectation, NotTried, attack, fails
from .steps import call, out, text, words, zeros

NOBODY_THERE = fails("ESRCH", "EPERM", "EINVAL", "EBADF", "ENOSYS", "EACCES")
NO = fails("EPERM", "EINVAL", "EBADF", "EACCES", "ENOSYS")
ALONE = fails("EAGAIN", "EPERM", "ENOMEM")
SIGUSR1, SIGKILL = 10, 9

PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE = 0, 16, 0x4206
CLONE_PARENT, CLONE_THREAD_SET = 0x8000, 0x10900  # THREAD | SIGHAND | VM
NEW_NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x80,
}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_SECUREBITS, PR_SET_MM, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 35, 38, 47
PR_SET_PTRACER = 0x59616D61
RLIMITS = {"CPU": 0, "FSIZE": 1, "DATA": 2, "CORE": 4, "NPROC": 6, "NOFILE": 7, "MEMLOCK": 8}


def other(name: str, *arguments: str | int, bare: Expectation = NOBODY_THERE) -> tuple[Attack, ...]:
    """One call against each process that could matter: outside they exist, inside nobody does."""
    return tuple(
        attack(
            f"{name} of {who}",
            call(name, *[pid if part == "<pid>" else part for part in arguments]),
            bare=bare,
        )
        for who, pid in (("the victim", "<victim>"), ("the supervisor", "<supervisor>"))
    )


_OTHERS = (
    *other("kill", "<pid>", SIGUSR1),
    *other("tkill", "<pid>", SIGUSR1),
    *other("tgkill", "<pid>", "<pid>", SIGUSR1),
    *other("rt_sigqueueinfo", "<pid>", SIGUSR1, zeros(128)),
    *other("pidfd_open", "<pid>", 0),
    *other("process_vm_readv", "<pid>", words(out(64), 64), 1, words("<secret-at>", 64), 1, 0),
    *other("process_vm_writev", "<pid>", words(zeros(64), 64), 1, words("<secret-at>", 64), 1, 0),
    *other("process_madvise", "<pid>", 0, 0, 0, 0),
    *other("kcmp", "<pid>", "<pid>", 0, 0, 0),
    *other("get_robust_list", "<pid>", zeros(8), zeros(8)),
    *other("sched_setaffinity", "<pid>", 8, words(1)),
    *other("sched_setscheduler", "<pid>", 3, zeros(4)),
    *other("setpriority", 0, "<pid>", 19),
    *other("ioprio_set", 1, "<pid>", 0x6000),
    *other("prlimit64", "<pid>", RLIMITS["CPU"], words(1, 1), 0),
    *other("migrate_pages", "<pid>", 64, words(1), words(1)),
    *other("getsid", "<pid>"),
    *other("setpgid", "<pid>", 0),
    *(
        attack(f"ptrace {name} of {who}", call("ptrace", request, pid, 0, 0), bare=NOBODY_THERE)
        for name, request in (("attach", PTRACE_ATTACH), ("seize", PTRACE_SEIZE))
        for who, pid in (("the victim", "<victim>"), ("the supervisor", "<supervisor>"))
    ),
    attack("ptrace traceme", call("ptrace", PTRACE_TRACEME, 0, 0, 0), bare=HARMLESS),
    attack("kill everybody", call("kill", -1, SIGKILL), bare=NOBODY_THERE),
    attack("signal the process group", call("kill", 0, SIGUSR1), bare=HARMLESS),
    attack("kill process 1", call("kill", 1, SIGUSR1), bare=HARMLESS),
    attack("renice the process group", call("setpriority", 1, 0, 19), bare=HARMLESS),
    attack("renice the user", call("setpriority", 2, 0, 19), bare=HARMLESS),
    attack("ionice the process group", call("ioprio_set", 2, 0, 0x6000), bare=HARMLESS),
    attack(
        "signal by an inherited descriptor", call("pidfd_send_signal", 3, SIGUSR1, 0, 0), bare=NO
    ),
    attack("take a descriptor by pidfd", call("pidfd_getfd", 3, 0, 0), bare=NO),
    attack("own a descriptor's signals", call("fcntl", 0, 8, "<victim>"), bare=HARMLESS),
)

_NEW = (
    *(
        attack(f"unshare {name}", call("unshare", flag), bare=NO if name != "user" else HARMLESS)
        for name, flag in NEW_NAMESPACES.items()
    ),
    *(
        # clone takes the time namespace's bit for a part of the signal number; and RLIMIT_NPROC,
        # which stops everybody else's user namespace, does not count for root.
        attack(
            f"clone into a new {name} namespace",
            call("clone", flag | 17, 0, 0, 0, 0),
            bare=HARMLESS if name in ("user", "time") else fails("EPERM", "EAGAIN", "EINVAL"),
        )
        for name, flag in NEW_NAMESPACES.items()
    ),
    attack("setns", call("setns", 3, 0), bare=NO),
    attack("setns to the supervisor's", call("setns", 0, NEW_NAMESPACES["mount"]), bare=NO),
    attack("fork", call("fork"), bare=HARMLESS),
    attack("vfork", call("vfork"), bare=NotTried("it would share this program's stack")),
    attack(
        "a thread",
        call("clone", CLONE_THREAD_SET, 0, 0, 0, 0),
        bare=NotTried("it would share this program's stack"),
    ),
    attack(
        "a sibling", call("clone", CLONE_PARENT | 17, 0, 0, 0, 0), bare=fails("EINVAL", "EAGAIN")
    ),
    attack("clone3", call("clone3", words(0, 0, 0, 0, 17, 0, 0, 0), 64), bare=HARMLESS),
    attack("a fork bomb", "fork-bomb 64", bare=HARMLESS),
    attack("execve", call("execve", text("/bin/sh"), 0, 0), bare=fails("ENOENT", "EACCES")),
    attack(
        "execve in a grant", call("execveat", "<rw>", text("script"), 0, 0, 0), bare=fails("EACCES")
    ),
    attack(
        "execve of a script in a grant",
        call("execveat", "<ro>", text("script"), 0, 0, 0),
        bare=fails("EACCES"),
    ),
    attack("wait for others", call("wait4", -1, 0, 1, 0), bare=fails("ECHILD")),
)

_PRIVILEGES = (
    attack("be dumpable", call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0), bare=HARMLESS),
    attack(
        "outlive the supervisor",
        call("prctl", PR_SET_PDEATHSIG, 0, 0, 0, 0),
        bare=NotTried("only the filter keeps the death signal"),
    ),
    attack("seccomp by prctl", call("prctl", PR_SET_SECCOMP, 1, 0, 0, 0), bare=HARMLESS),
    attack("invite a tracer", call("prctl", PR_SET_PTRACER, -1, 0, 0, 0), bare=HARMLESS),
    attack("new privileges", call("prctl", PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), bare=NO),
    attack("securebits", call("prctl", PR_SET_SECUREBITS, 0, 0, 0, 0), bare=NO),
    attack("ambient capability", call("prctl", PR_CAP_AMBIENT, 2, 21, 0, 0), bare=NO),
    attack("another executable name", call("prctl", PR_SET_MM, 13, 0, 0, 0), bare=NO),
    attack("another filter", call("seccomp", 1, 0, words(1, "@06000000000000ff7f")), bare=HARMLESS),
    attack(
        "a filter with a listener",
        call("seccomp", 1, 8, words(1, "@060000000000ff7f")),
        bare=HARMLESS,
    ),
    *(
        attack(
            f"raise RLIMIT_{name}",
            call("prlimit64", 0, number, words(-1, -1), 0),
            bare=fails("EPERM"),
        )
        for name, number in RLIMITS.items()
    ),
    attack(
        "raise by setrlimit", call("setrlimit", RLIMITS["NOFILE"], words(1 << 20, 1 << 20)), bare=NO
    ),
    attack("another user", call("setresuid", 12345, 12345, 12345), bare=NO),
    attack("another group", call("setresgid", 12345, 12345, 12345), bare=NO),
    attack("setuid", call("setuid", 12345), bare=NO),
    attack("setgid", call("setgid", 12345), bare=NO),
    attack("setgroups", call("setgroups", 1, words(12345)), bare=NO),
    attack("capset", call("capset", words(0x20080522), words(0x200000002, 0, 0)), bare=NO),
    attack("a file system uid", call("setfsuid", 12345), bare=HARMLESS),
    attack("personality", call("personality", 0x400000), bare=HARMLESS),
)

ATTACKS = (*_OTHERS, *_NEW, *_PRIVILEGES)
