"""The daemon as a service: cases that root carries out inside the machine, one after the other.

They use what `wasisup install` placed, and talk to the API with the standard library.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MIB = 1 << 20
OVERHEAD = 64  # as in inside.py
WAIT = 300  # seconds; nothing takes so long that works
SOCKET = "/run/wasisup/wasisup.sock"
CONFIG = Path("/etc/wasisup/wasisup.toml")
POLICIES = Path("/etc/wasisup/policies")
DROP_IN = Path("/run/systemd/system/wasisup.service.d/test.conf")
GROUP = Path("/sys/fs/cgroup/wasisup.slice/wasisup.service")
USER = "tester"
USER_ID = 1000
# SYS_ADMIN SYS_CHROOT SETPCAP SETUID SETGID KILL DAC_READ_SEARCH, as in linux/capability.h
CAPABILITIES = sum(1 << number for number in (21, 18, 8, 7, 6, 5, 2))
# Patience with the emulator: the quotas under test are others.
QUOTAS = {"timeout": "240s", "cpu_time": "120s"}


class Connection(http.client.HTTPConnection):
    """HTTP over the Unix socket."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__("localhost", timeout=WAIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: dict[str, Any] | bytes | None = None) -> Any:
        """The answer as JSON (None without a body), with its status in front."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        kind = "application/json" if isinstance(body, dict) else "application/octet-stream"
        self.request(method, path, data, {"Content-Type": kind} if data is not None else {})
        answer = self.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


class Service:
    """The installed service, stopped, with its default configuration.

    room: an empty directory of root's.
    """

    def __init__(self, folder: Path, room: Path) -> None:
        self.folder = folder
        self.room = room
        self.command = str(folder / "venv/bin/wasisup")

    def begin(self) -> None:
        """Installs at the first time, and forgets what the last case left."""
        if not CONFIG.exists():
            call(self.command, "install")
            call("systemd-sysusers")
            call("systemd-tmpfiles", "--create")
            call("usermod", "-aG", "wasisup", USER)
        call("systemctl", "stop", "wasisup.socket", "wasisup.service")
        CONFIG.write_text("")
        shutil.rmtree(DROP_IN.parent, ignore_errors=True)
        call("systemctl", "daemon-reload")
        call("systemctl", "reset-failed", check=False)
        call("systemctl", "start", "wasisup.socket")

    def drop_in(self, text: str) -> None:
        DROP_IN.parent.mkdir(parents=True)
        DROP_IN.write_text(text)
        call("systemctl", "daemon-reload")

    def show(self, name: str, unit: str = "wasisup.service") -> str:
        return call("systemctl", "show", "--value", "-p", name, unit).strip()

    def until(self, name: str, fits: Callable[[str], bool]) -> str:
        """Asks for a property until it fits; a question takes the emulator most of a second."""
        deadline = time.monotonic() + WAIT
        while not fits(value := self.show(name)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is still {value!r}\n{self.journal()}")
        return value

    def pid(self) -> int:
        """The daemon's, once it has started; what happens in the meantime is waited for."""
        Connection().ask("GET", "/v1/healthz")
        return int(self.show("MainPID"))

    def journal(self) -> str:
        return call("journalctl", "-u", "wasisup.service", "-n", "50", "--no-pager", check=False)

    def guest(self, name: str, *args: str, **more: Any) -> dict[str, Any]:
        """A request for a run of that guest."""
        module = {"path": str(self.folder / "guests" / f"{name}.wasm")}
        quotas = {**QUOTAS, **more.pop("quotas", {})}
        return {"module": module, "args": list(args), "quotas": quotas, **more}

    def run(self, name: str, *args: str, **more: Any) -> dict[str, Any]:
        """The record of a run that has ended."""
        request = self.guest(name, *args, wait=True, **more)
        status, run = Connection().ask("POST", "/v1/runs", request)
        assert status == 200, (status, run, self.journal())
        return run  # type: ignore[no-any-return]


