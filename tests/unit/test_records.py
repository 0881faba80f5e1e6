"""Records of runs: what is found again, what is forgotten, and what a killed daemon leaves."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wasisup.supervisor import wire
from wasisup.supervisor.daemon.records import Ambiguous, Records, RecordsError
from wasisup.supervisor.errors import SetupError

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
DAY_NS = 86400 * 10**9
GIB = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "records.db")


@pytest.fixture
def records(path: str) -> Iterator[Records]:
    records = Records(path)
    yield records
    records.close()


def ns(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000


def a_run(number: int, uid: int = 1000, **fields: object) -> wire.Run:
    """A run that was created `number` seconds after START, with an id that says so."""
    return wire.Run(
        id=f"{number:016x}",
        state="queued",
        uid=uid,
        gid=uid,
        policy="default",
        module="/srv/m.wasm",
        created=START + timedelta(seconds=number),
        **fields,  # type: ignore[arg-type]
    )


def ended(run: wire.Run, reason: str = "exit") -> wire.Run:
    run.state = "ended"
    run.pid = 4321
    run.started = run.created + timedelta(milliseconds=1)
    run.ended = run.created + timedelta(milliseconds=5)
    run.outcome = wire.Outcome(reason=reason, status=0, exit_code=0)
    return run


def fill(records: Records, numbers: range, output: bytes | None = None) -> None:
    for number in numbers:
        run = a_run(number)
        records.begin(run)
        records.end(ended(run), None if output is None else (output, b""))


def ids(runs: list[wire.Run]) -> list[int]:
    return [int(run.id, 16) for run in runs]


def test_a_run_is_found_as_it_was(records: Records, path: str) -> None:
    """Before and after its end, by this process and by the next."""
    run = a_run(1, labels={"job": "7", "team": "ä"}, args=["x"])
    records.begin(run)
    assert records.get(run.id) == run
    assert records.end(ended(run), (b"out\xff", b"err"))
    assert records.get(run.id) == run
    records.close()
    again = Records(path)
    assert again.get(run.id) == run
    assert again.output(run.id) == (b"out\xff", b"err")
    again.close()


def test_output_is_apart_from_the_record(records: Records) -> None:
    """What a waiting client got in its answer is not in the record, which stays the caller's."""
    run = a_run(1)
    records.begin(run)
    ended(run).stdout = "out"
    run.stderr_base64 = b"\xff"
    records.end(run)
    found = records.get(run.id)
    assert found is not None
    assert found.stdout is found.stderr_base64 is wire.UNSET
    assert run.stdout == "out"
    assert records.output(run.id) is None
    assert records.output("f" * 16) is None


def test_an_end_is_recorded_once(records: Records) -> None:
    """The first counts; a run that never began has none."""
    run = a_run(1)
    assert not records.end(ended(a_run(1)))
    records.begin(run)
    assert records.end(ended(run, "timeout"))
    assert not records.end(ended(a_run(1), "exit"), (b"late", b""))
    found = records.get(run.id)
    assert found is not None
    assert found.outcome is not None
    assert found.outcome.reason == "timeout"
    assert records.output(run.id) is None
    assert records.counts() == {("ended", "timeout"): 1}


def test_processes_of_unfinished_runs(records: Records) -> None:
    """What the next daemon needs to tell whether they are still there."""
    for number in range(4):
        records.begin(a_run(number))
    records.end(ended(a_run(3)))
    records.started([(f"{n:016x}", 100 + n, 5000 + n, "boot") for n in (1, 2, 3)])
    waiting, *running = records.unfinished()
    assert (waiting.run.state, waiting[1:]) == ("queued", (None, None, None))
    assert [row[1:] for row in running] == [(101, 5001, "boot"), (102, 5002, "boot")]
    assert [(row.run.state, row.run.pid) for row in running] == [("running", 101), ("running", 102)]
    assert all(row.run.started is not None for row in running)
    assert records.counts() == {
        ("queued", None): 1,
        ("running", None): 2,
        ("ended", "exit"): 1,
    }
    records.started([])


def test_a_prefix_is_enough(records: Records) -> None:
    """If it is one run's only, of those that the caller may see."""
    for uid, run in ((1, "abc0" + "0" * 12), (2, "abd0" + "0" * 12), (1, "f" * 16)):
        new = a_run(0, uid)
        new.id = run
        records.begin(new)
    assert records.get("f") is not None
    assert records.get("abc") is not None
    assert records.get("ab", uid=2) is not None
    assert records.get("abc", uid=2) is None
    with pytest.raises(Ambiguous):
        records.get("ab")
    for nobody in ("", "g", "%", "ABC0", "abce", "f" * 17, "\udcff", "abc0" + "0" * 12 + "\n"):
        assert records.get(nobody) is None


