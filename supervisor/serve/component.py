"""Which kind of component a file is, as far as serving goes: by the names of its exports.

Only the frame of the binary is read (Component Model, Binary.md): sections are skipped by their
size, and of the export sections nothing is asked but whether a name is in them.
"""

import os

from ..errors import InvalidModule

_PREAMBLE = b"\0asm\x0d\0\x01\0"
_EXPORTS = 11  # the section's number
_PROXY = b"wasi:http/incoming-handler@"
_COMMAND = b"wasi:cli/run@"
_MOST_SECTIONS = 100_000
_MOST_EXPORTS = 1 << 20


def check(module: int, name: str) -> None:
    """Raises InvalidModule for a component that can only be served by calling its handler.

    module: open for reading; it stays the caller's.
    """
    exports = _exports(module)
    if _PROXY in exports and _COMMAND not in exports:
        raise InvalidModule(
            f"{name}: a wasi:http/proxy component; they cannot be served: the engine's C interface"
            " has no way to hand one a request from outside",
            "build a program that speaks CGI: wasm32-wasip1, or a component with wasi:cli/run",
        )


def _exports(module: int) -> bytes:
    """The contents of all export sections of a component; nothing for any other file."""
    if os.pread(module, len(_PREAMBLE), 0) != _PREAMBLE:
        return b""
    found = b""
    at = len(_PREAMBLE)
    for _ in range(_MOST_SECTIONS):
        frame = os.pread(module, 6, at)
        if len(frame) < 2:
            break
        size, length = _leb128(frame[1:])
        if length == 0:
            break  # the compiler says what is wrong with it
        if frame[0] == _EXPORTS and len(found) + size <= _MOST_EXPORTS:
            found += os.pread(module, size, at + 1 + length)
        at += 1 + length + size
    return found


def _leb128(data: bytes) -> tuple[int, int]:
    """An unsigned number and how many bytes it has; 0 bytes when it has no end."""
    value = 0
    for index, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, index + 1
    return 0, 0
