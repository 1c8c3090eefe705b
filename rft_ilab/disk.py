"""What a disk can do to a file: lose it in a crash, or have no room for it.

Here is what makes a write durable (data and directory entry on disk before anything relies on them) and what turns
a full disk into one line: what, where, how much is free, what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rft_ilab.errors import DiskError

#: How the names of unfinished files and directories end (they begin with a dot): leftovers of a killed process.
PARTIAL = ".partial"
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# SQLite and mmap report a full disk in many ways; with less than this left (bytes) it is the reason.
NOTHING_LEFT = 1 << 20
FIX = "make room there, then give the same command again: it goes on where it stopped"


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable: a rename that is not may be undone by a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot; they order such writes themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def make_directory(directory: Path) -> None:
    """Like ``mkdir -p``, but each new name is durable."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def put_in_place(fresh: Path, target: Path) -> None:
    """Give a complete file or directory its final name, durably; what was there makes way.

    A crash leaves the old one, the new one or (directories only, for a moment) none: never a mixture.
    """
    for path in sorted(fresh.rglob("*")) if fresh.is_dir() else [fresh]:
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = target.with_name(f".{target.name}.old{PARTIAL}")
    if fresh.is_dir():
        sync_directory(fresh)
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
    os.replace(fresh, target)
    sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A fresh hidden directory beside ``target`` to fill and put in place; whatever is left of it at the end goes.

    Raises DiskError about ``target`` when there is no room.
    """
    with full_disk_named(target):
        make_directory(target.parent)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=PARTIAL))
        mask = os.umask(0o022)
        os.umask(mask)
        # mkdtemp makes directories that only their owner may enter.
        fresh.chmod(0o777 & ~mask)
        try:
            yield fresh
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed writers left below ``directory``; nobody else may be writing there."""
    for path in list(directory.rglob(f".*{PARTIAL}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Raises DiskError about ``path`` for whatever is raised inside because the disk, or a quota, is full."""
    try:
        yield
    except Exception as error:
        found = disk_error(error, path)
        if found is None:
            raise
        raise found from error


def disk_error(error: Exception, path: Path | None = None) -> DiskError | None:
    """The DiskError that ``error`` amounts to; None if the disk is not the reason.

    ``path`` is what was being written, else the file that the error itself names.
    """
    where = path
    if where is None and isinstance(error, OSError) and error.filename:
        where = Path(os.fsdecode(error.filename))
    left = free_bytes(where) if where is not None else None
    if not _is_full(error, left):
        return None
    quota = getattr(error, "errno", None) == errno.EDQUOT
    reason = "the disk quota is used up" if quota else "no space left on the disk"
    # What a quota leaves is not what the file system has.
    known = "" if quota or left is None else f", {size(left)} free"
    return DiskError(f"cannot be written: {reason}{known}", where=where, fix=FIX)


def _is_full(error: Exception, left: int | None) -> bool:
    if isinstance(error, OSError):
        # numpy's tofile() has no errno, only a count of what it could not write.
        return error.errno in FULL_ERRNOS or (error.errno is None and "requested and" in str(error))
    if isinstance(error, sqlite3.Error):
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        out_of_room = left is not None and left < NOTHING_LEFT
        return code == sqlite3.SQLITE_FULL or (out_of_room and code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN))
    # safetensors and tokenizers, written in Rust, have exceptions of their own.
    return any(f"(os error {number})" in str(error) for number in FULL_ERRNOS)


def free_bytes(path: Path) -> int:
    """Bytes that may still be written where ``path`` is, or will be."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def size(count: float) -> str:
    """Bytes for people.

    >>> size(900), size(1_500_000), size(2_340_000_000)
    ('1 kB', '1.5 MB', '2.3 GB')
    """
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