def activation(service: Service) -> None:
    """Nothing runs until the first connection, which starts the daemon and is answered."""
    assert service.show("ActiveState") == "inactive"
    assert service.show("ActiveState", "wasisup.socket") == "active"
    mode = os.stat(SOCKET)
    assert (mode.st_mode & 0o777, mode.st_uid) == (0o660, 0)
    run = service.run("hello")
    assert (run["stdout"], run["outcome"]["status"]) == ("hello, world\n", 0), run
    assert service.show("ActiveState") == "active"
    assert "cgroup" in run["outcome"]["walls"], run
    assert service.show("StatusText")
    entries = call("journalctl", f"RUN_ID={run['id']}", "UID=0", "POLICY=default", "--no-pager")
    assert "reason=exit" in entries, entries


def restricted(service: Service) -> None:
    """Of the daemon: the capabilities that its unit leaves it, a filter, no new privileges."""
    status = status_of(service.pid())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == CAPABILITIES, status
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status


def ordinary_user(service: Service) -> None:
    """A member of the group has runs of their own uid, in directories that nobody else enters."""
    private = Path(f"/home/{USER}/private")
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(0o700)
    (private / "in.txt").write_text("text\n")
    for path in (private, private / "in.txt"):
        os.chown(path, USER_ID, USER_ID)
    os.chmod(private.parent, 0o700)
    copy = ("copy", "in.txt", "out.txt")
    env = {"PATH": "/usr/bin:/bin", "HOME": f"/home/{USER}", "WASISUP_SOCKET": SOCKET}
    groups = [int(call("getent", "group", "wasisup").split(":")[2])]
    words = ["--timeout", "240s", "--cpu-time", "120s", "--dir=."]
    done = subprocess.run(
        [service.command, "run", *words, str(service.folder / "guests/copy.wasm"), *copy[1:]],
        cwd=private,
        env=env,
        user=USER_ID,
        group=USER_ID,
        extra_groups=groups,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done, service.journal())
    out = (private / "out.txt").stat()
    assert (out.st_uid, out.st_size) == (USER_ID, 5), out
    _, runs = Connection().ask("GET", "/v1/runs?limit=1")
    assert runs["runs"][0]["uid"] == USER_ID, runs


