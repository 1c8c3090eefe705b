"""Mutation score of a grader: the share of slightly changed references that it refuses.

A grader that cannot tell 42 from 52 teaches nothing, however well it treats honest answers. Each operator makes one
small change that turns the right answer into a wrong one; a changed answer that stays below the pass threshold is
*killed*, as in mutation testing of programs. A grader that always passes scores 0 %.

Below :data:`FLOOR` is an error, below 1 a warning: survivors may be meant (a number grader reads no units), and then
the operator gets a reason in ``grader.waivers.json``.

Digits change in the first place, so that a tolerance does not hide it. References of several lines or more than 300
characters (programs, essays) are not changed: whether a change of those alters the answer cannot be known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rft_ilab.grading.engine import SkillGrader
from rft_ilab.grading.proof.evidence import Shot, shoot
from rft_ilab.grading.proof.golden import Finding
from rft_ilab.grading.proof.hostile import NUMERIC, Case, json_of
from rft_ilab.grading.sample import shown
from rft_ilab.skills.reading import canonical_json

FLOOR = 0.9
MAX_LENGTH = 300
MAX_EDITS = 3
DIGIT_PAIR = re.compile(r"(?<![\d.])([1-9])(?!\1)([1-9])|(?<=[\d.])(\d)(?!\3)(\d)")
VERB = re.compile(r"\b(is|are|was|were|can|will|has|does)\b", re.IGNORECASE)
UNITS = {"kg": "g", "g": "kg", "km": "m", "m": "km", "cm": "mm", "mm": "cm", "h": "min", "min": "h", "s": "min"} | {
    "%": "", "°C": "°F", "°F": "°C", "$": "€", "€": "$", "£": "€", "USD": "EUR", "EUR": "USD"
}  # fmt: skip
UNIT = re.compile(r"(?<=\d)(\s?)(kg|g|km|m|cm|mm|h|min|s|USD|EUR)(?!\w)|(?<=\d)(\s?)(%|°C|°F|€)|([$€£])(?=\s?\d)")


def _digit(gold: str) -> str | None:
    """
    >>> _digit("007.5"), _digit("$9"), _digit("0")
    ('008.5', '$8', '1')
    """
    match = re.search(r"[1-9]", gold) or re.search(r"\d", gold)
    if match is None:
        return None
    digit = int(match[0])
    return gold[: match.start()] + str(digit - 1 if digit == 9 else digit + 1) + gold[match.end() :]


def _swap(gold: str) -> str | None:
    """Two neighbouring digits that differ change places; no number gets a leading zero.

    >>> _swap("12.50"), _swap("2024-03-05"), _swap("100")
    ('21.50', '2204-03-05', None)
    """
    match = DIGIT_PAIR.search(gold)
    if match is None:
        return None
    pair = match[0]
    return gold[: match.start()] + pair[1] + pair[0] + gold[match.end() :]


def _sign(gold: str) -> str | None:
    if not NUMERIC.fullmatch(gold) or not re.search(r"[1-9]", gold):
        return None
    return gold[1:] if gold[0] == "-" else f"-{gold.lstrip('+')}"


def _unit(gold: str) -> str | None:
    """
    >>> _unit("5 kg"), _unit("$7"), _unit("20%"), _unit("5 mugs")
    ('5 g', '€7', '20', None)
    """
    match = UNIT.search(gold)
    if match is None:
        return None
    space, unit = match[1] or match[3] or "", match[2] or match[4] or match[5]
    other = UNITS[unit]
    return gold[: match.start()] + (space + other if other else "") + gold[match.end() :]


def _word(gold: str) -> str | None:
    """
    >>> _word("the Eiffel Tower")
    'the Tower'
    """
    words = gold.split()
    if len(words) < 2 or re.search(r"\d", gold):
        return None
    words.remove(max(words, key=len))
    return " ".join(words)


def _negated(gold: str) -> str | None:
    if re.search(r"\d", gold) or not re.search(r"\w", gold) or "not" in gold.casefold().split():
        return None
    negated, count = VERB.subn(r"\1 not", gold, count=1)
    return negated if count else f"not {gold}"


TEXT_OPERATORS: Mapping[str, Callable[[str], str | None]] = {
    "digit": _digit,
    "swap": _swap,
    "sign": _sign,
    "unit": _unit,
    "word": _word,
    "negated": _negated,
}


def _other_value(value: Any) -> Any:
    """Another JSON value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        changed = json_of(_digit(canonical_json(value)) or "")
        return value + 1 if changed is None else changed
    if isinstance(value, str):
        return _digit(value) or f"other {value}"
    return "something" if value is None else value


