"""The language of payload.c, written from Python: system calls by name, arguments by shape."""

from __future__ import annotations

import functools

import pyseccomp

# Newer than the libseccomp that Debian 12 has; numbers from the kernel's syscall_64.tbl.
_NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "statmount": 457,
    "listmount": 458,
    "lsm_set_self_attr": 460,
    "mseal": 462,
    "setxattrat": 463,
    "open_tree_attr": 467,
    "file_setattr": 469,
}

X32_BIT = 0x40000000  # __X32_SYSCALL_BIT: the same table, entered as the x32 ABI


@functools.cache
def number(name: str) -> int:
    """The x86-64 number of a system call."""
    if name in _NEWER:
        return _NEWER[name]
    found = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
    if found < 0:
        raise KeyError(name)
    return int(found)


@functools.cache
def names() -> dict[int, str]:
    """Every number that libseccomp has a name for, up to 600."""
    found = {nr: name for name, nr in _NEWER.items()}
    for nr in range(600):
        try:
            name = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, nr)
        except (OSError, ValueError):
            continue
        found[nr] = name.decode() if isinstance(name, bytes) else str(name)
    return found


def text(value: str) -> str:
    """A pointer to a C string; one that the step language could not carry goes as bytes."""
    return data(value.encode() + b"\0") if set(value) & set(" ,}") else '"' + value


def data(value: bytes) -> str:
    """A pointer to these bytes."""
    return "@" + value.hex()


def zeros(size: int) -> str:
    """A pointer to that many zeroed bytes."""
    return f"&{size}"


def out(size: int) -> str:
    """A pointer to a buffer that is printed after the call."""
    return f">{size}"


def words(*values: str | int) -> str:
    """A pointer to an array of 64-bit words: iovec, open_how, msghdr, ..."""
    return "{" + ",".join(map(str, values)) + "}"


def result(step: int) -> str:
    """What the step of that index came to."""
    return f"r{step}"


def call(name: str | int, *args: str | int) -> str:
    """One raw system call."""
    return " ".join([str(name if isinstance(name, int) else number(name)), *map(str, args)])
