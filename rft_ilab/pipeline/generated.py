"""``ilab data generate --verify``: judge what InstructLab's own pipeline just wrote."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.errors import RunError
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.rollouts import Environment
from rft_ilab.store import read_jsonl, write_atomic
from rft_ilab.synth.agree import Judged, judge_generated
from rft_ilab.synth.exports import ExportTask, export_rlvr, export_task
from rft_ilab.synth.screening import Known

SAMPLES, NEEDED = 4, 2


def verify_generated(request: Request, dataset: Path, *, console: Console) -> Path:
    """Judge every generated row of skills that have a grader; returns ``verified_messages.jsonl``.

    Reads ``node_datasets_*/<leaf>.jsonl`` of a dated directory (not the mixed files: mixing repeats rows)
    and writes into it the rows kept, as ``ilab model train`` reads them; a ledger in which every row has one
    disposition; and, in ``rlvr/``, the same tasks as prompt sets for RL. Rows of skills without grader are left where
    they are.
    Raises RunError when nothing was kept, so that no training starts on nothing.
    """
    space, screen = Workspace(request), Screen(console)
    found = {e.skill.name: (e, rows) for e in space.environments if (rows := _rows_of(e, dataset))}
    if not found:
        raise RunError(
            "no generated rows of a skill with a grader", where=dataset, fix="check the skill's qna.yaml changed"
        )
    total = sum(len(rows) for _, rows in found.values())
    screen.say(f"verifying {total} generated rows: {SAMPLES} independent answers each, {NEEDED} must agree")
    policy = space.teacher()
    ledger: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    tasks: list[ExportTask] = []
    with screen.bar("verifying", total) as advance:
        for name, (environment, rows) in found.items():
            judged = judge_generated(
                environment,
                rows,
                policy,
                samples=SAMPLES,
                needed=NEEDED,
                seed=space.settings.train.seed,
                cache=space.cache,
                advance=advance,
                known=Known.of(space.environments, environment),
            )
            ledger += [_ledger_row(name, j) for j in judged]
            right = [j for j in judged if j.disposition == "kept"]
            kept += [j.row for j in right]
            made = [j.task for j in right if j.task]
            tasks += [export_task(environment, task, source="question", evidence="agreement") for task in made]
            val = environment.split("val")
            tasks += [export_task(environment, task, source="authored", evidence="authored") for task in val]
    counts = Counter(row["disposition"] for row in ledger)
    screen.say(f"  {counts['kept']} of {total} kept ({', '.join(f'{n} {d}' for d, n in counts.most_common())})")
    write_atomic(dataset / "verification_ledger.jsonl", _lines(ledger))
    path = dataset / "verified_messages.jsonl"
    if not kept:
        raise RunError(
            "no generated row was verified",
            where=dataset / "verification_ledger.jsonl",
            fix="use a stronger teacher (--endpoint), or author tasks",
        )
    export_rlvr(dataset / "rlvr", tasks)
    write_atomic(path, _lines(kept))
    return path


def _rows_of(environment: Environment, dataset: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(question, answer, row) of the leaf's own file; SDG joins the parts of its path with underscores."""
    leaf = f"compositional_skills_{environment.skill.name.replace('/', '_')}.jsonl"
    out = []
    for file in sorted(dataset.glob(f"node_datasets_*/{leaf}")):
        for row in read_jsonl(file):
            turns = {m.get("role"): m.get("content", "") for m in row.get("messages", [])}
            out.append((str(turns.get("user", "")), str(turns.get("assistant", "")), row))
    return out


def _ledger_row(skill: str, judged: Judged) -> dict[str, Any]:
    return {
        "skill": skill,
        "id": judged.row.get("id"),
        "disposition": judged.disposition,
        "agreed": judged.agreed,
        "samples": judged.samples,
        "reason": judged.reason,
    }


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