def test_a_prefix_costs_little(records: Records) -> None:
    """One that many runs of others share is refused, not searched."""
    for number in range(300):
        records.begin(a_run(number, uid=1))
    records.begin(a_run(300, uid=2))
    with pytest.raises(Ambiguous):
        records.get("00", uid=2)
    assert records.get(f"{300:016x}", uid=2) is not None


def test_lists_are_narrowed(records: Records) -> None:
    """By user, state, labels and place, everything at once; the newest first."""
    for number in range(12):
        labels = {"even": str(number % 2 == 0), "third": str(number % 3)} if number else {}
        run = a_run(number, uid=number % 2, labels=labels)
        records.begin(run)
        if number < 8:
            records.end(ended(run))
    records.started([(f"{10:016x}", 1, 1, "boot")])
    assert ids(records.list()) == list(range(11, -1, -1))
    assert ids(records.list(limit=2)) == [11, 10]
    assert ids(records.list(limit=3, before=f"{10:016x}")) == [9, 8, 7]
    assert ids(records.list(before="f" * 16)) == []
    assert ids(records.list(uid=1, limit=2)) == [11, 9]
    assert ids(records.list(state="queued")) == [11, 9, 8]
    assert ids(records.list(uid=0, state="running")) == [10]
    assert ids(records.list(uid=1, state="ended")) == [7, 5, 3, 1]
    assert ids(records.list(labels=[("even", "True")])) == [10, 8, 6, 4, 2]
    assert ids(records.list(labels=[("even", None)], limit=1)) == [11]
    assert ids(records.list(labels=[("third", None), ("even", "True"), ("third", "1")])) == [10, 4]
    labels: list[tuple[str, str | None]] = [("even", "False")]
    assert ids(records.list(1, "ended", labels, 2, before=f"{7:016x}")) == [5, 3]
    assert records.list(labels=[("even", "True"), ("none", None)]) == []


def test_old_runs_are_forgotten(records: Records) -> None:
    """By age since their end; those that have not ended stay, whatever their age."""
    fill(records, range(1, 6))
    records.begin(a_run(0, labels={"a": "b"}))
    done = records.upkeep(DAY_NS, GIB, ns(START + timedelta(days=1, seconds=3, milliseconds=9)))
    assert [int(run, 16) for run in done.removed] == [1, 2, 3]
    assert (done.more, done.error) == (False, None)
    assert records.upkeep(0, GIB, ns(START + timedelta(days=9))).removed == [
        f"{number:016x}" for number in (4, 5)
    ]
    assert ids(records.list()) == [0]
    assert records.counts() == {("queued", None): 1}


def test_the_oldest_make_room(records: Records, path: str) -> None:
    """Records, kept output and log files count together, and the file shrinks."""
    records.begin(a_run(0, labels={"kept": ""}))
    fill(records, range(1, 200), os.urandom(60_000))
    before = records.upkeep(DAY_NS, GIB, ns(START))
    assert before.removed == []
    assert before.size > 199 * 60_000
    assert os.stat(path).st_size >= before.size
    after = records.upkeep(DAY_NS, 2_000_000, ns(START))
    left = ids(records.list())
    assert left == [*range(199, 199 - len(left) + 1, -1), 0]
    assert sorted([*(int(run, 16) for run in after.removed), *left]) == list(range(200))
    assert after.size <= 2_000_000
    assert os.stat(path).st_size < before.size - 4_000_000
    run = a_run(300)
    records.begin(run)
    records.end(ended(run), log_bytes=3_000_000)
    assert run.id in records.upkeep(DAY_NS, 2_000_000, ns(START)).removed
    assert ids(records.list()) == [0]


def test_labels_go_with_their_runs(records: Records, path: str) -> None:
    """Nothing of a forgotten run is left."""
    run = a_run(1, labels={"a": "b"})
    records.begin(run)
    records.end(ended(run))
    records.upkeep(0, GIB, ns(START + timedelta(days=1)))
    assert records.list(labels=[("a", "b")]) == []
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM labels").fetchone() == (0,)
    other.close()


def test_the_log_is_emptied(records: Records, path: str) -> None:
    """A checkpoint puts everything into the database itself."""
    fill(records, range(300))
    log = Path(f"{path}-wal")
    assert log.stat().st_size > 1 << 20
    assert records.upkeep(DAY_NS, GIB, ns(START)).error is None
    assert log.stat().st_size < 10_000
    assert os.stat(path).st_size > 300 * 500


