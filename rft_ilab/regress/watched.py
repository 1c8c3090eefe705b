"""Is a watched skill worse by no more than its margin? Non-inferiority, Holm-adjusted over the suites that decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rft_ilab.config import GateSettings
from rft_ilab.regress import statistics
from rft_ilab.regress.pairing import (
    advice,
    aligned,
    class_rows,
    classes_of,
    compare,
    graded_everywhere,
    greedy_score,
    metric,
    points,
    sampled_metric,
    sampled_score,
    too_few_groups,
    undecidable,
    worst_group_of,
)
from rft_ilab.regress.passk import passes
from rft_ilab.regress.statistics import Difference
from rft_ilab.regress.verdict import WatchedInput, WatchedRow
from rft_ilab.types import Outcome


def judge_watched(watched: Sequence[WatchedInput], settings: GateSettings) -> list[WatchedRow]:
    """One row a suite, in the order given. Raises RunError if the sides of a suite hold different tasks."""
    befores = [aligned(item.skill, item.before, item.after) for item in watched]
    gradeds = [graded_everywhere([b, item.after], greedy_score) for b, item in zip(befores, watched, strict=True)]
    differences = [
        compare(before, item.after, greedy_score, graded, settings.alpha, item.look)
        for before, item, graded in zip(befores, watched, gradeds, strict=True)
    ]
    decisions = decide_watched(
        differences,
        [item.margin for item in watched],
        [item.tier != "advisory" for item in watched],
        settings.alpha,
        [undecidable(graded, "greedy", item.note) for graded, item in zip(gradeds, watched, strict=True)],
    )
    rows = []
    for index, item in enumerate(watched):
        difference, graded, before, decision = differences[index], gradeds[index], befores[index], decisions[index]
        drawn = graded_everywhere([before, item.after], sampled_score)
        sampled = compare(before, item.after, sampled_score, drawn, settings.alpha, item.look)
        kept = [result for result, keep in zip(item.after, graded, strict=True) if keep]
        kept_before = [result for result, keep in zip(before, graded, strict=True) if keep]
        rows.append(
            WatchedRow(
                skill=item.skill,
                tier=item.tier,
                n=sum(graded),
                ungraded=len(graded) - sum(graded),
                available=item.look.available if item.look else len(graded),
                clusters=difference.clusters if difference else 0,
                margin=item.margin,
                prompt=item.prompt_label,
                **metric(difference),
                p=decision.p,
                better=difference.better if difference else 0,
                worse=difference.worse if difference else 0,
                outcome=decision.outcome,
                reason=decision.reason,
                sampled=sampled_metric(sampled, item.after),
                pass_at_k=passes(before, item.after, settings.alpha, item.look),
                classes=class_rows(kept_before, kept, classes_of(kept)),
                worst_group=worst_group_of(before, item.after, graded),
            )
        )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """``p``: one-sided, of a loss of the margin or more, after Holm's adjustment."""

    outcome: Outcome
    reason: str
    p: float


def decide_watched(
    differences: Sequence[Difference | None],
    margins: Sequence[float],
    decides: Sequence[bool],
    alpha: float,
    blocked: Sequence[str | None],
) -> list[Decision]:
    """The rule for all watched suites at once; ``blocked`` says why a suite cannot be judged at all."""
    pairs = list(zip(differences, margins, strict=True))
    # A suite that cannot be judged still counts as a hypothesis: breaking one must not ease the others.
    harmless = _adjust([d.p_superior(-margin) if d else 1.0 for d, margin in pairs], decides)
    dropped = _adjust([d.p_inferior(0.0) if d else 1.0 for d, _ in pairs], decides)
    decisions = []
    for index, (d, margin) in enumerate(pairs):
        outcome: Outcome
        if blocked[index] or d is None:
            outcome, reason = "INCONCLUSIVE", blocked[index] or "nothing was graded"
        else:
            suites = sum(decides) if decides[index] else 1
            outcome, reason = _decide(d, margin, harmless[index], dropped[index], suites, alpha)
        decisions.append(Decision(outcome=outcome, reason=reason, p=harmless[index]))
    return decisions


def _decide(
    d: Difference, margin: float, harmless: float, dropped: float, suites: int, alpha: float
) -> tuple[Outcome, str]:
    """``harmless`` and ``dropped``: adjusted p of a loss of at least the margin, and of no loss at all."""
    allowed = f"margin {100 * margin:.1f}"
    if dropped <= alpha / 2.0 and d.delta <= -margin:
        if d.high < -margin:
            return "FAIL", f"{points(d)}: worse than its {allowed}"
        return "FAIL", f"{points(d)}: a significant loss that reaches its {allowed}"
    if harmless <= alpha / 2.0:
        return "PASS", f"{points(d)}: no worse than its {allowed}"
    if few := too_few_groups(d, alpha):
        return "INCONCLUSIVE", few
    distance = d.delta + margin if d.delta > -margin else -d.delta
    needed = advice(d.tasks_needed(distance, alpha / suites))
    if d.high < -margin:
        return "INCONCLUSIVE", f"{points(d)}: worse than its {allowed} alone, but not among {suites} suites; {needed}"
    if d.low > -margin:
        return "INCONCLUSIVE", f"{points(d)}: within its {allowed} alone, but not among {suites} suites; {needed}"
    return "INCONCLUSIVE", f"{points(d)}: a loss beyond its {allowed} is not ruled out; {needed}"


def _adjust(p_values: Sequence[float], decides: Sequence[bool]) -> list[float]:
    """Holm over the deciding suites; an advisory suite keeps its own p and costs the others nothing."""
    adjusted = iter(statistics.holm([p for p, decide in zip(p_values, decides, strict=True) if decide]))
    return [next(adjusted) if decide else p for p, decide in zip(p_values, decides, strict=True)]
