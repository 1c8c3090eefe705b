"""Read a run directory into a :class:`~rft_ilab.report.data.RunReport`.

The manifest, verdict, selection and signal files are checked field by field. The append-only files
may be torn at the end (a killed run), so their unreadable lines are counted and skipped; rollouts
are streamed, because there can be a hundred thousand of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.report.chosen import parse_attribution, parse_selection
from rft_ilab.report.data import (
    Ledger,
    LedgerExample,
    Rollouts,
    RunReport,
    Signal,
    StageCost,
    Step,
    TrainingAnswer,
    TrainingGroup,
)
from rft_ilab.report.fields import Fields, finite_numbers
from rft_ilab.report.gate_data import GateResult, Ungraded
from rft_ilab.report.verdict import parse_verdict
from rft_ilab.report.wording import judged
from rft_ilab.store import read_json

EXAMPLES_PER_DISPOSITION = 2
ERROR_EXAMPLES = 5
SHOWN_GROUPS = 3
UNGRADED_EXAMPLES = 50


def load_run(directory: Path, *, require_verdict: bool = True) -> RunReport:
    """Read whatever of a run directory exists.

    ``require_verdict=False`` also accepts a run whose gate has not spoken yet (``gate`` is None).
    Raises RunError if the directory is missing, has no verdict, or a file in it has a wrong shape.
    """
    if not directory.is_dir():
        raise RunError("no such run directory", where=directory, fix="list the runs, or start one with: ilab rft run")
    spoken = require_verdict or (directory / "gate" / "verdict.json").exists()
    damaged: list[str] = []
    manifest = _manifest(directory / "manifest.json")
    gate = load_gate(directory) if spoken else None
    return RunReport(
        directory=directory,
        gate=gate,
        steps=_steps(directory / "rl" / "steps.jsonl", damaged),
        selection=parse_selection(directory / "rl" / "selection.json"),
        attribution=parse_attribution(directory / "rl" / "attribution.json"),
        signals=_signals(directory / "rl" / "signal.json"),
        ledger=_ledger(directory / "data" / "ledger.jsonl", damaged),
        rollouts=_rollouts(directory / "rl" / "rollouts.jsonl", damaged),
        stages=_stages(manifest),
        peak_rss_mb=manifest.maybe_count("peak_rss_mb"),
        manifest=manifest.raw,
        ungraded=_ungraded(directory / "gate" / "results.jsonl", gate, damaged),
        damaged=tuple(damaged),
    )


def load_gate(run: Path) -> GateResult:
    """The verdict of a run alone. Raises RunError if there is none, or it has a wrong shape."""
    path = run / "gate" / "verdict.json"
    if not path.exists():
        raise RunError("no verdict yet", where=run, fix="finish the run with: ilab model regress")
    return parse_verdict(read_json(path), path)


def _manifest(path: Path) -> Fields:
    return Fields(read_json(path) if path.exists() else {}, path)


def _stages(manifest: Fields) -> tuple[StageCost, ...]:
    stages = manifest.maybe_object("stages")
    if stages is None:
        return ()
    costs = [(name, finite_numbers(facts)) for name, facts in stages.raw.items()]
    return tuple(StageCost(name=name, wall_s=f.get("wall_s", 0.0), cpu_s=f.get("cpu_s", 0.0)) for name, f in costs)


def _rows(path: Path, damaged: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, one at a time.

    Only a line feed ends a line: completions may hold U+2028 and its like, which ``str.splitlines``
    would split at.
    """
    bad = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    yield row
                elif line.strip():
                    bad += 1
    if bad:
        lines = "1 unreadable line was" if bad == 1 else f"{bad} unreadable lines were"
        damaged.append(f"{path.parent.name}/{path.name}: {lines} skipped")


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)


def _steps(path: Path, damaged: list[str]) -> tuple[Step, ...]:
    """Steps in order; a resumed run repeats some, and the later row is the one that counted."""
    found: dict[tuple[str, int], Step] = {}
    for row in _rows(path, damaged):
        stage, values = _text(row, "stage"), finite_numbers(row)
        if "step" in values:
            number = int(values.pop("step"))
            found[stage, number] = Step(stage=stage, step=number, values=values, val=finite_numbers(row.get("val")))
    return tuple(sorted(found.values(), key=lambda step: (step.stage != "sft", step.step)))