def test_much_is_removed_in_several_calls(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call does a bounded part, and says so."""
    monkeypatch.setattr("wasisup.supervisor.daemon.retention._MOST_REMOVED", 100)
    fill(records, range(300))
    now = ns(START + timedelta(days=2))
    parts = [records.upkeep(DAY_NS, GIB, now) for _ in range(3)]
    assert [(len(part.removed), part.more) for part in parts] == [
        (128, True),
        (128, True),
        (44, False),
    ]
    assert records.counts() == {}


def test_upkeep_next_to_the_loop(records: Records) -> None:
    """Runs begin and end while others are forgotten; each is there or was reported."""
    fill(records, range(1500))
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.extend(records.upkeep(DAY_NS, 400_000, ns(START)).removed)
    )
    thread.start()
    fill(records, range(1500, 2500))
    thread.join()
    assert done
    assert len(done) == len(set(done))
    assert set(done) | {run.id for run in records.list(limit=5000)} == {
        f"{number:016x}" for number in range(2500)
    }
    assert records.counts() == {("ended", "exit"): 2500 - len(done)}


def test_modules(records: Records) -> None:
    """Each user has modules of their own; bytes are kept while somebody stores them."""
    records.remember_module(1, "a" * 64, "m.wasm", 10, False, ns(START))
    records.remember_module(1, "b" * 64, None, 20, True, ns(START) + 1000)
    records.remember_module(2, "b" * 64, "n", 20, True, ns(START))
    assert [(m.digest[0], m.name, m.stored) for m in records.modules(1)] == [
        ("b", None, True),
        ("a", "m.wasm", False),
    ]
    assert records.module(2, "a" * 64) is None
    assert records.module(1, "a" * 64) == wire.ModuleInfo(
        digest="a" * 64, name="m.wasm", size=10, added=START
    )
    assert (records.module_bytes(1), records.module_bytes(2), records.module_bytes(3)) == (
        20,
        20,
        0,
    )
    assert records.forget_module(1, "b" * 64) == 1
    assert records.forget_module(2, "b" * 64) == 0
    assert records.forget_module(2, "b" * 64) == 0
    assert records.module_bytes(1) == 0


def test_a_module_seen_again(records: Records) -> None:
    """Running it changes little; adding it stores and renames it; unused it is forgotten."""
    digest = "a" * 64
    for name, stored, expected in (
        (None, False, (None, False)),
        ("run", False, ("run", False)),
        ("other", False, ("run", False)),
        ("added", True, ("added", True)),
        ("run", False, ("added", True)),
    ):
        records.remember_module(1, digest, name, 10, stored, ns(START))
        info = records.module(1, digest)
        assert info is not None
        assert (info.name, info.stored) == expected
    records.remember_module(1, "b" * 64, None, 10, False, ns(START))
    records.remember_module(1, "c" * 64, None, 10, False, ns(START))
    records.remember_module(1, "c" * 64, None, 10, False, ns(START) + 2 * DAY_NS)
    records.upkeep(DAY_NS, GIB, ns(START) + 2 * DAY_NS)
    assert {info.digest[0] for info in records.modules(1)} == {"a", "c"}


def test_files_are_private(records: Records, path: str) -> None:
    """All of them, and one that was not becomes so."""
    records.begin(a_run(1))
    for suffix in ("", "-wal", "-shm"):
        assert os.stat(path + suffix).st_mode & 0o777 == 0o600
    records.close()
    os.chmod(path, 0o644)
    Records(path).close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_newer_version_is_refused(path: str) -> None:
    """It is not touched, and the message says what to do."""
    Records(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 2")
    other.close()
    with pytest.raises(SetupError, match="version 2") as caught:
        Records(path)
    assert "newer wasisup" in (caught.value.hint or "")


def test_another_database_is_refused(path: str) -> None:
    """A file with tables of something else."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name)")
    other.close()
    with pytest.raises(SetupError, match="something else"):
        Records(path)


def test_damaged_files(path: str) -> None:
    """Damage that shows at once, and damage that shows later."""
    Path(path).write_bytes(b"no database at all" * 100)
    with pytest.raises(SetupError, match="damaged") as caught:
        Records(path)
    assert "move" in (caught.value.hint or "")
    os.unlink(path)
    records = Records(path)
    fill(records, range(100))
    records.close()
    with open(path, "r+b") as file:
        file.seek(20 * 1024)
        file.write(b"\xff" * 60 * 1024)
    with pytest.raises((RecordsError, SetupError), match="damaged"):
        read_all(path)


