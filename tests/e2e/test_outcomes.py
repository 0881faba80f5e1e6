"""How a run can end, and how the command says so."""

from __future__ import annotations

import json
import signal

import pytest


@pytest.mark.parametrize("code", [0, 1, 7, 63, 124, 125, 126, 127, 134, 137, 255])
def test_the_guests_exit_code(wasisup, guests, code):
    """The command ends with the guest's own exit code, and the report says that it is that."""
    result = wasisup.run(guests.c("stdio"), "exit", str(code))
    assert result.status == code
    assert result.report["reason"] == "exit"
    assert result.report["exit_code"] == code


def test_an_exit_code_over_255(wasisup, guests):
    """proc_exit takes 32 bits: the status has the low eight, the report all, and 256 is not 0."""
    result = wasisup.run(guests.c("preview1/process"), "exit", "256")
    assert result.report["exit_code"] == 256
    assert result.status != 0


def body(code: str, extra: str = "") -> str:
    return f'(module (memory (export "memory") 1) {extra} (func (export "_start") {code}))'


TRAPS = {
    "unreachable": ("unreachable", ""),
    "integer divide by zero": ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", ""),
    "out of bounds memory access": ("(drop (i32.load (i32.const 0x7fffffff)))", ""),
    "integer overflow": ("(drop (i32.trunc_f64_s (f64.const 1e300)))", ""),
    "undefined element": ("(call_indirect (i32.const 9))", "(table 1 funcref)"),
    "call stack exhausted": ("(call $again)", "(func $again (call $again))"),
}


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
@pytest.mark.parametrize("words", TRAPS)
def test_a_trap(wasisup, guests, words, engine):
    """A trap is 134 with the engine's own words, on both engines."""
    result = wasisup.run(f"--engine={engine}", guests.wat(body(*TRAPS[words])))
    assert result.status == 134
    assert result.report["reason"] == "trap"
    assert words in result.errors
    assert words in (result.report["trap"] or "") + result.report["message"]


def test_a_trap_of_a_c_program(wasisup, guests):
    """Output before a trap is not lost."""
    result = wasisup.run(guests.c("stdio"), "trap")
    assert (result.status, result.out) == (134, b"ready\n")
    assert "Traceback" not in result.errors


def test_no_such_module(wasisup, room):
    """A module that is not there is 127."""
    result = wasisup.run(room / "none.wasm")
    assert result.status == 127
    assert "none.wasm" in result.errors
    assert "Traceback" not in result.errors


def test_a_directory_is_no_module(wasisup, room):
    """A directory in the module's place is 126."""
    result = wasisup.run(room)
    assert result.status in (126, 127)
    assert "directory" in result.errors.lower()


