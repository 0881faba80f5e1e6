"""Components: WASI 0.2 behind the same walls, with the same endings, quotas and reports as modules.

The guests are text format (guests/wat): what a toolchain makes is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import wasisup as sdk
from support import guests as build
from support.chaos import Service
from support.command import Command
from support.processes import children

MS = 1_000_000
NOT_PERMITTED = b"error 31\n"  # the number of error-code's case
BLOCK = 4096


@pytest.fixture(scope="session")
def command(guests) -> Path:
    """Does what its first argument says: see guests/wat/command.wat."""
    return guests.component("command")


@pytest.fixture(scope="session")
def functions(guests) -> Path:
    """Exports functions, alone and in two interfaces."""
    return guests.component("functions")


@pytest.fixture(scope="module")
def serving(base_env: dict[str, str]) -> Iterator[Service]:
    """A daemon with its defaults."""
    with (
        tempfile.TemporaryDirectory(prefix="wasisup-daemon-", dir="/var/tmp") as folder,
        Service(base_env, Path(folder)) as serving,
    ):
        yield serving


@pytest.fixture(scope="module")
def by_daemon(base_env: dict[str, str], serving: Service) -> Command:
    """The command, which a variable sends to the daemon."""
    return Command({**base_env, "WASISUP_SOCKET": serving.socket})


@pytest.fixture(params=["embedded", "daemon"])
def either(request: pytest.FixtureRequest) -> Command:
    """The command, without a daemon and with one."""
    name = "wasisup" if request.param == "embedded" else "by_daemon"
    found: Command = request.getfixturevalue(name)
    return found


RUN = """(core module $r (func (export "run") (result i32) (i32.const 0)))
  (core instance $i (instantiate $r))
  (func $run (result (result)) (canon lift (core func $i "run")))"""


def exports(version: str) -> str:
    """A component that exports wasi:cli/run of that version, from the function $run."""
    return f'(instance (export "wasi:cli/run@{version}") (export "run" (func $run)))'


# --- what it is given ---


def test_arguments_and_variables(either, command):
    """As they were given, argv[0] first, and no variable of the host's."""
    assert (
        either.run(command, "a", "x y", "", "\u00e9").ok().text
        == "command.wasm\na\nx y\n\n\u00e9\n"
    )
    assert either.run("--env", "A=1", "--env", "B=x=y", command, "v").ok().text == "A 1\nB x=y\n"
    assert either.run(command, "v").ok().out == b""


def test_arguments_that_are_no_text(wasisup, command):
    """WASI 0.2 has strings: other bytes are refused, and it is said why."""
    result = wasisup.run(command, "a", os.fsdecode(b"\xff"))
    assert result.status == 125
    assert "UTF-8" in result.errors


def test_stdin(either, command):
    """From its first byte to its end."""
    data = bytes(range(256)) * 1000
    assert either.run(command, "i", stdin=data).ok().out == data


