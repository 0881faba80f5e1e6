"""What the kernel itself says to calls behind a filter: thousands at a time, none carried out.

A child loads the filter with other words for its verdicts: a call that it admits fails with
ERANGE, one that it traps with EDOM. Only calls with a mark as their sixth argument are judged at
all, so that the interpreter around them goes on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence

CARRIED_OUT, TRAPPED = errno.ERANGE, errno.EDOM
MARK = 0x5EED
_ALLOW, _ERRNO, _TRAP = 0x7FFF0000, 0x00050000, 0x00030000
_RETURN = 0x06
_FIRST_MARKED = struct.pack(
    "<HBBIHBBIHBBI",
    *(0x20, 0, 0, 16 + 8 * 5),  # load the sixth argument's lower half
    *(0x15, 1, 0, MARK),
    *(_RETURN, 0, 0, _ALLOW),
)
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _reworded(program: bytes) -> bytes:
    made = b""
    for code, if_true, if_false, word in struct.iter_unpack("<HBBI", program):
        k = word
        if code == _RETURN and word in (_ALLOW, _TRAP):
            k = _ERRNO | (CARRIED_OUT if word == _ALLOW else TRAPPED)
        made += struct.pack("<HBBI", code, if_true, if_false, k)
    return _FIRST_MARKED + made


def ask(program: bytes, calls: Iterable[Sequence[int]]) -> list[int]:
    """The errno of each call (a number and up to five arguments), which may be the filter's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = [(*call, *[0] * (6 - len(call)), MARK) for call in calls]
    return list(_in_a_child(lambda: _ask(libc, _reworded(program), wanted), len(wanted)))


def _ask(libc: ctypes.CDLL, program: bytes, calls: list[tuple[int, ...]]) -> bytes:
    loaded = _Program(len(program) // 8, program)
    assert libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_SECCOMP, _FILTER, ctypes.byref(loaded), 0, 0) == 0
    syscall, word = libc.syscall, ctypes.c_ulong
    said = bytearray()
    for call in calls:
        ctypes.set_errno(0)
        syscall(*map(word, call))
        said.append(ctypes.get_errno())
    return bytes(said)


def _in_a_child(work: Callable[[], bytes], size: int) -> bytes:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            said = work()
            while said:
                said = said[os.write(writer, said) :]
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert len(said) == size, "the child did not get through"
    return said
