"""What runs inside the virtual machine, as root, with the installed command's interpreter.

    inside.py FOLDER

FOLDER holds venv/ and guests/; results.json appears there: for each name of `names()` either "ok"
or what went wrong.  Only the project and the standard library are there.  Importable outside, for
the names.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__:
    from . import daemon_cases
else:  # inside, where it lies beside
    import daemon_cases

CGROUPS = Path("/sys/fs/cgroup")
MIB = 1 << 20
OVERHEAD = 64  # MiB that a run's group may hold beyond the guest's memory: supervisor/embedded.py
WALLS = ["namespaces", "network", "root", "identity", "rlimits", "landlock", "seccomp"]
# The emulator is 20 times slower than a machine: the quotas under test are others than these two.
PATIENCE = ("--timeout", "240s", "--cpu-time", "120s")
WAIT = 300  # seconds until a command that should have ended long ago is given up
USER = "tester"
USER_ID = 1000

# Runs the command in this very process, and then looks at the control group that it was in.
AND_THEN_LOOK = """
import json, os, sys
from wasisup.supervisor.cli import command
status = command(sys.argv[1:])
sys.stdout.flush()
with open("/proc/self/cgroup") as file:
    own = "/sys/fs/cgroup" + file.read().strip().removeprefix("0::")
with open(f"{own}/cgroup.subtree_control") as file:
    control = file.read().split()
