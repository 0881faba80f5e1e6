"""The run record's decoder, against the header and against hostile pages."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from support import mirror
from support.needs import unavailable
from wasisup.runtime import record
from wasisup.supervisor.model import WALLS


def page(**fields: int | bytes) -> bytearray:
    """A record with these fields set, by the names of struct ws_record."""
    raw = bytearray(record.SIZE)
    for name, value in {"magic": record.MAGIC, "version": record.VERSION, **fields}.items():
        at = record.OFFSETS[name]
        wide = name.endswith("_ns") or name in ("output_bytes", "fuel_used", "memory_bytes")
        size = 8 if wide or name == "denials_total" else 4
        content = value.to_bytes(size, "little") if isinstance(value, int) else value
        raw[at : at + len(content)] = content
    return raw


def denial(kind: int, count: int, errno: int, path: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<4I", kind, count, errno, len(path) if length is None else length)
    return head + path.ljust(record.PATH, b"\0")


def test_layout_is_the_header_s(tmp_path: Path) -> None:
    """Offsets, sizes, limits and names are those of core/base/record.h."""
    if mirror.compiler() is None:
        unavailable("a C compiler")
    expected: dict[str, int] = {
        "WS_RECORD_MAGIC": record.MAGIC,
        "WS_RECORD_VERSION": record.VERSION,
        "WS_RECORD_SIZE": record.SIZE,
        "WS_RECORD_MESSAGE": record.MESSAGE,
        "WS_RECORD_DENIALS": record.DENIALS,
        "WS_RECORD_PATH": record.PATH,
        "sizeof(struct ws_record)": record.USED,
        "sizeof(struct ws_denial)": record.DENIAL_SIZE,
        "sizeof(((struct ws_record *)0)->step)": record.STEP,
        "offsetof(struct ws_denial, path)": 16,
    }
    for field, offset in record.OFFSETS.items():
        expected[f"offsetof(struct ws_record, {field})"] = offset
    for prefix, names in (
        ("WS_PHASE", record.PHASES),
        ("WS_OUTCOME", record.OUTCOMES),
        ("WS_DENIAL", record.DENIAL_KINDS),
    ):
        for index, name in enumerate(names):
            if name:
                expected[f"{prefix}_{name.upper()}"] = index
    for bit, name in enumerate(WALLS):
        expected[f"WS_WALL_{name.upper()}"] = 1 << bit
    assert mirror.values(list(expected), ["base/record.h"], tmp_path) == expected


def test_a_whole_record() -> None:
    """Every field comes out where it was put."""
    raw = page(
        phase=4,
        outcome=2,
        code=9,
        err=5,
        walls=0b1000001,
        landlock_abi=6,
        output_bytes=7 << 40,
        fuel_used=11,
        memory_bytes=65536,
        t_setup_ns=1,
        t_loading_ns=2,
        t_running_ns=3,
        t_done_ns=4,
        step=b"mounts\0garbage",
        message=b"what happened",
        message_len=13,
        denial_count=2,
        denials=denial(2, 3, 63, b"../x") + denial(1, 1, 8, b""),
    )
    found = record.decode(bytes(raw))
    assert (found.phase, found.outcome, found.code, found.errno) == ("done", "trap", 9, 5)
    assert found.walls == ["namespaces", "seccomp"]
    assert (found.output, found.fuel, found.memory) == (7 << 40, 11, 65536)
    assert (found.setup_ns, found.loading_ns, found.running_ns, found.done_ns) == (1, 2, 3, 4)
    assert (found.step, found.message) == ("mounts", "what happened")
    assert [(d.kind, d.count, d.errno, d.path) for d in found.denials] == [
        ("escape", 3, 63, "../x"),
        ("no_preopen", 1, 8, ""),
    ]


def test_lies_are_cut_to_size() -> None:
    """Lengths and counts beyond the page, and numbers beyond the enums, do no harm."""
    raw = page(
        phase=99,
        outcome=0xFFFFFFFF,
        message_len=0xFFFFFFFF,
        denial_count=0xFFFFFFFF,
        denials=denial(99, 1, 1, b"x") + denial(3, 1, 1, b"\x1b[31m\xff", 0xFFFFFFFF),
    )
    found = record.decode(bytes(raw))
    assert (found.phase, found.outcome) == ("none", "none")
    assert len(found.message) == record.MESSAGE
    (only,) = found.denials
    assert only.path.startswith("\\x1b[31m\\xff")


@pytest.mark.parametrize("raw", [b"", b"x" * 100, bytes(record.SIZE)])
def test_what_is_no_record(raw: bytes) -> None:
    """Too short, or never written: phase and outcome "none"."""
    found = record.decode(raw)
    assert (found.phase, found.outcome, found.denials) == ("none", "none", [])


def test_noise_decodes() -> None:
    """No bytes make the decoder raise."""
    noise = random.Random(1)
    for _ in range(200):
        raw = page() if noise.random() < 0.9 else bytearray(record.SIZE)
        start = noise.randrange(8, record.USED)
        raw[start : start + 400] = noise.randbytes(400)
        record.decode(bytes(raw[: noise.choice([record.USED, record.SIZE, start])]))


def test_memfd_has_a_size_that_stays() -> None:
    """A worker's mapping can never come to lie beyond the end."""
    fd = record.create()
    try:
        assert os.fstat(fd).st_size == record.SIZE
        for size in (0, record.SIZE + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        os.pwrite(fd, bytes(page(phase=3, denial_count=1, denials=denial(5, 2, 33, b"fd"))), 0)
        found = record.read(fd)
        assert (found.phase, [d.kind for d in found.denials]) == ("running", ["fds"])
    finally:
        os.close(fd)


def test_refusals_that_found_no_room() -> None:
    """They are counted in one entry of their own; a hostile worker's total is cut."""
    full = b"".join(denial(10, 1, 2, b"tcp:192.0.2.1:%d" % port) for port in range(96))
    for total, left in ((96, None), (1096, 1000), (2**64 - 1, 2**32 - 1)):
        full_page = bytes(page(denial_count=96, denials_total=total, denials=full))
        found = record.decode(full_page).denials
        assert len(found) == (96 if left is None else 97)
        assert found[-1].kind == ("network" if left is None else "no_room")
        assert left is None or (found[-1].count, found[-1].path) == (left, "")
