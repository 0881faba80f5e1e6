"""`wasisup run --report`: what it says and where it is written, whatever lies there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.stand_in import Supervisor
from wasisup.supervisor import embedded
from wasisup.supervisor.cli import command
from wasisup.supervisor.errors import WallMissing
from wasisup.supervisor.model import Denial, Outcome, RunRequest


def test_report(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole outcome; the old report stays until the new one is there."""
    Path("real.json").write_text("old")
    Path("r.json").symlink_to("real.json")
    supervisor.end = Outcome(
        reason="timeout", status=124, denials=[Denial("fds", 2, 33, "")], digest="a1b2"
    )
    assert command(["run", "--dir", ".::ro", "--env", "A=s3cret", "--report", "r.json", "m.wasm"])
    text = Path("real.json").read_text()
    report = json.loads(text)
    assert Path("r.json").is_symlink()
    assert (report["schema"], report["reason"], report["status"]) == (1, "timeout", 124)
    assert report["module"] == os.path.abspath("m.wasm")
    assert report["grants"]["dirs"] == [{"host": os.getcwd(), "guest": ".", "read_only": True}]
    assert report["denials"] == [{"kind": "fds", "count": 2, "errno": 33, "path": ""}]
    assert report["digest"] == "a1b2"  # of what ran, by whoever ran it
    assert "s3cret" not in text
    assert sorted(os.listdir()) == ["m.wasm", "r.json", "real.json"]
    capsys.readouterr()
    assert command(["run", "--report", "-", "m.wasm"]) == 124
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["reason"] == "timeout"


def test_report_stays_where_it_was_asked_for(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A guest that may write there puts another directory, and a FIFO for the module, in place."""
    for name in ("sub", "outside"):
        (tmp_path / name).mkdir()

    def run(_: RunRequest, **__: Any) -> Outcome:
        os.rename("sub", "moved")
        os.symlink("outside", "sub")
        os.rename("m.wasm", "old")
        os.mkfifo("m.wasm")
        return Outcome(reason="exit", status=0)

    monkeypatch.setattr(embedded, "run", run)
    assert command(["run", "--report", "sub/r.json", "m.wasm"]) == 0
    assert os.listdir("outside") == []
    assert os.listdir("moved") == ["r.json"]
    assert json.loads(Path("moved/r.json").read_text())["digest"] is None


def test_report_is_not_taken_for_stdin(supervisor: Supervisor, tmp_path: Path) -> None:
    """With stdin closed, what is opened first has its number; the guest would get it."""
    code = (
        "import os, sys; os.close(0)\n"
        "from wasisup.supervisor.cli.report import Target\n"
        "targets = [Target(name) for name in sys.argv[1:]]\n"
        "try: os.fstat(0)\n"
        "except OSError: print('closed')\n"
    )
    os.mkfifo("fifo")
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "r.json"), "fifo"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    finally:
        os.close(reader)
    assert done.stdout == "closed\n"


def test_report_of_a_run_that_could_not_start(supervisor: Supervisor) -> None:
    """The same fields, with what was missing."""
    supervisor.end = WallMissing("no landlock", wall="landlock", step="landlock", errno=38)
    assert command(["run", "--report", "r.json", "m.wasm"]) == 125
    report = json.loads(Path("r.json").read_text())
    assert (report["reason"], report["wall"], report["errno"]) == ("setup", "landlock", 38)
    supervisor.end = Outcome(reason="exit", status=0)
    assert command(["run", "--report", "r2.json", "m.wasm"]) == 0
    assert set(json.loads(Path("r2.json").read_text())) <= set(report)


def test_report_to_a_pipe(supervisor: Supervisor) -> None:
    """What is not a regular file is written to and not replaced."""
    read_end, write_end = os.pipe()
    try:
        assert command(["run", "--report", f"/dev/fd/{write_end}", "m.wasm"]) == 0
        assert json.loads(os.read(read_end, 65536))["reason"] == "exit"
    finally:
        os.close(read_end)
        os.close(write_end)


def test_report_to_a_descriptor_of_a_file(supervisor: Supervisor) -> None:
    """It goes where the descriptor stands; the file is neither replaced nor overwritten."""
    with open("log", "w+") as log:
        log.write("before\n")
        log.flush()
        assert command(["run", "--report", f"/dev/fd/{log.fileno()}", "m.wasm"]) == 0
    first, second = Path("log").read_text().splitlines()
    assert first == "before"
    assert json.loads(second)["reason"] == "exit"
