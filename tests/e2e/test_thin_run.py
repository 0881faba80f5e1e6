"""`wasisup run` through a daemon: the tests of the embedded one, and what only a daemon can do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_classic
import test_components
import test_network
import test_outcomes
import test_paths
import test_quotas
import test_read_only
import test_sockets
import test_stdio
import test_streams

import wasisup as sdk
from support.chaos import Service
from support.command import Command, Result

# Tests that look for the worker among the command's own children, where a daemon's are not, or
# that give the command a mount namespace of its own, which the daemon does not see into.
ELSEWHERE = {
    "test_the_report_of_a_kill",
    "test_timeout_of_a_stopped_worker",
    "test_one_process",
    "test_limits_of_the_process",
    "test_a_mount_below_a_grant_is_carried_along",
    "test_a_mount_below_a_grant_is_read_only_too",
    "test_a_name_that_leads_inside",
    "test_a_name_that_leads_inside_among_others",
}
for _module in (
    test_classic,
    test_components,
    test_network,
    test_outcomes,
    test_paths,
    test_quotas,
    test_read_only,
    test_sockets,
    test_stdio,
    test_streams,
):
    # A test that has another's name would be left out in silence.
    _lost = {name for name in vars(_module) if name[:5] == "test_"} & {*globals()} - ELSEWHERE
    assert not _lost, f"{_module.__name__} has tests by the names of others: {_lost}"
    # Fixtures, too; what a test calls by name it finds in its own module.
    globals().update(
        {
            name: value
            for name, value in vars(_module).items()
            if name not in ELSEWHERE | {*globals()}
        }
    )


@pytest.fixture(scope="session")
def serving(base_env: dict[str, str]) -> Iterator[Service]:
    """A daemon that serves every user, with its own compile cache."""
    with tempfile.TemporaryDirectory(prefix="wasisup-daemon-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        env = {**base_env, "WASISUP_CACHE_DIR": f"{folder}/cache"}
        with Service(env, Path(folder)) as serving:
            os.chmod(serving.socket, 0o666)
            yield serving


@pytest.fixture(scope="session")
def wasisup(base_env: dict[str, str], serving: Service) -> Command:
    """The command, which a variable sends to the daemon."""
    return Command({**base_env, "WASISUP_SOCKET": serving.socket})


@pytest.fixture
def embedded(wasisup: Command) -> Command:
    """The command that is its own supervisor."""
    return Command({name: value for name, value in wasisup.env.items() if name != "WASISUP_SOCKET"})


@pytest.fixture
def client(serving: Service) -> Iterator[sdk.Client]:
    """A client of the daemon, who is its user."""
    with sdk.Client(serving.socket) as client:
        yield client


def the_run(client: sdk.Client, **label: str) -> sdk.Run:
    """The one run with that label."""
    (found,) = client.runs(label=[f"{name}={value}" for name, value in label.items()])
    return found


SAME: dict[str, tuple[str, ...]] = {
    "a good end": ("both", "stdio"),
    "a status": ("status", "wat"),
    "a trap": ("trap", "wat"),
    "no such file": ("/etc/hostname x", "copy"),
    "no directory at all": ("foo.txt x", "copy"),
    "no argument": ("", "copy"),
}
ENDS = {"status": "(call $exit (i32.const 7))", "trap": "unreachable"}
ENDING = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (func (export "_start") {}))"""


def alike(report: Any, path: str = "") -> Any:
    """A report without what differs from run to run: measures and addresses."""
    if isinstance(report, dict):
        measured = ("usage", "timings")
        return {
            name: sorted(value) if name in measured and value else alike(value, name)
            for name, value in report.items()
        }
    return report


@pytest.mark.parametrize("kind", SAME)
def test_nobody_could_tell(wasisup, embedded, guests, kind, room):
    """Output, errors, hints, status and report are those of the embedded run."""
    words, name = SAME[kind]
    module = guests.wat(ENDING.format(ENDS[words])) if name == "wat" else guests.c(name)
    args = words.split()
    here = embedded.run(module, *args, cwd=room)
    there = wasisup.run(module, *args, cwd=room)
    assert (there.status, there.out, there.err) == (here.status, here.out, here.err)
    assert list(there.report) == list(here.report)
    assert alike(there.report) == alike(here.report)


