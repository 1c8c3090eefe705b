"""Where the ledger of a generation lies, and lines of rows that an earlier generation had judged."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rft_ilab.errors import DiskError, HostError
from rft_ilab.host.sdg.running import Generation, log
from rft_ilab.store import append_jsonl, read_jsonl, user_directory

NAME = "rft_ledger.jsonl"
#: column of a kept row that names its line in the ledger; SDG carries it on into the row's metadata
COLUMN = "rft_ledger_id"


def place(name: str, generation: Generation | None) -> Path:
    """The file: absolute as given, else in the generation's output directory, else in a file of its own in the
    user's data directory (said in the log), so that it is nowhere lost."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    if generation is not None and generation.output is not None:
        return generation.output.absolute() / path
    started = f"{time.strftime('%Y-%m-%d_%H%M%S')}-{os.getpid()}"
    path = user_directory("data") / "ledgers" / f"{path.stem}-{started}.jsonl"
    log.warning("the ledger is %s: this is no generation of which the output directory is known", path)
    return path


def append(path: Path, lines: Sequence[dict[str, Any]], generation: Generation | None) -> None:
    """Write lines, and again beside SDG's checkpoints, where the next generation looks. Raises HostError."""
    try:
        append_jsonl(path, lines)
        if generation is not None:
            generation.ledgers.add(path)
            if generation.checkpoints is not None:
                append_jsonl(generation.checkpoints / NAME, lines)
    except (OSError, DiskError) as error:
        fix = "make room there, or set `ledger` in the pipeline"
        if isinstance(error, DiskError):
            raise HostError(f"the ledger {error.what}", where=error.where, fix=fix) from error
        what = f"the ledger cannot be written: {error.strerror}"
        raise HostError(what, where=error.filename or path, fix=fix) from error


def _generated(generation: Generation) -> list[str]:
    """The ids of the lines of all rows that this generation wrote."""
    files = sorted(generation.output.glob("generated_*/*.jsonl")) if generation.output else []
    return [row[COLUMN] for file in files for row in read_jsonl(file) if row.get(COLUMN)]


def kept_lines(generation: Generation) -> list[dict[str, Any]]:
    """The lines of the rows that this generation wrote, once each, in their order."""
    lines = {line["id"]: line for path in generation.ledgers for line in read_jsonl(path)}
    return [lines[key] for key in dict.fromkeys(_generated(generation)) if key in lines]


def take_over(generation: Generation) -> int:
    """Give the rows that SDG took out of a checkpoint their lines, marked ``from_checkpoint``, in this ledger too.

    Returns how many rows that are; their lines say that they were kept.
    """
    if generation.output is None or generation.checkpoints is None:
        return 0
    used = _generated(generation)
    known = {line["id"] for path in generation.ledgers for line in read_jsonl(path)}
    missing = set(used) - known
    if not missing:
        return 0
    earlier = {line["id"]: line for line in read_jsonl(generation.checkpoints / NAME)}
    lines = [earlier[key] | {"from_checkpoint": True} for key in used if key in missing and key in earlier]
    path = min(generation.ledgers, default=place(NAME, generation))
    append_jsonl(path, lines)
    generation.ledgers.add(path)
    log.info("%d rows come out of %s: an earlier generation verified them", len(missing), generation.checkpoints)
    if len(lines) < len(missing):
        log.warning("%d of them have no line in %s", len(missing) - len(lines), generation.checkpoints / NAME)
    return len(missing)
