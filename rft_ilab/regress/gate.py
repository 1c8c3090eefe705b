"""From results to one verdict: every target better, and no watched skill worse than its margin.

All of it must be shown for PASS (an intersection-union test: no further adjustment is owed); one
suite that is shown to be bad makes FAIL; anything else is INCONCLUSIVE, never PASS.
The rules with their reasons: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rft_ilab.config import GateSettings
from rft_ilab.regress.flips import flips_of
from rft_ilab.regress.pairing import drawn
from rft_ilab.regress.target import judge_target
from rft_ilab.regress.verdict import Flip, FlipCount, TargetInput, TargetRow, Verdict, WatchedInput, WatchedRow
from rft_ilab.regress.watched import judge_watched
from rft_ilab.types import Outcome


def judge(
    targets: Sequence[TargetInput],
    watched: Sequence[WatchedInput],
    settings: GateSettings,
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    run: str = "",
) -> dict[str, Any]:
    """The verdict, ready for JSON (its keys: :class:`~rft_ilab.regress.verdict.Verdict`).

    ``baseline`` and ``candidate`` (``id``, ``name``) are passed through; ``run`` names the run in the commands that
    explain flips. Raises RunError if the two models did not answer the same tasks of a skill.
    """
    flips: list[Flip] = []
    counts: list[FlipCount] = []
    judged = [(target.skill, *judge_target(target, settings, len(targets)), target.after) for target in targets]
    target_rows = [row for _, row, _, _ in judged]
    watched_rows = judge_watched(watched, settings)
    items: list[TargetInput | WatchedInput] = [*targets, *watched]
    for item, judged_row in zip(items, [*target_rows, *watched_rows], strict=True):
        if item.look:
            judged_row["reason"] += f"; {drawn(judged_row['outcome'], len(item.after), item.look)}"
            judged_row["looks"] = item.look.kind
    pairs = [(skill, base, after) for skill, _, base, after in judged]
    for skill, before, after in [*pairs, *((item.skill, item.before, item.after) for item in watched)]:
        found, count = flips_of(skill, before, after, run)
        flips += found
        counts.append(count)
    outcome, reasons = _overall(target_rows, watched_rows)
    verdict = Verdict(
        outcome=outcome,
        mode="until-decided" if any(item.look for item in items) else "fixed",
        reasons=reasons,
        alpha=settings.alpha,
        baseline=dict(baseline),
        candidate=dict(candidate),
        targets=target_rows,
        watched=watched_rows,
        flips=sorted(flips, key=lambda flip: flip["direction"] != "broken"),
        flip_counts=counts,
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
