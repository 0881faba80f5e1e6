"""What is kept: records and output, on a disk that is full, damaged or gone."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from support.chaos import begin
from wasisup.supervisor.client.options import PIPE
from wasisup.supervisor.client.sync import Client
from wasisup.supervisor.errors import ApiError
from wasisup.supervisor.wire import Run


def test_records_survive(service, guests):
    """Records, kept output and known modules are there after a restart and after SIGKILL."""
    daemon = service()
    with daemon.client() as client:
        info = client.add_module(guests.c("stdio"))
        done = client.run(info, ["both"], labels={"for": "ever"})
        large = client.start(info, ["pour", "300000"])
        assert client.wait(large).outcome.reason == "exit"
    for end in (daemon.stop, daemon.kill):
        end()
        daemon.start()
        with daemon.client() as client:
            assert client.get(done.run.id) == _without_output(done.run)
            found = {(one.stream, one.data) for one in client.logs(done.run)}
            assert found == {("stdout", b"out\n"), ("stderr", b"err\n")}
            assert sum(len(one.data) for one in client.logs(large)) == 300000
            assert [one.id for one in client.runs(label="for=ever")] == [done.run.id]
            assert client.run(info, ["exit", "0"]).exit_code == 0


def test_output_survives_sigkill(service, guests):
    """What a detached run wrote until the daemon was killed is kept, and the run marked."""
    daemon = service()
    with daemon.client() as client:
        run = begin(client, guests.c("stdio"), "spin")
    assert daemon.kill() == set()
    daemon.start()
    with daemon.client() as client:
        record = client.get(run)
        assert record.state == "ended"
        assert (record.outcome.reason, record.outcome.interrupted) == ("killed", True)
        assert [(one.stream, one.data) for one in client.logs(run)] == [("stdout", b"ready\n")]
        assert os.listdir(daemon.state / "logs") == []
    assert daemon.events("found a run of a daemon that was killed")[0]["run"] == run


def test_files_of_nobody_are_removed(service, guests):
    """What a daemon that was killed left between a file and its record is removed at the start."""
    daemon = service()
    with daemon.client() as client:
        large = client.start(guests.c("stdio"), ["pour", "300000"])
        client.wait(large)
        info = client.add_module(guests.c("stdio"))
    daemon.kill()
    logs, modules = daemon.state / "logs", daemon.state / "modules"
    kept = sorted(os.listdir(logs)), sorted(os.listdir(modules))
    (logs / "0123456789abcdef.stdout").write_bytes(b"before its record was made")
    (modules / ".0123456789abcdef").write_bytes(b"half a module")
    (modules / f"{'0' * 64}.wasm").write_bytes(b"before its record was made")
    daemon.start()
    assert (sorted(os.listdir(logs)), sorted(os.listdir(modules))) == kept
    with daemon.client() as client:
        assert sum(len(one.data) for one in client.logs(large)) == 300000
        assert client.run(info, ["exit", "4"]).exit_code == 4


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 100), "damaged"),
        (_newer, "of version 99"),
    ],
    ids=["damaged", "newer"],
)
def test_records_that_cannot_be_used(service, damage, words):
    """A damaged or newer database is an error at the start, in words, and stays as it is."""
    daemon = service()
    daemon.stop()
    path = daemon.state / "records.db"
    damage(path)
    before = path.read_bytes()
    daemon.log_path.unlink()
    daemon.spawn()
    assert daemon.wait() == 125
    assert words in daemon.log()
    assert "Traceback" not in daemon.log()
    assert path.read_bytes() == before
    path.unlink()
    daemon.start()


def test_a_full_disk(service, guests, room):
    """Without room for records runs are refused with 507; all goes on once there is room again."""
    if os.getuid() != 0:
        pytest.skip("root mounts a file system of its own for the state")
    state = room / "state"
    state.mkdir()
    mount = 'mount -t tmpfs -o size=1m,mode=0700 state "$0" && exec "$@"'
    daemon = service(prefix=("unshare", "--mount", "sh", "-c", mount, str(state)))
    filler = daemon.inside(state) / "filler"
    with daemon.client() as client:
        run = begin(client, guests.c("stdio"), "block", stdin=PIPE)
        _fill(filler)
        # What is free in the last blocks of the files that are there takes a few more.
        refused = _until_refused(client, guests.c("stdio"))
        assert (refused.status, refused.code) == (507, "no_room")
        with pytest.raises(ApiError) as no_room:
            client.add_module(guests.c("append"))
        assert no_room.value.status == 507
        assert client.health().status == "ok"
        client.write_stdin(run, b"\x05", close=True)
        assert client.wait(run).outcome.exit_code == 5
        assert client.get(run).outcome.exit_code == 5
        filler.unlink()
        assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4
        assert client.add_module(guests.c("append")).stored
    assert daemon.metric("wasisup_refused_total") == 1
    held = os.open(daemon.inside(state), os.O_RDONLY | os.O_DIRECTORY)
    daemon.stop()
    # The mount has gone with its last process; the descriptor keeps the file system.
    with closing(sqlite3.connect(_copied(held, room / "copy"))) as database:
        rows = database.execute("SELECT reason FROM runs WHERE id = ?", [run]).fetchall()
        assert rows == [("exit",)]
        assert database.execute("SELECT count(*) FROM runs WHERE ended IS NULL").fetchone() == (0,)
    os.close(held)


def _copied(folder: int, to: Path) -> Path:
    """A copy of the database in a directory that is open."""
    to.mkdir()
    for name in os.listdir(folder):
        if name.startswith("records.db"):
            with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
                (to / name).write_bytes(file.read())
    return to / "records.db"


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017


def _until_refused(client: Client, module: Path) -> ApiError:
    for _ in range(1000):
        try:
            client.run(module, ["exit", "0"])
        except ApiError as error:
            return error
    raise AssertionError("there is room for ever")


def test_the_state_directory_vanishes(service, guests):
    """Without its state directory the daemon lives, refuses what it cannot do, and can restart."""
    daemon = service()
    with daemon.client() as client:
        client.run(guests.c("stdio"), ["exit", "0"])
        shutil.rmtree(daemon.state)
        with pytest.raises(ApiError) as refused:
            client.start(guests.c("stdio"), ["exit", "0"])
        assert refused.value.status == 507
        assert client.health().status == "ok"
        assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4
        daemon.stop()
    daemon.start()
    with daemon.client() as client:
        assert client.runs() == []
        run = client.start(guests.c("stdio"), ["exit", "4"])
        assert client.wait(run).outcome.exit_code == 4


def _without_output(run: Run) -> Run:
    return msgspec.structs.replace(run, stdout=UNSET, stderr=UNSET)
