"""Attacks on the machine: interfaces that no guest needs, other ways in, descriptors, time."""

from __future__ import annotations

from .shapes import FAILS, HARMLESS, Harmless, NotTried, Stopped, attack, fails
from .steps import X32_BIT, call, number, text, words, zeros

NO = fails(
    "EPERM",
    "EINVAL",
    "EACCES",
    "ENOSYS",
    "EFAULT",
    "EBADF",
    "ENOENT",
    "ENODEV",
    "EOPNOTSUPP",
    "EXDEV",
)
SIGSYS = Stopped(frozenset({31}))
SIGSYS_OR_FAULT = Stopped(frozenset({31, 11}))  # #GP where the kernel has no 32-bit entry

_INTERFACES = (
    attack("io_uring_setup", call("io_uring_setup", 8, zeros(120)), bare=HARMLESS),
    attack("io_uring_enter", call("io_uring_enter", 3, 1, 1, 0, 0, 0), bare=FAILS),
    attack("bpf map", call("bpf", 0, words(0x400000002, 0x100000004, 0), 24), bare=HARMLESS),
    attack(
        "perf_event_open",
        call("perf_event_open", words(0x7000000000, 0, 0), 0, -1, -1, 0),
        bare=HARMLESS,
    ),
    attack(
        "perf of everybody",
        call("perf_event_open", words(0x7000000000, 0, 0), -1, 0, -1, 0),
        bare=NO,
    ),
    attack("userfaultfd", call("userfaultfd", 0), bare=HARMLESS),
    attack("inotify", call("inotify_init1", 0), bare=HARMLESS),
    attack("fanotify", call("fanotify_init", 0, 0), bare=HARMLESS),
    attack("swapon", call("swapon", text("/x"), 0), bare=NO),
    attack("swapoff", call("swapoff", text("/x")), bare=NO),
    attack("reboot", call("reboot", 0xFEE1DEAD, 672274793, 0, 0), bare=NO),
    attack("kexec_load", call("kexec_load", 0, 0, 0, 0), bare=NO),
    attack("kexec_file_load", call("kexec_file_load", -1, -1, 0, 0, 0), bare=NO),
    attack("init_module", call("init_module", 0, 0, 0), bare=NO),
    attack("finit_module", call("finit_module", 0, text(""), 0), bare=NO),
    attack("delete_module", call("delete_module", text("x"), 0), bare=NO),
    attack("syslog", call("syslog", 5, 0, 0), bare=NO),
    attack("acct", call("acct", 0), bare=NO),
    attack("quotactl", call("quotactl", 0x80000400, 0, 0, 0), bare=FAILS),
    attack("iopl", call("iopl", 3), bare=NO),
    attack("ioperm", call("ioperm", 0x80, 1, 1), bare=NO),
    attack("modify_ldt", call("modify_ldt", 0, zeros(64), 64), bare=HARMLESS),
    attack("set the time", call("clock_settime", 0, words(1, 0)), bare=NO),
    attack("settimeofday", call("settimeofday", words(1, 0), 0), bare=NO),
    attack("adjtimex", call("adjtimex", words(1, *[0] * 15)), bare=NO),
    attack("sethostname", call("sethostname", text("planted"), 7), bare=NO),
    attack("setdomainname", call("setdomainname", text("planted"), 7), bare=NO),
    attack("uname", call("uname", zeros(390)), bare=HARMLESS),
    attack("sysinfo", call("sysinfo", zeros(128)), bare=HARMLESS),
    attack("vhangup", call("vhangup"), bare=NO),
    attack("landlock rules", call("landlock_create_ruleset", words(1), 8, 0), bare=HARMLESS),
    attack("LSM attributes", call("lsm_set_self_attr", 100, zeros(64), 64, 0), bare=FAILS),
)

_TIMERS = (
    attack("stop the CPU timer", call("setitimer", 2, zeros(32), 0), bare=HARMLESS),
    attack("a POSIX timer", call("timer_create", 0, 0, zeros(8)), bare=HARMLESS),
    attack("an alarm", call("alarm", 1), bare=HARMLESS),
    attack(
        "ignore the CPU signal", call("rt_sigaction", 27, words(1, 0, 0, 0), 0, 8), bare=HARMLESS
    ),
    attack("block the CPU signal", call("rt_sigprocmask", 2, words(-1), 0, 8), bare=HARMLESS),
    attack(
        "handle the filter's signal",
        call("rt_sigaction", 31, words("$", 0, 0, 0), 0, 8),
        bare=HARMLESS,
    ),
    # Without a handler to run, the kernel ends the process itself: the call is not carried out.
    attack(
        "block the filter's signal, then call",
        "block-signals",
        call("openat", -100, text("/etc/passwd"), 0),
        none=SIGSYS,
        dirs=SIGSYS,
        bare=NotTried("there is no filter to trick"),
    ),
)