def _signals(path: Path) -> tuple[Signal, ...]:
    if not path.exists():
        return ()
    raw = read_json(path)
    found = []
    for item in raw if isinstance(raw, list) else [raw]:
        fields = Fields(item, path)
        found.append(
            Signal(
                skill=fields.text("skill", ""),
                after=fields.text("after", ""),
                numbers=finite_numbers(item),
                per_class=finite_numbers(fields.raw.get("per_class")),
            )
        )
    return tuple(found)


def _ungraded(path: Path, gate: GateResult | None, damaged: list[str]) -> tuple[Ungraded, ...]:
    """The first answers of the gate on which a grader failed; read only where the verdict counts some."""
    found: list[Ungraded] = []
    if gate is None or not any(row.ungraded for row in judged(gate)):
        return ()
    sides = {"baseline": "before", "candidate": "after"}
    for row in _rows(path, damaged):
        if "score" in row and row["score"] is None and row.get("side") in ("baseline", "candidate"):
            texts = {name: _text(row, name) for name in ("task_id", "prompt", "reference", "reason")}
            found.append(
                Ungraded(skill=_text(row, "suite"), side=sides[row["side"]], answer=_text(row, "completion"), **texts)
            )
        if len(found) == UNGRADED_EXAMPLES:
            break
    return tuple(found)


def _ledger(path: Path, damaged: list[str]) -> Ledger | None:
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    tasks: dict[str, dict[str, dict[str, int]]] = {}
    examples = []
    for row in _rows(path, damaged):
        skill, disposition = _text(row, "skill"), _text(row, "disposition")
        if row.get("kind") == "task":
            own = tasks.setdefault(skill, {}).setdefault(_text(row, "source"), {})
            own[disposition] = own.get(disposition, 0) + 1
            continue
        counts[skill][disposition] += 1
        if counts[skill][disposition] <= EXAMPLES_PER_DISPOSITION:
            examples.append(
                LedgerExample(
                    skill=skill,
                    disposition=disposition,
                    completion=_text(row, "completion"),
                    reason=_text(row, "reason"),
                )
            )
    if not counts:
        return None
    answers = {skill: dict(found) for skill, found in counts.items()}
    return Ledger(counts=answers, tasks=tasks, examples=tuple(examples))


def _rollouts(path: Path, damaged: list[str]) -> Rollouts | None:
    """Totals, plus one telling group of answers of an early, a middle and the last step."""
    total = errors = truncated = 0
    best: dict[int, TrainingGroup] = {}
    error_examples: list[TrainingGroup] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    current: int | None = None
    for row in _rows(path, damaged):
        number = finite_numbers(row).get("step")
        if number is None:
            continue
        step = int(number)
        if step != current:
            _keep_best(best, current, groups)
            current, groups = step, {}
        groups.setdefault(_text(row, "task_id"), []).append(row)
        total += 1
        truncated += row.get("stop") == "length"
        if row.get("error") is not None:
            errors += 1
            if len(error_examples) < ERROR_EXAMPLES:
                error_examples.append(_group(step, [row]))
    _keep_best(best, current, groups)
    if not total:
        return None
    steps = sorted(best)
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})[:SHOWN_GROUPS]
    return Rollouts(
        total=total,
        errors=errors,
        truncated=truncated,
        groups=tuple(best[step] for step in chosen),
        error_examples=tuple(error_examples),
    )


def _keep_best(best: dict[int, TrainingGroup], step: int | None, groups: dict[str, list[dict[str, Any]]]) -> None:
    """Remember, for one step, the group whose scores differ most evenly: that one carried signal."""
    if step is None or not groups:
        return

    def evenness(rows: list[dict[str, Any]]) -> float:
        scores = [s for s in (finite_numbers(row).get("score") for row in rows) if s is not None]
        mean = sum(scores) / len(scores) if scores else 0.0
        return mean * (1 - mean)

    best[step] = _group(step, max(groups.values(), key=evenness))


def _group(step: int, rows: list[dict[str, Any]]) -> TrainingGroup:
    first = rows[0]
    answers = []
    for row in rows:
        numbers = finite_numbers(row)
        note = _text(row, "error") or _text(row, "reason")
        answers.append(
            TrainingAnswer(
                completion=_text(row, "completion"),
                score=numbers.get("score"),
                advantage=numbers.get("advantage"),
                note=note,
            )
        )
    return TrainingGroup(
        step=step,
        skill=_text(first, "skill"),
        task_id=_text(first, "task_id"),
        prompt=_text(first, "prompt"),
        reference=_text(first, "reference"),
        answers=tuple(answers),
    )
