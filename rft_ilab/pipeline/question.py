"""What a gate was asked, kept with the run: whoever judges again asks the same, not silently another question."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_ilab.config import SuiteSettings
from rft_ilab.errors import RunError
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.store import Run

KEY = "question"
KINDS: Mapping[str, Any] = {
    "candidate": str | None,
    "model": str | None,
    "baseline": str,
    "base": str,
    "targets": list,
    "samples": int,
    "suites": dict,
    "lm_eval_include": str | None,
    "batch": int | None,
}


def question_of(space: Workspace, candidate: Path | None, batch: int | None) -> dict[str, Any]:
    """What decides whom and what a gate compares, ready for JSON. Of a run's own models it says nothing: runs move."""
    request = space.request
    return {
        "candidate": _absolute(candidate),
        "model": _absolute(request.model),
        "baseline": request.baseline,
        "base": request.base.revision.ref if request.base else "",
        "targets": [e.skill.name for e in space.targets],
        "samples": request.settings.gate.samples,
        "suites": {name: suite.limit for name, suite in request.settings.suites.items()},
        "lm_eval_include": _absolute(request.lm_eval_include),
        "batch": batch,
    }


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path else None


def last_question(run: Path) -> Mapping[str, Any]:
    """What the run's gate was asked last; empty if it has not spoken, or did not note it yet."""
    stages = Run.open(run).manifest.get("stages", {})
    found = (stages.get("regate") or stages.get("gate") or {}).get(KEY)
    if not isinstance(found, dict):
        return {}
    if not all(name in found and isinstance(found[name], kind) for name, kind in KINDS.items()):
        raise RunError(f"the question of the last gate ({KEY!r}) is damaged", where=run, fix="ilab model regress")
    return found


def refuse_other_kinds(question: Mapping[str, Any], run: Path, *, baseline: bool) -> None:
    """Raises RunError if the verdict rests on more than two models' cached answers to whole suites.

    ``baseline``: a model is named that takes the place of a stored baseline.
    """
    kinds = {
        f"judged by {question.get('base')}": question.get("base"),
        f"compared with the stored baseline {question.get('baseline')!r}": question.get("baseline") and not baseline,
        "drawn until it was decided": question.get("batch"),
    }
    if why := next((kind for kind, holds in kinds.items() if holds), None):
        raise RunError(
            f"the last verdict on this run was {why}, and regrading would answer another question",
            where=run,
            fix="judge again with the command that gave it (ilab model regress ...): what is cached costs nothing",
        )


def same_again(request: Request, question: Mapping[str, Any], *, suites: bool, samples: bool) -> Request:
    """``request``, with what ``question`` says wherever it says nothing itself (``suites``, ``samples``: it does)."""
    changes: dict[str, Any] = {}
    if not request.targets and not request.no_target:
        changes |= {"targets": tuple(question["targets"]), "no_target": not question["targets"]}
    if request.model is None and question["model"] is not None:
        changes["model"] = Path(question["model"])
    if request.lm_eval_include is None and question["lm_eval_include"] is not None:
        changes["lm_eval_include"] = Path(question["lm_eval_include"])
    settings = request.settings
    if not suites:
        known = {name: settings.suites.get(name, SuiteSettings()) for name in question["suites"]}
        limited = {name: dataclasses.replace(s, limit=question["suites"][name]) for name, s in known.items()}
        settings = dataclasses.replace(settings, suites=limited)
    if not samples:
        settings = dataclasses.replace(settings, gate=dataclasses.replace(settings.gate, samples=question["samples"]))
    return dataclasses.replace(request, **changes, settings=settings)