def _changed(value: Any) -> Iterator[Any]:
    """The value with one of its leaves changed, for every leaf."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from ({**value, key: changed} for changed in _changed(child))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in _changed(child))
    else:
        yield _other_value(value)


def _longer(value: Any) -> Iterator[Any]:
    """A list with one item more, which is none of its own."""
    if isinstance(value, list):
        new = (item for child in value for item in _changed(child) if item not in value)
        yield from ([*value, item] for item in islice(new if value else ["something"], 1))


def _json_mutants(value: Any, fields: Sequence[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from (("field-dropped", value[:i] + value[i + 1 :]) for i in range(min(len(value), MAX_EDITS)))
        yield from (("item-added", longer) for longer in _longer(value))
        yield from (("value", changed) for changed in islice(_changed(value), MAX_EDITS))
        return
    names = [key for key in value if not fields or key in fields][:MAX_EDITS]
    for name in names:
        yield "field-dropped", {key: child for key, child in value.items() if key != name}
        yield "field-renamed", {f"{key}_" if key == name else key: child for key, child in value.items()}
        yield from (("item-added", {**value, name: longer}) for longer in _longer(value[name]))
        yield from (("value", {**value, name: changed}) for changed in islice(_changed(value[name]), MAX_EDITS))


def mutants(case: Case, fields: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """(operator, wrong answer). ``fields`` are the keys that the grader compares, if not all.

    >>> from rft_ilab.types import Task
    >>> task = Task(id="", skill="", messages=(), reference="-7", item={}, group="", split="train")
    >>> list(mutants(Case(line=1, task=task)))
    [('digit', '-8'), ('sign', '7')]
    """
    gold = case.gold.strip()
    if not gold or "\n" in gold or len(gold) > MAX_LENGTH:
        return
    value = json_of(gold)
    if isinstance(value, dict | list):
        yield from ((name, canonical_json(changed)) for name, changed in _json_mutants(value, fields))
        return
    labels = [label.strip() for label in case.labels]
    if gold in labels:
        yield "label", labels[(labels.index(gold) + 1) % len(labels)]
    elif case.other is not None and case.other.strip():
        yield "other", case.other.strip()
    for name, operator in TEXT_OPERATORS.items():
        changed = operator(gold)
        if changed is not None and changed != gold:
            yield name, changed


OPERATORS = ("label", "other", *TEXT_OPERATORS, "field-dropped", "field-renamed", "item-added", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """How many changed references were tried and killed, by operator; and the first survivors."""

    tried: Mapping[str, int] = field(default_factory=dict)
    killed: Mapping[str, int] = field(default_factory=dict)
    survivors: tuple[Shot, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def score(self) -> float | None:
        """None if no reference could be changed."""
        total = sum(self.tried.values())
        return sum(self.killed.values()) / total if total else None

    def as_dict(self) -> dict[str, Any]:
        operators = {name: {"tried": self.tried[name], "killed": self.killed.get(name, 0)} for name in self.tried}
        survivors = [
            {"line": shot.case.line, "reference": shot.case.gold, "answer": shot.text, "score": shot.grade.score}
            for shot in self.survivors[:10]
        ]
        return {"score": self.score, "floor": FLOOR, "operators": operators, "survivors": survivors}


def mutate(
    grader: SkillGrader, cases: Sequence[Case], fields: Sequence[str], without: set[str], file: Path
) -> Mutation:
    """Grade the changed references of all cases; ``without`` names operators that do not apply."""
    planned = [(name, case, text) for case in cases for name, text in mutants(case, fields) if name not in without]
    shots = shoot(grader, [(case, text) for _, case, text in planned])
    tried, killed = Counter[str](name for name, _, _ in planned), Counter[str]()
    places = Counter[str]()
    survivors: list[Shot] = []
    failed: list[Shot] = []
    for (name, _, _), shot in zip(planned, shots, strict=True):
        if shot.grade.passed is False:
            killed[name] += 1
        else:
            (failed if shot.grade.error else survivors).append(shot)
            places[name] += 1
    result = Mutation(tried=tried, killed=killed, survivors=tuple(survivors))
    findings = []
    if failed:
        message = f"the grader fails on a changed reference, here {shown(failed[0].text)}: {failed[0].grade.error}"
        fix = "score a malformed answer 0; an error is for what is no fault of the answer"
        findings.append(Finding(severity="error", message=message, file=file, line=failed[0].case.line, fix=fix))
    if survivors and result.score is not None:
        first = survivors[0]
        counts = ", ".join(f"{name} {count} of {tried[name]}" for name, count in places.most_common())
        message = (
            f"mutation score {100 * result.score:.0f}%: of {len(shots)} changed references {len(survivors)} pass "
            f"({counts}), here {shown(first.text)} for {shown(first.case.gold)}"
        )
        fix = f'refuse them, or say in grader.waivers.json why "mutant-{places.most_common(1)[0][0]}" does not apply'
        severity: Literal["error", "warning"] = "error" if result.score < FLOOR else "warning"
        findings.append(Finding(severity=severity, message=message, file=file, line=first.case.line, fix=fix))
    return Mutation(tried=tried, killed=killed, survivors=tuple(survivors), findings=tuple(findings))