@pytest.mark.parametrize(
    "args", [("none.wasm",), ("bad.wasm",), (".",), ("--memory=1KiB", "bad.wasm"), ("-",)]
)
def test_errors_are_the_same(wasisup, embedded, room, args):
    """What keeps a guest from running is said in the same words, with the same report."""
    (room / "bad.wasm").write_bytes(b"\0asm\1\0\0\0\xff")
    here = embedded.run(*args, cwd=room)
    there = wasisup.run(*args, cwd=room)
    assert (there.status, there.err, there.report) == (here.status, here.err, here.report)


def test_it_did_run_there(wasisup, client, guests):
    """The daemon has the record, with the label."""
    wasisup("run", "--label", "who=there", guests.c("hello")).ok()
    run = the_run(client, who="there")
    assert run.outcome is not None
    assert (run.outcome.reason, run.module) == ("exit", str(guests.c("hello")))


def test_nothing_without_being_told(embedded, guests, serving):
    """Without --socket and the variable no daemon is asked; --socket asks one."""
    embedded("run", guests.c("hello")).ok()
    embedded("run", "--socket", serving.socket, guests.c("hello")).ok()
    result = embedded("run", "--socket", "/nowhere/s", guests.c("hello"))
    assert result.status == 125
    assert "no daemon at /nowhere/s" in result.errors
    assert "--no-daemon" in result.errors


def test_a_killed_client_takes_its_run_along(wasisup, client, guests):
    """SIGKILL leaves no time to say anything: the closed connection says it."""
    with (
        client.events(type="ended") as ended,
        wasisup.popen("run", "--label=who=killed", guests.c("stdio"), "block") as process,
    ):
        assert process.stdout.readline() == b"ready\n"
        run = the_run(client, who="killed")
        process.kill()
        # Before the end of the `with` closes the guest's stdin, which would end it, too.
        assert next(event for event in ended if event.run == run.id).reason == "killed"


def test_stop_and_continue(wasisup, client, guests):
    """Ctrl-Z stops the run with the command, and `fg` lets both go on."""
    # A process group of its own: that of a suite without a terminal may be orphaned, and the kernel
    # stops none of those.
    command = ("run", "--label=who=stopped", guests.c("stdio"), "block")
    with wasisup.popen(*command, process_group=0) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        run = the_run(client, who="stopped")
        assert client.get(run).stopped
        process.send_signal(signal.SIGCONT)
        process.stdin.write(b"A")
        process.stdin.close()
        assert process.wait(60) == ord("A")
    assert not client.get(run).stopped


def test_a_daemon_that_dies(wasisup, base_env, guests, room):
    """The command ends with 125 and says why, and the guest is gone."""
    with Service(base_env, room) as serving:
        argv = ("run", "--socket", serving.socket, guests.c("stdio"), "block")
        with wasisup.popen(*argv) as process:
            assert process.stdout.readline() == b"ready\n"
            serving.kill()
            errors = process.stderr.read()
            assert process.wait(60) == 125
        assert b"hung up" in errors
        assert b"Traceback" not in errors