def test_closed_streams(wasisup, command):
    """A closed stdin is at its end, a closed stdout takes nothing, and the run goes on."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&-', "sh", *wasisup.argv("run", command, "i")],
        env=wasisup.env, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_directories(either, command, room, engine):
    """Read and write, or read only; never out of what was granted."""
    (room / "d").mkdir()
    (room / "secret").write_text("secret")
    (room / "d" / "file").write_text("text\n")
    (room / "d" / "link").symlink_to("../secret")

    def run(what: str, mode: str = "rw") -> bytes:
        out: bytes = (
            either.run(f"--engine={engine}", f"--dir={room}/d::/d::{mode}", command, what).ok().out
        )
        return out

    assert run("ffile") == b"text\n"
    assert run("Fnew") == b"ok\n"
    assert (room / "d" / "new").read_text() == "ok\n"
    assert run("ffile", "ro") == b"text\n"
    assert run("Fother", "ro") == NOT_PERMITTED
    assert not (room / "d" / "other").exists()
    for name in ("../secret", "link", "/etc/passwd", str(room / "secret")):
        assert run(f"f{name}").startswith(b"error "), name


def test_scratch_space(either, command):
    """A tmpfs of its own."""
    assert either.run("--tmpfs", "/scratch", command, "Ffile").ok().out == b"ok\n"


def test_no_directory(either, command, room):
    """Looked for and not there: the report says so, and a hint names the flag."""
    (room / "file").write_text("x")
    result = either.run(command, "ffile", cwd=room)
    assert result.status == 1
    assert [denial["kind"] for denial in result.report["denials"]] == ["no_preopen"]
    assert "hint: it was granted no directory; if it needs files: --dir ." in result.errors


def test_walls(either, command):
    """All that a module has, and a bound on threads."""
    walls = set(either.run(command).ok().report["walls"])
    assert {"namespaces", "root", "identity", "rlimits", "landlock", "seccomp", "threads"} <= walls


# --- how it ends ---


@pytest.mark.parametrize(
    ("what", "status"), [("x0", 0), ("x1", 1), ("r", 1), ("c42", 42), ("n", 0)]
)
def test_exits(either, command, what, status):
    """By wasi:cli/exit, with and without a code, or by what run returns."""
    result = either.run(command, what)
    assert (result.status, result.report["reason"]) == (status, "exit")
    assert result.report["exit_code"] == status


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_a_trap(either, command, engine):
    """Its kind and its backtrace."""
    result = either.run(f"--engine={engine}", command, "t")
    assert (result.status, result.report["reason"]) == (134, "trap")
    assert result.report["trap"] == "wasm `unreachable` instruction executed"
    assert "<wasm function" in result.errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i32.load (i32.const -1)))", "out of bounds memory access"),
        ("(drop (call $again))", "call stack exhausted"),
        ("(call_indirect (i32.const 9))", "undefined element: out of bounds table access"),
    ],
)
def test_kinds_of_traps(wasisup, guests, code, kind):
    """A component's trap is known by the engine's words alone: these are the words."""
    text = f"""(component
      (core module $m (memory 1) (table 1 funcref)
        (func $again (export "run") (result i32) {code} (i32.const 0)))
      (core instance $i (instantiate $m))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))"""
    result = wasisup.run(guests.wat(text))
    assert (result.status, result.report["trap"]) == (134, kind), result.errors


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_cpu_time(either, command, engine):
    """Within 50 ms."""
    result = either.run("--cpu-time=200ms", f"--engine={engine}", command, "l")
    assert (result.status, result.report["reason"]) == (152, "cpu_time")
    usage = result.report["usage"]
    assert abs(usage["cpu_user_ns"] + usage["cpu_system_ns"] - 200 * MS) <= 50 * MS


def test_cpu_time_of_instantiation(wasisup, guests):
    """A start function runs under the quota, too."""
    text = f"""(component
      (core module $m (func $s (loop (br 0))) (start $s)) (core instance (instantiate $m))
      {RUN} {exports("0.2.0")})"""
    result = wasisup.run("--cpu-time=100ms", guests.wat(text))
    assert (result.status, result.report["reason"]) == (152, "cpu_time")


@pytest.mark.parametrize("what", ["l", "s60000", "i"])
def test_timeout(wasisup, command, what):
    """Computing, asleep, or waiting for input."""
    reader, writer = os.pipe()
    try:
        result = wasisup.run("--timeout=300ms", command, what, stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert (result.status, result.report["reason"]) == (124, "timeout")


def test_fuel(either, command):
    """Used up: 134, and the figure is in the report."""
    result = either.run("--fuel=5000", command, "l")
    assert (result.status, result.report["reason"]) == (134, "fuel")
    assert result.report["usage"]["fuel"] == 5000
    assert 0 < either.run("--fuel=100000", command, "a").ok().report["usage"]["fuel"] < 100000


@pytest.mark.parametrize("what", ["o", "e"])
def test_output(either, command, what):
    """Exactly as much as the quota, of both streams, then the end; what is written is counted."""
    result = either.run("--output=10000", command, f"{what}3")
    assert (result.status, result.report["reason"]) == (153, "output")
    assert result.report["usage"]["output"] == 10000
    assert result.out.count(b"x") + result.err.count(b"x" * 100) * 100 >= 9900
    result = either.run(f"--output={3 * BLOCK}", command, f"{what}3").ok()
    assert result.report["usage"]["output"] == 3 * BLOCK


def test_output_into_a_full_pipe(wasisup, command):
    """A slow reader gets everything, also when the pipe is non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with wasisup.popen("run", command, "o64", stdout=writer) as process:
        os.close(writer)
        time.sleep(0.2)  # the pipe is full by then, or the test is easier than it was meant to be
        seen = 0
        while part := os.read(reader, 1 << 16):
            seen += len(part)
    os.close(reader)
    assert (process.returncode, seen) == (0, 64 * BLOCK)


