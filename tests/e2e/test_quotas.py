"""Each quota holds, within its tolerance, and the report gives the right reason.

Times are taken from the report (the kernel's accounting of the worker) and never from the clock of
the test, which also sees the command start.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

MS = 1_000_000
TOLERANCE = 50 * MS


def cpu_ns(result) -> int:
    usage = result.report["usage"]
    return usage["cpu_user_ns"] + usage["cpu_system_ns"]


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
@pytest.mark.parametrize(("text", "ns"), [("300ms", 300 * MS), ("1.2s", 1200 * MS)])
def test_cpu_time(wasisup, guests, engine, text, ns):
    """A guest that computes for ever ends at its CPU quota, within 50 ms, on both engines."""
    result = wasisup.run("--cpu-time", text, "--engine", engine, guests.c("stdio"), "spin")
    assert result.status == 152
    assert result.report["reason"] == "cpu_time"
    assert abs(cpu_ns(result) - ns) <= TOLERANCE
    assert "--cpu-time" in result.errors
    assert result.out == b"ready\n"


def test_cpu_time_spent_in_system_calls(wasisup, guests):
    """Time in the kernel counts."""
    text = """
    (module
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (loop $again (drop (call $random (i32.const 0) (i32.const 65536))) (br $again))))
    """
    result = wasisup.run("--cpu-time=300ms", guests.wat(text))
    assert (result.status, result.report["reason"]) == (152, "cpu_time")
    assert abs(cpu_ns(result) - 300 * MS) <= TOLERANCE


def test_sleeping_is_no_cpu_time(wasisup, guests):
    """A guest may sleep longer than its CPU quota."""
    wasisup.run("--cpu-time=200ms", guests.c("stdio"), "sleep", "400").ok()


def test_cpu_time_of_the_start_function(wasisup, guests):
    """A start function runs under the same quota: there is no way to compute before it holds."""
    text = """
    (module
      (memory (export "memory") 1)
      (func $s (loop (br 0)))
      (start $s)
      (func (export "_start")))
    """
    result = wasisup.run("--cpu-time=200ms", guests.wat(text))
    assert (result.status, result.report["reason"]) == (152, "cpu_time")


@pytest.mark.parametrize("what", ["spin", "sleep", "block"])
@pytest.mark.parametrize(("text", "ns"), [("250ms", 250 * MS), ("1s", 1000 * MS)])
def test_timeout(wasisup, guests, what, text, ns):
    """The clock runs while the guest computes, sleeps and waits for input alike; within 50 ms."""
    reader, writer = os.pipe()  # a stdin that never has anything
    try:
        result = wasisup.run("--timeout", text, guests.c("stdio"), what, "60000", stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert result.status == 124
    assert result.report["reason"] == "timeout"
    assert abs(result.report["usage"]["wall_ns"] - ns) <= TOLERANCE
    assert result.out == b"ready\n"
    assert "--timeout" in result.errors


def test_timeout_while_stdout_is_full(wasisup, guests):
    """A guest whose reader does not read is stopped in its write."""
    reader, writer = os.pipe()
    try:
        with wasisup.popen(
            "run", "--timeout=300ms", guests.c("stdio"), "pour", "10000000", stdout=writer
        ) as process:
            assert process.wait(30) == 124
    finally:
        os.close(reader)
        os.close(writer)


def test_timeout_of_a_stopped_worker(wasisup, guests, room):
    """A worker that somebody stopped (SIGSTOP) still ends at its timeout."""
    import signal

    from support.processes import worker_pidfd

    with wasisup.popen("run", "--timeout=1s", guests.c("stdio"), "spin") as process:
        assert process.stdout.readline() == b"ready\n"
        worker = worker_pidfd(process.pid)
        signal.pidfd_send_signal(worker, signal.SIGSTOP)
        os.close(worker)
        assert process.wait(30) == 124


PAGE = 65536


@pytest.fixture
def grower(guests):
    """The guest that runs into quotas, with a small stack: it starts with a few pages only."""
    return guests.c("quota", "-Wl,-z,stack-size=65536")


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
@pytest.mark.parametrize("pages", [64, 160, 1000])
def test_memory_grow(wasisup, grower, engine, pages):
    """memory.grow answers -1 exactly past the quota, the guest goes on, and all of it is real."""
    result = wasisup.run(
        f"--memory={pages * PAGE}", "--engine", engine, grower, "memory", "100000"
    ).ok()
    words = result.text.split()
    assert int(words[-1]) == pages
    assert result.report["usage"]["memory"] == pages * PAGE


def test_memory_rounds_down_to_pages(wasisup, grower):
    """A quota between two pages gives the smaller number of pages."""
    result = wasisup.run(f"--memory={100 * PAGE + 65535}", grower, "memory", "100000")
    assert result.ok().text.split()[-1] == "100"


def test_memory_that_is_asked_for_at_once(wasisup, guests):
    """One large growth past the quota fails and changes nothing; what fits succeeds."""
    text = """
    (module
      (memory (export "memory") 1)
      (func (export "grow") (param i32) (result i32 i32)
        (memory.grow (local.get 0)) (memory.size)))
    """
    module = guests.wat(text)
    quota = f"--memory={16 * PAGE}"
    assert wasisup.run(quota, "--invoke=grow", module, "16").ok().text.split() == ["-1", "1"]
    assert wasisup.run(quota, "--invoke=grow", module, "15").ok().text.split() == ["1", "16"]
    assert wasisup.run(quota, "--invoke=grow", module, "65535").ok().text.split() == ["-1", "1"]


def test_a_first_memory_over_the_quota(wasisup, guests):
    """A module whose memory starts over the quota does not start: the reason is memory."""
    text = f'(module (memory (export "memory") {1024}) (func (export "_start")))'
    result = wasisup.run("--memory=16MiB", guests.wat(text))
    assert result.report["reason"] == "memory"
    assert result.status == 137
    assert "64 MiB" in result.errors or "64MiB" in result.errors
    assert "--memory" in result.errors


def test_memory_ends_a_real_program(wasisup, guests):
    """CPython gets its MemoryError and goes on."""
    program = "try:\n  b'x' * (512 << 20)\nexcept MemoryError:\n  print('refused')"
    assert wasisup.run(guests.foreign("python"), "-c", program).ok().text == "refused\n"


def test_many_memories_and_tables(wasisup, guests):
    """A module cannot get round the quota with tables or with more memories."""
    tables = " ".join(f"(table $t{i} 1 funcref)" for i in range(8))
    grows = " ".join(
        f"(local.set 0 (i32.add (local.get 0) (i32.eq (table.grow $t{i} (ref.null func)"
        f" (i32.const 100000000)) (i32.const -1))))"
        for i in range(8)
    )
    text = (
        f'(module (memory (export "memory") 1) {tables}'
        f' (func (export "refused") (result i32) (local i32) {grows} (local.get 0)))'
    )
    result = wasisup.run("--memory=16MiB", "--invoke=refused", guests.wat(text)).ok()
    assert result.text == "8\n"


@pytest.mark.parametrize("limit", [5, 16, 64, 200])
def test_fds(wasisup, guests, room, limit):
    """Stdio and the grant count; the next open is EMFILE, and closing one makes room again."""
    (room / "f").write_text("x")
    result = wasisup.run(f"--fds={limit}", f"--dir={room}::.", guests.c("quota"), "files", "f").ok()
    assert result.text.splitlines() == [
        f"opened {limit - 4} last {limit - 1} errno No file descriptors available",
        "again yes",
    ]
    assert any(d["kind"] == "fds" for d in result.report["denials"])


def test_too_few_fds_to_start(wasisup, guests, room):
    """A quota that does not even hold the grants is a usage error."""
    result = wasisup.run("--fds=3", f"--dir={room}", guests.c("hello"))
    assert result.status == 125
    assert "--fds" in result.errors


def test_file_size(wasisup, guests, room):
    """A write past the quota ends the run with 153, and the file is exactly as long as allowed."""
    result = wasisup.run(
        "--file-size=1MiB", f"--dir={room}::.", guests.c("quota"), "size", "big", str(2 << 20)
    )
    assert (result.status, result.report["reason"]) == (153, "file_size")
    assert (room / "big").stat().st_size == 1 << 20
    assert "--file-size" in result.errors


def test_file_size_to_the_byte(wasisup, guests, room):
    """A file of exactly the quota's size may be written."""
    wasisup.run(
        "--file-size=1MiB", f"--dir={room}::.", guests.c("quota"), "size", "big", str(1 << 20)
    ).ok()


