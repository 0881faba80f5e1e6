"""Components: everything that holds for modules, with a program that Rust and the adapter made.

`test_thin_run.py` has the same tests again, through a daemon.  What other toolchains make is in
`test_toolchains.py`.
"""

from __future__ import annotations

import json
import os

import pytest

MS = 1_000_000
TOLERANCE = 50 * MS
MIB = 1 << 20


@pytest.fixture(scope="session")
def tool(guests):
    return guests.made_by("rust")


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_arguments_environment_and_stdin(wasisup, tool, engine):
    """A command is given its arguments, the variables that were granted, and stdin."""
    run = [f"--engine={engine}", "--env", "COLOUR=blue", tool]
    assert wasisup.run(*run, "args", "a", "b c", "é").ok().text == '["a", "b c", "é"]\n'
    assert wasisup.run(*run, "env").ok().text == '[("COLOUR", "blue")]\n'
    text = ("línea\n" * 30000).encode()
    assert wasisup.run(*run, "upper", stdin=text).ok().out == text.decode().upper().encode()


def test_no_environment(wasisup, tool):
    """Nothing of the caller's environment is handed over by itself."""
    assert wasisup.run(tool, "env", env={"SECRET": "x"}).ok().text == "[]\n"


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_files_in_a_granted_directory(wasisup, tool, room, engine):
    """A component reads, lists, creates, appends, renames and removes beneath its grant."""
    (room / "in").write_text("content\n")
    room.chmod(0o777)

    def step(*args):
        return wasisup.run(f"--engine={engine}", f"--dir={room}::/d", tool, *args).ok().text

    assert step("cat", "/d/in") == "content\n"
    step("write", "/d/out", "one")
    step("append", "/d/out", " two")
    assert (room / "out").read_text() == "one two"
    step("mkdir", "/d/sub")
    step("move", "/d/out", "/d/sub/moved")
    assert step("list", "/d") == "in sub\n"
    step("remove", "/d/sub/moved")
    assert list((room / "sub").iterdir()) == []


CHANGES = {
    "write": ("write", "/d/new", "text"),
    "overwrite": ("write", "/d/in", "text"),
    "append": ("append", "/d/in", "text"),
    "remove": ("remove", "/d/in"),
    "move": ("move", "/d/in", "/d/new"),
    "mkdir": ("mkdir", "/d/new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_read_only_directory(wasisup, tool, room, change):
    """Beneath ::ro a component reads, and each way to change something is refused."""
    (room / "in").write_text("content\n")
    room.chmod(0o777)
    grant = f"--dir={room}::/d::ro"
    result = wasisup.run(grant, tool, *CHANGES[change])
    assert (result.status, result.report["reason"]) == (1, "exit")
    assert [path.name for path in room.iterdir()] == ["in"]
    assert wasisup.run(grant, tool, "cat", "/d/in").ok().text == "content\n"


def test_no_directory(wasisup, tool, room):
    """Without a grant there is nothing to open, and a hint says which grant would do."""
    (room / "in").write_text("content\n")
    result = wasisup.run(tool, "cat", room / "in")
    assert (result.status, result.out) == (1, b"")
    assert f"--dir {room}" in result.errors
    assert "no_preopen" in {denial["kind"] for denial in result.report["denials"]}


@pytest.mark.parametrize("path", ["/d/../../etc/passwd", "/d/link", "/d/up/passwd", "/etc/passwd"])
def test_no_way_out_of_a_directory(wasisup, tool, room, path):
    """Neither .. nor links lead out of a grant."""
    (room / "link").symlink_to("/etc/passwd")
    (room / "up").symlink_to("../../../../etc")
    result = wasisup.run(f"--dir={room}::/d", tool, "cat", path)
    assert (result.status, result.out) == (1, b"")
    assert "root:" not in result.errors


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("1", 1)])
def test_exit(wasisup, tool, code, status):
    """WASI 0.2 knows success and failure; the adapter makes any other code a failure."""
    result = wasisup.run(tool, "exit", code)
    assert (result.status, result.report["exit_code"]) == (status, status)
    assert result.report["reason"] == "exit"


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
@pytest.mark.parametrize("how", ["panic", "overflow"])
def test_traps(wasisup, tool, engine, how):
    """A panic, and a stack without end, are traps of the guest; what it said comes out before."""
    result = wasisup.run(f"--engine={engine}", tool, how)
    assert (result.status, result.report["reason"]) == (134, "trap")
    assert result.report["trap"]
    assert "trapped" in result.errors
    assert how != "panic" or "on purpose" in result.errors


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_cpu_time_of_a_component(wasisup, tool, engine):
    """A component that computes for ever ends at its CPU quota, threads of the engine included."""
    result = wasisup.run("--cpu-time=300ms", f"--engine={engine}", tool, "spin")
    assert (result.status, result.report["reason"]) == (152, "cpu_time")
    usage = result.report["usage"]
    assert abs(usage["cpu_user_ns"] + usage["cpu_system_ns"] - 300 * MS) <= TOLERANCE
    assert "--cpu-time" in result.errors


