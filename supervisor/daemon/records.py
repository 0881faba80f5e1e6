"""Records of runs and of the modules that callers know, in SQLite.

One connection, used by the event loop's thread; every change is one commit.  What needs fsync or
takes long is `upkeep`, which a thread of its own runs with a connection of its own.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from .. import wire
from . import retention
from .database import RecordsError, cannot_open, in_words, open_database, transaction
from .retention import Upkeep

__all__ = ["SMALL_OUTPUT", "Ambiguous", "Records", "RecordsError", "Unfinished", "Upkeep"]

SMALL_OUTPUT = 64 << 10  # bytes of stdout and stderr together that belong in here, not in files

MOST_LISTED = 8 << 20  # bytes of documents after which a list ends

_PREFIX = re.compile(r"[0-9a-f]{1,16}")
_MAX_CANDIDATES = 256  # rows that one prefix may cost

_BEGIN = """
INSERT INTO runs (id, uid, state, created, started, pid, document) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_STARTED = """
UPDATE runs SET state = 'running', pid = ?, pid_start_ticks = ?, boot_id = ?,
    started = coalesce(started, ?)
WHERE id = ? AND ended IS NULL
"""
_END = """
UPDATE runs SET state = 'ended', reason = ?, started = ?, ended = ?, pid = ?, log_bytes = ?,
    document = ?, stdout = ?, stderr = ?
WHERE id = ? AND ended IS NULL
"""
_GET = "SELECT state, pid, started, document, uid FROM runs WHERE id >= ? AND id < ? LIMIT ?"
_UNFINISHED = """
SELECT state, pid, started, document, pid_start_ticks, boot_id FROM runs
WHERE ended IS NULL ORDER BY seq
"""
_LIVE_COUNTS = "SELECT state, count(*) FROM runs WHERE ended IS NULL GROUP BY state"
# Of a module that is known already nothing is written, but for its last use, once a day.
_REMEMBER = """
INSERT INTO modules (uid, digest, name, size, stored, added, used)
VALUES (:uid, :digest, :name, :size, :stored, :now, :now)
ON CONFLICT (uid, digest) DO UPDATE SET
    name = CASE WHEN :stored THEN coalesce(:name, name) ELSE coalesce(name, :name) END,
    size = :size, stored = max(stored, :stored), used = max(used, :now)
WHERE :stored OR (name IS NULL AND :name IS NOT NULL) OR :now >= used + 86400 * 1000000000
"""
_MODULES = """
SELECT digest, name, size, added, stored FROM modules WHERE uid = ? ORDER BY added DESC, digest
"""
_MODULE = "SELECT digest, name, size, added, stored FROM modules WHERE uid = ? AND digest = ?"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(wire.Run).decode


class Ambiguous(LookupError):
    """More than one run's id begins with the prefix."""


class Unfinished(NamedTuple):
    """A run that has begun and not ended.

    pid, start_ticks (/proc/PID/stat, field 22), boot_id: its process, once it has started.
    """

    run: wire.Run
    pid: int | None
    start_ticks: int | None
    boot_id: str | None


# In the class, `list` is a method.
_Runs = list[wire.Run]
_AllUnfinished = list[Unfinished]
_Modules = list[wire.ModuleInfo]
_Terms = list[str]
_Values = list[str | int]