below = [entry.name for entry in os.scandir(own) if entry.is_dir()]
print(json.dumps({"status": status, "own": own, "control": control, "below": below}))
"""


@dataclass
class Ended:
    """A command that has ended; report: what --report wrote, {} without it."""

    status: int
    out: str
    err: str
    report: dict[str, Any]


class Caller:
    """Who runs the command: root, or an ordinary user; `room` is an empty directory of theirs."""

    def __init__(self, name: str, folder: Path, room: Path) -> None:
        self.name = name
        self.uid = 0 if name == "root" else USER_ID
        self.folder = folder
        self.room = room
        self.command = str(folder / "venv/bin/wasisup")
        home = "/root" if name == "root" else f"/home/{USER}"
        self.env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": home, "LANG": "C.UTF-8"}

    def guest(self, name: str) -> str:
        return str(self.folder / "guests" / f"{name}.wasm")

    def make(self, name: str, text: str) -> Path:
        """A file of the caller's in the room."""
        path = self.room / name
        path.write_text(text)
        os.chown(path, self.uid, self.uid)
        return path

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.room,
            env=self.env,
            user=self.uid,
            group=self.uid,
            extra_groups=[],
        )

    def call(self, *command: str) -> Ended:
        with self.start(*command) as process:
            try:
                out, err = process.communicate(timeout=WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        report = self.room / "report.json"
        text = report.read_text() if report.exists() else "{}"
        return Ended(process.returncode, out, err, json.loads(text))

    def run(self, *words: str, before: tuple[str, ...] = ()) -> Ended:
        """`wasisup run` with a report; `before` is what starts it."""
        report = str(self.room / "report.json")
        return self.call(*before, self.command, "run", "--report", report, *PATIENCE, *words)


class Manager(Caller):
    """As `Caller`, below a unit of systemd's that manages its own control group.

    root's unit is a scope, the ordinary user's a service: systemd-run is root's in both cases.
    """

    def __init__(self, name: str, folder: Path, room: Path) -> None:
        super().__init__(name, folder, room)
        self.unit = ("systemd-run", "--quiet", "-p", "Delegate=yes")
        if name == "root":
            self.unit += ("--scope", "--")
        else:
            self.unit += ("--wait", "--pipe", "--collect", "-p", f"User={USER}")
            self.unit += (*(f"--setenv={key}={value}" for key, value in self.env.items()), "--")
        self.uid_of_files, self.uid = self.uid, 0

    def make(self, name: str, text: str) -> Path:
        path = super().make(name, text)
        os.chown(path, self.uid_of_files, self.uid_of_files)
        return path


def hello(caller: Caller) -> None:
    """A program prints, behind every wall but the control group, which nobody delegated."""
    ended = caller.run(caller.guest("hello"))
    assert (ended.status, ended.out) == (0, "hello, world\n"), ended
    assert ended.report["walls"] == WALLS, ended.report["walls"]


def pulley(caller: Caller) -> None:
    """The interpreter does, too."""
    ended = caller.run("--engine", "pulley", caller.guest("hello"))
    assert (ended.status, ended.out) == (0, "hello, world\n"), ended


def copy_without_directory(caller: Caller) -> None:
    """The classic file copy fails without a grant, and is told which flag is missing."""
    caller.make("foo.txt", "text\n")
    ended = caller.run(caller.guest("copy"), "foo.txt", "bar.txt")
    assert ended.status == 1, ended
    assert "--dir ." in ended.err, ended
    assert not (caller.room / "bar.txt").exists()


def copy_with_directory(caller: Caller) -> None:
    """With the grant it copies; the copy is the caller's."""
    caller.make("foo.txt", "text\n")
    ended = caller.run("--dir=.", caller.guest("copy"), "foo.txt", "bar.txt")
    assert ended.status == 0, ended
    assert ended.report["walls"] == WALLS
    copy = caller.room / "bar.txt"
    assert copy.read_text() == "text\n"
    assert copy.stat().st_uid == caller.uid


def read_only(caller: Caller) -> None:
    """`::ro` is in the mount: EROFS."""
    caller.make("foo.txt", "text\n")
    ended = caller.run("--dir=.::.::ro", caller.guest("copy"), "foo.txt", "bar.txt")
    assert ended.status == 1, ended
    assert "Read-only file system" in ended.err, ended
    assert not (caller.room / "bar.txt").exists()


def another_file_system(caller: Caller) -> None:
    """Directories of two mounts, one of them a tmpfs."""
    caller.make("foo.txt", "text\n")
    with tmpfs_room(caller.uid) as there:
        grants = ("--dir=.::/in::ro", f"--dir={there}::/out")
        ended = caller.run(*grants, caller.guest("copy"), "/in/foo.txt", "/out/b")
        assert ended.status == 0, ended
        assert (there / "b").read_text() == "text\n"


def memory_quota(caller: Caller) -> None:
    """memory.grow past the quota is refused, and the guest goes on."""
    ended = caller.run("--memory", "32MiB", caller.guest("quota"), "memory", "1000")
    assert ended.status == 0, ended
    assert int(ended.out.split()[-1]) == 32 * MIB // 65536, ended.out


def scratch_space(caller: Caller) -> None:
    """A tmpfs of the run's own takes what it was given and no more."""
    scratch = ("--tmpfs", "/s:1MiB", caller.guest("quota"), "size", "/s/file")
    assert caller.run(*scratch, str(MIB // 2)).out == "written\n"
    assert "No space left" in caller.run(*scratch, str(2 * MIB)).out


def no_cache(caller: Caller) -> None:
    """Without a place for the compile cache the module is compiled for this run alone."""
    caller.env["WASISUP_CACHE_DIR"] = "/proc/cache"
    ended = caller.run("--dir=.", caller.guest("hello"))
    assert (ended.status, ended.out) == (0, "hello, world\n"), ended


def worker(caller: Caller) -> None:
    """Of a worker in its guest: both filters, no capability, no new privileges, its own uid."""
    with waiting(caller) as pid:
        status = status_of(pid)
        assert status["Seccomp"] == "2", status
        assert status["Seccomp_filters"] == "2", status
        assert status["NoNewPrivs"] == "1", status
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, status
        assert int(status["CapBnd"], 16) == 0, status
        assert set(status["Uid"].split()) == {str(caller.uid)}, status
        network = os.readlink(f"/proc/{pid}/ns/net")
        assert network != os.readlink("/proc/self/ns/net")


def doctor(caller: Caller) -> None:
    """Runs with every wall are possible, and what this kernel's Landlock lacks is said."""
    ended = caller.call(caller.command, "doctor", "--json")
    found = json.loads(ended.out)
    checks = {check["name"]: check for check in found["checks"]}
    assert (ended.status, found["ok"], found["missing_walls"]) == (0, True, []), ended.out
    assert checks["landlock"]["state"] == "limited", checks["landlock"]
    assert checks["landlock"]["detail"].startswith("ABI 2: files"), checks["landlock"]
    assert "TCP" in checks["landlock"]["fix"], checks["landlock"]
    assert " 6.1." in checks["kernel"]["detail"], checks["kernel"]
    assert checks["cgroup"]["state"] == "optional", checks["cgroup"]
    assert "Delegate=yes" in checks["cgroup"]["fix"], checks["cgroup"]


def group_wall(caller: Manager) -> None:
    """A run in a delegated group reports the wall, and prints as ever."""
    ended = caller.run(caller.guest("hello"), before=caller.unit)
    assert (ended.status, ended.out) == (0, "hello, world\n"), ended
    assert ended.report["walls"] == [*WALLS, "cgroup"], ended.report["walls"]


def group_limits(caller: Manager) -> None:
    """The kernel has the limits, and the worker is alone in its group while it lives."""
    with waiting(caller, "--memory", "32MiB", before=caller.unit) as pid:
        group = group_of(pid)
        assert group.name.startswith("wasisup-run-"), group
        files = "memory.max memory.swap.max pids.max pids.current cgroup.procs".split()
        read = {name: (group / name).read_text().split() for name in files}
        assert int(read["memory.max"][0]) == (32 + OVERHEAD) * MIB, read
        assert read["pids.max"] == read["pids.current"] == ["1"], read
        assert read["cgroup.procs"] == [str(pid)], read
        assert read["memory.swap.max"] == ["0"], read
    assert not group.exists()


def group_out_of_memory(caller: Manager) -> None:
    """Memory that no other quota counts: a granted directory that lies on a tmpfs."""
    with tmpfs_room(caller.uid_of_files) as there:
        big = ("--memory", "32MiB", "--file-size", "512MiB", f"--dir={there}::/d")
        write = (caller.guest("quota"), "size", "/d/file", str(400 * MIB))
        ended = caller.run(*big, *write, before=caller.unit)
        assert ended.status == 137, ended
        size = (there / "file").stat().st_size
    assert (ended.report["reason"], ended.report["signal"]) == ("memory", 9), ended.report
    assert "memory" in ended.err, ended
    assert 32 * MIB < size <= (32 + OVERHEAD) * MIB, size


def group_room(caller: Manager) -> None:
    """Scratch space and memory, each filled to the brim, fit into the group."""
    both = ("--memory", "32MiB", "--tmpfs", "/s:32MiB", caller.guest("quota"))
    ended = caller.run(*both, "size", "/s/file", str(32 * MIB), before=caller.unit)
    assert (ended.status, ended.out) == (0, "written\n"), ended


def group_killed(caller: Manager) -> None:
    """With the supervisor the worker is gone, and the group with the unit."""
    unit = f"{caller.name}-killed"
    process = caller.start(
        *caller.unit[:-1], f"--unit={unit}", "--", caller.command, "run", caller.guest("wait")
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        worker = worker_of(caller)
        group = group_of(worker)
        gone = select.poll()
        gone.register(os.pidfd_open(worker), select.POLLIN)
        os.kill(int(status_of(worker)["PPid"]), signal.SIGKILL)
        assert gone.poll(WAIT * 1000)
    # Waits for what the service manager still has to do.
    kind = "scope" if caller.name == "root" else "service"
    subprocess.run(["systemctl", "stop", f"{unit}.{kind}"], capture_output=True, check=False)
    assert not group.exists()
    assert not group.parent.exists()


def group_gone(caller: Manager) -> None:
    """Afterwards the delegated group is as it was: nothing below it, no controller passed on."""
    look = (str(caller.folder / "venv/bin/python"), "-c", AND_THEN_LOOK)
    for words, status in (
        ((caller.guest("hello"),), 0),
        (("nothing-here.wasm",), 127),
        (("--dir=nothing-here", caller.guest("hello")), 125),
    ):
        ended = caller.call(*caller.unit, *look, "run", *words)
        assert ended.out, ended
        found = json.loads(ended.out.splitlines()[-1])
        assert found["status"] == status, ended
        assert (found["below"], found["control"]) == ([], []), found


def group_doctor(caller: Manager) -> None:
    """In a delegated group `doctor` says so, and its trial run has that wall."""
    ended = caller.call(*caller.unit, caller.command, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(ended.out)["checks"]}
    assert ended.status == 0, ended
    assert checks["cgroup"]["state"] == "ok", checks["cgroup"]
    assert "cgroup" in checks["trial run"]["detail"], checks["trial run"]


PLAIN: tuple[Callable[[Caller], None], ...] = (
    hello, pulley, copy_without_directory, copy_with_directory, read_only, another_file_system,
    memory_quota, scratch_space, no_cache, worker, doctor,
)  # fmt: skip
DELEGATED: tuple[Callable[[Manager], None], ...] = (
    group_wall, group_limits, group_out_of_memory, group_room, group_gone, group_killed,
    group_doctor,
)  # fmt: skip
CALLERS = ("root", "user")


def names() -> list[str]:
    """Every case, as it is called in the results."""
    below = [f"{case.__name__}-{caller}" for case in (*PLAIN, *DELEGATED) for caller in CALLERS]
    return below + [f"{case.__name__}-service" for case in daemon_cases.CASES]


@contextlib.contextmanager
def tmpfs_room(uid: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chown(folder, uid, uid)
        yield Path(folder)


@contextlib.contextmanager
def waiting(caller: Caller, *words: str, before: tuple[str, ...] = ()) -> Iterator[int]:
    """A guest that waits for its stdin; yields the worker's pid, and ends the run well."""
    with caller.start(
        *before, caller.command, "run", *PATIENCE, *words, caller.guest("wait")
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        try:
            assert line == "ready\n", process.stderr.read()
            yield worker_of(caller)
        finally:
            process.stdin.close()
            errors = process.stderr.read()
            status = process.wait(WAIT)
        assert status == 0, errors


def worker_of(caller: Caller) -> int:
    """The pid of the only worker whose room is the caller's: the first of a pid namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, KeyError):
            status = status_of(int(entry.name))
            uid = USER_ID if caller.name == "user" else 0
            if status["NSpid"].split()[1:] == ["1"] and status["Uid"].split()[0] == str(uid):
                found.append(int(entry.name))
    assert len(found) == 1, found
    return found[0]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def group_of(pid: int) -> Path:
    return Path(f"{CGROUPS}{Path(f'/proc/{pid}/cgroup').read_text().strip().removeprefix('0::')}")


def check(case: Callable[[Any], None], kind: type[Caller], name: str, folder: Path) -> str:
    """Carries out one case in an empty directory of its own."""
    room = Path(tempfile.mkdtemp(prefix="case-", dir="/var/tmp"))
    try:
        uid = 0 if name == "root" else USER_ID
        os.chown(room, uid, uid)
        case(kind(name, folder, room))
    except Exception:
        return traceback.format_exc()
    finally:
        shutil.rmtree(room)
    return "ok"


def check_service(case: Callable[[daemon_cases.Service], None], folder: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="case-", dir="/var/tmp") as room:
        service = daemon_cases.Service(folder, Path(room))
        try:
            service.begin()
            case(service)
        except Exception:
            return f"{traceback.format_exc()}\n{service.journal()}"
    return "ok"


def main() -> int:
    folder = Path(sys.argv[1])
    results: dict[str, str] = {}

    def all_of(caller: str) -> None:
        for cases, kind in ((PLAIN, Caller), (DELEGATED, Manager)):
            for case in cases:
                result = check(case, kind, caller, folder)
                results[f"{case.__name__}-{caller}"] = result

    with ThreadPoolExecutor(len(CALLERS)) as pool:
        list(pool.map(all_of, CALLERS))
    for case in daemon_cases.CASES:
        results[f"{case.__name__}-service"] = check_service(case, folder)
    (folder / "results.json").write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
