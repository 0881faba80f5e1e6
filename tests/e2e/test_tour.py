"""The README's tour of the service is carried out as it stands there, by an ordinary user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.needs import unavailable

README = Path(__file__).resolve().parents[2] / "README.md"
PATIENCE = 120  # seconds
START = "wasisup daemon &"


def blocks(heading: str) -> Iterator[list[str]]:
    """The indented blocks of a section, up to its first sub-section."""
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    block: list[str] = []
    for line in [*section.splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block.append(line)
        elif block:
            yield textwrap.dedent("\n".join(block)).splitlines()
            block = []


def commands(heading: str) -> list[str]:
    """What stands behind `$ `, with the lines below that still belong to the command."""
    found: list[str] = []
    for block in blocks(heading):
        open_ = False
        for line in block:
            if line.startswith("$ "):
                found.append(line.removeprefix("$ "))
            elif open_:
                found[-1] += f"\n{line}"
            else:
                continue  # what the command prints
            open_ = not is_whole(found[-1])
    return found


def is_whole(command: str) -> bool:
    if "<<'END'" in command:
        return command.endswith("\nEND")
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What makes root an ordinary user."""
    return request.getfixturevalue("as_user").prefix if os.getuid() == 0 else ()


def test_the_tour(wasisup, prefix, room: Path, cache_root: Path) -> None:
    """Upload, run with stdin and limits, follow logs, kill, read the record: with curl alone."""
    owner = 65534 if prefix else os.getuid()
    home, runtime = room / "home", room / "run"
    for folder in (home, runtime):
        folder.mkdir(mode=0o700)
        os.chown(folder, owner, owner if prefix else -1)
    ready = room / "ready"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(ready))
        ready.chmod(0o777)
        told.settimeout(PATIENCE)
        env = {
            **wasisup.env,
            "PATH": f"{Path(wasisup.argv()[0]).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "WASISUP_CACHE_DIR": str(home / "cache"),
        }
        probe = [*prefix, "bash", "-c", "wasisup --version"]
        if subprocess.run(probe, env=env, capture_output=True, check=False).returncode != 0:
            unavailable("an installation that an ordinary user can run")
        words = commands("As a service")
        assert words[0] == START
        with subprocess.Popen(
            [*prefix, "wasisup", "daemon"],
            env={**env, "NOTIFY_SOCKET": str(ready)},
            cwd=home,
            stderr=subprocess.PIPE,
        ) as daemon:
            try:
                while b"READY=1" not in told.recv(4096):
                    pass
                hello = next(word for word in commands("Five minutes") if "hello.wat" in word)
                script = "\n".join(["set -eu", hello, *words[1:], "wait"])
                done = subprocess.run(
                    [*prefix, "bash", "-c", script],
                    env=env,
                    cwd=home,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
            finally:
                daemon.send_signal(signal.SIGTERM)
                errors = daemon.communicate(timeout=PATIENCE)[1]
    assert done.returncode == 0, done.stdout + done.stderr + errors.decode()
    for expected in (
        "hello, world\n",  # through the daemon
        '"stdout":"hello\\n"',  # waited for, with stdin
        "one line\n",  # followed while it ran
        '"labels":{"tour":"yes"}',
        '"reason":"killed"',
        '"openapi":"3.1.0"',
        'wasisup_runs_total{policy="default",reason="killed"} 1.0',
    ):
        assert expected in done.stdout, expected
    assert daemon.returncode == 0
