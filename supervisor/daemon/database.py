"""The database of records: opening it, its schema, and its errors as words.

WAL mode with synchronous=NORMAL: a commit is a write without fsync.  It outlives this process
whatever kills that; a power cut may take the last seconds' commits, but never breaks the file
(https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from ..errors import SetupError, WasisupError

VERSION = 1  # PRAGMA user_version

# The blobs stand last: a row is read only as far as the columns that are asked for.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    uid INTEGER NOT NULL,
    state TEXT NOT NULL,            -- queued, running or ended
    reason TEXT,                    -- the outcome's
    created INTEGER NOT NULL,       -- this and the next two: ns since 1970
    started INTEGER,
    ended INTEGER,
    pid INTEGER,
    pid_start_ticks INTEGER,        -- field 22 of /proc/PID/stat
    boot_id TEXT,
    log_bytes INTEGER NOT NULL DEFAULT 0,  -- output that is kept in files
    document BLOB NOT NULL,         -- wire.Run as JSON
    stdout BLOB,
    stderr BLOB
);
CREATE INDEX runs_by_uid ON runs (uid);
CREATE INDEX runs_by_end ON runs (ended, reason);
CREATE INDEX runs_with_logs ON runs (log_bytes) WHERE log_bytes > 0;
CREATE TABLE labels (
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (seq, name)
) WITHOUT ROWID;
CREATE INDEX labels_by_name ON labels (name, value, seq);
CREATE TABLE modules (
    uid INTEGER NOT NULL,
    digest TEXT NOT NULL,
    name TEXT,
    size INTEGER NOT NULL,
    stored INTEGER NOT NULL,        -- 1: its bytes are kept for this uid
    added INTEGER NOT NULL,         -- this and the next: ns since 1970
    used INTEGER NOT NULL,
    PRIMARY KEY (uid, digest)
) WITHOUT ROWID;
CREATE INDEX modules_by_digest ON modules (digest);
PRAGMA user_version = {VERSION};
COMMIT;
"""

# A connection of ours waits for the lock in Python (Records.lock); this is for other programs, such
# as sqlite3 in a shell.
_BUSY_SECONDS = 2.0

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WORDS = {
    sqlite3.SQLITE_FULL: "there is no space left",
    sqlite3.SQLITE_READONLY: "they are read-only",
    sqlite3.SQLITE_BUSY: "another program holds their lock",
    sqlite3.SQLITE_LOCKED: "another program holds their lock",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed",
}


class RecordsError(WasisupError):
    """The records of runs cannot be read or written: the disk is full, or broken."""


class _HasPath(Protocol):
    @property
    def path(self) -> str: ...


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=_HasPath)


def in_words(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """The method, with RecordsError in place of SQLite's errors and of undecodable documents."""

    @functools.wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise failed(self.path, error) from error

    return wrapper


def open_database(path: str) -> sqlite3.Connection:
    """A connection to the database at `path`, which is made (mode 0600) if it is not there.

    Raises SetupError: a file that is damaged, of a newer version, or cannot be opened.
    """
    try:
        _make_private(path)
        connection = connect(path)
    except OSError as error:
        message = f"cannot open the records {path}: {error.strerror}"
        raise SetupError(message, step="open the records", errno=error.errno or 0) from error
    except sqlite3.Error as error:
        raise cannot_open(path, error) from error
    try:
        _bring_up(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise cannot_open(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def failed(path: str, error: sqlite3.Error | msgspec.DecodeError) -> RecordsError:
    """The error in words, for a database that was opened before."""
    return RecordsError(*_explain(path, error))


def cannot_open(path: str, error: sqlite3.Error) -> SetupError:
    """The error in words, for a database that could not be opened."""
    return SetupError(*_explain(path, error), step="open the records")


def connect(path: str) -> sqlite3.Connection:
    """A connection that commits after every statement outside of `transaction`, never by itself
    checkpoints, and belongs to the thread that calls this.  Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA cache_size = -2048")  # KiB
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of the statements inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors (a full disk) have rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_private(path: str) -> None:
    # Before SQLite opens it: the files next to it (-wal, -shm) inherit this mode.  Not while it is
    # open: closing any descriptor of a file drops this process's locks on it (fcntl(2)).
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _bring_up(connection: sqlite3.Connection, path: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise SetupError(
            f"the records {path} are of version {version}, this wasisup reads up to {VERSION}",
            "use the newer wasisup that wrote them, or move the file away to start afresh",
            step="open the records",
        )
    if version == 0:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            raise SetupError(
                f"{path} is a database of something else",
                "move it away, or set another directory with `state`",
                step="open the records",
            )
        # Both have an effect only on a file without tables.  Small pages: every page that a change
        # touches is written to the log whole; 4096 cost half as much again.
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    if version == 0:
        connection.executescript(_SCHEMA)


def _explain(path: str, error: Exception) -> tuple[str, str | None]:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & 0xFF  # the rest is the extended code (https://sqlite.org/rescode.html)
    if primary in _DAMAGED or isinstance(error, msgspec.DecodeError):
        return (
            f"the records {path} are damaged",
            f"stop the daemon and move {path}, {path}-wal and {path}-shm away to start afresh, "
            "or recover them with the .recover command of sqlite3",
        )
    return f"cannot use the records {path}: {_WORDS.get(primary, str(error))}", None
