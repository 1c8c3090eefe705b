"""The cache loses nothing: two writers, kill -9, damaged files, no permission, a newer format."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest

from rft_ilab.cache import BATCH, FORMAT, Cache
from rft_ilab.errors import CacheError, DiskError
from rft_ilab.types import digest

ENTRIES = 3000
WRITER = """
import sys
from pathlib import Path
from rft_ilab.cache import Cache
from rft_ilab.types import digest

cache, start = Cache(Path(sys.argv[1])), int(sys.argv[2])
for i in range(start, start + 100_000, 10):
    cache.put([(digest(k), [k, "x" * 300]) for k in range(i, i + 10)])
    print(i, flush=True)
"""


def filled(path: Path, *, keep_log: bool = False) -> None:
    """A cache of ENTRIES entries, written by a process that has ended (killed, if its log is to stay)."""
    end = "os.kill(os.getpid(), 9)" if keep_log else "cache._db.close()"
    program = f"""
import os
from pathlib import Path
from rft_ilab.cache import Cache
from rft_ilab.types import digest
cache = Cache(Path({str(path)!r}))
cache._db.execute("PRAGMA wal_autocheckpoint = {0 if keep_log else 1000}")
for start in range(0, {ENTRIES}, 100):
    cache.put([(digest(i), [i, "ü" * 150]) for i in range(start, start + 100)])
{end}
"""
    subprocess.run([sys.executable, "-c", program], check=not keep_log, timeout=60)


def kept(path: Path) -> int:
    """How many of the entries are there; each that is there is right."""
    found = Cache(path).get_many([digest(i) for i in range(ENTRIES)])
    assert all(found[key] == [i, "ü" * 150] for i in range(ENTRIES) if (key := digest(i)) in found)
    return len(found)


def aside(path: Path) -> list[Path]:
    return [p for p in path.parent.glob("*.corrupt-*") if p.suffix == path.suffix]


def test_what_was_put_is_there_and_nothing_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    entries = {digest(i): {"n": i, "text": "\u2028ü"} for i in range(2 * BATCH + 3)}
    cache.put(entries.items())
    cache.put([(digest(0), "another")])
    cache.put([])
    asked = [*entries, digest("absent")]
    assert cache.get_many(asked) == entries and cache.get_many([]) == {}
    assert cache.known(asked) == set(entries) and cache.get(digest("absent")) is None
    assert cache.get(digest(7)) == {"n": 7, "text": "\u2028ü"}


def test_a_cache_without_room_takes_all_or_nothing_and_goes_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    cache._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(DiskError, match=r"cache.sqlite: cannot be written: no space left on the disk"):
        cache.put([("small", 1), ("large", "x" * 100_000)])
    assert cache.get("small") is None
    cache.put([("small", 1)])
    assert cache.get("small") == 1


def _fill(path: Path, start: int) -> None:
    cache = Cache(path)
    for i in range(start, start + 100):
        cache.put([(f"k{i % 150}", i % 150)])


def test_cache_takes_two_writers(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(path, start)) for start in (0, 75)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0]
    assert all(Cache(path).get(f"k{i}") == i for i in range(150))


@pytest.mark.parametrize("content", [None, b"not a database, but long enough to look like one" * 40])
def test_a_cache_that_many_open_at_once_is_made_once(tmp_path: Path, content: bytes | None) -> None:
    def use(path: Path, name: int) -> None:
        together.wait()
        Cache(path).put([(f"k{name}", name)])

    for turn in range(20):
        path, together = tmp_path / f"{turn}.sqlite", threading.Barrier(8)
        if content:
            path.write_bytes(content)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, [path] * 8, range(8)))
        assert [Cache(path).get(f"k{name}") for name in range(8)] == list(range(8))
        assert len(list(tmp_path.glob(f"{turn}.corrupt-*"))) == bool(content)


def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, chance = tmp_path / "c.sqlite", random.Random(0)
    acknowledged: set[int] = set()
    for turn in range(20):
        starts = (turn * 1_000_000, turn * 1_000_000 + 500_000)
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, text=True)
            for start in starts
        ]
        for writer in writers:
            assert writer.stdout is not None
            acknowledged.add(int(writer.stdout.readline()))
        time.sleep(chance.random() * 0.1)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            assert writer.stdout is not None
            acknowledged |= {int(line) for line in writer.stdout.read().split("\n") if line}
            writer.stdout.close()
            writer.wait()
    wanted = {digest(k): k for i in acknowledged for k in range(i, i + 10)}
    found = Cache(path).get_many(list(wanted))
    assert len(wanted) > 2000 and found == {key: [k, "x" * 300] for key, k in wanted.items()}
    assert not aside(path)


def garble(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(start).randbytes(length))


@pytest.mark.parametrize(
    ("harm", "least"),
    [
        (lambda path: garble(path, path.stat().st_size // 2, 4096), 0.95),
        (lambda path: garble(path, 3 * path.stat().st_size // 4 + 100, 20_000), 0.9),
        (lambda path: os.truncate(path, path.stat().st_size // 2), 0.1),
        (lambda path: os.truncate(path, path.stat().st_size - 1000), 0.9),
        (lambda path: garble(path, 0, 100), 0.0),
        (lambda path: path.write_bytes(b"not a database, but long enough to look like one" * 40), 0.0),
    ],
    ids=["a page", "five pages", "half", "its end", "its head", "all"],
)
def test_of_a_damaged_file_is_kept_what_can_be_read(
    tmp_path: Path, harm: Callable[[Path], object], least: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.sqlite"
    filled(path)
    harm(path)
    harmed = path.read_bytes()
    found = kept(path)
    assert least * ENTRIES <= found < ENTRIES
    (old,) = aside(path)
    assert old.read_bytes() == harmed
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and f"{found} entries could be read" in told and old.name in told
    cache = Cache(path)
    cache.put((digest(i), [i, "ü" * 150]) for i in range(ENTRIES))
    assert kept(path) == ENTRIES and not capfd.readouterr().err
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_a_file_damaged_while_it_is_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The second user finds it set aside when it writes, and writes into the new one."""
    path = tmp_path / "c.sqlite"
    filled(path)
    first, second = Cache(path), Cache(path)
    assert second.get(digest(0)) is not None
    garble(path, 5 * 4096, path.stat().st_size - 8 * 4096)
    first.get_many([digest(i) for i in range(ENTRIES)])
    second.put([(digest("new"), 1)])
    assert len(aside(path)) == 1 and Cache(path).get(digest("new")) == 1 and first.get(digest("new")) == 1
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_half_written_log_costs_its_torn_end(tmp_path: Path, share: float) -> None:
    path = tmp_path / "c.sqlite"
    filled(path, keep_log=True)
    log = tmp_path / "c.sqlite-wal"
    before = log.stat().st_size
    assert before > 100_000
    os.truncate(log, int(before * share))
    (tmp_path / "c.sqlite-shm").unlink()
    found = kept(path)
    assert 0.2 * share * ENTRIES < found < ENTRIES and not aside(path)


