"""The command itself: help, explain, inspect, doctor, cache, completions, policies, bad input."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import subprocess

import pytest

COMMANDS = ["run", "inspect", "doctor", "cache", "policy", "completion"]


def one_line_error(result) -> str:
    """The message of a refused command line: no traceback, nothing on stdout."""
    assert result.status == 125
    assert "Traceback" not in result.errors
    assert result.out == b""
    return result.errors


def test_help(wasisup):
    """--help names every command, and each command has help of its own."""
    text = wasisup("--help").ok().text
    for command in COMMANDS:
        assert f"  {command}" in text
        assert wasisup(command, "--help").ok().text.startswith("Usage: wasisup")


def test_help_of_run_names_every_option(wasisup):
    """`run --help` has every option of the contract with its default."""
    text = wasisup("run", "--help").ok().text
    for option in """--dir --env --policy --memory --cpu-time --timeout --fds --file-size --output
        --fuel --tmpfs --tcplisten --engine --invoke --argv0 --report --explain --allow-missing
        --socket --no-daemon""".split():
        assert option in text
    for default in ("256MiB", "10s", "30s", "64", "16MiB"):
        assert default in text


def test_version(wasisup):
    """--version names wasisup and the engine's release."""
    assert "50.0.1" in wasisup("--version").ok().text


def test_no_command(wasisup):
    """Without a command the help is shown."""
    result = wasisup()
    assert "Usage: wasisup" in result.text + result.errors


def test_an_unknown_command(wasisup):
    """A command that does not exist is named, and the way to those that do."""
    result = wasisup("rum", "x.wasm")
    assert result.status in (2, 125)
    assert "rum" in result.errors
    assert "--help" in result.errors


