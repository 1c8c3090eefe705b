"""Two and many models on the same tasks: who is better on which skill, and who may still be the best. Pure.

One table is one family of claims: all pairs of models, on all skills, greedy and (where asked for) sampled.
A pair has two one-sided hypotheses, one for either direction, and Holm's adjustment (1979) runs over all of
them, so that the chance of *any* wrong "is better" in the table is at most alpha, whatever depends on what.
That the two are equal up to the margin is another family: two one-sided tests (Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics 15:657, 1987), Holm-adjusted over the pairs, at alpha / 2, the level of the gate.

The best of a row are all models that no other is shown to beat. If every "is better" is right, the truly best
model is among them: sets that hold together at confidence 1 - alpha, with no further adjustment (compare Hsu,
Annals of Statistics 9:1026, 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypedDict

from rft_ilab.regress import classes as by_class
from rft_ilab.regress import statistics
from rft_ilab.regress.accuracy import accuracy_interval
from rft_ilab.regress.pairing import (
    Score,
    advice,
    aligned,
    compare,
    graded_everywhere,
    greedy_score,
    sampled_score,
    too_few_groups,
    undecidable,
)
from rft_ilab.regress.statistics import Difference
from rft_ilab.regress.target import MIN_CLASS_N
from rft_ilab.regress.verdict import TaskResult

Kind = Literal["greedy", "sampled"]
Finding = Literal["first better", "second better", "not shown", "undecidable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSuite:
    """One skill's results by model, in the order of the table; two models within ``margin`` count as equal."""

    skill: str
    margin: float
    prompt_label: str
    results: Mapping[str, Sequence[TaskResult]]


class ScoreRow(TypedDict):
    """One model alone; ``score``, and ``macro`` for skills with classes, are None where nothing counts."""

    model: str
    n: int
    ungraded: int
    score: float | None
    ci: list[float]
    macro: float | None


class PairRow(TypedDict):
    """``delta`` is second - first, its ``ci`` for this pair alone; ``p`` (two-sided) and ``p_equivalent`` are adjusted.

    ``better`` and ``worse`` count tasks that ``second`` did better or worse. A pair that cannot be judged has no
    ``delta``, or a ``note`` that says why."""

    first: str
    second: str
    n: int
    ungraded: int
    clusters: int
    delta: float | None
    ci: list[float]
    better: int
    worse: int
    p: float
    p_equivalent: float
    finding: Finding
    equivalent: bool
    note: str


class SkillRow(TypedDict):
    """``best``: the models that no other is shown to beat here. ``samples`` is 0 for greedy answers."""

    skill: str
    metric: Kind
    prompt: str
    margin: float
    tasks: int
    samples: int
    scores: list[ScoreRow]
    pairs: list[PairRow]
    best: list[str]


class Standing(TypedDict):
    """One model over all rows: its mean greedy score (None if one is missing), pairs won and lost, rows in ``best``."""

    model: str
    mean: float | None
    won: int
    lost: int
    best_on: int


class Comparison(TypedDict):
    """What ``ilab rft compare --json`` prints. ``unbeaten``: the models that are among the best of every row."""

    alpha: float
    models: list[dict[str, str]]
    pairs: int
    rows: list[SkillRow]
    standings: list[Standing]
    unbeaten: list[str]


def compare_models(suites: Sequence[ComparedSuite], models: Mapping[str, str], alpha: float) -> Comparison:
    """The table of ``models`` (labels, with their ids). Sampled rows are there where every model has samples.

    Raises ValueError for fewer than two models, RunError if they did not answer the same tasks.
    """
    labels = list(models)
    if len(labels) < 2:
        raise ValueError("a comparison needs two models")
    rows = [
        _measured(suite, labels, kind, score, alpha)
        for suite in suites
        for kind, score in _metrics(suite, labels).items()
    ]
    _claim(rows, alpha)
    for row, _ in rows:
        row["best"] = _best(row["pairs"], labels)
    table = [row for row, _ in rows]
    return Comparison(
        alpha=alpha,
        models=[{"name": label, "id": models[label]} for label in labels],
        pairs=sum(len(row["pairs"]) for row in table),
        rows=table,
        standings=[_standing(label, table) for label in labels],
        unbeaten=[label for label in labels if all(label in row["best"] for row in table)],
    )


Measured = tuple[SkillRow, list[Difference | None]]


def _metrics(suite: ComparedSuite, labels: Sequence[str]) -> dict[Kind, Score]:
    sampled = all(result.sampled for label in labels for result in suite.results[label])
    some = any(suite.results[label] for label in labels)
    return {"greedy": greedy_score, **({"sampled": sampled_score} if sampled and some else {})}


