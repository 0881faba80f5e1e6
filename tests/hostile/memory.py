"""Attacks by memory: making it executable, and having more of it than the quota."""

from __future__ import annotations

from .shapes import FAILS, HARMLESS, Answers, AtMost, Killed, NotTried, Trapped, attack, fails
from .steps import call, result, text, words

READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE, ANONYMOUS, GROWSDOWN, STACK = 1, 2, 0x20, 0x100, 0x20000
PAGE = 4096
FAULT = Killed(frozenset({11, 7}))  # SIGSEGV, SIGBUS
ONLY_FILTER = NotTried("only the filter keeps memory from becoming executable")
# What the driver grants (MEMORY_QUOTA and DATA_OVERHEAD in driver.py), in MiB.
QUOTA = 64 + 32


def anonymous(protection: int, flags: int = PRIVATE | ANONYMOUS) -> str:
    """One page of anonymous memory."""
    return call("mmap", 0, PAGE, protection, flags, -1, 0)


_EXECUTABLE = (
    attack("map writable and executable", anonymous(READ | WRITE | EXEC), bare=ONLY_FILTER),
    attack("map executable", anonymous(READ | EXEC), bare=ONLY_FILTER),
    attack("map only executable", anonymous(EXEC), bare=ONLY_FILTER),
    attack(
        "map executable with high bits",
        call("mmap", 0, PAGE, 0x1_0000_0007, 0x22, -1, 0),
        bare=ONLY_FILTER,
    ),
    attack(
        "make executable",
        anonymous(READ | WRITE),
        call("mprotect", result(0), PAGE, READ | EXEC),
        none=Trapped("mprotect"),
        dirs=Trapped("mprotect"),
        bare=ONLY_FILTER,
    ),
    attack(
        "make executable with high bits",
        anonymous(READ | WRITE),
        call("mprotect", result(0), PAGE, 0x1_0000_0005),
        none=Trapped("mprotect"),
        dirs=Trapped("mprotect"),
        bare=ONLY_FILTER,
    ),
    attack(
        "make the stack executable",
        call("mprotect", "$", PAGE, READ | WRITE | EXEC),
        bare=ONLY_FILTER,
    ),
    attack(
        "make executable with a key",
        anonymous(READ | WRITE),
        call("pkey_mprotect", result(0), PAGE, READ | EXEC, -1),
        none=Trapped("pkey_mprotect"),
        dirs=Trapped("pkey_mprotect"),
        bare=ONLY_FILTER,
    ),
    attack(
        "map a granted file executable",
        call("openat2", "<rw>", text("tool"), words(0, 0, 0), 24),
        call("mmap", 0, PAGE, READ | EXEC, PRIVATE, result(0), 0),
        bare=FAILS,
    ),
    attack("shared memory, executable", call("shmat", 0, 0, 0o100000), bare=FAILS),
    attack("remap pages", call("remap_file_pages", 0, PAGE, EXEC, 0, 0), bare=FAILS),
    attack("read implies execute", call("personality", 0x400000), bare=HARMLESS),
    attack(
        "code in an anonymous file",
        call("memfd_create", text("code"), 0),
        none=fails("ENOSYS"),
        dirs=fails("ENOSYS"),
        bare=HARMLESS,
    ),
    attack("secret memory", call("memfd_secret", 0), bare=HARMLESS),
    attack("a shadow stack", call("map_shadow_stack", 0, PAGE, 0), bare=HARMLESS),
    attack("run code on new pages", f"run-anonymous {READ | WRITE | EXEC}", bare=Answers(42)),
    attack(
        "run code on writable pages",
        f"run-anonymous {READ | WRITE}",
        none=FAULT,
        dirs=FAULT,
        bare=FAULT,
    ),
    attack("run code in static data", "run-data", none=FAULT, dirs=FAULT, bare=FAULT),
    attack("run code on the stack", "run-stack", none=FAULT, dirs=FAULT, bare=FAULT),
)

_TOO_MUCH = (
    attack(
        "too much memory",
        f"touch {1 << 30} {PRIVATE | ANONYMOUS}",
        none=AtMost(QUOTA),
        dirs=AtMost(QUOTA),
        bare=AtMost(QUOTA),
    ),
    attack(
        "too much heap",
        f"touch-brk {1 << 30}",
        none=AtMost(QUOTA),
        dirs=AtMost(QUOTA),
        bare=AtMost(QUOTA),
    ),
    # RLIMIT_DATA counts neither of the next two, so the filter has to refuse them.
    attack(
        "too much shared memory",
        f"touch {1 << 30} {SHARED | ANONYMOUS}",
        bare=NotTried("RLIMIT_DATA"),
    ),
    attack(
        "too much stack-like memory",
        f"touch {1 << 30} {PRIVATE | ANONYMOUS | GROWSDOWN}",
        bare=NotTried("RLIMIT_DATA does not count it"),
    ),
    attack("too deep a stack", f"overflow {1 << 20}", none=FAULT, dirs=FAULT, bare=FAULT),
    attack("locked memory", call("mlockall", 3), bare=FAILS),
    attack(
        "locked pages",
        anonymous(READ | WRITE, PRIVATE | ANONYMOUS | 0x2000),
        none=HARMLESS,
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack(
        "huge pages",
        anonymous(READ | WRITE, PRIVATE | ANONYMOUS | 0x40000),
        none=HARMLESS,
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack("poisoned memory", call("madvise", "$", PAGE, 100), none=FAILS, dirs=FAILS),
)

ATTACKS = (*_EXECUTABLE, *_TOO_MUCH)