def test_memory(either, command):
    """memory.grow fails at the quota, to the page."""
    result = either.run("--memory=2MiB", command, "m100").ok()
    assert result.out == b"31\n"
    result = either.run("--memory=64KiB", command, "m1").ok()
    assert result.out == b"0\n"


def test_memory_at_the_start(wasisup, guests):
    """A memory that starts above the quota: 137, and the reason."""
    text = f"""(component (core module $m (memory 100)) (core instance (instantiate $m))
      {RUN} {exports("0.2.0")})"""
    result = wasisup.run("--memory=1MiB", guests.wat(text))
    assert (result.status, result.report["reason"]) == (137, "memory")


def test_many_memories(wasisup, guests):
    """Each is bounded by the quota; all together by the kernel: the quota and what the host has."""
    if os.environ.get("WASISUP_SANITIZE") == "1":
        pytest.skip("the sanitizer's own memory leaves no limit on all of it")
    count = 8
    memories = "".join(
        f"""(core module $m{n} (memory 1)
          (func (export "grow") (result i32)
            (i32.ne (memory.grow (i32.const 1000)) (i32.const -1))))
        (core instance $i{n} (instantiate $m{n}))"""
        for n in range(count)
    )
    imports = "".join(f'(import "m{n}" "grow" (func $g{n} (result i32)))' for n in range(count))
    calls = "".join(f"(global.set $n (i32.add (global.get $n) (call $g{n})))" for n in range(count))
    given = "".join(f'(with "m{n}" (instance $i{n}))' for n in range(count))
    text = f"""(component {memories}
      (core module $main {imports} (global $n (mut i32) (i32.const 0))
        (func (export "count") (result i32) {calls} (global.get $n)))
      (core instance $i (instantiate $main {given}))
      (func (export "count") (result u32) (canon lift (core func $i "count"))))"""
    # 62.5 MiB each; of 64 MiB and as much again for the host, two fit and the third does not.
    result = wasisup.run("--memory=64MiB", "--invoke", "count", guests.wat(text)).ok()
    assert int(result.text) in (1, 2)


# --- threads and signals ---


@pytest.mark.parametrize("what", ["s1000", "Ffile"])
def test_a_stop_and_going_on(wasisup, command, what):
    """Stopped and continued while the runtime waits: a restarted wait is no forbidden call.

    After a file was opened there is also a thread that waits, for ten seconds, for more to do.
    """
    reader, writer = os.pipe()
    words = ["run", "--tmpfs=/t", command, what, "then", "input"]
    with wasisup.popen(*words, stdin=reader) as process:
        os.close(reader)
        worker = wait_for_worker(process.pid)
        os.kill(worker, signal.SIGSTOP)
        wait_for_state(worker, "T")
        os.kill(worker, signal.SIGCONT)
        os.close(writer)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def wait_for_worker(command_pid: int) -> int:
    """The worker's pid, once it has as many threads as its runtime starts with."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in children(command_pid):
            with contextlib.suppress(OSError):
                threads = os.listdir(f"/proc/{child}/task")
                if len(threads) > 1 and wait_for_state(child, "S"):
                    return child
        time.sleep(0.01)
    raise AssertionError(f"no worker with threads below {command_pid}")


def wait_for_state(pid: int, state: str) -> bool:
    """True once the process's first thread is in that state of proc(5)."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_stdin_of_a_terminal(wasisup, command):
    """Lines of a terminal come through, though for the guest it is none."""
    ours, theirs = pty.openpty()
    with wasisup.popen("run", command, "i", stdin=theirs) as process:
        os.close(theirs)
        os.write(ours, b"line\n\x04")
        out, errors = process.communicate(timeout=60)
    os.close(ours)
    assert (process.returncode, out) == (0, b"line\n"), errors


