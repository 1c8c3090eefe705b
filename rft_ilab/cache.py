"""A content-addressed cache: JSON values in one SQLite file, for many processes at once.

What is promised, and by what:

- *Two writers*: SQLite's write-ahead log; they wait for each other.
- *kill -9*: a transaction is in whole or not at all; a torn log ends before its first bad frame.
- *A damaged file* is set aside and named in one line; what can still be read of it goes into the new one. Nobody
  writes into a file that has been set aside: writers hold a lock, and look whether the file is still theirs.
- *A directory that cannot be written*: what is there is read, what is new is kept by this process alone.
- *A newer format* is left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rft_ilab.disk import full_disk_named
from rft_ilab.errors import CacheError

FORMAT = 1
TABLE = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
INSERT = "INSERT OR IGNORE INTO entries (key, value) VALUES (?, ?)"
# Keys asked for in one statement.
BATCH = 500
SELECT_BATCH = f"SELECT key, value FROM entries WHERE key IN ({', '.join('?' * BATCH)})"
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
UNWRITABLE_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS)

T = TypeVar("T")


class Cache:
    """Keys are digests of everything that determines the value, so entries never go stale."""

    def __init__(self, path: Path) -> None:
        """Raises CacheError for a cache of a newer format, DiskError when there is no room to create one."""
        self.path = path
        # What this process alone knows, once nothing can be written.
        self._unsaved: dict[str, str] | None = None
        self._reopen()

    def get(self, key: str) -> Any | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Values of those of ``keys`` that are there."""
        return self._mended(lambda: dict(self._values(keys)))

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of ``keys`` that are there."""
        return self._mended(lambda: {key for rows in self._rows(keys) for key, _ in rows})

    def put(self, entries: Iterable[tuple[str, Any]]) -> None:
        """Add what is not there yet. Raises DiskError when there is no room; then none of them is in."""
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in entries]
        if rows:
            self._mended(lambda: self._insert(rows))

    def _rows(self, keys: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            # One text of a statement is compiled once; NULL is equal to no key.
            yield self._db.execute(SELECT_BATCH, [*part, *[None] * (BATCH - len(part))]).fetchall()
        if self._unsaved:
            yield [(key, self._unsaved[key]) for key in keys if key in self._unsaved]

    def _values(self, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for rows in self._rows(keys):
            # Decoding many at once is several times as fast as one after the other.
            values = json.loads(f"[{','.join(value for _, value in rows)}]")
            yield from zip((key for key, _ in rows), values, strict=True)

    def _insert(self, rows: Sequence[tuple[str, str]]) -> None:
        if self._unsaved is not None:
            self._unsaved.update(rows)
            return
        try:
            with full_disk_named(self.path):
                while not self._written(rows):
                    self._reopen()
        except sqlite3.OperationalError as error:
            if _code(error) not in UNWRITABLE:
                raise
            self._unsaved = dict(rows)
            self._say(f"cannot be written ({error}): what is new is not kept")

    def _written(self, rows: Sequence[tuple[str, str]]) -> bool:
        """False if another process has set our file aside in the meantime."""
        with self._locked(fcntl.LOCK_SH):
            if _identity(self.path) != self._file:
                return False
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(INSERT, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                # Of a full disk SQLite may have rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return True

    def _mended(self, action: Callable[[], T]) -> T:
        """The result of ``action``, which is tried again once if the file turns out to be damaged."""
        try:
            return action()
        except (sqlite3.Error, ValueError) as error:
            if not _is_damage(error):
                raise
            with full_disk_named(self.path):
                self._set_aside()
        return action()

    def _reopen(self) -> None:
        """Open the file, creating it if need be."""
        try:
            with full_disk_named(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # SQLite does not wait where two turn the journal of a new file to WAL: one at a time.
                with self._locked(fcntl.LOCK_EX):
                    try:
                        self._db = _connected(self.path)
                    except sqlite3.Error as error:
                        # A file that somebody has locked is no reason to throw their work away.
                        if not _is_damage(error):
                            raise
                        self._replace()
                    self._file = _identity(self.path)
        except (OSError, sqlite3.OperationalError) as error:
            refused = error.errno in UNWRITABLE_ERRNOS if isinstance(error, OSError) else _code(error) in UNWRITABLE
            if not refused or not self.path.exists():
                raise
            self._db, self._file, self._unsaved = _read_only(self.path), None, {}
            self._say(
                f"cannot be written ({error.strerror if isinstance(error, OSError) else error}): "
                "what is new is not kept"
            )

    def _set_aside(self) -> None:
        """Begin a new file with what the damaged one still tells; not if another process has just done it."""
        if self._unsaved is not None:
            self._say("is damaged and cannot be mended: it is not used")
            self._db = _memory()
            return
        with self._locked(fcntl.LOCK_EX):
            self._db.close()
            if _identity(self.path) == self._file:
                self._replace()
            else:
                self._db = _connected(self.path)
            self._file = _identity(self.path)

    def _replace(self) -> None:
        """Under the lock. The new file takes its place last: a crash before that leaves the damaged one."""
        fresh = self.path.with_name(f".{self.path.name}.partial")
        for leftover in _files(fresh):
            leftover.unlink(missing_ok=True)
        new = _connected(fresh)
        saved = 0
        for rows in _salvaged(self.path):
            new.execute("BEGIN")
            saved += new.executemany(INSERT, rows).rowcount
            new.execute("COMMIT")
        # The log is merged and removed: a file that is renamed must not need it.
        new.close()
        aside = self.path.with_name(f"{self.path.stem}.corrupt-{time.time_ns()}{self.path.suffix}")
        os.link(self.path, aside)
        for file, kept in zip(_files(self.path)[1:], _files(aside)[1:], strict=True):
            with contextlib.suppress(FileNotFoundError):
                file.rename(kept)
        os.replace(fresh, self.path)
        self._db = _connected(self.path)
        self._say(f"was damaged; {saved} entries could be read and are kept, the file is now {aside.name}")

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with self.path.with_name(f"{self.path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, how)
            yield

    def _say(self, what: str) -> None:
        print(f"Warning: the cache {self.path} {what}", file=sys.stderr)


def _connected(path: Path) -> sqlite3.Connection:
    """Raises CacheError for a newer format."""
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise CacheError(
                f"a newer rft-ilab wrote this cache (format {found}; this one knows {FORMAT})",
                where=path,
                fix="update rft-ilab, or set XDG_CACHE_HOME to another directory",
            )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(TABLE)
        if found < FORMAT:
            db.execute(f"PRAGMA user_version={FORMAT}")
    except BaseException:
        db.close()
        raise
    return db


def _read_only(path: Path) -> sqlite3.Connection:
    """Without a log that can be written, SQLite reads only a file that it is told nobody changes."""
    for mode in ("mode=ro", "immutable=1"):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
        with contextlib.suppress(sqlite3.Error):
            db.execute("SELECT value FROM entries LIMIT 1")
            return db
        db.close()
    return _memory()


def _memory() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute(TABLE)
    return db


def _salvaged(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Whatever rows of a damaged file can still be read, some of them more than once.

    Reading ends at the first bad page, so it is begun in many places: from both ends, and at 4,096 places between.
    """
    ends = [("", "~", "ASC"), ("", "~", "DESC")]
    places = [
        (f"{i:03x}", f"{i + 1:03x}" if i < 0xFFF else "g", order) for i in range(0x1000) for order in ("ASC", "DESC")
    ]
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.text_factory = bytes
    try:
        # Opens a file that is shorter than it says.
        db.execute("PRAGMA writable_schema=ON")
        db.execute("PRAGMA cell_size_check=ON")
        for low, high, order in [*ends, *places]:
            rows: list[tuple[str, str]] = []
            whole = False
            with contextlib.suppress(sqlite3.Error):
                for key, value in db.execute(
                    f"SELECT key, value FROM entries WHERE key >= ? AND key < ? ORDER BY key {order}", (low, high)
                ):
                    with contextlib.suppress(ValueError, AttributeError):
                        json.loads(value.decode())
                        rows.append((key.decode(), value.decode()))
                whole = True
            yield rows
            if whole and (low, high) == ("", "~"):
                return
    except sqlite3.Error:
        return
    finally:
        db.close()


def _files(path: Path) -> list[Path]:
    """The file, its log, and the index of the log."""
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _is_damage(error: Exception) -> bool:
    """Whether the file is at fault: its structure, or a value that is no text or no JSON."""
    if isinstance(error, sqlite3.Error):
        return _code(error) in CORRUPT or "Could not decode to UTF-8" in str(error)
    return isinstance(error, ValueError)