def test_file_size_without_writing(wasisup, guests, room):
    """Extending a file past the quota without writing does not work either."""
    result = wasisup.run(
        "--file-size=1MiB", f"--dir={room}::.", guests.c("quota"), "extend", "big", str(2 << 20)
    )
    assert result.report["reason"] in ("file_size", "exit")
    assert (room / "big").stat().st_size <= 1 << 20


@pytest.mark.parametrize("size", [1, 4095, 4096, 100_001])
def test_output(wasisup, guests, size):
    """Exactly the quota's bytes arrive, and the run ends with 153 and its own reason."""
    result = wasisup.run(f"--output={size}", guests.c("stdio"), "pour", "1000000")
    assert (result.status, result.report["reason"]) == (153, "output")
    assert len(result.out) == size
    assert result.report["usage"]["output"] == size
    assert "--output" in result.errors


def test_output_to_the_byte(wasisup, guests):
    """Output of exactly the quota's size is no offence."""
    assert len(wasisup.run("--output=5000", guests.c("stdio"), "pour", "5000").ok().out) == 5000


def test_output_counts_both_streams(wasisup, guests):
    """stdout and stderr share one quota."""
    result = wasisup.run("--output=6", guests.c("stdio"), "both")
    assert (result.status, result.report["reason"]) == (153, "output")
    assert result.out == b"out\n"
    assert result.err.startswith(b"er")