def stranger(service: Service) -> None:
    """Who is not in the group does not get a connection."""
    done = subprocess.run(
        [service.command, "ps", "--socket", SOCKET],
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125, done
    assert "ermission denied" in done.stderr, done


def another_file_system(service: Service) -> None:
    """What was mounted after the daemon's start can be granted, too."""
    service.pid()
    where = service.room / "mount"
    where.mkdir()
    call("mount", "-t", "tmpfs", "tmpfs", str(where))
    try:
        (where / "in.txt").write_text("text\n")
        dirs = [{"path": str(where), "guest": "."}]
        run = service.run("copy", "in.txt", "out.txt", dirs=dirs)
        assert run["outcome"]["status"] == 0, run
        assert (where / "out.txt").read_text() == "text\n"
    finally:
        call("umount", str(where))


def watchdog(service: Service) -> None:
    """A daemon that is frozen is replaced, and who asks meanwhile gets an answer."""
    service.drop_in("[Service]\nWatchdogSec=10\n")
    old = service.pid()
    os.kill(old, signal.SIGSTOP)
    wait_for_end(old)
    new = service.pid()
    assert new not in (0, old)
    assert int(service.show("NRestarts")) >= 1
    assert service.run("hello")["outcome"]["reason"] == "exit"


def killed(service: Service) -> None:
    """A killed daemon is back at once; its run has gone with it, and its record says so."""
    old = service.pid()
    with waiting(service) as (run, worker):
        os.kill(old, signal.SIGKILL)
        wait_for_end(old)
        wait_for_end(worker)
    assert service.pid() not in (0, old)
    _, record = Connection().ask("GET", f"/v1/runs/{run}")
    assert (record["state"], record["outcome"]["interrupted"]) == ("ended", True), record
    assert service.run("hello")["outcome"]["reason"] == "exit"
    assert not list(GROUP.glob("wasisup-run-*"))


def reload(service: Service) -> None:
    """A good file is in force after `systemctl reload`, and runs go on; a broken one is named."""
    pid = service.pid()
    with waiting(service) as (run, _):
        CONFIG.write_text("[default]\nruns = 7\n")
        call("systemctl", "reload", "wasisup.service")
        until(lambda: Connection().ask("GET", "/v1/info")[1]["caller"]["runs"] == 7)
        CONFIG.write_text("[default]\nruns = 8\nrunz = 9\n")
        call("systemctl", "reload", "wasisup.service")
        until(lambda: "line 3: default.runz" in service.journal())
        assert Connection().ask("GET", "/v1/info")[1]["caller"]["runs"] == 7
        assert Connection().ask("GET", f"/v1/runs/{run}")[1]["state"] == "running"
    assert (service.show("ActiveState"), service.pid()) == ("active", pid)


def drain(service: Service) -> None:
    """On a stop nothing more is admitted, and what runs may end by itself."""
    pid = service.pid()
    kept = Connection()
    with waiting(service) as (run, _):
        assert kept.ask("GET", "/v1/healthz")[0] == 200
        call("systemctl", "stop", "--no-block", "wasisup.service")
        service.until("ActiveState", lambda state: state == "deactivating")
        status, answer = kept.ask("POST", "/v1/runs", service.guest("hello"))
        assert (status, answer["error"]["code"]) == (503, "stopping"), answer
        assert service.pid() == pid
    wait_for_end(pid)
    _, record = Connection().ask("GET", f"/v1/runs/{run}")
    assert (record["outcome"]["reason"], record["outcome"]["status"]) == ("exit", 0), record


def drain_limit(service: Service) -> None:
    """What has not ended by itself is killed when its time is up, and the stop is a clean one."""
    CONFIG.write_text('[limits]\ndrain = "1s"\n')
    with waiting(service) as (run, worker):
        call("systemctl", "stop", "wasisup.socket", "wasisup.service")
        wait_for_end(worker)
    assert service.show("Result") == "success", service.journal()
    assert not GROUP.exists()
    call("systemctl", "start", "wasisup.socket")
    _, record = Connection().ask("GET", f"/v1/runs/{run}")
    assert (record["state"], record["outcome"]["reason"]) == ("ended", "killed"), record


def memory(service: Service) -> None:
    """memory.max counts what no other quota does: a granted directory that lies on a tmpfs."""
    where = Path("/dev/shm/wasisup-test")
    where.mkdir()
    try:
        run = service.run(
            "quota", "size", "/d/file", str(400 * MIB),
            dirs=[{"path": str(where), "guest": "/d"}],
            quotas={"memory": 32 * MIB, "file_size": "512MiB"},
        )  # fmt: skip
        size = (where / "file").stat().st_size
    finally:
        shutil.rmtree(where)
    outcome = run["outcome"]
    assert (outcome["reason"], outcome["status"]) == ("memory", 137), run
    assert 32 * MIB < size <= (32 + OVERHEAD) * MIB, size
    assert outcome["usage"]["cgroup_memory_peak"] > 32 * MIB, run
    assert service.run("hello")["outcome"]["reason"] == "exit"


def limits(service: Service) -> None:
    """The kernel has the run's limits while it lives, and no group is left afterwards."""
    with waiting(service, quotas={"memory": 32 * MIB, "cpus": 0.5}) as (_, worker):
        line = Path(f"/proc/{worker}/cgroup").read_text().strip()
        group = Path(f"/sys/fs/cgroup{line.removeprefix('0::')}")
        assert group.parent == GROUP, group
        names = "memory.max memory.swap.max pids.max cpu.max cgroup.procs".split()
        read = {name: (group / name).read_text().strip() for name in names}
        assert read == {
            "memory.max": str((32 + OVERHEAD) * MIB),
            "memory.swap.max": "0",
            "pids.max": "1",
            "cpu.max": "50000 100000",
            "cgroup.procs": str(worker),
        }, read
    until(lambda: not group.exists())


def processor(service: Service) -> None:
    """cpu.max holds an endless loop to its share: 5 s of it are at least four times as long."""
    run = service.run("spin", quotas={"cpus": 0.2, "cpu_time": "5s"})
    outcome = run["outcome"]
    assert outcome["reason"] == "cpu_time", run
    assert outcome["usage"]["wall_ns"] >= 20 * 10**9, run


def listening(service: Service) -> None:
    """A policy that listens needs the drop-in that the unit describes, and is told so."""
    policy = POLICIES / "listens.toml"
    policy.write_text('tcplisten = ["127.0.0.1:8000"]\n')
    try:
        request = service.guest("hello", policy="listens", wait=True)
        status, answer = Connection().ask("POST", "/v1/runs", request)
        assert status == 503, answer
        assert "wasisup.service" in answer["error"]["hint"], answer
        service.drop_in(
            "[Service]\nPrivateNetwork=no\nRestrictAddressFamilies=AF_INET AF_INET6\n"
            "IPAddressDeny=\n"
        )
        call("systemctl", "restart", "wasisup.service")
        with waiting(service, policy="listens"):
            socket.create_connection(("127.0.0.1", 8000), WAIT).close()
    finally:
        policy.unlink()


def user_unit(service: Service) -> None:
    """An ordinary user's own daemon: installed, activated, with control groups of its own."""
    call("systemctl", "start", f"user@{USER_ID}.service")
    runtime = f"/run/user/{USER_ID}"
    path = f"{runtime}/wasisup/wasisup.sock"
    as_user = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--",
               "env", "-i", f"HOME=/home/{USER}", f"XDG_RUNTIME_DIR={runtime}",
               "PATH=/usr/bin:/bin")  # fmt: skip
    call(*as_user, service.command, "install", "--user")
    call(*as_user, "systemctl", "--user", "daemon-reload")
    call(*as_user, "systemctl", "--user", "enable", "--now", "wasisup.socket")
    assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o777) == (USER_ID, 0o600)
    done = call(*as_user, service.command, "run", "--socket", path, "--timeout=240s",
                "--cpu-time=120s", "--report=/dev/stderr",
                str(service.folder / "guests/hello.wasm"))  # fmt: skip
    assert done.startswith("hello, world\n"), done
    shown = call(*as_user, "systemctl", "--user", "show", "wasisup.service")
    assert "ActiveState=active" in shown, shown
    # Its worker stood in a group of its own, where the manager has the controllers for it.
    assert '"cgroup"' in done, done
    call(*as_user, "systemctl", "--user", "stop", "wasisup.socket", "wasisup.service")
    call(*as_user, service.command, "install", "--user", "--uninstall")
    call("systemctl", "stop", f"user@{USER_ID}.service")


