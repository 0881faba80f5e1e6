"""The core's unit tests: each test_*.c here, built with sanitizers from the core's own sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wasisup.runtime import engine

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "runtime" / "core"
PROGRAMS = sorted(path.name for path in HERE.glob("test_*.c"))
# Neither the engine nor the walls: what is tested here is what can be linked without them.
ROOMS = ("base", "spec", "wasi", "network")
# A program that says so gets the engine, too: what works on its types, with the library itself.
NEEDS_ENGINE = "needs: engine"
ENGINE_SOURCES = ("library.c", "wave_lex.c", "wave_parse.c", "wave_print.c", "wave_type.c", "wit.c")
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def engine_header(folder: Path) -> None:
    """Writes the engine's header there, as the build of the core does."""
    package = Path(engine.find_library()).parents[1]
    generate = [sys.executable, str(CORE / "engine/generate_header.py"), str(package)]
    generate += [engine.ENGINE_RELEASE, str(folder / "wasmtime.gen.h")]
    subprocess.run(generate, check=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_unit(program: str, tmp_path: Path) -> None:
    """The program builds without a warning and ends with 0, and the sanitizers are content."""
    binary = tmp_path / "test"
    sources = [str(path) for room in ROOMS for path in sorted((CORE / room).glob("*.c"))]
    command = [os.environ.get("CC", "cc"), *FLAGS, *SANITIZE, f"-I{CORE}", f"-I{HERE}"]
    command += [str(HERE / program), *sources]
    if NEEDS_ENGINE in (HERE / program).read_text():
        engine_header(tmp_path)
        command += [f"-I{tmp_path}", *[str(CORE / "engine" / name) for name in ENGINE_SOURCES]]
    built = subprocess.run(
        [*command, "-o", str(binary), "-ldl", "-lm"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    # Leaks are looked for by ptrace, which not every sandbox that runs tests lets through.
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    env["WASMTIME_LIBRARY"] = engine.find_library()
    done = subprocess.run(
        [str(binary)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
