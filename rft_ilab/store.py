"""Files that survive: atomic writes, append-only JSONL, the run directory; and the cache (:mod:`rft_ilab.cache`).

A run directory is the interface between stages (and the only one)::

    manifest.json        settings, seeds, versions, digests, finished stages with their cost
    data/ledger.jsonl    one line a candidate, task or answer, with its disposition
    data/verified.jsonl  what the grader accepted: chat messages, as ``ilab model train`` reads them
    data/tasks.jsonl     tasks from generators and teachers that were kept
    data/rlvr/           prompt sets for other trainers
    rl/signal.json       pass@k of the policy before training
    rl/steps.jsonl       one line an optimiser step (stage sft or grpo)
    rl/rollouts.jsonl    every rollout of training, with its grade
    rl/selection.json    validation accuracy of every checkpoint, and the chosen one
    rl/validation/       greedy answers of every scored candidate to the target's validation tasks
    rl/attribution.json  what base, warm start and GRPO each did to these answers
    rl/checkpoint/       the two newest resumable states
    rl/tensorboard/      the same steps as event files; rl/trackers/ says what each tracker was sent
    adapter/ model/ model.gguf    the result
    gate/verdict.json    the verdict; gate/results.jsonl has one line a (suite, model, task)
    report.html

Beside the runs lies ``history.jsonl``: one line a verdict (rft_ilab/pipeline/history.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rft_ilab.cache import Cache as Cache
from rft_ilab.disk import PARTIAL, full_disk_named, make_directory, sync_directory
from rft_ilab.errors import RunError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` with ``content``: readers see the old file or the new one, never a part, and so does a crash.

    Raises DiskError when there is no room; the old file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    with full_disk_named(path):
        make_directory(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner may read; results follow the user's umask.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises RunError if the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError("missing file", where=path, fix="is this a finished run?") from error
    except ValueError as error:
        raise RunError(f"not valid JSON: {error}", where=path) from error


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Append rows and fsync once; a crash can tear at most the last line, which readers drop.

    Raises DiskError when there is no room; the file is then as it was.
    """
    data = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    with full_disk_named(path):
        make_directory(path.parent)
        new = not path.exists()
        # Unbuffered: closing a buffer tries once more to write what had no room.
        with path.open("ab", buffering=0) as file:
            # So that nobody else's rows are taken back with ours; some network file systems have no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            rest = memoryview(data if not end or _ends_with_newline(path) else b"\n" + data)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
        if new:
            sync_directory(path.parent)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def keep_jsonl(path: Path, keep: Callable[[Any], bool]) -> None:
    """Drop the rows that ``keep`` refuses, and torn lines; the others stay byte for byte. Atomic."""
    before = path.read_bytes() if path.exists() else b""
    kept = []
    for line in before.split(b"\n"):
        with contextlib.suppress(ValueError):
            if keep(json.loads(line)):
                kept.append(line + b"\n")
    after = b"".join(kept)
    if after != before:
        write_atomic(path, after)


def read_jsonl(path: Path) -> list[Any]:
    """All whole rows of an append-only file; torn lines (a killed writer) are skipped."""
    rows: list[Any] = []
    if path.exists():
        # Not splitlines(): U+2028 and its like may stand inside a JSON string.
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def user_directory(kind: str) -> Path:
    """XDG directory of rft-ilab; ``kind`` is ``cache`` or ``data`` (runs live in the latter).

    Data sits beside InstructLab's own, where its users look.
    """
    variable, default = {"cache": ("XDG_CACHE_HOME", ".cache"), "data": ("XDG_DATA_HOME", ".local/share")}[kind]
    root = Path(os.environ.get(variable) or Path.home() / default)
    return root / "instructlab" / "rft"


class Run:
    """One run directory. Stages record themselves in the manifest when they are finished."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest: dict[str, Any] = {}

    @classmethod
    def create(cls, directory: Path, manifest: dict[str, Any]) -> Run:
        """Start a run, or resume the one that is there if it was started with the same identity.

        ``manifest["identity"]`` holds whatever must not change between start and resume.
        Raises RunError when the directory belongs to another configuration.
        """
        run = cls(directory)
        if (directory / "manifest.json").exists():
            for leftover in directory.glob(f".manifest.json.*{PARTIAL}"):
                leftover.unlink(missing_ok=True)
            run.manifest = read_json(directory / "manifest.json")
            if run.manifest.get("identity") != manifest["identity"]:
                changed = sorted(
                    k
                    for k in {*manifest["identity"], *run.manifest.get("identity", {})}
                    if run.manifest.get("identity", {}).get(k) != manifest["identity"].get(k)
                )
                raise RunError(
                    f"this run was started with other settings ({', '.join(changed) or 'unknown'})",
                    where=directory,
                    fix="choose another --run name, or remove the directory",
                )
        else:
            run.manifest = {**manifest, "stages": {}}
            run.save()
        return run

    @classmethod
    def open(cls, directory: Path) -> Run:
        """An existing run; raises RunError if there is none."""
        run = cls(directory)
        run.manifest = read_json(directory / "manifest.json")
        return run

    def save(self) -> None:
        write_json(self.directory / "manifest.json", self.manifest)

    def path(self, *parts: str) -> Path:
        return self.directory.joinpath(*parts)

    def done(self, stage: str) -> bool:
        return stage in self.manifest["stages"]

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a stage; on success its facts and cost enter the manifest, on failure nothing does."""
        facts: dict[str, Any] = {}
        wall, cpu = time.monotonic(), _cpu_seconds()
        yield facts
        facts |= {"wall_s": round(time.monotonic() - wall, 2), "cpu_s": round(_cpu_seconds() - cpu, 2)}
        self.manifest["stages"][name] = facts
        self.manifest["peak_rss_mb"] = max(self.manifest.get("peak_rss_mb", 0), peak_rss_mb())
        self.save()


def name_of_run(directory: Path) -> str:
    """How a command names a run: by its name where runs are looked for, else by its path."""
    return directory.name if directory.parent == user_directory("data") / "runs" else str(directory)


def is_trained(directory: Path) -> bool:
    """Is there a run, and not one that a gate without training made?"""
    file = directory / "manifest.json"
    return file.exists() and not (isinstance(manifest := read_json(file), dict) and manifest.get("kind") == "gate")


def latest_run(runs: Path, *, trained: bool = False) -> Path:
    """The newest run below ``runs``; with ``trained`` not one that a gate without training made. Raises RunError."""
    found = sorted(runs.glob("*/manifest.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in found:
        if not trained or is_trained(path.parent):
            return path.parent
    raise RunError("no run here yet", where=runs, fix="start one with: ilab rft run")


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_rss_mb() -> int:
    """Largest resident set of this process so far, in MiB (Linux counts KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)
