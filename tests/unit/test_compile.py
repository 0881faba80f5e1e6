"""What may be compiled, by its first bytes, and descriptions of what was."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wasisup.runtime import compile as compiling
from wasisup.runtime import describe
from wasisup.runtime.cache import ArtifactCache
from wasisup.runtime.spec import SpecWriter
from wasisup.supervisor.errors import InvalidModule
from wasisup.supervisor.model import RunRecord

CORE_MODULE = b"\0asm\x01\0\0\0"


def field(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(
    "head", [CORE_MODULE, b"\0asm\x0d\0\x01\0", b"(module)", "(; é ;)".encode(), b"\xef\xbb\xbf("]
)
def test_heads_that_may_be_modules(head: bytes) -> None:
    """Binaries of version 1, components, and text; the worker looks at the rest."""
    compiling.check_head(head)


@pytest.mark.parametrize(
    ("head", "component"),
    [
        (b"\0asm\x0d\0\1\0", True),
        (CORE_MODULE, False),
        (b"(component", True),
        (b" \r\n\t(component $c)", True),
        (b";; (module\n;;\n(component)", True),
        (b"(; (; ;) (module ;)(component)", True),
        (b"(module (component))", False),
        (b";; (component", False),
        (b"(; (component)", False),
        (b"", False),
    ],
)
def test_what_is_a_component(head: bytes, component: bool) -> None:
    """By the header, or by the first word of a text."""
    assert compiling.is_component(head) == component


def test_text_cut_inside_a_character() -> None:
    """Only a first piece of the file is looked at."""
    compiling.check_head(b"(; " + "é".encode()[:1])


@pytest.mark.parametrize(
    ("head", "words"),
    [
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


def test_the_description_of_a_world() -> None:
    """A mark first; then interfaces stand where modules do, also before exports."""
    raw = b"c\xff" + field(b"") * 3
    raw += b"i\0" + field(b"wasi:cli/exit@0.2.0") + field(b"exit") + field(b"func(status: result)")
    raw += b"i\6" + field(b"local:demo/types") + field(b"") * 2
    raw += b"e\5" + field(b"local:demo/things") + field(b"thing") + field(b"")
    assert describe.decode(raw) == [
        describe.World(),
        describe.Import("wasi:cli/exit@0.2.0", "exit", "function", "func(status: result)"),
        describe.Import("local:demo/types", "", "interface", ""),
        describe.Export("thing", "resource", "", "local:demo/things"),
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


class Bench:
    """A compiler whose worker is a stand-in, and a module for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = ArtifactCache(str(folder / "cache"))
        self.module = folder / "module.wasm"
        self.module.write_bytes(CORE_MODULE)
        self.compiled = 0
        self.signs: list[int | None] = []
        self.pauses: list[Callable[[], None]] = []
        monkeypatch.setattr(compiling, "PATIENCE_SECONDS", 0.1)
        with self.module.open("rb") as file:
            source = compiling.take(file.fileno(), lambda: None)
        self.digest = source.digest
        source.close()

    def launch(
        self, writer: SpecWriter, _timeout_ns: int, tick: Callable[[float], None]
    ) -> tuple[int, RunRecord]:
        self.compiled += 1
        for _ in range(2):
            time.sleep(0.01)
            tick(0.0)
            self.signs.append(self.cache.lock_sign("key", self.digest))
        os.write(writer.fds[1], b"native code")
        return 0, RunRecord(outcome="compiled")

    def pause(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)
        if milliseconds and self.pauses:
            self.pauses.pop(0)()

    def run(self) -> bytes:
        compiler = compiling.Compiler(self.cache, self.launch, self.pause, None)
        with self.module.open("rb") as file:
            fd, _ = compiler.artifact(file.fileno(), "m", "pulley", "key", fuel=False)
        with open(fd, "rb") as found:
            return found.read()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_whoever_compiles_gives_a_sign(bench: Bench) -> None:
    """The lock changes with every tick, and is gone at the end."""
    assert bench.run() == b"native code"
    first, second = bench.signs
    assert None not in (first, second)
    assert first != second
    assert bench.cache.lock_sign("key", bench.digest) is None


def test_a_stopped_compile_is_not_waited_for(bench: Bench) -> None:
    """Ctrl-Z in another terminal: after a while one compiles for oneself."""
    lock = bench.cache.try_lock("key", bench.digest)
    assert lock is not None
    began = time.monotonic()
    assert bench.run() == b"native code"
    assert 0.1 <= time.monotonic() - began < 5
    assert bench.compiled == 1
    assert bench.cache.lock_sign("key", bench.digest) is not None  # still the other's
    bench.cache.unlock("key", bench.digest, lock)


def test_a_living_compile_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    """As long as it gives signs; what it made is taken."""
    lock = bench.cache.try_lock("key", bench.digest)
    assert lock is not None
    made = tmp_path / "made"
    made.write_bytes(b"the other's")

    def store() -> None:
        with made.open("rb") as file:
            bench.cache.store("key", bench.digest, file.fileno(), b"")

    bench.pauses = [lambda: os.utime(lock)] * 20 + [store]
    assert bench.run() == b"the other's"
    assert bench.compiled == 0
    bench.cache.unlock("key", bench.digest, lock)


def test_limits_of_a_compile() -> None:
    """What a module that is made to compile for ever can cost."""
    assert compiling.WALL_NS <= 300 * 10**9
    assert compiling.CPU_NS <= 600 * 10**9
    assert compiling.ARTIFACT_BYTES <= 1 << 30