@pytest.mark.parametrize("what", ["spin", "sleep", "upper"])
def test_timeout_of_a_component(wasisup, tool, what):
    """The clock runs while a component computes, sleeps and waits for input alike."""
    reader, writer = os.pipe()  # a stdin that never has anything
    try:
        result = wasisup.run("--timeout=300ms", tool, what, stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert (result.status, result.report["reason"]) == (124, "timeout")
    assert abs(result.report["usage"]["wall_ns"] - 300 * MS) <= TOLERANCE
    assert "--timeout" in result.errors


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_memory_of_a_component(wasisup, tool, engine):
    """memory.grow is refused at the quota and not long before it, and the guest goes on."""
    result = wasisup.run("--memory=32MiB", f"--engine={engine}", tool, "grow", "1000").ok()
    held = int(result.text.split()[0])
    assert 24 <= held < 32
    assert held * MIB < result.report["usage"]["max_rss"]


def test_memory_that_a_guest_starts_with(wasisup, tool):
    """A component that starts with more than its quota ends for that reason."""
    result = wasisup.run("--memory=128KiB", tool, "args")
    assert (result.status, result.report["reason"]) == (137, "memory")
    assert "--memory" in result.errors


def test_output_of_a_component(wasisup, tool):
    """Output ends exactly at its quota."""
    result = wasisup.run("--output=100000", tool, "chatter")
    assert (result.status, result.report["reason"]) == (153, "output")
    assert len(result.out) == 100000
    assert "--output" in result.errors


def test_file_size_of_a_component(wasisup, tool, room):
    """A file ends at its quota, which the kernel keeps."""
    room.chmod(0o777)
    result = wasisup.run(
        "--file-size=1000", f"--dir={room}::/d", tool, "write", "/d/big", "x" * 2000
    )
    assert (result.status, result.report["reason"]) in {(153, "file_size"), (1, "exit")}
    assert (room / "big").stat().st_size <= 1000


def test_the_report_of_a_component(wasisup, tool):
    """The report of a component has what that of a module has: engine, walls, usage, timings."""
    report = wasisup.run(tool, "args").ok().report
    assert (report["engine"], report["reason"], report["exit_code"]) == ("cranelift", "exit", 0)
    walls = {"namespaces", "network", "root", "identity", "rlimits", "seccomp"}
    assert walls <= set(report["walls"])
    assert report["usage"]["max_rss"] > 0
    assert report["usage"]["output"] == len("[]\n")
    assert report["timings"]["run"] > 0


def test_the_second_run_finds_it_compiled(wasisup, tool, base_env, room):
    """A component is compiled once: then an artifact of the cache is loaded, with walls that
    admit no compiler."""
    (room / "cache").mkdir()
    env = {"WASISUP_CACHE_DIR": str(room / "cache")}
    if "WASISUP_SOCKET" in wasisup.env:
        env["WASISUP_SOCKET"] = ""  # the daemon's cache is its own
    first = wasisup.run(tool, "args", env=env).ok()
    kept = sorted(room.rglob("*.cwasm"))
    assert kept
    stamps = [path.stat().st_mtime_ns for path in kept]
    second = wasisup.run(tool, "args", env=env).ok()
    assert [(path, path.stat().st_mtime_ns) for path in sorted(room.rglob("*.cwasm"))] == [
        *zip(kept, stamps, strict=True)
    ]
    # Cranelift needs hundreds of milliseconds for it, looking it up less than ten.
    assert second.report["timings"]["prepare"] * 5 < first.report["timings"]["prepare"]


def test_inspect(wasisup, tool):
    """inspect says in words what a component's world could use, and what would serve it."""
    result = wasisup("inspect", tool).ok()
    assert "component" in result.text
    assert "command" in result.text
    assert "wasisup run --dir ." in result.text
    answer = json.loads(wasisup("inspect", "--json", tool).ok().out)
    assert (answer["form"], answer["kind"]) == ("component", "command")
    assert any("get-arguments" in names for names in answer["wasi"].values())


def test_explain(wasisup, tool):
    """--explain tells what a run would grant, and runs nothing."""
    result = wasisup("run", "--explain", "--dir=/tmp::/d::ro", tool, "panic").ok()
    assert "/tmp" in result.text
    assert "on purpose" not in result.errors


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_a_component_that_is_broken(wasisup, tool, room, engine):
    """A component cut short, or with rubbish in it, is refused before anything of it runs."""
    whole = tool.read_bytes()
    for name, data in {"short": whole[:-100], "rubbish": whole[:4000] + b"\xff" * 64}.items():
        (room / name).write_bytes(data)
        result = wasisup.run(f"--engine={engine}", room / name)
        assert (result.status, result.report["reason"]) == (126, "invalid_module")


def test_two_at_once_share_nothing(wasisup, tool, room):
    """Two runs of one component at the same time each have their own memory and output."""
    with (
        wasisup.popen("run", tool, "upper") as one,
        wasisup.popen("run", tool, "upper") as other,
    ):
        assert one.communicate(b"one" * 1000) == (b"ONE" * 1000, b"")
        assert other.communicate(b"other" * 1000) == (b"OTHER" * 1000, b"")


def test_the_hint_of_a_read_only_directory(wasisup, tool, room):
    """A change that was refused beneath ::ro is told with the grant that would have allowed it."""
    room.chmod(0o777)
    result = wasisup.run(f"--dir={room}::/d::ro", tool, "write", "/d/new", "text")
    assert result.status == 1
    assert f"if it had to write: --dir {room}::/d::rw" in result.errors
