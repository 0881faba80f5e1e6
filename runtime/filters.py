"""Seccomp programs for workers: built with pyseccomp from policies/syscalls.py, and cached.

Building takes milliseconds and libseccomp; a cached run needs neither.  A program is an array of
struct sock_filter, ready for seccomp(2).
"""

import os

from ..supervisor.errors import CacheError, WallMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..policies.syscalls import Rule
    from .cache import ArtifactCache

_HERE = os.path.dirname(os.path.abspath(__file__))
# What a program is made from: when one of these files changes, so does the cache's key.
_SOURCES = (f"{_HERE}/filters.py", f"{_HERE}/../policies/syscalls.py")
_INSTRUCTION_BYTES = 8
# Of linux/bpf_common.h and linux/seccomp.h: load a word, jump if equal, return.
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_TRAP = 0x00030000
_NUMBER, _ARGUMENTS = 0, 16  # offsets in struct seccomp_data
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


def profile(
    kind: str,
    engine: str,
    *,
    component: bool = False,
    reading: bool = False,
    directories: bool = False,
    listeners: bool = False,
    network: bool = False,
) -> str:
    """The name of a profile of policies/syscalls.py.

    kind: "run" or "compile".  component: what runs is one.  reading: for directories that are
    read-only; directories: for those that can be written, which includes reading.  network: of a
    component with a broker.
    """
    parts = [kind, engine]
    if component:
        parts.append("component")
    if directories:
        parts.append("directories")
    elif reading:
        parts.append("reading")
    if listeners:
        parts.append("listeners")
    if network:
        parts.append("network")
    return "-".join(parts)


def programs(name: str, cache: "ArtifactCache") -> "tuple[bytes, bytes]":
    """The programs of both stages of the profile `name`, from the cache when they are there.

    Raises WallMissing when they have to be built and libseccomp is not installed.
    """
    path = f"filters/{name}-{_sources_key()}.bpf"
    stored = cache.read_file(path)
    if stored is not None:
        size = int.from_bytes(stored[:4], "little")
        pair = stored[4 : 4 + size], stored[4 + size :]
        if _is_program(pair[0]) and _is_program(pair[1]):
            return pair
    first = build(name, 1)
    # A compiler has one stage: it never runs what it makes.  A broker runs nothing at all.
    pair = first, first if name.startswith(("compile", "broker")) else build(name, 2)
    try:
        cache.write_file(path, len(pair[0]).to_bytes(4, "little") + pair[0] + pair[1])
    except (OSError, CacheError):
        pass  # a cache that cannot be written costs time and nothing else
    return pair


def build(name: str, stage: int) -> bytes:
    """Builds the program of one stage of the profile `name`.

    A call that no rule admits raises SIGSYS in the worker, whose handler records the number and
    leaves.  Another architecture's calls, i386's and x32's among them, kill it outright.
    """
    try:
        import pyseccomp  # type: ignore[import-untyped, unused-ignore]
    except (ImportError, RuntimeError) as error:
        raise WallMissing(
            f"the seccomp filter cannot be built: {error}",
            "install libseccomp (Debian: apt install libseccomp2)",
            wall="seccomp",
            step="seccomp",
        ) from error
    from ..policies import syscalls

    made = pyseccomp.SyscallFilter(pyseccomp.TRAP)
    made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree: the cost is paid every call
    unconditional = {
        rule.name for rule in syscalls.rules(name, stage) if not rule.when and rule.errno is None
    }
    done = set()
    for rule in syscalls.rules(name, stage):
        # libseccomp refuses a rule twice, and one that a wider rule makes redundant.
        key = (rule.name, rule.when, rule.errno)
        if key in done or (rule.name in unconditional and (rule.when or rule.errno)):
            continue
        done.add(key)
        action = pyseccomp.ALLOW if rule.errno is None else pyseccomp.ERRNO(rule.errno)
        when = [
            pyseccomp.Arg(index, pyseccomp.MASKED_EQ, mask, value)
            for index, mask, value in rule.when
        ]
        made.add_rule_exactly(action, rule.name, *when)
    return _guards(syscalls.rules(name, stage), pyseccomp) + _export(made.export_bpf)


def _guards(rules: "tuple[Rule, ...]", pyseccomp: "Any") -> bytes:
    """Instructions in front of a program: what each rule's `unless` names traps.

    libseccomp compares all 64 bits of a register when it is to be unequal, of which the kernel
    looks at 32.  As for architectures: what traps here ends the worker, too.
    """
    guards = b""
    for name, argument, value in sorted(
        {(rule.name, *pair) for rule in rules for pair in rule.unless}
    ):
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
        guards += b"".join(
            [
                _instruction(_LOAD, _NUMBER),
                _instruction(_JUMP_EQUAL, number, if_false=3),
                _instruction(_LOAD, _ARGUMENTS + 8 * argument),  # the lower half: little-endian
                _instruction(_JUMP_EQUAL, value, if_false=1),
                _instruction(_RETURN, _TRAP),
            ]
        )
    return guards


def _instruction(code: int, k: int, if_false: int = 0) -> bytes:
    """One struct sock_filter."""
    return code.to_bytes(2, "little") + bytes([0, if_false]) + k.to_bytes(4, "little")


def name_of(number: int) -> str:
    """The name of the system call of that x86-64 number, "system call N" when it has none."""
    try:
        import pyseccomp

        name = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, number)
    except (ImportError, RuntimeError, ValueError, OSError):
        name = None
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    return name if isinstance(name, str) and name else f"system call {number}"


def _export(export: "object") -> bytes:
    fd = os.memfd_create("wasisup-filter", os.MFD_CLOEXEC)
    try:
        with open(fd, "w+b", buffering=0, closefd=False) as file:
            export(file)  # type: ignore[operator]
        return os.pread(fd, _MAX_INSTRUCTIONS * _INSTRUCTION_BYTES, 0)
    finally:
        os.close(fd)


def _is_program(program: bytes) -> bool:
    return 0 < len(program) <= _MAX_INSTRUCTIONS * _INSTRUCTION_BYTES and len(program) % 8 == 0


def _sources_key() -> str:
    parts = []
    for path in _SOURCES:
        try:
            info = os.stat(path)
        except OSError:
            continue  # installed without sources: then the engine's key has to do
        parts.append(f"{info.st_size:x}.{info.st_mtime_ns:x}")
    return "-".join(parts) or "0"
