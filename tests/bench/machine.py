"""What it was measured on: without it, a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path


def facts(room: Path, wasmtime: Path) -> dict[str, str]:
    """Name -> value, in the order they are worth reading.

    room: the directory in which the file calls are measured.  wasmtime: the peer's binary.
    """
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "wasisup": f"{importlib.metadata.version('wasisup')} ({_kind_of_install()})",
        "engine": f"wasmtime {importlib.metadata.version('wasmtime')} (library)",
        "peer": _release_of(wasmtime),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
        "file calls on": file_system_of(room),
        "load before": load,
    }


def file_system_of(folder: Path) -> str:
    """The type of the file system that `folder` lies on, by the longest mount point above it."""
    best = ("", "unknown")
    where = str(folder.resolve()) + "/"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind = line.split(" ")[:3]
        if where.startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _release_of(wasmtime: Path) -> str:
    done = subprocess.run([wasmtime, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().partition(" (")[0] + " (command line)"


def _kind_of_install() -> str:
    # An editable install puts import hooks into every start of this venv's Python.
    text = importlib.metadata.distribution("wasisup").read_text("direct_url.json") or ""
    return "editable install" if '"editable": true' in text else "plain install"