def read_all(path: str) -> None:
    records = Records(path)
    try:
        records.list()
    finally:
        records.close()


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    """Words, with the system's own."""
    with pytest.raises(SetupError, match="No such file") as caught:
        Records(str(tmp_path / "none" / "records.db"))
    assert caught.value.errno == 2


def test_a_full_disk(records: Records) -> None:
    """An error in words; nothing is half recorded, and all is well once there is room."""
    fill(records, range(10))
    (pages,) = records._db.execute("PRAGMA page_count").fetchone()
    records._db.execute(f"PRAGMA max_page_count = {pages}")
    run = a_run(50, labels={"a": "b"}, args=["x" * 5000])
    with pytest.raises(RecordsError, match="no space left"):
        records.begin(run)
    assert records.get(run.id) is None
    assert records.list(labels=[("a", "b")]) == []
    records._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    records.begin(run)
    assert records.get(run.id) == run


def test_a_disk_that_fails(records: Records, path: str) -> None:
    """The kernel refuses a write: an error in words, and all is well afterwards."""
    fill(records, range(10))
    run = a_run(50)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(f"{path}-wal").st_size, hard))
    try:
        with pytest.raises(RecordsError, match="cannot use the records"):
            records.begin(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert records.get(run.id) is None
    records.begin(run)
    assert ids(records.list(limit=2)) == [50, 9]


def test_upkeep_that_fails(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it removed before counts, and is reported with the error."""
    fill(records, range(100))

    def fail(_: object) -> None:
        raise sqlite3.OperationalError("the disk is gone")

    monkeypatch.setattr("wasisup.supervisor.daemon.retention._Pass.vacuum", fail)
    done = records.upkeep(0, GIB, ns(START + timedelta(days=1)))
    assert len(done.removed) == 100
    assert "the disk is gone" in str(done.error)
    assert records.counts() == {}


# Reports on stdout what it has recorded, one write a line, until it is killed.
DAEMON = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from test_records import GIB, Records, a_run, ended, ns, START
records, first = Records(sys.argv[2]), int(sys.argv[3])
def keep_up():
    while True:
        records.upkeep(1 << 62, GIB, ns(START))
threading.Thread(target=keep_up, daemon=True).start()
for number in range(first, first + 100000):
    run = a_run(number, labels={"n": str(number)} if number % 3 else {})
    records.begin(run)
    os.write(1, b"b%d\\n" % number)
    if number % 4 == 0:
        records.started([(run.id, 1, number, "boot")])
    if number % 5:
        records.end(ended(run), (b"%d" % number * 2000, b""))
        os.write(1, b"e%d\\n" % number)
"""


def kill_in_the_middle(path: str, first: int, after: int) -> list[str]:
    """What it reported until it was killed: at least `after` lines."""
    command = [sys.executable, "-c", DAEMON, str(Path(__file__).parent), path, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        lines = [daemon.stdout.readline() for _ in range(after)]
        daemon.kill()
        lines += daemon.stdout.readlines()
    assert "" not in lines
    return [line.rstrip("\n") for line in lines]


def test_killed_at_any_instant(path: str) -> None:
    """Every run that was reported as begun is there, once, and has ended whole or not at all."""
    random_after = random.Random(7)
    for life in range(4):
        first = life * 1_000_000
        lines = kill_in_the_middle(path, first, random_after.randrange(100, 1500))
        begun = {int(line[1:]) for line in lines if line[0] == "b"}
        finished = {int(line[1:]) for line in lines if line[0] == "e"}
        records = Records(path)
        runs = [run for run in records.list(limit=100_000) if int(run.id, 16) >= first]
        # One more may have been recorded, and killed before it was reported.
        assert begun <= set(ids(runs)) <= begun | {max(begun) + 1}
        assert len(ids(runs)) == len(set(ids(runs)))
        unfinished = {int(row.run.id, 16) for row in records.unfinished()}
        assert finished.isdisjoint(unfinished)
        for run in runs:
            check_whole(records, run, int(run.id, 16) in unfinished)
        assert sum(records.counts().values()) == len(records.list(limit=100_000))
        assert records._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        records.close()


def check_whole(records: Records, run: wire.Run, unfinished: bool) -> None:
    number = int(run.id, 16)
    if unfinished:
        assert run.state in ("queued", "running")
        assert run.outcome is records.output(run.id) is None
    else:
        assert run == ended(a_run(number, labels=run.labels))
        assert records.output(run.id) == (b"%d" % number * 2000, b"")
    found = records.list(labels=[("n", str(number))])
    assert ids(found) == ([number] if number % 3 else [])