BROKEN = {
    "empty": (b"", "wasm"),
    "text": (b"#!/bin/sh\necho no\n", "wasm"),
    "elf": (b"\x7fELF" + bytes(100), "wasm"),
    "magic only": (b"\0asm", "wasm"),
    "version 2": (b"\0asm\x02\0\0\0", "version"),
    "component": (b"\0asm\x0d\0\x01\0", "component"),
    "truncated": (b"\0asm\x01\0\0\0\x01\x05\x01", ""),
    "bad section": (b"\0asm\x01\0\0\0\x7f\x01\0", ""),
    "type error": (
        b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b",
        "type",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_module(wasisup, room, kind):
    """What cannot be run is 126, and the message says what is wrong with it."""
    data, words = BROKEN[kind]
    path = room / "bad.wasm"
    path.write_bytes(data)
    result = wasisup.run(path)
    assert result.status == 126
    assert words in result.errors.lower()
    assert result.report.get("reason", "invalid_module") == "invalid_module"
    assert "Traceback" not in result.errors


REFUSED = {
    "imported function": (
        '(module (import "env" "launch" (func)) (memory (export "memory") 1)'
        ' (func (export "_start")))',
        ["env", "launch"],
    ),
    "wrong type": (
        '(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64)))'
        ' (memory (export "memory") 1) (func (export "_start")))',
        ["fd_close"],
    ),
    "unknown wasi function": (
        '(module (import "wasi_snapshot_preview1" "fd_teleport" (func (param i32)))'
        ' (memory (export "memory") 1) (func (export "_start")))',
        ["fd_teleport"],
    ),
    "imported memory": (
        '(module (import "env" "memory" (memory 1)) (func (export "_start")))',
        ["memory"],
    ),
    "imported shared memory": (
        '(module (import "env" "memory" (memory 1 2 shared)) (func (export "_start")))',
        ["memory"],
    ),
    "imported table": (
        '(module (import "env" "table" (table 1 funcref)) (func (export "_start")))',
        ["table"],
    ),
    "imported global": (
        '(module (import "env" "base" (global i32)) (func (export "_start")))',
        ["base"],
    ),
    "nothing to start": ('(module (memory (export "memory") 1))', ["_start"]),
    "a start with parameters": (
        '(module (memory (export "memory") 1) (func (export "_start") (param i32)))',
        ["_start"],
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_offered(wasisup, guests, kind):
    """A module that needs what is not offered is 126, and the message names it."""
    text, words = REFUSED[kind]
    result = wasisup.run(guests.wat(text))
    assert result.status == 126, result.errors
    for word in words:
        assert word in result.errors
    assert result.report.get("reason", "invalid_module") == "invalid_module"


@pytest.mark.parametrize("start", [0, 65536 - 8])
def test_a_64_bit_memory(wasisup, guests, start):
    """A module whose memory is 64-bit is served like any other, its pointers checked as well."""
    text = f"""
    (module
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (memory (export "memory") i64 1)
      (func (export "fill") (result i32 i32)
        (call $random (i32.const {start}) (i32.const 8))
        (i64.ne (i64.load (i64.const {start})) (i64.const 0))))
    """
    assert wasisup.run("--invoke=fill", guests.wat(text)).ok().text == "0\n1\n"


def test_a_module_without_a_memory_runs(wasisup, guests):
    """A module without a memory runs as long as it asks for nothing that needs one."""
    text = (
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
        ' (func (export "_start") (call $exit (i32.const 9))))'
    )
    assert wasisup.run(guests.wat(text)).status == 9


def test_a_memory_that_is_not_exported(wasisup, guests):
    """A function that needs the guest's memory does not find one: a trap with the reason."""
    text = (
        '(module (import "wasi_snapshot_preview1" "random_get"'
        " (func $random (param i32 i32) (result i32)))"
        ' (func (export "_start") (drop (call $random (i32.const 0) (i32.const 8)))))'
    )
    result = wasisup.run(guests.wat(text))
    assert result.status in (126, 134)
    assert "memory" in result.errors


REACTOR = """
(module
  (memory (export "memory") 1)
  (global $ready (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $ready (i32.const 1)))
  (func (export "ready") (result i32) (global.get $ready))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "wide") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1)))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "swap") (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
  (func (export "nothing"))
  (func (export "boom") unreachable))
"""

INVOKED = [
    (["ready"], "1\n"),
    (["add", "2", "40"], "42\n"),
    (["add", "-1", "-2"], "-3\n"),
    (["wide", "9223372036854775806"], "9223372036854775807\n"),
    (["half", "5"], "2.5\n"),
    (["swap", "1", "-5"], "-5\n1\n"),
    (["nothing"], ""),
]


@pytest.mark.parametrize(("call", "printed"), INVOKED, ids=[c[0][0] for c in INVOKED])
def test_invoke(wasisup, guests, call, printed):
    """--invoke initialises a reactor, calls the export and prints its results."""
    name, *args = call
    result = wasisup.run("--invoke", name, guests.wat(REACTOR), *args).ok()
    assert result.text == printed


def test_invoke_traps(wasisup, guests):
    """A trap in an invoked function is a trap."""
    assert wasisup.run("--invoke=boom", guests.wat(REACTOR)).status == 134


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["none"], "none"),
        (["add", "1"], "2"),
        (["add", "1", "2", "3"], "2"),
        (["add", "1", "x"], "x"),
        (["add", "1", "4294967296"], "4294967296"),
        (["memory"], "memory"),
    ],
)
def test_invoke_refused(wasisup, guests, call, words):
    """What cannot be invoked is refused with the reason, before anything runs."""
    name, *args = call
    result = wasisup.run("--invoke", name, guests.wat(REACTOR), *args)
    assert result.status in (125, 126)
    assert words in result.errors
    assert "Traceback" not in result.errors


def test_a_reactor_without_invoke(wasisup, guests):
    """A reactor has nothing to start: the message says so and names --invoke."""
    result = wasisup.run(guests.wat(REACTOR))
    assert result.status == 126
    assert "--invoke" in result.errors


def test_the_report(wasisup, guests, room):
    """The report is JSON with outcome, reason, exit code, usage and denials."""
    result = wasisup.run(f"--dir={room}", guests.c("hello")).ok()
    report = result.report
    assert report["reason"] == "exit"
    assert report["status"] == 0
    assert report["signal"] in (0, None)
    assert report["denials"] == []
    assert report["usage"]["output"] == len(result.out)
    assert report["usage"]["wall_ns"] > 0
    assert report["usage"]["memory"] % 65536 == 0
    assert {"namespaces", "network", "root", "identity", "rlimits", "seccomp"} <= set(
        report["walls"]
    )


def test_a_report_that_cannot_be_written(wasisup, guests, room):
    """A report path that cannot be written is told before anything runs."""
    result = wasisup("run", "--report", room / "no" / "report.json", guests.c("hello"))
    assert result.status == 125
    assert "report.json" in result.errors
    assert "Traceback" not in result.errors


def test_the_report_of_a_kill(wasisup, guests, room):
    """A worker killed from outside is told apart from one that exits."""
    report = room / "report.json"
    with wasisup.popen("run", "--report", report, guests.c("stdio"), "block") as process:
        assert process.stdout.readline() == b"ready\n"
        worker = worker_of(process.pid)
        signal.pidfd_send_signal(worker, signal.SIGKILL)
        process.stdin.close()
        assert process.wait(60) == 137
    told = json.loads(report.read_text())
    assert (told["reason"], told["signal"]) == ("killed", signal.SIGKILL)


def worker_of(pid: int) -> int:
    """A pidfd of the worker: the supervisor's child that is in another pid namespace."""
    from support.processes import worker_pidfd

    return worker_pidfd(pid)