def test_output_to_a_file_of_the_guest_is_free(wasisup, guests, room):
    """Only stdout and stderr count."""
    wasisup.run("--output=1KiB", f"--dir={room}::.", guests.c("quota"), "size", "big", "65536").ok()


SPIN = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_fuel(wasisup, guests, engine):
    """A guest that has burnt its fuel ends with 134 and the reason fuel, not trap."""
    result = wasisup.run("--fuel=100000", "--engine", engine, guests.wat(SPIN))
    assert (result.status, result.report["reason"]) == (134, "fuel")
    assert 100_000 <= result.report["usage"]["fuel"] <= 101_000
    assert "--fuel" in result.errors


def test_fuel_is_repeatable(wasisup, guests):
    """The same program burns the same fuel, which is less than what it was given."""
    used = {
        wasisup.run("--fuel=1000000000", guests.c("stdio"), "exit", "0")
        .ok()
        .report["usage"]["fuel"]
        for _ in range(2)
    }
    assert len(used) == 1
    assert 0 < used.pop() < 1_000_000_000


def test_no_fuel_is_no_meter(wasisup, guests):
    """Without --fuel nothing is metered."""
    assert wasisup.run(guests.c("hello")).ok().report["usage"]["fuel"] == 0


def test_every_quota_off(wasisup, guests):
    """`none` takes a limit away."""
    flags = ["cpu-time", "timeout", "memory", "file-size", "output"]
    result = wasisup.run(*(f"--{flag}=none" for flag in flags), guests.c("hello"))
    assert result.ok().out == b"hello, world\n"


def test_one_process(wasisup, guests):
    """A worker is alone: it may have no second process or thread."""
    from support.processes import worker_pidfd

    with wasisup.popen("run", guests.c("stdio"), "block") as process:
        assert process.stdout.readline() == b"ready\n"
        os.close(worker_pidfd(process.pid))
        from support.processes import children, is_worker

        worker = next(pid for pid in children(process.pid) if is_worker(pid))
        limits = Path(f"/proc/{worker}/limits").read_text()
        threads = os.listdir(f"/proc/{worker}/task")
        process.stdin.close()
        process.wait(30)
    assert len(threads) == 1
    line = next(line for line in limits.splitlines() if line.startswith("Max processes"))
    assert line.split()[2] in ("0", "1")


def test_a_compile_has_quotas_too(wasisup, guests, room):
    """Compiling counts as work of its own: a huge function does not hang the command for ever."""
    text = '(module (memory (export "memory") 1) (func (export "_start") {}))'.format(
        "(drop (i32.add (i32.const 1) (i32.const 2)))" * 20000
    )
    start = time.monotonic()
    result = wasisup.run("--timeout=30s", guests.wat(text))
    assert result.status in (0, 126)
    assert time.monotonic() - start < 60


def test_limits_of_the_process(wasisup, guests):
    """The kernel's own limits are set as well: no core file, data for the guest and little else."""
    from support.processes import children, is_worker

    with wasisup.popen("run", "--memory=32MiB", guests.c("stdio"), "block") as process:
        assert process.stdout.readline() == b"ready\n"
        worker = next(pid for pid in children(process.pid) if is_worker(pid))
        limits = Path(f"/proc/{worker}/limits").read_text()
        process.stdin.close()
        process.wait(30)
    rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert rows["Max core file size"] == ["0", "0"]
    if os.environ.get("WASISUP_SANITIZE") != "1":  # a sanitizer's shadow memory is terabytes
        assert int(rows["Max data size"][1]) < 1 << 30
    assert int(rows["Max open files"][1]) <= 256
