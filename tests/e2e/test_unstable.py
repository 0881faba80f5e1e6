"""Old programs: the same functions under `wasi_unstable`, with that snapshot's own layouts."""

from __future__ import annotations

import pytest

from support.preview1 import CASES, compare

OLD = {guest: cases for guest, cases in CASES.items() if guest != "sockets"}


@pytest.mark.parametrize(
    ("guest", "case"),
    [pytest.param(g, c, id=f"{g}-{'-'.join(c)}") for g, cases in OLD.items() for c in cases],
)
def test_as_wasmtime(wasisup, guests, room, guest, case):
    """Under wasi_unstable, too, every observation is wasmtime's but for the documented ones."""
    compare(wasisup, guests.c(f"preview1/{guest}", "-DUNSTABLE"), guest, case, room, old=True)


HELLO = """
(module
  (import "wasi_unstable" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\06\\00\\00\\00")
  (data (i32.const 16) "older\\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""


def test_hello_of_2019(wasisup, guests):
    """A program that knows nothing newer than wasi_unstable prints its line."""
    assert wasisup.run(guests.wat(HELLO)).ok().out == b"older\n"


BOTH = """
(module
  (import "wasi_unstable" "fd_seek" (func $old (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $new (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.add
    (call $old (i32.const 9) (i64.const 0) (i32.const 2) (i32.const 0))
    (call $new (i32.const 9) (i64.const 0) (i32.const 2) (i32.const 0))))))
"""


def test_both_snapshots_in_one_module(wasisup, guests):
    """A module may import from both: here it adds up EBADF (8) from each."""
    assert wasisup.run(guests.wat(BOTH)).status == 16