def test_a_daemon_that_hangs(wasisup, base_env, guests, room):
    """A signal ends the command all the same: the second one at the latest."""
    with Service(base_env, room) as serving:
        argv = ("run", "--socket", serving.socket, guests.c("stdio"), "block")
        with wasisup.popen(*argv) as process:
            assert process.stdout.readline() == b"ready\n"
            serving.signal(signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
        serving.signal(signal.SIGCONT)


def test_a_full_daemon(wasisup, base_env, guests, room):
    """With no room left the answer comes at once, as an error of wasisup's."""
    limits = "[limits]\nruns = 1\nqueued = 1\n[default]\nruns = 1\nqueued = 0\n"
    with Service(base_env, room, limits) as serving:
        argv = ("run", "--socket", serving.socket, guests.c("stdio"), "block")
        with wasisup.popen(*argv) as process:
            assert process.stdout.readline() == b"ready\n"
            first = wasisup("run", "--socket", serving.socket, guests.c("hello"))
            process.stdin.close()
            process.wait(60)
    assert first.status == 125
    assert first.errors.startswith("wasisup: error: ")


def test_a_signal_in_the_queue(wasisup, base_env, guests, room):
    """A run that waits for its turn can be ended, too."""
    limits = "[limits]\nruns = 1\n"
    with Service(base_env, room, limits) as serving, sdk.Client(serving.socket) as client:
        argv = ("run", "--socket", serving.socket, guests.c("stdio"), "block")
        with client.events(type="queued") as queued, wasisup.popen(*argv) as first:
            assert first.stdout.readline() == b"ready\n"
            with wasisup.popen(*argv) as second:
                next(queued)
                second.send_signal(signal.SIGTERM)
                assert second.wait(60) == 128 + signal.SIGTERM
            first.stdin.close()
            first.wait(60)


def test_detach(wasisup, client, guests):
    """-d prints the id and leaves; output is kept, and `wait` has the status."""
    started = wasisup("run", "-d", "--label", "who=detached", guests.c("stdio"), "both").ok()
    run = started.text.strip()
    assert the_run(client, who="detached").id == run
    assert wasisup("wait", run).status == 0
    logs = wasisup("logs", run).ok()
    assert (logs.out, logs.err) == (b"out\n", b"err\n")
    assert wasisup("logs", "--stream=stderr", run).ok().err == b"err\n"


def test_policies(wasisup, embedded, guests, room):
    """A shipped policy goes by name; a file is read here, and what it sets is in force."""
    pure = wasisup.run("--policy=pure", guests.c("hello")).ok()
    assert pure.report["policy"] == "pure"
    assert pure.report["quotas"]["fds"] == 8
    (room / "mine.toml").write_text(
        f'fds = 9\ntimeout = "5s"\nenv = ["A=1", "WASISUP_TEST"]\ndir = ["{room}::/r::ro"]\n'
    )
    args = (f"--policy={room}/mine.toml", guests.c("hello"))
    environ = {"WASISUP_TEST": "2"}
    here = embedded.run(*args, env=environ).ok().report
    there = wasisup.run(*args, env=environ).ok().report
    for key in ("quotas", "grants", "policy"):
        assert there[key] == here[key]
    assert there["quotas"]["fds"] == 9


def test_ceilings(wasisup, base_env, guests, room):
    """What nobody asked for is lowered and reported; what was asked for is refused."""
    ceilings = '[default.ceilings]\nmemory = "32MiB"\n'
    rule = f'{ceilings}[[caller]]\nuids = [{os.getuid()}]\n[caller.ceilings]\nmemory = "32MiB"\n'
    with Service(base_env, room, rule) as serving:
        lowered = wasisup.run("--socket", serving.socket, guests.c("hello")).ok()
        refused = wasisup.run("--socket", serving.socket, "--memory=33MiB", guests.c("hello"))
    assert lowered.report["quotas"]["memory"] == 32 << 20
    assert refused.status == 125
    assert refused.report["reason"] == "denied"
    assert "memory" in refused.errors


class TestAnotherUser:
    """An ordinary user asks root's daemon."""

    @pytest.fixture
    def theirs(self, as_user: Command, serving: Service) -> Command:
        env = {**as_user.env, "WASISUP_SOCKET": serving.socket}
        return Command(env, as_user.prefix)

    def test_runs_as_themselves(self, theirs, guests, room):
        """Files that the guest makes are the caller's."""
        os.chown(room, 65534, 65534)
        module = shutil.copy(guests.c("copy"), room)
        theirs("run", f"--dir={room}::/r", module, "/r/copy.wasm", "/r/b", cwd="/").ok()
        assert (room / "b").stat().st_uid == 65534

    def test_cannot_hand_over_what_they_cannot_open(self, theirs, guests, room):
        """The client opens everything, as its user."""
        (room / "secret").mkdir(mode=0o700)
        module = shutil.copy(guests.c("hello"), room)
        result: Result = theirs("run", f"--dir={room}/secret", module, cwd="/")
        assert result.status == 125
        assert "ermission denied" in result.errors

    def test_sees_only_their_own(self, theirs, wasisup, guests, room):
        """`ps` shows what is theirs."""
        module = shutil.copy(guests.c("hello"), room)
        wasisup("run", module).ok()
        theirs("run", module, cwd="/").ok()
        shown = json.loads(theirs("ps", "-a", "--json", cwd="/").ok().text)
        assert {run["uid"] for run in shown} == {65534}


def test_job_control_of_a_shell(wasisup, guests):
    """A pipeline of a shell's ends when its reader leaves, as it does without a daemon."""
    argv = wasisup.argv("run", guests.c("stdio"), "pour", "10000000")
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" | head -c 10', "sh", *argv],
        env=wasisup.env, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert len(done.stdout) == 10
    assert b"Traceback" not in done.stderr
