"""A classic BPF evaluator for seccomp programs: what the kernel would answer, without asking it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64 = 0xC000003E
I386 = 0x40000003
X32_BIT = 0x40000000

KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
ALLOW = 0x7FFF0000
ACTION = 0xFFFF0000

_JUMPS = {
    0x10: lambda a, k: a == k,
    0x20: lambda a, k: a > k,
    0x30: lambda a, k: a >= k,
    0x40: lambda a, k: bool(a & k),
}


def evaluate(
    program: bytes, number: int, args: Sequence[int] = (), *, arch: int = X86_64, pointer: int = 0
) -> int:
    """The filter's answer for one system call; raises AssertionError for what no verifier accepts.

    Only what libseccomp emits is known: load of a word, and with a constant, jumps, return.
    """
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack(
        "<iIQ6Q", number if number < 1 << 31 else number - (1 << 32), arch, pointer, *padded
    )
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        assert at < len(code), "the program runs off its end"
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert k % 4 == 0
            assert k + 4 <= len(data)
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= k
        elif operation == 0x06:  # BPF_RET | BPF_K
            return k
        elif operation == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif operation & 0x0F == 0x05 and operation & 0xF0 in _JUMPS:
            at += if_true if _JUMPS[operation & 0xF0](accumulator, k) else if_false
        else:
            raise AssertionError(f"unknown instruction {operation:#x}")
