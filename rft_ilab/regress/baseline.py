"""A stored baseline: what one model did on every suite of the gate, as a text that a git repository can hold.

One line a task, sorted, no dates and no paths, so that the same results give the same bytes and a change reads as a
diff. A task's line is ``[task, greedy, sampled, answer, text]``: a digest of all that it was asked (prompt and item),
its greedy score, the scores of its draws, a digest of the greedy completion, and the first characters of that one.
Scores are None (null) where the grader failed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rft_ilab.errors import RunError
from rft_ilab.regress.verdict import TaskResult
from rft_ilab.skills.reading import has_lone_surrogate, parse_json
from rft_ilab.types import digest

FORMAT = 1
COLUMNS = ("task", "greedy", "sampled", "answer", "text")
TEXT_LIMIT = 240  # characters of a completion that are kept
ID_DIGITS = 16  # of a task's id: 64 bits tell the tasks of a suite apart
DIGEST_DIGITS = 12

Scores = tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """One line, without its task's id; see the module's docstring."""

    task: str
    greedy: float | None
    sampled: Scores
    answer: str
    text: str

    @property
    def whole(self) -> bool:
        """Whether ``text`` is all of the completion."""
        return short_digest(self.text) == self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSuite:
    """One skill under one prompt. ``suite`` and ``grader`` are digests; ``tasks`` is keyed by :func:`short_id`."""

    skill: str
    demonstrations: int
    suite: str
    grader: str
    max_tokens: int
    temperature: float
    seed: int
    samples: int
    tasks: Mapping[str, StoredTask]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """``model_id`` names weights and number format; ``prompts`` has the number of demonstrations with which the model
    did better on the validation tasks of each skill."""

    name: str
    model_id: str
    model_name: str
    versions: Mapping[str, str]
    prompts: Mapping[str, int]
    suites: Sequence[StoredSuite]

    def suite(self, skill: str, demonstrations: int) -> StoredSuite | None:
        found = [s for s in self.suites if (s.skill, s.demonstrations) == (skill, demonstrations)]
        return found[0] if found else None


def short_id(task_id: str) -> str:
    return task_id[:ID_DIGITS]


def short_digest(value: Any) -> str:
    return digest(value)[:DIGEST_DIGITS]


def stored_task(result: TaskResult, asked: Any) -> StoredTask:
    """The line of one result; ``asked`` is whatever decides what the model and the grader were given."""
    return StoredTask(
        task=short_digest(asked),
        greedy=result.greedy.score,
        sampled=tuple(result.sampled),
        answer=short_digest(result.greedy.text),
        text=result.greedy.text[:TEXT_LIMIT],
    )


def dumps(baseline: Baseline) -> str:
    """The file's text; the same baseline always gives the same bytes (pure ASCII)."""
    head: dict[str, Any] = {
        "format": FORMAT,
        "name": baseline.name,
        "model": {"id": baseline.model_id, "name": baseline.model_name},
        "versions": dict(sorted(baseline.versions.items())),
        "prompts": dict(sorted(baseline.prompts.items())),
        "columns": list(COLUMNS),
    }
    lines = [f" {_json(key)}: {_json(value)}," for key, value in head.items()]
    suites = [_suite(suite) for suite in sorted(baseline.suites, key=lambda s: (s.skill, s.demonstrations))]
    return "\n".join(["{", *lines, ' "suites": [', ",\n".join(suites), " ]", "}"]) + "\n"


def _suite(suite: StoredSuite) -> str:
    facts = {
        "skill": suite.skill,
        "demonstrations": suite.demonstrations,
        "suite": suite.suite,
        "grader": suite.grader,
        "max_tokens": suite.max_tokens,
        "temperature": _number(suite.temperature),
        "seed": suite.seed,
        "samples": suite.samples,
    }
    rows = [f"   {_json(key)}: {_json(_row(task))}" for key, task in sorted(suite.tasks.items())]
    lines = [f"   {_json(key)}: {_json(value)}," for key, value in facts.items()]
    return "\n".join(["  {", *lines, '   "tasks": {', ",\n".join(rows), "   }", "  }"])


def _row(task: StoredTask) -> list[Any]:
    return [task.task, _number(task.greedy), [_number(s) for s in task.sampled], task.answer, task.text]


