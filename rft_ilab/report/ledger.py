"""The ledger of the data as the page shows it: what became of every candidate answer and task, skill by skill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rft_ilab.report.charts import share_bar
from rft_ilab.report.data import RunReport

DISPOSITIONS = {
    "kept": "accepted by the grader and used",
    "surplus": "accepted, but its class had enough",
    "duplicate": "accepted, but nearly like another that was kept",
    "wrong": "rejected by the grader",
    "truncated": "cut off at the token limit",
    "error": "the grader failed; counted as neither right nor wrong",
}
REFERENCE = "reference"
TASK_DISPOSITIONS = {
    "kept": "used; neither too easy nor too hard to be sometimes right",
    "too_easy": "right so often that a group would hardly differ",
    "too_hard": "wrong so often that a group would hardly differ",
    "no_agreement": "too few independent answers agree",
    "contaminated": "nearly a task of a validation or test split",
    "duplicate": "nearly another task",
    "wrong": "the grader refuses its reference",
    "error": "the grader failed",
    "truncated": "cut off at the token limit",
    "malformed": "makes no task",
}


def rows(report: RunReport) -> list[dict[str, Any]]:
    """Per skill: the dispositions (which sum to ``total``), the references added apart, a bar."""
    found = []
    for i, (skill, counts) in enumerate(report.ledger.counts.items() if report.ledger else ()):
        known = [name for name in DISPOSITIONS if name in counts]
        unknown = sorted(set(counts) - set(DISPOSITIONS) - {REFERENCE})
        parts = [(name, counts[name], DISPOSITIONS[name], f"d-{name}") for name in known]
        parts += [(name, counts[name], "unknown to this report", "d-other") for name in unknown]
        total = sum(n for _, n, _, _ in parts)
        bar = share_bar([(name, n, style) for name, n, _, style in parts], f"{skill}: candidates", f"ledger-{i}")
        kept, references = counts.get("kept", 0), counts.get(REFERENCE, 0)
        row = {"skill": skill, "parts": parts, "total": total, "kept": kept, "references": references, "bar": bar}
        found.append(row | _task_rows(report.ledger.tasks.get(skill, {}) if report.ledger else {}))
    return found


def _task_rows(tasks: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The tasks of a skill: a column a source, a row a disposition, and the sums of the columns."""
    sources = sorted(tasks)
    found = {name for counts in tasks.values() for name in counts}
    order = [*(name for name in TASK_DISPOSITIONS if name in found), *sorted(found - set(TASK_DISPOSITIONS))]
    lines = [
        (name.replace("_", " "), TASK_DISPOSITIONS.get(name, "unknown to this report"),
         [tasks[source].get(name, 0) for source in sources])
        for name in order
    ]  # fmt: skip
    return {"sources": sources, "tasks": lines, "task_totals": [sum(tasks[source].values()) for source in sources]}
