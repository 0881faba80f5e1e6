"""What may be compiled, by its first bytes, and descriptions of what was."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from wasisup.runtime import compile as compiling
from wasisup.runtime import describe
from wasisup.supervisor.errors import InvalidModule

CORE_MODULE = b"\0asm\x01\0\0\0"


def field(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


@pytest.mark.parametrize("head", [CORE_MODULE, b"(module)", "(; é ;)".encode(), b"\xef\xbb\xbf("])
def test_heads_that_may_be_modules(head: bytes) -> None:
    """Binaries of version 1, and text; the worker looks at the rest."""
    compiling.check_head(head)


def test_text_cut_inside_a_character() -> None:
    """Only a first piece of the file is looked at."""
    compiling.check_head(b"(; " + "é".encode()[:1])


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0asm\x0d\0\x01\0", "this is a component; not yet"),
        (b"\0asm\x02\0\0\0", "unknown version"),
        (b"\0asm", "unknown version"),
        (b"", "empty"),
        (b"\x7fELF\x02", "ELF"),
        (b"#!/bin/sh", "script"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\0\0\0\0", "not a WebAssembly module"),
        (b"\x89PNG\r\n\x1a\n", "not a WebAssembly module"),
        (b"caf\xe9 latin-1 text", "not a WebAssembly module"),
    ],
)
def test_heads_that_are_no_modules(head: bytes, words: str) -> None:
    """What it seems to be is said."""
    with pytest.raises(InvalidModule, match=words):
        compiling.check_head(head)


def test_a_module_is_copied_and_hashed(tmp_path: Path) -> None:
    """What was hashed is what gets compiled, whatever happens to the file meanwhile."""
    path = tmp_path / "module.wasm"
    path.write_bytes(CORE_MODULE + b"x" * (3 << 20))
    fd = os.open(path, os.O_RDONLY)
    calls: list[int] = []
    source = compiling.take(fd, lambda: calls.append(1))
    os.close(fd)
    path.write_bytes(b"other")
    try:
        assert source.size == os.fstat(source.fd).st_size == 8 + (3 << 20)
        assert len(source.digest) == 64
        assert calls
    finally:
        source.close()
        source.close()


def test_a_description() -> None:
    """Imports and exports in order."""
    raw = b"i\0" + field(b"env") + field(b"f") + field(b"(i32) -> ()")
    raw += b"e\3" + field(b"") + field(b"memory") + field(b"i32 unshared 1 -")
    raw += b"e\x63" + field(b"") + field("ünï".encode()) + field(b"")
    assert describe.decode(raw) == [
        describe.Import("env", "f", "function", "(i32) -> ()"),
        describe.Export("memory", "memory", "i32 unshared 1 -"),
        describe.Export("ünï", "other", ""),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b"i",
        b"x\0" + field(b"") * 3,
        b"i\0" + b"\xff\xff\xff\xff",
        b"i\0" + field(b"a") + b"\x02\0\0\0b",
        b"i\0" + field(b"a") * 2,
    ],
)
def test_a_broken_description(raw: bytes) -> None:
    """Cut anywhere, or with lengths that lie: an error, and no more."""
    with pytest.raises(InvalidModule, match="broken"):
        describe.decode(raw)


def test_a_description_without_end() -> None:
    """There is a limit."""
    with pytest.raises(InvalidModule, match="more than"):
        describe.decode(bytes(describe.MAX_BYTES + 1))
