"""The report as one self-contained HTML file: no script but its own, no request to anywhere.

Everything that a model or a skill wrote is hostile. Three layers keep it harmless: jinja2 escapes
every value, ``finalize`` names control and bidi characters instead of emitting them, and the
content security policy allows nothing but this file's own style and script, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from rft_ilab.report import training, wording
from rft_ilab.report.charts import before_after_bars, interval_axis, interval_row, interval_scale, share_bar
from rft_ilab.report.data import Change, ClassResult, Flip, GateResult, RunReport
from rft_ilab.report.flips import worst_group_first
from rft_ilab.report.passes import pass_rows
from rft_ilab.report.svg import Scale
from rft_ilab.store import write_atomic

# Bytes of the page are bounded by these, whatever the run holds: about 0.9 MB at the very worst.
MOST_FLIPS = 100
FIRST_FLIPS = 12
MOST_CLASSES = 60
MOST_ROWS = 200
LONG, SHORT = 1000, 160

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


def write_html(report: RunReport, path: Path) -> None:
    """Write the whole report to ``path``, atomically. A run without verdict is rendered as far as it goes."""
    write_atomic(path, render_html(report))


def render_html(report: RunReport) -> str:
    """The report as HTML text; the same bytes for the same run."""
    style, script = Markup(_asset("report.css")), Markup(_asset("report.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": wording.percent,
        "seconds": wording.seconds,
        "memory": wording.memory,
        "p": wording.p_value,
        "clip": clip,
        "points": lambda value: _minus(wording.points(value)),
        "interval": lambda value: _minus(wording.interval(value)).replace(" ", "\N{NO-BREAK SPACE}"),
    }
    environment.globals |= {"wording": wording, "LONG": LONG, "SHORT": SHORT, "bars": before_after_bars}
    template = environment.from_string(_asset("report.html"))
    gate = report.gate
    return template.render(
        report=report,
        gate=gate,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        plots=None if gate is None else _plots(gate),
        classes={} if gate is None else {t.skill: largest_classes(t.classes) for t in wording.judged(gate)},
        flips=() if gate is None else shown_flips(gate.flips),
        passes=() if gate is None else pass_rows(gate),
        training=training.build(report),
        ledger=_ledger_rows(report),
        first_flips=FIRST_FLIPS,
        most_rows=MOST_ROWS,
        provenance=_provenance(report),
    )


def clip(text: str, limit: int) -> Markup:
    """Escaped, visible text of at most ``limit`` bytes, with a note of how much is missing.

    >>> clip("<script>", 9)
    Markup('&lt;scrip<span class="cut"> … 2 more characters</span>')
    """
    kept: list[str] = []
    used = 0
    for position, character in enumerate(text):
        piece = str(escape(wording.visible(character)))
        used += len(piece.encode())
        if used > limit:
            rest = wording.count(len(text) - position, "more character")
            return Markup(f'{"".join(kept)}<span class="cut"> … {rest}</span>')
        kept.append(piece)
    return Markup("".join(kept))


def largest_classes(classes: Sequence[ClassResult]) -> Sequence[ClassResult]:
    return sorted(classes, key=lambda c: (-c.n, c.name))[:MOST_CLASSES]


def shown_flips(flips: Sequence[Flip]) -> Sequence[Flip]:
    """The flips that the page holds: broken ones, the worst group first, then a turn for each skill and class."""
    broken = worst_group_first([flip for flip in flips if flip.direction == "broken"])
    fixed = [flip for flip in flips if flip.direction != "broken"]
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for position, flip in enumerate(fixed):
        kind = (flip.skill, flip.reference)
        ranked.append((turns[kind], position))
        turns[kind] += 1
    return [*broken, *(fixed[position] for _, position in sorted(ranked))][:MOST_FLIPS]


@dataclass(frozen=True, slots=True)
class Plots:
    """Drawn rows, in the order of the verdict; a target has (greedy, sampled, over majority, axis)."""

    targets: Sequence[tuple[Markup, Markup | None, Markup | None, Markup]]
    watched: Sequence[Markup]
    watched_axis: Markup


def _plots(gate: GateResult) -> Plots:
    targets = []
    for i, t in enumerate(gate.targets):
        changes = [change for change in (t.greedy, t.sampled) if change and change.delta is not None]
        over_ci = [t.over_majority[1]] if t.over_majority else []
        scale, ticks = interval_scale([*(change.ci for change in changes), *over_ci, (0.0, 0.1)])
        greedy = _row(f"{t.skill}, greedy", t.greedy, scale, f"target-{i}-greedy")
        sampled = t.sampled and _row(f"{t.skill}, sampled", t.sampled, scale, f"target-{i}-sampled")
        over = t.over_majority and interval_row(
            f"{t.skill}, over the majority baseline", *t.over_majority, scale, f"target-{i}-majority", style="before"
        )
        targets.append((greedy, sampled or None, over or None, interval_axis(scale, ticks)))
    cis = [w.greedy.ci for w in gate.watched if w.greedy.delta is not None]
    margins = [w.margin for w in gate.watched]
    scale, ticks = interval_scale(cis or [(-0.1, 0.1)], margins)
    watched = [
        _row(w.skill, w.greedy, scale, f"watched-{i}", w.margin, f"after {w.outcome}")
        for i, w in enumerate(gate.watched)
    ]
    return Plots(targets, watched, interval_axis(scale, ticks))


def _row(
    name: str, change: Change, scale: Scale, key: str, margin: float | None = None, style: str = "after"
) -> Markup:
    """A drawn comparison; empty if there was nothing to compare."""
    if change.delta is None:
        return Markup("")
    return interval_row(name, change.delta, change.ci, scale, key, margin, style)


def _ledger_rows(report: RunReport) -> list[dict[str, Any]]:
    """Per skill: the dispositions (which sum to ``total``), the references added apart, a bar."""
    rows = []
    for i, (skill, counts) in enumerate(report.ledger.counts.items() if report.ledger else ()):
        known = [name for name in DISPOSITIONS if name in counts]
        unknown = sorted(set(counts) - set(DISPOSITIONS) - {REFERENCE})
        parts = [(name, counts[name], DISPOSITIONS[name], f"d-{name}") for name in known]
        parts += [(name, counts[name], "unknown to this report", "d-other") for name in unknown]
        total = sum(n for _, n, _, _ in parts)
        bar = share_bar([(name, n, style) for name, n, _, style in parts], f"{skill}: candidates", f"ledger-{i}")
        references = counts.get(REFERENCE, 0)
        row = {"skill": skill, "parts": parts, "total": total, "references": references, "bar": bar}
        rows.append(row | _task_rows(report.ledger.tasks.get(skill, {}) if report.ledger else {}))
    return rows


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


def _provenance(report: RunReport) -> list[tuple[str, str]]:
    """What would be needed to do it again, as (name, value) pairs."""
    manifest = report.manifest
    rows = [("Run", str(report.directory.name))]
    if isinstance(command := manifest.get("command"), list):
        rows.append(("Command", shlex.join(str(part) for part in command)))
    if report.gate and report.gate_command not in dict(rows).values():
        rows.append(("Command of the gate", report.gate_command))
    rows += [("Seed", str(manifest["seed"]))] if "seed" in manifest else []
    if report.gate:
        rows += [("Base model", report.gate.baseline), ("Tuned model", report.gate.candidate)]
    for title, key in (("Engine: ", "engine"), ("Identity: ", "identity"), ("Version of ", "versions")):
        found = manifest.get(key)
        for name, value in found.items() if isinstance(found, dict) else ():
            rows.append((f"{title}{name}", str(value)))
    skills = manifest.get("skills")
    for name, facts in skills.items() if isinstance(skills, dict) else ():
        if isinstance(facts, dict):
            digest = str(facts.get("grader_digest", "unknown"))[:16]
            rows.append((f"Skill {name}", f"commit {facts.get('commit', 'unknown')}, grader {digest}"))
    return [(name, value) for name, value in rows if value][:MOST_ROWS]


def _finalize(value: Any) -> Any:
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _asset(name: str) -> str:
    return resources.files("rft_ilab.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