CASES: tuple[Callable[[Service], None], ...] = (
    activation, restricted, ordinary_user, stranger, another_file_system, watchdog, killed, reload,
    drain, drain_limit, memory, limits, processor, listening, user_unit,
)  # fmt: skip


def call(*command: str, check: bool = True) -> str:
    """What it printed.  Raises AssertionError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0 or not check, done
    return done.stdout + done.stderr


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline


def wait_for_end(pid: int) -> None:
    """Of a process, by its pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        gone = select.poll()
        gone.register(fd, select.POLLIN)
        assert gone.poll(WAIT * 1000), f"process {pid} is still there"
    finally:
        os.close(fd)


@contextlib.contextmanager
def waiting(service: Service, **more: Any) -> Iterator[tuple[str, int]]:
    """A detached run that waits for its stdin: its id and its worker's pid.  Ends it."""
    reader, writer = os.pipe()
    try:
        request = service.guest("wait", stdin={"fd": 0}, **more)
        body = json.dumps(request).encode()
        head = f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection = Connection()
        connection.connect()
        data = f"{head}Content-Type: application/json\r\n\r\n".encode() + body
        socket.send_fds(connection.sock, [data], [reader])
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        run = json.loads(answer.read())
        assert answer.status == 201, run
        url = f"/v1/runs/{run['id']}/logs?follow=1&stream=stdout"
        follow = Connection()
        follow.request("GET", url)
        assert follow.getresponse().readline() == b"ready\n", service.journal()
        _, record = Connection().ask("GET", f"/v1/runs/{run['id']}")
        yield run["id"], record["pid"]
    finally:
        os.close(reader)
        os.close(writer)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
