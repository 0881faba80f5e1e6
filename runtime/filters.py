"""Seccomp programs for workers: built with pyseccomp from policies/syscalls.py, and cached.

Building takes milliseconds and libseccomp; a cached run needs neither.  A program is an array of
struct sock_filter, ready for seccomp(2).
"""

import os

from ..supervisor.errors import CacheError, WallMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import ArtifactCache

_HERE = os.path.dirname(os.path.abspath(__file__))
# What a program is made from: when one of these files changes, so does the cache's key.
_SOURCES = (f"{_HERE}/filters.py", f"{_HERE}/../policies/syscalls.py")
_INSTRUCTION_BYTES = 8
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


def profile(
    kind: str,
    engine: str,
    *,
    component: bool = False,
    reading: bool = False,
    directories: bool = False,
    listeners: bool = False,
) -> str:
    """The name of a profile of policies/syscalls.py.

    kind: "run" or "compile".  component: what runs is one.  reading: for directories that are read-only; directories: for those
    that can be written, which includes reading.
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
    # A compiler has one stage: it never runs what it makes.
    pair = first, first if name.startswith("compile") else build(name, 2)
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
    return _export(made.export_bpf)


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
