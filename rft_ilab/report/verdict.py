"""Check and freeze ``gate/verdict.json``: a number that is missing or not finite is an error here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.report.fields import Fields
from rft_ilab.report.gate_data import (
    Change,
    ClassResult,
    Flip,
    FlipCount,
    GateResult,
    Macro,
    PassAtK,
    TargetResult,
    WatchedResult,
    WorstGroup,
)
from rft_ilab.types import Outcome, Tier


def parse_verdict(raw: Any, file: Path) -> GateResult:
    """The verdict as frozen data. Raises RunError that names the file and the offending field."""
    fields = Fields(raw, file)
    return GateResult(
        outcome=fields.choice("outcome", Outcome),
        reasons=fields.texts("reasons"),
        alpha=fields.number("alpha") if "alpha" in fields.raw else 0.05,
        baseline=_model_name(fields, "baseline"),
        candidate=_model_name(fields, "candidate"),
        targets=tuple(_target(row) for row in fields.objects("targets")),
        watched=tuple(_watched(row) for row in fields.objects("watched")),
        flips=tuple(_flip(row) for row in fields.objects("flips")),
        flip_counts=tuple(_flip_count(row) for row in fields.objects("flip_counts")),
        baseline_name=_model_field(fields, "baseline", "name"),
        baseline_id=_model_field(fields, "baseline", "id"),
        candidate_name=_model_field(fields, "candidate", "name"),
        candidate_id=_model_field(fields, "candidate", "id"),
        drawn=_drawn(fields) if fields.text("mode", "fixed") == "until-decided" else None,
    )


def _drawn(fields: Fields) -> tuple[int, int]:
    rows = [*fields.objects("targets"), *fields.objects("watched")]
    return sum(row.count("n") + row.count("ungraded", 0) for row in rows), sum(row.count("available") for row in rows)


def _model_name(fields: Fields, key: str) -> str:
    model = fields.maybe_object(key)
    if model is None:
        return ""
    name, identity = model.text("name", ""), model.text("id", "")
    return f"{name} ({identity[:24]})" if name and identity else name or identity


def _model_field(fields: Fields, key: str, field: str) -> str:
    model = fields.maybe_object(key)
    return "" if model is None else model.text(field, "")


def _change(fields: Fields) -> Change:
    return Change(
        before=fields.maybe_number("before"),
        after=fields.maybe_number("after"),
        delta=fields.maybe_number("delta"),
        ci=fields.interval("ci"),
        p=fields.maybe_number("p"),
        before_prompt=fields.text("before_prompt", ""),
        samples=fields.maybe_count("samples"),
    )


def _maybe_change(fields: Fields, key: str) -> Change | None:
    inner = fields.maybe_object(key)
    return None if inner is None else _change(inner)


def _target(row: Fields) -> TargetResult:
    macro, majority = row.maybe_object("macro"), row.maybe_object("after_vs_majority")
    before, after = (macro.maybe_number("before"), macro.maybe_number("after")) if macro else (None, None)
    return TargetResult(
        skill=row.text("skill"),
        n=row.count("n"),
        ungraded=row.count("ungraded", 0),
        clusters=row.maybe_count("clusters"),
        outcome=row.choice("outcome", Outcome),
        reason=row.text("reason", ""),
        greedy=_change(row.object("greedy")),
        sampled=_maybe_change(row, "sampled"),
        macro=None
        if macro is None or before is None or after is None
        else Macro(before=before, after=after, min_class_n=macro.maybe_count("min_class_n")),
        classes=_classes(row),
        majority=row.maybe_number("majority"),
        majority_class=row.text("majority_class", "") or None,
        over_majority=None if majority is None else (majority.number("delta"), majority.interval("ci")),
        worst=_worst(row),
        passes=_passes(row),
    )


def _classes(row: Fields) -> tuple[ClassResult, ...]:
    classes = row.objects("classes") if row.raw.get("classes") is not None else ()
    return tuple(
        ClassResult(name=c.text("class"), n=c.count("n"), before=c.number("before"), after=c.number("after"))
        for c in classes
    )


def _passes(row: Fields) -> tuple[PassAtK, ...]:
    entries = row.objects("pass_at_k") if row.raw.get("pass_at_k") is not None else ()
    found = [
        PassAtK(k=e.count("k"), at=_change(e.object("pass_at")), hat=_change(e.object("pass_hat"))) for e in entries
    ]
    return tuple(sorted(found, key=lambda entry: entry.k))


def _worst(row: Fields) -> WorstGroup | None:
    worst = row.maybe_object("worst_group")
    if worst is None:
        return None
    return WorstGroup(
        name=worst.text("group"), n=worst.count("n"), before=worst.number("before"), after=worst.number("after")
    )


def _watched(row: Fields) -> WatchedResult:
    return WatchedResult(
        skill=row.text("skill"),
        tier=row.choice("tier", Tier),
        n=row.count("n"),
        ungraded=row.count("ungraded", 0),
        clusters=row.maybe_count("clusters"),
        margin=row.number("margin"),
        prompt=row.text("prompt", ""),
        greedy=_change(row),
        sampled=_maybe_change(row, "sampled"),
        better=row.maybe_count("better"),
        worse=row.maybe_count("worse"),
        outcome=row.choice("outcome", Outcome),
        reason=row.text("reason", ""),
        classes=_classes(row),
        worst=_worst(row),
        passes=_passes(row),
    )


def _flip(row: Fields) -> Flip:
    direction = row.text("direction")
    if direction not in ("fixed", "broken"):
        raise RunError(f"{row.place}.direction must be fixed or broken", where=row.file)
    keys = ("skill", "task_id", "prompt", "reference", "before", "after", "before_reason", "after_reason", "group")
    return Flip(
        direction=direction,
        **{key: row.text(key, "") for key in keys},
        cls=row.maybe_text("class"),
        before_answer=row.maybe_text("before_answer"),
        after_answer=row.maybe_text("after_answer"),
        before_score=row.maybe_number("before_score"),
        after_score=row.maybe_number("after_score"),
        detailed="after_answer" in row.raw,
    )


def _flip_count(row: Fields) -> FlipCount:
    return FlipCount(skill=row.text("skill"), **{key: row.count(key) for key in ("broken", "fixed", "listed")})
