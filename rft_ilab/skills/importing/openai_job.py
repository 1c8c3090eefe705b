"""A reinforcement fine-tuning job of OpenAI: its grader, its training file, its validation file.

The grader comes alone or inside a job's body (``method.reinforcement.grader``). Rows are JSON objects with
``messages``, the last one from the user, and free fields, which stay. ``developer`` is read as ``system``, parts of
type ``text`` as one text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.errors import SkillError
from rft_ilab.skills.importing.draft import SPLITS, Problems, SourceRow
from rft_ilab.skills.importing.source import source_json, source_lines
from rft_ilab.skills.tasks import REFERENCES, parse_row

FIELD = re.compile(r"\{\{\s*item\.([^{}\s]+)\s*\}\}")
SERVED = ("image_tag",)  # keys of OpenAI's graders that say where they run
ROLES = {"developer": "system"}
TEXT_PARTS = ("text", "input_text")


def read_job_grader(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The grader of a file that holds one, or a job; and what of the job is not taken over. Raises SkillError."""
    raw = source_json(path)
    if not isinstance(raw, dict):
        raise SkillError("must be one JSON object", where=path, line=1, fix="a grader, or the body of a job")
    notes = []
    if "method" in raw:
        method = raw["method"]
        part = method.get("reinforcement") if isinstance(method, dict) else None
        if not isinstance(part, dict) or not isinstance(part.get("grader"), dict):
            what = "a job without method.reinforcement.grader"
            raise SkillError(what, where=path, line=1, fix="only reinforcement jobs have a grader")
        raw = part["grader"]
        left = [key for key in ("hyperparameters", "response_format") if part.get(key)]
        notes = [f"not taken over: {', '.join(left)} of the job"] if left else []
    if not isinstance(raw.get("type"), str):
        raise SkillError("a grader without a type", where=path, line=1, fix="see docs/graders.md")
    return _plain(raw), notes


def _plain(grader: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in grader.items() if value is not None and key not in SERVED}
    parts = kept.get("graders")
    if isinstance(parts, dict):
        kept["graders"] = {name: _plain(part) if isinstance(part, dict) else part for name, part in parts.items()}
    elif isinstance(parts, list):
        kept["graders"] = [_plain(part) if isinstance(part, dict) else part for part in parts]
    return kept


def read_job_rows(path: Path, problems: Problems, limit: int | None) -> Iterator[SourceRow]:
    """The rows of a training or validation file; bad ones are added to ``problems``."""
    for number, text in source_lines(path, limit):
        if not text.strip():
            continue
        try:
            row = parse_row(text.strip(), path, number)
            if "\\u0000" in text and _has_nul(row):
                raise SkillError("a text holds a NUL character", where=path, line=number, fix="remove it")
            yield SourceRow(row=_normalised(row, path, number), file=path, line=number)
        except SkillError as error:
            problems.add(error)


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    return any(map(_has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def _normalised(row: dict[str, Any], path: Path, line: int) -> dict[str, Any]:
    def bad(what: str, fix: str) -> SkillError:
        return SkillError(what, where=path, line=line, fix=fix)

    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("no messages", 'add "messages": [{"role": "user", "content": "..."}]')
    if row.get("tools"):
        raise bad("the row has tools, and policies here call none", "import the rows without tools")
    turns = []
    for index, turn in enumerate(messages):
        if not isinstance(turn, dict):
            raise bad(f"message {index + 1} is no object", "give it a role and a content")
        kept = {key: value for key, value in turn.items() if value is not None and key != "name"}
        if isinstance(parts := kept.get("content"), list):
            if not all(isinstance(part, dict) and part.get("type") in TEXT_PARTS for part in parts):
                raise bad(f"message {index + 1} has parts that are no text", "images and audio are not supported")
            kept["content"] = "".join(str(part.get("text", "")) for part in parts)
        if (
            set(kept) != {"role", "content"}
            or not isinstance(kept["role"], str)
            or not isinstance(kept["content"], str)
        ):
            raise bad(f"message {index + 1} must have exactly role and content, both texts", "remove or add the key")
        turns.append({"role": ROLES.get(kept["role"], kept["role"]), "content": kept["content"]})
    fields = {key: value for key, value in row.items() if key not in ("messages", "tools")}
    if isinstance(split := fields.get("split"), str):
        fields["split"] = SPLITS.get(split.strip().lower(), split)
    return {"messages": turns, **fields}


def reference_fields(grader: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Which fields of a row may hold the completion that the grader must accept, the likeliest first.

    >>> reference_fields({"type": "string_check", "reference": "{{item.city}}"}, {"city": "Paris", "answer": "no"})
    ['answer', 'city']

    Where there is a ``reference`` it is the only one: the grader may read it, so it cannot be another.
    """
    if row.get("reference") is not None:
        return ["reference"]
    usual = [name for name in REFERENCES if row.get(name) is not None]
    named = [name for text in _texts(grader) for name in FIELD.findall(text)]
    return list(dict.fromkeys(name for name in (*usual, *named) if field_of(row, name) is not None))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def field_of(row: Mapping[str, Any], path: str) -> Any:
    """``a.b`` of a row; None if there is no such field."""
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def with_reference(rows: Sequence[SourceRow], name: str) -> list[SourceRow]:
    """The rows with the field ``name`` as ``reference``; those that lack it stay as they are, and are told later."""
    return [
        SourceRow(row={**one.row, "reference": value}, file=one.file, line=one.line)
        if one.row.get("reference") is None and (value := field_of(one.row, name)) is not None
        else one
        for one in rows
    ]
