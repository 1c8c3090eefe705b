"""From results to one verdict: every target better, and no watched skill worse than its margin.

All of it must be shown for PASS (an intersection-union test: no further adjustment is owed); one
suite that is shown to be bad makes FAIL; anything else is INCONCLUSIVE, never PASS.
The rules with their reasons: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rft_ilab.config import GateSettings
from rft_ilab.regress.pairing import Side, drawn, greedy_score
from rft_ilab.regress.target import judge_target
from rft_ilab.regress.verdict import Flip, TargetInput, TargetRow, Verdict, WatchedInput, WatchedRow
from rft_ilab.regress.watched import judge_watched
from rft_ilab.types import Outcome

MAX_FLIPS = 200  # per skill, broken first


def judge(
    targets: Sequence[TargetInput],
    watched: Sequence[WatchedInput],
    settings: GateSettings,
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
) -> dict[str, Any]:
    """The verdict, ready for JSON (its keys: :class:`~rft_ilab.regress.verdict.Verdict`).

    ``baseline`` and ``candidate`` (``id``, ``name``) are passed through. Raises RunError if the two
    models did not answer the same tasks of a skill.
    """
    flips: list[Flip] = []
    target_rows = []
    for target in targets:
        row, base = judge_target(target, settings)
        if target.look:
            row["reason"] += f"; {drawn(row['outcome'], len(target.after), target.look)}"
        target_rows.append(row)
        flips += _flips(target.skill, base, target.after)
    watched_rows = judge_watched(watched, settings)
    for item, held in zip(watched, watched_rows, strict=True):
        if item.look:
            held["reason"] += f"; {drawn(held['outcome'], len(item.after), item.look)}"
        flips += _flips(item.skill, item.before, item.after)
    outcome, reasons = _overall(target_rows, watched_rows)
    verdict = Verdict(
        outcome=outcome,
        mode="until-decided" if any(item.look for item in (*targets, *watched)) else "fixed",
        reasons=reasons,
        alpha=settings.alpha,
        baseline=dict(baseline),
        candidate=dict(candidate),
        targets=target_rows,
        watched=watched_rows,
        flips=sorted(flips, key=lambda flip: flip["direction"] != "broken"),
    )
    return dict(verdict)


def _overall(targets: Sequence[TargetRow], watched: Sequence[WatchedRow]) -> tuple[Outcome, list[str]]:
    """The worst outcome of the suites that decide, and a line for every suite that is not PASS."""
    advisory = [row for row in watched if row["tier"] == "advisory"]
    decisive = [row for row in watched if row["tier"] != "advisory"]
    rows: list[TargetRow | WatchedRow] = [*targets, *decisive]
    if not rows:
        return "INCONCLUSIVE", ["no target and no watched skill was judged"]
    reasons: list[str] = []
    outcome: Outcome = "PASS"
    worsening: tuple[Outcome, ...] = ("INCONCLUSIVE", "FAIL")
    for bad in worsening:
        lines = [f"{row['skill']}: {row['outcome']}: {row['reason']}" for row in rows if row["outcome"] == bad]
        if lines:
            outcome, reasons = bad, lines + reasons
    if outcome == "PASS":
        better = [f"{row['skill']} is better: {row['reason']}" for row in targets]
        held = [f"{len(decisive)} watched skills are no worse than their margins"] if decisive else []
        reasons = better + held
    reasons += [
        f"{row['skill']}: {row['outcome']} (advisory, does not decide): {row['reason']}"
        for row in advisory
        if row["outcome"] != "PASS"
    ]
    return outcome, reasons


def _flips(skill: str, before: Side, after: Side) -> list[Flip]:
    """Greedy answers whose score fell (first) or rose, the largest moves first; ungraded ones are no flips."""
    earlier = {result.task_id: result for result in before}
    flips: list[tuple[float, Flip]] = []
    for now in after:
        then = earlier[now.task_id]
        gain = greedy_score(now) - greedy_score(then)
        if not (gain < 0.0 or gain > 0.0):  # also NaN
            continue
        direction: Literal["fixed", "broken"] = "broken" if gain < 0.0 else "fixed"
        flip = Flip(
            skill=skill,
            task_id=now.task_id,
            direction=direction,
            prompt=now.prompt,
            reference=now.reference,
            before=then.greedy.text,
            after=now.greedy.text,
            before_reason=then.greedy.reason,
            after_reason=now.greedy.reason,
        )
        flips.append((gain, flip))
    flips.sort(key=lambda pair: (pair[0] > 0.0, -abs(pair[0])))
    return [flip for _, flip in flips[:MAX_FLIPS]]