# --- what cannot be run ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            """(component (import "acme:x/y@1.0.0" (instance (export "f" (func))))
              (import "wasi:cli/stdout@0.3.0" (instance (export "g" (func)))))""",
            ["imports what is not offered: acme:x/y@1.0.0, wasi:cli/stdout@0.3.0"],
        ),
        (
            f"""(component {RUN} (instance (export "wasi:http/incoming-handler@0.2.0")
              (export "handle" (func $run))))""",
            ["server's", "wasi:http/incoming-handler"],
        ),
        ("(component)", ["no wasi:cli/run", "--invoke"]),
        (
            f"(component {RUN} {exports('0.3.0')})",
            ["no wasi:cli/run of WASI 0.2"],
        ),
        ("(component (core module (func (result i32))))", ["type mismatch"]),
    ],
)
def test_what_cannot_run(either, guests, text, words, room):
    """126, and all that is missing is named."""
    if "type mismatch" in words:  # the text is translated, and the component is not valid
        path = room / "module.wat"
        path.write_text(text)
    else:
        path = guests.wat(text)
    result = either.run(path)
    assert result.status == 126
    for word in words:
        assert word in result.errors


def test_types_from_anywhere(wasisup, guests):
    """An interface that only gives types needs nobody to offer it."""
    text = f"""(component (import "acme:x/types" (instance (export "t" (type (sub resource)))))
      {RUN} (instance (export "wasi:cli/run@0.2.7") (export "run" (func $run))))"""
    result = wasisup.run(guests.wat(text))
    assert result.status == 126  # a resource is more than a type
    text = text.replace("(type (sub resource))", "(type (eq 0))").replace(
        "(instance (export", "(instance (type u32) (export", 1
    )
    wasisup.run(guests.wat(text)).ok()


def test_what_only_modules_have(either, command):
    """A listening socket as a preopen, and coarser clocks: refused, not ignored."""
    for flag in (f"--tcplisten=127.0.0.1:{free_port()}", "--policy=pure"):
        result = either.run(flag, command)
        assert result.status == 125, flag
        assert "component" in result.errors


def test_text_format(either):
    """Text is recognised and compiled like a binary."""
    assert either.run(build.SOURCES / "wat" / "command.wat", "c3").status == 3


# --- --invoke ---


@pytest.mark.parametrize(
    ("name", "args", "out"),
    [
        ("calc#add(1, 2)", [], b"3\n"),
        ("local:demo/calc@0.1.0#add(1,2)", [], b"3\n"),
        ("local:demo/calc#add", ["4", "5"], b"9\n"),
        ("text/add", ["4294967295", "2"], b"1\n"),
        ('echo("a\\nb")', [], b'"a\\nb"\n'),
        ("echo", ["two words"], b'"two words"\n'),
        ("list", ["[1, 65535]"], b"[1, 65535]\n"),
        ("list([])", [], b"[]\n"),
        ("div(7, 2)", [], b"ok(3)\n"),
        ("div(7, 0)", [], b"err\n"),
    ],
)
def test_invoke(either, functions, name, args, out):
    """Functions of the world and of interfaces, with arguments in one text or as words."""
    result = either.run("--invoke", name, functions, *args).ok()
    assert result.out == out
    assert result.report["usage"]["output"] == len(out)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("nope", [], "exports no function"),
        ("add", ["1", "2"], "more than one interface"),
        ("calc#add", ["1"], "takes 2 arguments, 1 were given"),
        ("calc#add(1)", [], "takes 2 arguments, 1 were given"),
        ("calc#add(1, x)", [], "integer is expected"),
        ("calc#add(1, 2, 3)", [], "more were given"),
        (
            "list",
            ["[1, 65536]"],
            "argument 1 of the function (l): 65536 is out of the range of u16",
        ),
        ("echo(", [], "double quotes"),
    ],
)
def test_invoke_what_is_not_there(wasisup, functions, name, args, words):
    """126, and what is wrong with it."""
    result = wasisup.run("--invoke", name, functions, *args)
    assert result.status == 126
    assert words in result.errors


def test_invoke_with_a_resource(wasisup, guests):
    """Handles have no text, and it is said before anything runs."""
    text = """(component (type $r' (resource (rep i32))) (export $r "thing" (type $r'))
      (core module $m (func (export "f") (param i32)) (func (export "g") (result i32) unreachable))
      (core instance $i (instantiate $m))
      (func (export "use-it") (param "x" (own $r)) (canon lift (core func $i "f")))
      (func (export "make-it") (result (own $r)) (canon lift (core func $i "g"))))"""
    for name in ("use-it(1)", "make-it()"):
        result = wasisup.run("--invoke", name, guests.wat(text))
        assert result.status == 126
        assert "resource" in result.errors


def test_invoke_ends_as_a_run_does(either, functions):
    """Traps, quotas and the output's limit."""
    result = either.run("--invoke", "boom()", functions)
    assert (result.status, result.report["reason"]) == (134, "trap")
    result = either.run("--cpu-time=100ms", "--invoke", "spin()", functions)
    assert (result.status, result.report["reason"]) == (152, "cpu_time")
    result = either.run("--output=3", "--invoke", 'echo("abcdef")', functions)
    assert (result.status, result.report["reason"], result.out) == (153, "output", b'"ab')


