"""Read Open-Instruct's RLVR data: columns ``messages``, ``ground_truth``, ``dataset``; Parquet or JSON Lines.

A directory is read whole (``train-00000-of-00002.parquet``, ``data/test.jsonl``); the beginning of a file's name says
its split. As in Open-Instruct, a single text stands for a list of one, and lists of equal length for several
verifiers.

Not covered: data sets on the Hugging Face hub (download them), ``.json`` files that are one list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.skills.importing.draft import SPLITS
from rft_ilab.skills.importing.source import MAX_ROWS, source_lines
from rft_ilab.skills.reading import has_lone_surrogate
from rft_ilab.skills.tasks import ROLES, parse_row

COLUMNS = ("messages", "ground_truth", "dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class RlvrRow:
    """One row; ``answer`` is the assistant's last message or the column that holds an answer, None without one."""

    messages: tuple[Mapping[str, str], ...]
    verifiers: tuple[str, ...]
    labels: tuple[Any, ...]
    answer: str | None
    split: str | None
    file: Path
    line: int


def rlvr_files(path: Path) -> list[Path]:
    """The data files of a path, by name. Raises SkillError if there are none."""
    if path.is_file():
        return [path]
    found = sorted(
        file for pattern in ("*", "data/*") for file in path.glob(pattern) if file.suffix in (".parquet", ".jsonl")
    )
    if not found:
        fix = "name a .parquet or .jsonl file, or a directory that holds some"
        raise SkillError("no RLVR data", where=path, fix=fix)
    return found


def split_of(file: Path) -> str | None:
    """The split that a file's name begins with: ``test-00000-of-00001.parquet`` is ``test``."""
    return SPLITS.get(re.split(r"[-_.]", file.name.lower(), maxsplit=1)[0])


def read_rlvr(file: Path, answer: str | None, limit: int | None) -> Iterator[RlvrRow]:
    """The rows of one file. ``answer`` is a column with a right answer. Raises SkillError with the row (1-based)."""
    rows = _parquet(file, answer, limit) if file.suffix == ".parquet" else _jsonl(file, limit)
    split = split_of(file)
    for line, row in rows:
        yield _row(row, answer, split, file, line)


def _jsonl(file: Path, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in source_lines(file, limit):
        if text.strip():
            yield line, parse_row(text, file, line)


def _parquet(file: Path, answer: str | None, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        names = set(opened.schema_arrow.names)
        wanted = [*COLUMNS, *([answer] if answer else [])]
        for name in wanted:
            if name not in names:
                raise SkillError(
                    f"no column {name!r}", where=file, fix=f"there are {', '.join(sorted(names)) or 'none'}"
                )
        count = 0
        for batch in opened.iter_batches(batch_size=256, columns=wanted):
            for row in batch.to_pylist():
                if count == limit:
                    return
                count += 1
                if count > MAX_ROWS:
                    fix = "take the first of them with --limit"
                    raise SkillError(f"more than {MAX_ROWS:,} rows", where=file, line=count, fix=fix)
                yield count, row
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SkillError(f"not a Parquet file that can be read: {first[:120]}", where=file) from error


def _row(row: Mapping[str, Any], answer: str | None, split: str | None, file: Path, line: int) -> RlvrRow:
    def bad(what: str, fix: str) -> SkillError:
        return SkillError(what, where=file, line=line, fix=fix)

    for name in (*COLUMNS, *([answer] if answer else [])):
        if name not in row:
            raise bad(f"no column {name!r}", "an RLVR row has messages, ground_truth and dataset")
    if has_lone_surrogate({name: row[name] for name in COLUMNS}):
        raise bad("a string holds half a character (lone surrogate)", "remove it")
    messages = _messages(row["messages"], bad)
    given = row[answer] if answer else None
    if messages[-1]["role"] == "assistant":
        given = given or messages.pop()["content"]
    if not messages or messages[-1]["role"] != "user":
        raise bad("the last message is not from the user", "an RLVR row ends with the question")
    labels, verifiers = row["ground_truth"], row["dataset"]
    labels = labels if isinstance(labels, list) else [labels]
    verifiers = verifiers if isinstance(verifiers, list) else [verifiers]
    if not verifiers or not all(isinstance(name, str) and name.strip() for name in verifiers):
        raise bad(f"dataset must name verifiers, not {str(row['dataset'])[:40]!r}", "such as gsm8k")
    if len(labels) != len(verifiers):
        raise bad(f"{len(labels)} labels for {len(verifiers)} verifiers", "give each verifier its label")
    return RlvrRow(
        messages=tuple(messages), verifiers=tuple(name.strip().lower() for name in verifiers), labels=tuple(labels),
        answer=str(given) if given is not None and str(given).strip() else None, split=split, file=file, line=line,
    )  # fmt: skip


def _messages(raw: Any, bad: Callable[[str, str], SkillError]) -> list[dict[str, str]]:
    if not isinstance(raw, list) or not raw or not all(isinstance(turn, Mapping) for turn in raw):
        raise bad("messages must be a list of messages", 'such as [{"role": "user", "content": "..."}]')
    messages = []
    for turn in raw:
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            raise bad(f"a message has the role {str(role)[:20]!r}", "system, user and assistant are known")
        if not isinstance(content, str) or not content.strip():
            raise bad("a message has no text", "content must be a text that is not empty")
        messages.append({"role": role, "content": content})
    return messages
