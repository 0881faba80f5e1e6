"""What keeps the database of records small and safe, in a thread of its own.

The loop's thread must never wait for fsync or for a long statement, so changes are made in small
batches, each under the lock that the loop's thread takes for its own, with pauses in between.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from typing import NamedTuple

from .database import RecordsError, connect, failed, transaction

_BATCH = 64  # runs; a millisecond or two
_MOST_REMOVED = 10_000  # runs a call
_CHECKPOINT_EVERY = 50  # batches: each leaves up to a few hundred pages in the log
_PAUSE_SECONDS = 0.001
_WAL_BYTES = 1 << 20  # of the write-ahead log that are worth a checkpoint
_VACUUM_BATCH = 64  # pages
_MOST_VACUUMED = 65_536  # pages a call
_FREE_PAGES = 4096  # kept for new records: less than this is not worth moving pages

_OLD = "SELECT seq, id, reason, log_bytes FROM runs WHERE ended < ? ORDER BY ended LIMIT ?"
_OLDEST = """
SELECT seq, id, reason, log_bytes FROM runs WHERE ended IS NOT NULL ORDER BY seq LIMIT ?
"""


class Upkeep(NamedTuple):
    """What `Records.upkeep` did.

    removed: ids of the runs that are forgotten.  reasons: how many of them for each reason.  size:
    bytes of records, kept output and log files now; 0 if unknown.  more: there is more to remove.
    error: why it stopped before its end; what it had done until then is done.
    """

    removed: list[str]
    reasons: Counter[str]
    size: int
    more: bool
    error: RecordsError | None


def reasons(connection: sqlite3.Connection) -> Counter[str]:
    """How many ended runs there are for each reason.  Reads the whole index."""
    rows = connection.execute(
        "SELECT reason, count(*) FROM runs WHERE ended IS NOT NULL GROUP BY reason"
    )
    return Counter(dict(rows.fetchall()))


def upkeep(path: str, lock: threading.Lock, cutoff: int, size_bytes: int) -> Upkeep:
    """See `Records.upkeep`.  lock: held for every change.  cutoff: ns since 1970."""
    removed: list[str] = []
    counts: Counter[str] = Counter()
    try:
        with closing(connect(path)) as connection:
            size, more = _Pass(path, connection, lock, removed, counts).run(cutoff, size_bytes)
    except sqlite3.Error as error:
        return Upkeep(removed, counts, 0, False, failed(path, error))
    return Upkeep(removed, counts, size, more, None)


class _Pass:
    """One upkeep; `removed` and `reasons` are its caller's, and hold even when it fails."""

    def __init__(
        self,
        path: str,
        connection: sqlite3.Connection,
        lock: threading.Lock,
        removed: list[str],
        reasons: Counter[str],
    ) -> None:
        self.path = path
        self.db = connection
        self.lock = lock
        self.removed = removed
        self.reasons = reasons
        self.batches = 0

    def run(self, cutoff: int, size_bytes: int) -> tuple[int, bool]:
        """Returns the size that is left, and whether there is more to remove."""
        # First: what follows adds to the write-ahead log.
        self.checkpoint()
        while not self.full() and self.remove(_OLD, cutoff):
            pass
        size = self.size()
        while size > size_bytes and not self.full() and self.remove(_OLDEST):
            size = self.size()
        with self.lock:
            self.db.execute("DELETE FROM modules WHERE NOT stored AND used < ?", (cutoff,))
        # The file shrinks when it is checkpointed.
        self.checkpoint(0 if not self.full() and self.vacuum() else _WAL_BYTES)
        return size, self.full()

    def full(self) -> bool:
        return len(self.removed) >= _MOST_REMOVED

    def remove(self, which: str, *values: int) -> bool:
        """Forgets up to _BATCH runs of the query; False when there are none."""
        with self.lock, transaction(self.db):
            rows = self.db.execute(which, (*values, _BATCH)).fetchall()
            seqs = [(row[0],) for row in rows]
            self.db.executemany("DELETE FROM labels WHERE seq = ?", seqs)
            self.db.executemany("DELETE FROM runs WHERE seq = ?", seqs)
        self.removed += [row[1] for row in rows]
        self.reasons.update(row[2] for row in rows)
        self.batches += 1
        if self.batches % _CHECKPOINT_EVERY == 0:
            self.checkpoint()
        _pause()
        return bool(rows)

    def size(self) -> int:
        """Bytes of the pages in use and of the log files."""
        pages, free, page_size = (
            self.pragma(name) for name in ("page_count", "freelist_count", "page_size")
        )
        (logs,) = self.db.execute(
            "SELECT coalesce(sum(log_bytes), 0) FROM runs WHERE log_bytes > 0"
        ).fetchone()
        return (pages - free) * page_size + int(logs)

    def pragma(self, name: str) -> int:
        return int(self.db.execute(f"PRAGMA {name}").fetchone()[0])

    def vacuum(self) -> bool:
        """Takes pages off the end of the file when many are free; False when there are few."""
        free = self.pragma("freelist_count")
        if free < max(_FREE_PAGES, self.pragma("page_count") // 4):
            return False
        for _ in range(min(free - _FREE_PAGES // 2, _MOST_VACUUMED) // _VACUUM_BATCH):
            with self.lock:
                # Not execute: that stops after one page, the pragma's rows having no columns.
                self.db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_BATCH})")
            _pause()
        return True

    def checkpoint(self, at_least: int = _WAL_BYTES) -> None:
        """Moves the write-ahead log into the database, so that it is on the disk, and empties it.

        The first writer after that syncs the log's new header: that is done here, too.  at_least:
        bytes of the log that are worth it.
        """
        try:
            if os.stat(f"{self.path}-wal").st_size < at_least:
                return
        except FileNotFoundError:
            return
        # Twice without the lock: the second has only what was written meanwhile, so that the third,
        # which holds everybody up, has next to nothing.
        for _ in range(2):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        with self.lock:
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.db.execute(f"PRAGMA user_version = {self.pragma('user_version')}")


def _pause() -> None:
    # A lock that is released and taken again at once would keep the loop's thread out.
    time.sleep(_PAUSE_SECONDS)