# --- around it ---


def test_inspect(wasisup, command, functions):
    """Its world, in words, and what it would take."""
    told = json.loads(wasisup("inspect", "--json", command).ok().text)
    assert (told["form"], told["kind"]) == ("component", "command")
    assert told["wasi"]["files: creates, changes and removes"] == ["descriptor.write"]
    assert told["command"].startswith("wasisup run --dir . ")
    told = json.loads(wasisup("inspect", "--json", functions).ok().text)
    assert {
        "name": "local:demo/calc@0.1.0#div",
        "type": "func(a: u32, b: u32) -> result<u32>",
    } in told["exported_functions"]


def test_an_artifact_is_compiled_once(wasisup, functions):
    """From the cache the second time: nothing is compiled, and nothing is left behind."""
    wasisup.run("--invoke", "calc#add(1, 2)", functions).ok()
    again = wasisup.run("--invoke", "calc#add(1, 2)", functions).ok()
    assert again.report["timings"]["prepare"] < 100 * MS


def test_a_damaged_artifact(base_env, command, room):
    """One of another engine, or none at all: compiled again."""
    own = Command({**base_env, "WASISUP_CACHE_DIR": str(room / "cache")})
    own.run(command, "c3")
    (artifact,) = room.glob("cache/artifacts/*/*.cwasm")
    data = artifact.read_bytes()
    artifact.unlink()
    artifact.write_bytes(data[: len(data) // 2])
    artifact.chmod(0o444)
    assert own.run(command, "c3").status == 3


def test_by_bytes_and_by_digest(serving, command, functions):
    """The API takes a component's bytes, and finds it again by its digest."""
    with sdk.Client(serving.socket, timeout=60) as client:
        result = client.run(command.read_bytes(), ["c7"])
        assert (result.reason, result.status) == ("exit", 7)
        added = client.add_module(functions)
        result = client.run(f"sha256:{added.digest}", ["1", "2"], invoke="calc#add")
        assert result.check().stdout == b"3\n"


def test_an_api_run_is_killed(serving, command):
    """A component asleep ends when it is told to."""
    with sdk.Client(serving.socket, timeout=60) as client:
        run = client.start(command, ["s60000"])
        client.kill(run.id)
        assert client.wait(run.id).outcome.reason == "killed"


def test_as_an_ordinary_user(as_user, command, room):
    """No root is needed, and the bound on threads is there."""
    (room / "command.wasm").write_bytes(command.read_bytes())
    result = as_user.run(
        f"--dir={room}::/d::ro", room / "command.wasm", "fcommand.wasm", cwd="/"
    ).ok()
    assert result.out.startswith(b"\0asm")
    assert "threads" in result.report["walls"]


def test_many_at_once(by_daemon, command):
    """Each has threads, and none gets in another's way."""
    results: list[int] = []

    def run() -> None:
        for _ in range(5):
            results.append(by_daemon.run(command, "s5").status)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 20


def test_nothing_is_left(wasisup, command):
    """The command's children are gone when it is; a pipe that they held would stay open."""
    reader, writer = os.pipe()
    with wasisup.popen("run", command, "s10", pass_fds=[writer]) as process:
        os.close(writer)
        process.communicate(timeout=60)
    assert select.select([reader], [], [], 10)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)