_OTHER_ENTRIES = (
    *(
        attack(
            f"{name} by the x32 table",
            call(X32_BIT | number(name), *arguments),
            none=SIGSYS,
            dirs=SIGSYS,
            bare=FAILS,
        )
        for name, arguments in {
            "openat": (-100, text("/etc/passwd"), 0),
            "write": (-1, zeros(8), 8),
            "kill": ("<victim>", 10),
            "ppoll": (0, 0, zeros(16), 0, 0),
        }.items()
    ),
    attack(
        "an x32 call of its own",
        call(X32_BIT | 520, text("/bin/sh"), 0, 0),
        none=SIGSYS,
        dirs=SIGSYS,
        bare=FAILS,
    ),
    # 4 is write among the 32-bit numbers and stat among the 64-bit ones; 20 is getpid; 1 is exit.
    *(
        attack(
            f"32-bit call {nr}",
            f"int80 {nr} 0 0 0",
            none=SIGSYS_OR_FAULT,
            dirs=SIGSYS_OR_FAULT,
            bare=Harmless(),
        )
        for nr in (4, 5, 11, 20, 102)
    ),
    attack("a number that does not exist", call(9999), bare=fails("ENOSYS")),
    attack("a negative number", call(0xFFFFFFFF), none=SIGSYS, dirs=SIGSYS, bare=fails("ENOSYS")),
    attack("restart_syscall", call("restart_syscall"), bare=HARMLESS),
)

TIOCSTI, TIOCLINUX, FIOASYNC = 0x5412, 0x541C, 0x5452
F_DUPFD, F_SETLK, F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ = (
    0,
    6,
    8,
    10,
    1024,
    1026,
    1031,
)

_DESCRIPTORS = (
    attack("type into the terminal", call("ioctl", 0, TIOCSTI, text("x")), bare=FAILS),
    attack("paste into the console", call("ioctl", 0, TIOCLINUX, text("x")), bare=FAILS),
    attack("asynchronous input", call("ioctl", 0, FIOASYNC, words(1)), bare=HARMLESS),
    *(
        attack(f"fcntl {name}", call("fcntl", at, command, argument), bare=HARMLESS)
        for name, at, command, argument in (
            ("F_DUPFD", 0, F_DUPFD, 10),
            ("F_SETLK", 0, F_SETLK, zeros(32)),
            ("F_SETOWN", 0, F_SETOWN, "<victim>"),
            ("F_SETSIG", 0, F_SETSIG, 10),
            ("F_SETLEASE", "<rw>", F_SETLEASE, 0),
            ("F_NOTIFY", "<rw>", F_NOTIFY, 1),
            ("F_SETPIPE_SZ", 1, F_SETPIPE_SZ, 1 << 20),
            ("with high bits", 0, 1 << 32 | F_DUPFD, 10),
        )
    ),
    *(attack(name, call(name, 0, 10, 0), bare=HARMLESS) for name in ("dup", "dup2", "dup3")),
    attack("splice", call("splice", 0, 0, 1, 0, 1, 2), bare=HARMLESS),
    attack("copy_file_range", call("copy_file_range", 0, 0, 1, 0, 1, 0), bare=FAILS),
    attack("vmsplice", call("vmsplice", 1, words(text("x"), 1), 1, 2), bare=HARMLESS),
    attack("epoll", call("epoll_create1", 0), bare=HARMLESS),
    attack("eventfd", call("eventfd2", 0, 0), bare=HARMLESS),
    attack("close a range", call("close_range", 3, -1, 0), bare=HARMLESS),
    attack(
        "too many descriptors",
        f"repeat {number('openat2')} <rw> {text('.')} {words(0, 0, 0)} 24",
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
)

ATTACKS = (*_INTERFACES, *_TIMERS, *_OTHER_ENTRIES, *_DESCRIPTORS)
