"""``gate/results.jsonl``: everything that the gate compared, one line a (suite, model, task).

A line names the model and how it was asked, so that each answer can be found in the cache, or asked for again. The
file belongs to ``gate/verdict.json`` and is replaced with it; lines of a suite stand together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rft_ilab.errors import RunError
from rft_ilab.regress.verdict import Answer, TaskResult
from rft_ilab.store import write_atomic
from rft_ilab.types import Sampling, Suite

FILE = ("gate", "results.jsonl")
Side = Literal["baseline", "candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line. ``max_tokens``, ``temperature`` and ``seed`` are those of the sampled draws; the greedy answer has the
    same ``max_tokens``. ``sampled`` are scores, None where the grader failed."""

    suite: str
    tier: str
    side: Side
    model: str
    demonstrations: int
    max_tokens: int
    temperature: float
    seed: int
    task_id: str
    group: str
    cls: str | None
    prompt: str
    reference: str
    greedy: Answer
    sampled: tuple[float | None, ...]

    @property
    def ungraded(self) -> bool:
        """Did the grader fail on the greedy answer or on any draw?"""
        return self.greedy.score is None or None in self.sampled

    @property
    def greedy_sampling(self) -> Sampling:
        return Sampling(temperature=0.0, max_tokens=self.max_tokens)

    @property
    def draws_sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_tokens=self.max_tokens, seed=self.seed)


Measured = tuple[Suite, Side, str, Sequence[TaskResult]]


def write_results(path: Path, measured: Iterable[Measured]) -> None:
    """Replace the file by these measurements, given as (suite, side, policy id, results). Atomic.

    Raises DiskError when there is no room.
    """
    lines = [_line(suite, side, model, result) for suite, side, model, results in measured for result in results]
    write_atomic(path, "".join(lines))


def _line(suite: Suite, side: Side, model: str, result: TaskResult) -> str:
    sampling = suite.sampling
    row = {
        "suite": suite.name,
        "tier": suite.tier,
        "side": side,
        "model": model,
        "demonstrations": suite.demonstrations,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "task_id": result.task_id,
        "group": result.group,
        "class": result.cls,
        "prompt": result.prompt,
        "reference": result.reference,
        "score": result.greedy.score,
        "completion": result.greedy.text,
        "answer": result.greedy.answer,
        "reason": result.greedy.reason,
        "sampled": list(result.sampled),
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_results(path: Path, having: str = "") -> Iterator[Result]:
    """The lines of the file that have this text anywhere, one at a time; reading the others costs much more.

    Raises RunError if the file is missing or a line is none of ours.
    """
    if not path.exists():
        raise RunError(
            "the single results of this gate are not there",
            where=path,
            fix="judge again with: ilab model regress; answers in the cache cost nothing",
        )
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if having not in line:
                continue
            try:
                yield _result(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RunError(
                    f"not a line of results: {error!r}", where=path, line=number, fix="judge again: ilab model regress"
                ) from error


def _result(row: dict[str, Any]) -> Result:
    greedy = Answer(score=_score(row["score"]), text=row["completion"], reason=row["reason"], answer=row["answer"])
    fields = {name: row[name] for name in _COPIED}
    texts = [row[name] for name in ("suite", "task_id", "group", "model", "prompt", "reference", "completion")]
    if row["side"] not in ("baseline", "candidate") or not all(isinstance(text, str) for text in texts):
        raise ValueError("a field has the wrong type")
    return Result(**fields, cls=row["class"], greedy=greedy, sampled=tuple(_score(score) for score in row["sampled"]))


def _score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{value!r} is no score")
    return float(value)


_COPIED = (
    "suite", "tier", "side", "model", "demonstrations", "max_tokens", "temperature", "seed", "task_id", "group",
    "prompt", "reference",
)  # fmt: skip