class Records:
    """The records at `path`, made if they are not there; their directory is the caller's to make.

    All methods but `upkeep` are for the thread that made it.  They raise RecordsError when the file
    cannot be read or written; making one raises SetupError.  Documents must be UTF-8: no surrogates
    in a run's fields.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Held for every change.  SQLite's own wait for a lock polls and sleeps, this one wakes up.
        self._lock = threading.Lock()
        self._db = open_database(path)
        try:
            self._ended = retention.reasons(self._db)
        except sqlite3.Error as error:
            self._db.close()
            raise cannot_open(path, error) from error

    def close(self) -> None:
        """Closes the file; call it when no `upkeep` is under way."""
        self._db.close()

    # --- runs ---

    @in_words
    def begin(self, run: wire.Run) -> None:
        """Records a run that is about to be queued or started; committed on return."""
        values = (
            run.id,
            run.uid,
            run.state,
            _ns(run.created),
            _ns(run.started),
            run.pid,
            _document(run),
        )
        with self._lock:
            if run.labels:
                with transaction(self._db):
                    seq = self._db.execute(_BEGIN, values).lastrowid
                    self._db.executemany(
                        "INSERT INTO labels (seq, name, value) VALUES (?, ?, ?)",
                        [(seq, name, value) for name, value in run.labels.items()],
                    )
            else:
                self._db.execute(_BEGIN, values)

    @in_words
    def started(self, rows: Iterable[tuple[str, int, int, str]]) -> None:
        """Notes the processes of runs: (id, pid, its start in clock ticks since boot, boot id).

        Runs that have ended stay as they are.  Their start is noted as now, until `end` knows
        better.
        """
        now = time.time_ns()
        changes = [(pid, ticks, boot_id, now, run) for run, pid, ticks, boot_id in rows]
        if not changes:
            return
        with self._lock, transaction(self._db):
            self._db.executemany(_STARTED, changes)

    @in_words
    def end(
        self, run: wire.Run, output: tuple[bytes, bytes] | None = None, log_bytes: int = 0
    ) -> bool:
        """Records how a run ended, once: False if its end is known already, or not its beginning.

        output: stdout and stderr, at most SMALL_OUTPUT together; None: kept in files, of
        `log_bytes` altogether, or nowhere.
        """
        assert run.outcome is not None
        stdout, stderr = (None, None) if output is None else output
        values = (
            run.outcome.reason,
            _ns(run.started),
            _ns(run.ended or datetime.now(UTC)),
            run.pid,
            log_bytes,
            _document(run),
            stdout,
            stderr,
            run.id,
        )
        with self._lock:
            changed = self._db.execute(_END, values).rowcount
            if changed:
                self._ended[run.outcome.reason] += 1
        return bool(changed)

    @in_words
    def get(self, id_or_prefix: str, uid: int | None = None) -> wire.Run | None:
        """The run, None if there is none; with `uid`, only among that user's.

        Raises Ambiguous, also for a prefix so short that it costs too much to tell.
        """
        if not _PREFIX.fullmatch(id_or_prefix):
            return None
        bounds = (id_or_prefix, id_or_prefix + "g", _MAX_CANDIDATES)
        rows = self._db.execute(_GET, bounds).fetchall()
        found = [row[:4] for row in rows if uid is None or row[4] == uid]
        if len(found) > 1 or len(rows) == _MAX_CANDIDATES:
            raise Ambiguous(id_or_prefix)
        return _run(found[0]) if found else None

    def list(
        self,
        uid: int | None = None,
        state: str | None = None,
        labels: Sequence[tuple[str, str | None]] = (),
        limit: int = wire.MAX_LIMIT,
        before: str | None = None,
    ) -> _Runs:
        """Runs, the newest first, that fit everything given; fewer than `limit` if they are long.

        labels: (name, value), or (name, None) for any value.  before: only those older than the run
        of this id; none if it is not here.
        """
        return self.page(uid, state, labels, limit, before)[0]

    @in_words
    def page(
        self,
        uid: int | None,
        state: str | None,
        labels: Sequence[tuple[str, str | None]],
        limit: int,
        before: str | None,
    ) -> tuple[_Runs, bool]:
        """As `list`, and whether there may be more."""
        tables, terms, values = _narrow(labels)
        if uid is not None:
            # The plus keeps SQLite from walking all of a user's runs to find the few unfinished.
            column = "+runs.uid" if state not in (None, "ended") else "runs.uid"
            terms.append(f"{column} = ?")
            values.append(uid)
        if state is not None:
            terms.append("+runs.state = ?")
            values.append(state)
            if state != "ended":
                terms.append("runs.ended IS NULL")
        if before is not None:
            terms.append("runs.seq < (SELECT seq FROM runs WHERE id = ?)")
            values.append(before)
        where = " AND ".join(terms or ["true"])
        # Put together from constants; the values are bound.
        query = (
            "SELECT runs.state, runs.pid, runs.started, runs.document "  # noqa: S608
            f"FROM {tables} WHERE {where} ORDER BY runs.seq DESC LIMIT ?"
        )
        runs: _Runs = []
        size = 0
        # A document has its run's arguments: a thousand can be a gigabyte.
        for row in self._db.execute(query, [*values, limit]):
            runs.append(_run(row))
            size += len(row[3])
            if size > MOST_LISTED:
                return runs, True
        return runs, len(runs) == limit

    @in_words
    def output(self, run: str) -> tuple[bytes, bytes] | None:
        """stdout and stderr that `end` was given for the run of this id, None if it was not."""
        row = self._db.execute("SELECT stdout, stderr FROM runs WHERE id = ?", (run,)).fetchone()
        return None if row is None or row[0] is None else (row[0], row[1])

    @in_words
    def unfinished(self) -> _AllUnfinished:
        """The runs that have begun and not ended, the oldest first."""
        rows = self._db.execute(_UNFINISHED).fetchall()
        return [Unfinished(_run(row[:4]), row[1], row[4], row[5]) for row in rows]

    @in_words
    def counts(self) -> dict[tuple[str, str | None], int]:
        """How many runs are in here, by state and reason (None until they have ended)."""
        live = self._db.execute(_LIVE_COUNTS).fetchall()
        counts: dict[tuple[str, str | None], int] = {(state, None): count for state, count in live}
        with self._lock:
            counts.update({("ended", reason): count for reason, count in self._ended.items()})
        return counts

    # --- modules ---

    @in_words
    def remember_module(  # noqa: PLR0917  # the columns, in their order
        self, uid: int, digest: str, name: str | None, size: int, stored: bool, now: int
    ) -> None:
        """Notes that this user has run the module, or (stored) added it.

        size: its bytes.  now: ns since 1970.  What was stored stays so; of one that is known
        already, only adding it again changes the name.
        """
        with self._lock:
            self._db.execute(
                _REMEMBER,
                {
                    "uid": uid,
                    "digest": digest,
                    "name": name,
                    "size": size,
                    "stored": stored,
                    "now": now,
                },
            )

    @in_words
    def modules(self, uid: int) -> _Modules:
        """The modules that this user may name by digest, the newest first."""
        return [_module(row) for row in self._db.execute(_MODULES, (uid,)).fetchall()]

    @in_words
    def module(self, uid: int, digest: str) -> wire.ModuleInfo | None:
        """One of them, None if it is not among them."""
        row = self._db.execute(_MODULE, (uid, digest)).fetchone()
        return None if row is None else _module(row)

    @in_words
    def forget_module(self, uid: int, digest: str) -> int:
        """Takes it from this user; returns for how many users its bytes are still to be kept."""
        with self._lock, transaction(self._db):
            self._db.execute("DELETE FROM modules WHERE uid = ? AND digest = ?", (uid, digest))
            (left,) = self._db.execute(
                "SELECT count(*) FROM modules WHERE digest = ? AND stored", (digest,)
            ).fetchone()
        return int(left)

    @in_words
    def stored_modules(self) -> set[str]:
        """The digests of all modules whose bytes are kept."""
        return {row[0] for row in self._db.execute("SELECT digest FROM modules WHERE stored")}

    @in_words
    def module_bytes(self, uid: int) -> int:
        """Bytes of the modules that this user has stored."""
        (total,) = self._db.execute(
            "SELECT coalesce(sum(size), 0) FROM modules WHERE uid = ? AND stored", (uid,)
        ).fetchone()
        return int(total)

    # --- upkeep ---

    def log_bytes(self) -> int:
        """Bytes of the write-ahead log, which `upkeep` empties."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def upkeep(self, keep_ns: int, size_bytes: int, now: int) -> Upkeep:
        """Forgets ended runs that are too old or too many, gives room back, and checkpoints.

        For a thread (asyncio.to_thread), one at a time.  keep_ns: age since the end.  size_bytes:
        of records, kept output and log files together.  now: ns since 1970.  The caller deletes the
        log files of the runs that it returns, and calls again at once if there is `more`.
        """
        done = retention.upkeep(self.path, self._lock, now - keep_ns, size_bytes)
        with self._lock:
            self._ended -= done.reasons
        return done


