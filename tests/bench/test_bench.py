"""The benchmark still runs, and answers every question; how fast is not a test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent / "run.py"
KEYS = [
    "latency",
    "file-write",
    "file-read",
    "file-create",
    "file-stat",
    "compute-sieve",
    "compute-matmul",
    "compute-sha256",
    "compute-fib",
    "compute-sort",
    "memory",
    "command",
    "component",
    "component-command",
    "network-connections",
    "network-send",
    "network-receive",
    "service-latency-p50",
    "service-latency-p99",
    "service-latency-turns-p50",
    "service-latency-turns-p99",
    "service-throughput",
    "service-load-cpu",
    "service-memory",
    "service-ps",
    "service-serial-cpu",
    "service-rss",
    "serve-latency-p50",
    "serve-latency-p99",
    "serve-throughput",
]


@pytest.mark.usefixtures("wasisup")
def test_every_row_is_there(tmp_path: Path) -> None:
    """--quick prints a table with every row, and the JSON holds figures for each."""
    report = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, RUN, "--quick", "--json", report],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    assert [row["key"] for row in data["rows"]] == KEYS
    assert {"processor", "kernel", "peer", "engine"} <= set(data["machine"])
    for row in data["rows"]:
        assert row["what"] in done.stdout
        assert row["peer"]["median"] > 0
        if row["key"] in ("memory", "service-memory") and os.geteuid() != 0:
            continue  # only root may look into a worker
        assert row["wasisup"]["median"] > 0
        assert row["ratio"] > 0
