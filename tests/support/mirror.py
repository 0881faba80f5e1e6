"""Compiles small C programs against the core's headers, to compare them with the Python side."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CORE = Path(__file__).parents[2] / "runtime" / "core"


def compiler() -> str | None:
    """A C compiler, or None."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compile_c(source: str, folder: Path, core_files: Sequence[str] = ()) -> Path:
    """Compiles `source` with the named files of the core; returns the program."""
    path = folder / "mirror.c"
    path.write_text(source)
    program = folder / "mirror"
    cc = compiler()
    assert cc is not None
    files = [str(path), *(str(CORE / name) for name in core_files)]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", f"-I{CORE}", "-Wall", "-Werror"]
    subprocess.run([cc, *flags, *files, "-o", str(program)], check=True)
    return program


def values(expressions: Sequence[str], headers: Sequence[str], folder: Path) -> dict[str, int]:
    """The values of C constant expressions, as the headers define them."""
    includes = "".join(f"#include <{header}>\n" for header in ("stdio.h", "stddef.h", *headers))
    prints = "".join(f'printf("%llu\\n", (unsigned long long)({e}));\n' for e in expressions)
    program = compile_c(f"{includes}int main(void) {{\n{prints}return 0;\n}}\n", folder)
    out = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return dict(zip(expressions, (int(line) for line in out.split()), strict=True))