def _narrow(labels: Sequence[tuple[str, str | None]]) -> tuple[str, _Terms, _Values]:
    """Tables, terms and values of a query for runs with these labels.

    A name with a value comes first: the index has its runs in the order of the answer.
    """
    tables = "runs"
    terms: _Terms = []
    values: _Values = []
    for name, value in sorted(labels, key=lambda label: label[1] is None):
        if value is None:
            terms.append("runs.seq IN (SELECT seq FROM labels WHERE name = ?)")
            values.append(name)
        elif tables == "runs":
            # CROSS JOIN: the left table is the outer loop (https://sqlite.org/optoverview.html).
            tables = "labels AS first CROSS JOIN runs ON runs.seq = first.seq"
            terms.append("first.name = ? AND first.value = ?")
            values += (name, value)
        else:
            terms.append("(SELECT value FROM labels WHERE seq = runs.seq AND name = ?) = ?")
            values += (name, value)
    return tables, terms, values


def _ns(moment: datetime | None) -> int | None:
    # To the microsecond, which is all that a datetime has and more than a float holds.
    return None if moment is None else round(moment.timestamp() * 1e6) * 1000


def _moment(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def _document(run: wire.Run) -> bytes:
    if run.stdout is not UNSET or run.stdout_base64 is not UNSET:
        run = msgspec.structs.replace(run, stdout=UNSET, stdout_base64=UNSET)
    if run.stderr is not UNSET or run.stderr_base64 is not UNSET:
        run = msgspec.structs.replace(run, stderr=UNSET, stderr_base64=UNSET)
    return _encode(run)


def _run(row: Sequence[Any]) -> wire.Run:
    """The run of a row: of one that has not ended, the document is from its beginning."""
    state, pid, started, document = row
    run = _decode(document)
    if state != "ended":
        run.state = state
        run.pid = pid
        run.started = None if started is None else _moment(started)
    return run


def _module(row: Sequence[Any]) -> wire.ModuleInfo:
    digest, name, size, added, stored = row
    return wire.ModuleInfo(
        digest=digest, name=name, size=size, added=_moment(added), stored=bool(stored)
    )