def _number(score: float | None) -> float | int | None:
    """Whole numbers without a point: 1, not 1.0."""
    return int(score) if score is not None and float(score).is_integer() else score


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def loads(text: str, where: Path | str) -> Baseline:
    """The baseline in a file's text. Raises RunError (one line, with the place) if anything is not as written."""
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise RunError(f"not valid JSON: {error}", where=where, line=getattr(error, "lineno", None)) from error
    if has_lone_surrogate(raw):
        raise RunError("a string holds half a character (lone surrogate)", where=where)
    top = _Checked(raw, where, "the file")
    if (written := top.get("format", int)) != FORMAT:
        raise RunError(f"format {written}; this version reads {FORMAT}", where=where, fix="save the baseline again")
    if top.get("columns", list) != list(COLUMNS):
        top.wrong("columns", f"{list(COLUMNS)}")
    model = _Checked(top.get("model", dict), where, "model")
    suites = [_parse_suite(_Checked(value, where, f"suites[{i}]")) for i, value in enumerate(top.get("suites", list))]
    names = [(suite.skill, suite.demonstrations) for suite in suites]
    if len(set(names)) != len(names):
        top.wrong("suites", "one for each skill and prompt")
    return Baseline(
        name=top.get("name", str),
        model_id=model.get("id", str),
        model_name=model.get("name", str),
        versions=top.mapping("versions", str),
        prompts=top.mapping("prompts", int),
        suites=tuple(suites),
    )


def _parse_suite(fields: _Checked) -> StoredSuite:
    samples = fields.count("samples")
    rows = fields.get("tasks", dict)
    temperature = fields.get("temperature", float)
    if not 0 <= temperature <= 1000:
        fields.wrong("temperature", "a number from 0 to 1000")
    tasks = {}
    for key, row in rows.items():
        place = f"tasks.{key[:ID_DIGITS]!r}"
        if not _hexadecimal(key, ID_DIGITS):
            fields.wrong(place, f"named by {ID_DIGITS} hexadecimal digits")
        if not isinstance(row, list) or len(row) != len(COLUMNS):
            fields.wrong(place, f"[{', '.join(COLUMNS)}]")
        asked, greedy, sampled, answer, text = row
        if not _hexadecimal(asked, DIGEST_DIGITS) or not _hexadecimal(answer, DIGEST_DIGITS):
            fields.wrong(place, f"with digests of {DIGEST_DIGITS} hexadecimal digits")
        if not isinstance(sampled, list) or len(sampled) != samples or not all(map(_is_score, (greedy, *sampled))):
            fields.wrong(place, f"with a greedy and {samples} sampled scores, each from 0 to 1 or null")
        if not isinstance(text, str) or len(text) > TEXT_LIMIT:
            fields.wrong(place, f"with a text of at most {TEXT_LIMIT} characters")
        scores = [None if score is None else float(score) for score in (greedy, *sampled)]
        task = StoredTask(task=asked, greedy=scores[0], sampled=tuple(scores[1:]), answer=answer, text=text)
        if not task.whole and len(text) < TEXT_LIMIT:
            fields.wrong(place, "with a text that its digest belongs to")
        tasks[key] = task
    return StoredSuite(
        skill=fields.get("skill", str),
        demonstrations=fields.count("demonstrations"),
        suite=fields.get("suite", str),
        grader=fields.get("grader", str),
        max_tokens=fields.count("max_tokens"),
        temperature=float(temperature),
        seed=fields.count("seed"),
        samples=samples,
        tasks=tasks,
    )


def _is_score(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 and math.isfinite(value)


def _hexadecimal(value: Any, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is not None


class _Checked:
    """Typed access to a parsed object; every getter raises RunError that names file and field."""

    def __init__(self, raw: Any, where: Path | str, place: str) -> None:
        self.where, self.place = where, place
        if not isinstance(raw, dict):
            self.wrong("", "an object")
        self.raw = raw

    def wrong(self, key: str, wanted: str) -> NoReturn:
        place = f"{self.place}.{key}" if key and self.place != "the file" else key or self.place
        raise RunError(
            f"no stored baseline: {place} must be {wanted}",
            where=self.where,
            fix="write it anew with: ilab rft baseline save",
        )

    def get(self, key: str, kind: type) -> Any:
        value = self.raw.get(key)
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            names = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
            self.wrong(key, names[kind])
        return value

    def count(self, key: str) -> int:
        value: int = self.get(key, int)
        if not 0 <= value < 2**63:
            self.wrong(key, "a whole number that is not negative")
        return value

    def mapping(self, key: str, kind: type) -> dict[str, Any]:
        inner = _Checked(self.get(key, dict), self.where, key)
        return {name: inner.count(name) if kind is int else inner.get(name, kind) for name in inner.raw}