BAD = {
    "unknown option": (["run", "--direct=.", "x.wasm"], ["--direct", "--dir"]),
    "no module": (["run"], ["MODULE"]),
    "size without unit sense": (["run", "--memory=64Zib", "x"], ["64Zib", "64MiB"]),
    "negative size": (["run", "--memory=-1", "x"], ["--memory"]),
    "time without a number": (["run", "--timeout=soon", "x"], ["soon", "1.5s"]),
    "time in apples": (["run", "--cpu-time=5apples", "x"], ["5apples"]),
    "zero fds": (["run", "--fds=0", "x"], ["--fds"]),
    "fds that are no number": (["run", "--fds=many", "x"], ["many"]),
    "fuel that is no number": (["run", "--fuel=1.5", "x"], ["1.5"]),
    "unknown engine": (["run", "--engine=v8", "x"], ["v8", "cranelift", "pulley"]),
    "unknown policy": (["run", "--policy=none-such", "x"], ["none-such", "default"]),
    "unknown wall": (["run", "--allow-missing=moat", "x"], ["moat", "landlock"]),
    "empty directory": (["run", "--dir=", "x"], ["--dir"]),
    "directory with three parts": (["run", "--dir=a::b::maybe", "x"], ["maybe"]),
    "listen without a port": (["run", "--tcplisten=localhost", "x"], ["HOST:PORT"]),
    "tmpfs with a bad size": (["run", "--tmpfs=/t:huge", "x"], ["huge"]),
    "empty variable name": (["run", "--env==x", "x"], ["--env"]),
    "a value is missing": (["run", "--memory"], ["--memory"]),
    "json without explain": (["run", "--json", "x"], ["--explain"]),
    "a daemon or none": (["run", "--socket=/tmp/s", "--no-daemon", "x"], ["--no-daemon"]),
    "a report of no end": (["run", "-d", "--report=r", "x"], ["--detach"]),
    "a label for nobody": (["run", "--label=a=b", "x"], ["--label", "daemon"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_command_line(wasisup, kind):
    """What cannot be meant is refused with 125, and the message shows the right form."""
    args, words = BAD[kind]
    errors = one_line_error(wasisup(*args))
    for word in words:
        assert word in errors


@pytest.mark.parametrize("text", ["64MiB", "64mib", "65536KiB", "67108864", "0.0625GiB", "64M"])
def test_sizes_as_people_write_them(wasisup, guests, text):
    """Sizes with and without units mean the same quota."""
    report = wasisup.run(f"--memory={text}", guests.c("hello")).ok().report
    assert report["quotas"]["memory"] in (64 << 20, 64_000_000)


@pytest.mark.parametrize("text", ["1.5s", "1500ms", "1500000us"])
def test_times_as_people_write_them(wasisup, guests, text):
    """Times with units mean the same quota."""
    report = wasisup.run(f"--timeout={text}", guests.c("hello")).ok().report
    assert report["quotas"]["timeout"] == 1_500_000_000


def test_explain_runs_nothing(wasisup, guests, room):
    """--explain prints the grants and the quotas, and runs nothing."""
    result = wasisup(
        "run", "--explain", f"--dir={room}::/data::ro", "--env=COLOUR=blue", guests.c("hello")
    ).ok()
    assert "hello, world" not in result.text
    for word in (str(room), "/data", "read-only", "COLOUR", "256 MiB", "10 s", "30 s"):
        assert word in result.text or word.replace(" ", "") in result.text


def test_explain_for_programs(wasisup, guests, room):
    """--explain --json says the same to a program."""
    told = json.loads(
        wasisup("run", "--explain", "--json", f"--dir={room}::/data::ro", guests.c("hello"))
        .ok()
        .out
    )
    assert str(room) in json.dumps(told)
    assert told["quotas"]["memory"] == 256 << 20


def test_environment_is_not_inherited(wasisup, guests):
    """Only what --env names reaches the guest; a bare name takes the caller's value."""
    result = wasisup.run(
        "--env", "A=1", "--env", "MINE", "--env", "ABSENT", guests.c("preview1/process"), "environ",
        env={"MINE": "yes", "OTHER": "no"},
    ).ok()  # fmt: skip
    assert "[A=1]" in result.text
    assert "[MINE=yes]" in result.text
    assert "OTHER" not in result.text
    assert "ABSENT" not in result.text


def test_argv0(wasisup, guests):
    """argv[0] is the module's base name, or what --argv0 says."""
    module = guests.c("preview1/process")
    assert "arg 0 [process.wasm]" in wasisup.run(module, "args").ok().text
    assert "arg 0 [other]" in wasisup.run("--argv0=other", module, "args").ok().text


def test_inspect(wasisup, guests):
    """inspect says in words what a module imports, and the smallest policy for it."""
    text = wasisup("inspect", guests.c("copy")).ok().text
    assert "path_open" in text or "files" in text.lower()
    assert "dir" in text


def test_inspect_for_programs(wasisup, guests):
    """inspect --json lists the imports and exports."""
    told = json.loads(wasisup("inspect", "--json", guests.c("copy")).ok().out)
    assert told["kind"] == "command"
    assert "path_open" in json.dumps(told["wasi"])
    assert told["unknown_imports"] == []


def test_inspect_of_what_cannot_run(wasisup, guests):
    """inspect names the imports that nothing here offers, with 126."""
    module = guests.wat('(module (import "env" "launch" (func)) (func (export "_start")))')
    result = wasisup("inspect", module)
    assert result.status == 126
    assert "launch" in result.text + result.errors


def test_doctor(wasisup):
    """doctor names every wall and whether it stands."""
    text = wasisup("doctor").text
    for wall in ("namespaces", "network", "root", "identity", "rlimits", "landlock", "seccomp"):
        assert wall in text


def test_doctor_for_programs(wasisup):
    """doctor --json says the same to a program."""
    told = json.loads(wasisup("doctor", "--json").out)
    assert "seccomp" in json.dumps(told)


def test_policies(wasisup):
    """The shipped policies are listed and shown, with a comment for each line."""
    listed = wasisup("policy", "list").ok().text
    for name in ("default", "pure", "service"):
        assert name in listed
        shown = wasisup("policy", "show", name).ok().text
        lines = [line for line in shown.splitlines() if line.strip()]
        settings = [line for line in lines if not line.startswith(("#", "["))]
        comments = [line for line in lines if "#" in line]
        assert len(comments) >= len(settings)


def test_policy_pure(wasisup, guests, room):
    """`pure` grants no files and no clock finer than a millisecond."""
    text = """
    (module
      (import "wasi_snapshot_preview1" "clock_time_get"
        (func $time (param i32 i64 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "rest") (param i32) (result i64)
        (drop (call $time (local.get 0) (i64.const 1) (i32.const 0)))
        (i64.rem_u (i64.load (i32.const 0)) (i64.const 1000000))))
    """
    for clock in ("0", "1"):
        result = wasisup.run("--policy=pure", "--invoke=rest", guests.wat(text), clock).ok()
        assert result.text == "0\n"


def test_policy_service(wasisup, guests):
    """`service` has no time quotas."""
    quotas = wasisup.run("--policy=service", guests.c("hello")).ok().report["quotas"]
    assert (quotas["timeout"], quotas["cpu_time"]) == (None, None)


def test_a_policy_file(wasisup, guests, room):
    """A TOML file whose keys are the flags' names works as the flags do, and flags override it."""
    (room / "foo.txt").write_text("x")
    policy = room / "mine.toml"
    policy.write_text(f'memory = "32MiB"\ntimeout = "5s"\ndir = ["{room}::/d"]\n')
    result = wasisup.run(
        f"--policy={policy}", "--timeout=6s", guests.c("copy"), "/d/foo.txt", "/d/bar.txt"
    ).ok()
    assert result.report["quotas"]["memory"] == 32 << 20
    assert result.report["quotas"]["timeout"] == 6_000_000_000
    assert (room / "bar.txt").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('memry = "1MiB"', ["memry", "memory"]),
        ('memory = "1Foo"', ["1Foo"]),
        ("memory = [", ["mine.toml"]),
        ('engine = "v8"', ["v8"]),
    ],
)
def test_a_bad_policy_file(wasisup, guests, room, text, words):
    """A policy that is wrong is refused with the file and the key."""
    policy = room / "mine.toml"
    policy.write_text(text + "\n")
    errors = one_line_error(wasisup("run", f"--policy={policy}", guests.c("hello")))
    for word in words:
        assert word in errors


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(wasisup, room, shell):
    """The completions are a script that the shell itself accepts."""
    script = wasisup("completion", shell).ok().out
    assert b"wasisup" in script
    if shutil.which(shell):
        path = room / "completion"
        path.write_bytes(script)
        done = subprocess.run([shell, "-n", path], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


# --- the compile cache ---


@pytest.fixture
def own_cache(room):
    """A cache of the test's own, empty."""
    folder = room / "cache"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def cached(wasisup, own_cache):
    """The command with that cache."""

    def run(*args, **options):
        return wasisup(*args, env={"WASISUP_CACHE_DIR": str(own_cache)}, **options)

    return run


def artifacts(folder):
    return sorted(folder.rglob("*.cwasm"))


def test_cache_list_and_prune(cached, own_cache, guests):
    """What was compiled is listed, and pruned to a size."""
    cached("run", guests.c("hello")).ok()
    cached("run", "--engine=pulley", guests.c("hello")).ok()
    listed = json.loads(cached("cache", "list", "--json").ok().out)["entries"]
    assert len(listed) == len(artifacts(own_cache)) == 2
    assert all(entry["size"] > 0 for entry in listed)
    assert "2 compiled" in cached("cache", "list").ok().text
    cached("cache", "prune", "--max-size=0").ok()
    assert artifacts(own_cache) == []
    assert cached("run", guests.c("hello")).ok().out == b"hello, world\n"


def test_artifacts_are_read_only_and_private(cached, own_cache, guests):
    """Nobody else can write what is in the cache."""
    cached("run", guests.c("hello")).ok()
    for path in [own_cache, *own_cache.rglob("*")]:
        if not path.is_symlink():
            assert path.stat().st_mode & 0o022 == 0
    for path in artifacts(own_cache):
        assert path.stat().st_mode & 0o222 == 0


def test_concurrent_first_runs_compile_once(cached, own_cache, guests):
    """Eight first runs at once make one artifact, once."""
    module = guests.foreign("quickjs")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(cached, "run", module, "-e", "print(1)") for _ in range(8)]
        assert {run.result().ok().out for run in runs} == {b"1\n"}
    [artifact] = artifacts(own_cache)
    made = artifact.stat()
    cached("run", module, "-e", "print(2)").ok()
    [again] = artifacts(own_cache)
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def damage(path, change) -> None:
    """Changes an artifact in place, as a bad disk or somebody with our uid would."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    path.chmod(0o444)


CHANGES = {
    "one bit": lambda data: data.__setitem__(len(data) // 2, data[len(data) // 2] ^ 1),
    "the first byte": lambda data: data.__setitem__(0, 0),
    "the last byte": lambda data: data.__setitem__(-1, data[-1] ^ 0xFF),
    "cut": lambda data: data.__delitem__(slice(len(data) // 2, None)),
    "empty": lambda data: data.clear(),
    "longer": lambda data: data.extend(b"\0" * 4096),
    "text": lambda data: data.__setitem__(slice(None), b"#!/bin/sh\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_corrupt_artifact_is_compiled_again(cached, own_cache, guests, change):
    """An artifact that is not as it was written is never loaded, but made anew."""
    cached("run", guests.c("hello")).ok()
    [artifact] = artifacts(own_cache)
    whole = artifact.read_bytes()
    damage(artifact, CHANGES[change])
    assert cached("run", guests.c("hello")).ok().out == b"hello, world\n"
    [again] = artifacts(own_cache)
    assert again.read_bytes() == whole


def test_another_modules_artifact_is_not_loaded(cached, own_cache, guests):
    """A good artifact under a wrong name is not run in the other module's place."""
    cached("run", guests.c("hello")).ok()
    [hello] = artifacts(own_cache)
    cached("run", guests.c("stdio"), "exit", "0").ok()
    [other] = set(artifacts(own_cache)) - {hello}
    data = other.read_bytes()
    other.unlink()
    other.write_bytes(hello.read_bytes())
    other.chmod(0o444)
    result = cached("run", guests.c("stdio"), "exit", "7")
    assert (result.status, result.out) == (7, b"")
    assert other.read_bytes() == data


def test_foreign_files_in_the_cache(cached, own_cache, guests):
    """Files of other kinds in the cache disturb nothing."""
    cached("run", guests.c("hello")).ok()
    [artifact] = artifacts(own_cache)
    (artifact.parent / "notes.txt").write_text("mine")
    (artifact.parent / ("0" * 64 + ".cwasm")).mkdir()
    os.mkfifo(artifact.parent / ("1" * 64 + ".cwasm"))
    os.symlink("/etc/passwd", artifact.parent / ("2" * 64 + ".cwasm"))
    assert cached("run", guests.c("hello")).ok().out == b"hello, world\n"
    cached("cache", "list").ok()
    cached("cache", "prune", "--max-size=0").ok()
    assert (artifact.parent / "notes.txt").exists()


def test_a_symlink_in_an_artifacts_place(cached, own_cache, guests, room):
    """An artifact's name that leads elsewhere is not followed."""
    cached("run", guests.c("hello")).ok()
    [artifact] = artifacts(own_cache)
    elsewhere = room / "elsewhere"
    elsewhere.write_bytes(b"not an artifact")
    artifact.unlink()
    artifact.symlink_to(elsewhere)
    assert cached("run", guests.c("hello")).ok().out == b"hello, world\n"
    assert elsewhere.read_bytes() == b"not an artifact"
    assert not artifact.is_symlink()


def test_a_cache_others_can_write(cached, own_cache, guests):
    """A cache that others could write is refused: loading from it would run their code."""
    own_cache.chmod(0o777)
    errors = one_line_error(cached("run", guests.c("hello")))
    assert str(own_cache) in errors


def test_a_changed_module_is_compiled_anew(cached, own_cache, guests, room):
    """The cache goes by content: a module changed in place under the same name is another one."""
    module = room / "m.wasm"
    shutil.copyfile(guests.c("hello"), module)
    assert cached("run", module).ok().out == b"hello, world\n"
    shutil.copyfile(guests.rust("copy"), module)
    assert cached("run", module).status == 2
    assert len(artifacts(own_cache)) == 2


def test_a_read_only_cache(ordinary_user, cached, own_cache, guests):
    """A cache without room for one more still serves what it has."""
    cached("run", guests.c("hello")).ok()
    for path in [own_cache, *own_cache.rglob("*")]:
        if path.is_dir():
            path.chmod(0o500)
    try:
        assert cached("run", guests.c("hello")).ok().out == b"hello, world\n"
    finally:
        for path in [own_cache, *own_cache.rglob("*")]:
            if path.is_dir():
                path.chmod(0o700)


@pytest.fixture
def ordinary_user():
    """Root writes read-only directories all the same: then there is nothing to test."""
    if os.getuid() == 0:
        pytest.skip("for root no directory is read-only")


def test_a_module_from_a_pipe(cached, guests):
    """A module may come from anywhere that can be read once."""
    with open(guests.c("hello"), "rb") as module:
        result = cached("run", "/dev/stdin", stdin=module.fileno())
    assert (result.status, result.out) in ((0, b"hello, world\n"), (126, b""))
    assert "Traceback" not in result.errors
