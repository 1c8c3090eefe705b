"""A history of verdicts as one self-contained page: a trend for every skill, and a table of all verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rft_ilab.report import wording
from rft_ilab.report.accuracy_charts import Judged, key_mark, trend_chart
from rft_ilab.report.history import Entry, History, SuiteVerdict
from rft_ilab.report.history_text import decided
from rft_ilab.report.page import render_page
from rft_ilab.store import write_atomic

MOST_SKILLS = 60
MOST_POINTS = 60  # in a chart, the newest
MOST_ROWS = 200


def write_history(history: History, path: Path) -> None:
    write_atomic(path, render_history(history))


def render_history(history: History) -> str:
    """The page as HTML text; the same bytes for the same history."""
    names = wording.short_names(history.skills)
    newest = list(reversed(history.entries))
    latest = newest[0]
    return render_page(
        "history.html",
        latest=latest,
        why=decided(latest, names),
        counts={o: sum(e.outcome == o for e in history.entries) for o in ("PASS", "FAIL", "INCONCLUSIVE")},
        total=len(history.entries),
        skills=[_skill(history, skill, i) for i, skill in enumerate(history.skills[:MOST_SKILLS])],
        left_out=max(0, len(history.skills) - MOST_SKILLS),
        points=MOST_POINTS,
        rows=[(entry, decided(entry, names)) for entry in newest[:MOST_ROWS]],
        most_rows=MOST_ROWS,
        keys=[("PASS", key_mark("PASS")), ("FAIL", key_mark("FAIL")), ("INCONCLUSIVE", key_mark("INCONCLUSIVE"))],
        damaged=history.damaged,
    )


def _skill(history: History, skill: str, index: int) -> dict[str, Any]:
    entries = history.entries[-MOST_POINTS:]
    points = [_judged(entry, entry.suite(skill)) for entry in entries]
    judged = [suite for entry in entries if (suite := entry.suite(skill))]
    last = judged[-1] if judged else None
    chart = trend_chart(skill, points, [entry.name for entry in entries], f"trend-{index}")
    return {"name": skill, "tier": _tier(last) if last else "", "last": last, "chart": chart}


def _judged(entry: Entry, suite: SuiteVerdict | None) -> Judged | None:
    if suite is None or suite.before is None or suite.after is None:
        return None
    return Judged(
        before=suite.before,
        after=suite.after,
        ci=suite.ci,
        floor=None if suite.margin is None else suite.before - suite.margin,
        outcome=suite.outcome,
        name=entry.name,
    )


def _tier(suite: SuiteVerdict) -> str:
    return "target" if suite.target else f"watched, {suite.tier}"
