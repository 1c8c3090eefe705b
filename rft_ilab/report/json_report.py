"""``ilab rft report --json``: one JSON object for scripts. Accuracies are fractions of 1."""

from __future__ import annotations

from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.report.data import RunReport, Selection
from rft_ilab.report.gate_data import Change, GateResult, TargetResult


def json_summary(report: RunReport) -> dict[str, Any]:
    """The result of a run; intervals belong to the paired difference after - before.

    ``greedy.before`` is the better of the base model without and with demonstrations. ``sampled``, ``macro`` and
    ``majority`` are null where the gate did not measure them, ``control`` where the run is no control arm.
    ``selection.frontier`` has validation accuracies by adapter scale. ``wall_s`` and ``cpu_s`` are sums over the
    finished stages. Raises RunError if the run has no verdict.
    """
    gate = verdict_of(report)
    return {
        "verdict": gate.outcome,
        "control": report.control or None,
        "targets": [_target(target) for target in gate.targets],
        "watched": [
            {"skill": w.skill, "n": w.n, "delta": w.greedy.delta, "ci": list(w.greedy.ci), "outcome": w.outcome}
            for w in gate.watched
        ],
        "selection": None if report.selection is None else _selection(report.selection),
        "wall_s": round(report.wall_s, 2),
        "cpu_s": round(report.cpu_s, 2),
        "peak_rss_mb": report.peak_rss_mb,
    }


def verdict_of(report: RunReport) -> GateResult:
    """The gate's result. Raises RunError if there is none."""
    if report.gate is None:
        raise RunError("no verdict yet", where=report.directory, fix="finish the run with: ilab model regress")
    return report.gate


def _target(target: TargetResult) -> dict[str, Any]:
    macro = target.macro
    return {
        "skill": target.skill,
        "n": target.n,
        "greedy": _change(target.greedy),
        "sampled": None if target.sampled is None else _change(target.sampled),
        "macro": None if macro is None else {"before": macro.before, "after": macro.after},
        "majority": target.majority,
    }


def _selection(selection: Selection) -> dict[str, Any]:
    return {
        "chosen": selection.chosen,
        "scale": selection.scale,
        "frontier": [
            {"scale": c.scale, "val": c.val, "macro": c.macro, "watched": dict(c.watched)} for c in selection.frontier
        ],
    }


def _change(change: Change) -> dict[str, Any]:
    return {"before": change.before, "after": change.after, "ci": list(change.ci)}