def _measured(suite: ComparedSuite, labels: Sequence[str], kind: Kind, score: Score, alpha: float) -> Measured:
    """Everything of a row that needs no other row: scores, differences, which pairs cannot be judged."""
    order = suite.results[labels[0]]
    sides = {label: aligned(suite.skill, suite.results[label], order) for label in labels}
    pairs: list[PairRow] = []
    differences: list[Difference | None] = []
    for first, second in combinations(labels, 2):
        graded = graded_everywhere([sides[first], sides[second]], score)
        d = compare(sides[first], sides[second], score, graded, alpha)
        why = undecidable(graded, kind)
        note = why or (too_few_groups(d, alpha) if d else "nothing was graded") or ""
        differences.append(None if why else d)
        pairs.append(
            PairRow(
                first=first,
                second=second,
                n=sum(graded),
                ungraded=len(graded) - sum(graded),
                clusters=d.clusters if d else 0,
                delta=d.delta if d else None,
                ci=[d.low, d.high] if d else [-1.0, 1.0],
                better=d.better if d else 0,
                worse=d.worse if d else 0,
                p=1.0,
                p_equivalent=1.0,
                finding="undecidable" if note else "not shown",
                equivalent=False,
                note=note,
            )
        )
    row = SkillRow(
        skill=suite.skill,
        metric=kind,
        prompt=suite.prompt_label,
        margin=suite.margin,
        tasks=len(order),
        samples=max((len(result.sampled) for result in order), default=0) if kind == "sampled" else 0,
        scores=[_score_row(label, sides[label], score, alpha) for label in labels],
        pairs=pairs,
        best=[],
    )
    return row, differences


def _score_row(label: str, side: Sequence[TaskResult], score: Score, alpha: float) -> ScoreRow:
    graded = graded_everywhere([side], score)
    kept = [result for result, keep in zip(side, graded, strict=True) if keep]
    scores_N = [score(result) for result in kept]
    classes = [result.cls for result in kept if result.cls is not None]
    complete = bool(kept) and len(classes) == len(kept)  # half a classification is none
    return ScoreRow(
        model=label,
        n=len(kept),
        ungraded=len(side) - len(kept),
        score=sum(scores_N) / len(kept) if kept else None,
        ci=list(accuracy_interval(scores_N, [result.group for result in kept], alpha)) if kept else [0.0, 1.0],
        macro=by_class.macro_mean(scores_N, classes, MIN_CLASS_N) if complete else None,
    )


def _claim(rows: Sequence[Measured], alpha: float) -> None:
    """Adjusted p-values and findings, over all rows at once.

    A pair that cannot be judged still counts as a hypothesis: breaking one must not ease the others.
    """
    every = [(row, pair, d) for row, found in rows for pair, d in zip(row["pairs"], found, strict=True)]
    rising = [d.p_superior(0.0) if d else 1.0 for _, _, d in every]
    falling = [d.p_inferior(0.0) if d else 1.0 for _, _, d in every]
    adjusted = statistics.holm([*rising, *falling])
    within = statistics.holm(
        [max(d.p_superior(-r["margin"]), d.p_inferior(r["margin"])) if d else 1.0 for r, _, d in every]
    )
    for i, (row, pair, d) in enumerate(every):
        up, down = adjusted[i], adjusted[len(every) + i]
        pair["p"], pair["p_equivalent"] = min(up, down), within[i]
        if d is None or pair["finding"] == "undecidable":
            continue
        pair["equivalent"] = within[i] <= alpha / 2.0
        if up <= alpha:
            pair["finding"] = "second better"
        elif down <= alpha:
            pair["finding"] = "first better"
        elif not pair["equivalent"]:
            pair["note"] = _advice(d, row["margin"], alpha, len(every))


def _advice(d: Difference, margin: float, alpha: float, pairs: int) -> str:
    """How many tasks would show a difference of this size, or that there is none that matters."""
    level = alpha / pairs
    needed = [d.tasks_needed(abs(d.delta), level), d.tasks_needed(margin - abs(d.delta), level)]
    return advice(min((n for n in needed if n is not None), default=None))


def _best(pairs: Sequence[PairRow], labels: Sequence[str]) -> list[str]:
    beaten = {p["first"] for p in pairs if p["finding"] == "second better"}
    beaten |= {p["second"] for p in pairs if p["finding"] == "first better"}
    return [label for label in labels if label not in beaten]


def _standing(label: str, rows: Sequence[SkillRow]) -> Standing:
    won = lost = 0
    for pair in (pair for row in rows for pair in row["pairs"] if label in (pair["first"], pair["second"])):
        if pair["finding"] in ("first better", "second better"):
            better = pair["first"] if pair["finding"] == "first better" else pair["second"]
            won, lost = won + (better == label), lost + (better != label)
    greedy = [s["score"] for row in rows if row["metric"] == "greedy" for s in row["scores"] if s["model"] == label]
    numbers = [score for score in greedy if score is not None]
    return Standing(
        model=label,
        mean=sum(numbers) / len(numbers) if numbers and len(numbers) == len(greedy) else None,
        won=won,
        lost=lost,
        best_on=sum(label in row["best"] for row in rows),
    )
