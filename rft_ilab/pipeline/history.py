"""The history of verdicts: one line a verdict in an append-only file, small enough to be kept in a repository.

A line holds names and numbers, no texts of tasks or answers, and no paths. The same verdict on the same evidence
(models, suites, graders, margins) at the same commit is one line, however often the gate was asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.pipeline.contenders import model_name
from rft_ilab.pipeline.gauge import Measurement
from rft_ilab.pipeline.request import Request
from rft_ilab.pipeline.screen import Screen
from rft_ilab.skills import commits
from rft_ilab.store import append_jsonl, read_jsonl
from rft_ilab.types import digest

DIGITS = 5  # of fractions: a thousandth of a point


def record(
    request: Request, run: Path, verdict: Mapping[str, Any], measured: Sequence[Measurement], screen: Screen
) -> None:
    """Append the verdict to the histories of the request that do not hold it yet.

    A file that cannot be written is said on ``screen`` and does not cost the verdict. Raises DiskError without room.
    """
    if not request.histories:
        return
    commit, dirty = commits.head(request.own_taxonomy)
    row = entry(verdict, measured, run=run.resolve().name, commit=commit, dirty=dirty)
    for path in request.histories:
        try:
            # Against the last one alone: a verdict that came back is the one that holds now.
            said = [other for other in read_jsonl(path) if _of_the_same(row, other)]
            if not said or any(said[-1].get(name) != row[name] for name in ("outcome", "suites")):
                append_jsonl(path, [row])
        except OSError as error:
            screen.say(f"history: {path} cannot be written: {error.strerror or error}")


def entry(
    verdict: Mapping[str, Any], measured: Sequence[Measurement], *, run: str, commit: str, dirty: bool
) -> dict[str, Any]:
    """One line of the file; ``key`` names the evidence."""
    sides = {
        side: {"name": model_name(Path(str(verdict[side].get("name", "")))), "id": str(verdict[side].get("id", ""))}
        for side in ("candidate", "baseline")
    }
    suites = sorted([m.suite.digest, m.environment.grader.digest, m.suite.tier, m.suite.margin] for m in measured)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "dirty": dirty,
        "run": run,
        **sides,
        "outcome": verdict["outcome"],
        "alpha": verdict["alpha"],
        "key": digest([sides["candidate"]["id"], sides["baseline"]["id"], verdict["alpha"], suites]),
        "suites": [
            *(_suite(row, row["greedy"], "target", None) for row in verdict["targets"]),
            *(_suite(row, row, row["tier"], row["margin"]) for row in verdict["watched"]),
        ],
    }


def _suite(row: Mapping[str, Any], metric: Mapping[str, Any], tier: str, margin: float | None) -> dict[str, Any]:
    return {
        "skill": row["skill"],
        "tier": tier,
        "n": row["n"],
        "ungraded": row["ungraded"],
        **{key: None if metric[key] is None else round(metric[key], DIGITS) for key in ("before", "after", "delta")},
        "ci": [round(end, DIGITS) for end in metric["ci"]],
        "margin": margin,
        "outcome": row["outcome"],
    }


def _of_the_same(row: Mapping[str, Any], other: Any) -> bool:
    return isinstance(other, dict) and all(row[name] == other.get(name) for name in ("key", "commit"))