def test_a_value_that_is_no_text_is_damage_and_costs_that_value(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE entries SET value = CAST(X'ff80' AS TEXT) WHERE key = ?", (digest(5),))
        db.execute("UPDATE entries SET value = '[1, 2' WHERE key = ?", (digest(6),))
    cache = Cache(path)
    assert cache.get(digest(5)) is None and cache.get(digest(6)) is None and kept(path) == ENTRIES - 2


def test_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = path.read_bytes()
    with pytest.raises(CacheError, match=r"a newer rft-ilab wrote this cache .*XDG_CACHE_HOME"):
        Cache(path)
    assert path.read_bytes() == before and not aside(path)


def test_a_cache_from_before_there_were_formats_is_used(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 0")
    assert kept(path) == ENTRIES


def _unprivileged(path: Path, output: TextIO) -> None:
    """In a process of its own, as somebody who may only read: read, write, read again what is not kept."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with contextlib.redirect_stderr(output):
        cache = Cache(path)
        cache.put([(digest("new"), 1)])
        values = [cache.get(digest(1)), cache.get(digest("new")), cache.get(digest("absent"))]
    output.write(json.dumps([values, len(cache.known([digest(i) for i in range(ENTRIES)]))]))


@pytest.mark.parametrize("log", [False, True])
def test_a_directory_that_cannot_be_written_is_read(log: bool) -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as output:
        directory = Path(name)
        path = directory / "c.sqlite"
        filled(path, keep_log=log)
        for file in directory.iterdir():
            file.chmod(0o444)
        directory.chmod(0o555)
        child = os.fork()
        if not child:
            try:
                _unprivileged(path, output)
                output.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        directory.chmod(0o755)
        output.seek(0)
        warning, found = output.read().split("\n")
    assert "what is new is not kept" in warning
    values, count = json.loads(found)
    assert values[1:] == [1, None]
    if not log:  # what a killed process left in its log alone can only be had by writing
        assert values[0] == [1, "ü" * 150] and count == ENTRIES
