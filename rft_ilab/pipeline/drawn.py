"""Which groups of a suite were drawn for a question, in which order: kept with the run, so that drawing can go on.

Bets hold at any time only if what was drawn stays in its place and the bets on it stay as they were. One small file a
suite and question below ``gate/drawn``; another model, grader or prompt is another question and begins anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.pipeline.gauge import Measurement
from rft_ilab.regress.betting import Terms
from rft_ilab.store import Run, read_json, write_json
from rft_ilab.types import Task, digest

FOLDER = ("gate", "drawn")
KINDS: dict[str, type] = {f.name: float if f.name == "goal" else int for f in dataclasses.fields(Terms)}


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """Groups that were drawn under the same terms: digests of their tasks by name, in the order drawn."""

    terms: Terms
    groups: dict[str, str]


def file_of(run: Run, prompts: Sequence[Measurement], models: Sequence[str]) -> Path:
    """Where the suite's drawing is kept. ``models``: ids of baseline and candidate."""
    m = prompts[0]
    question = [
        *models,
        m.suite.name,
        m.environment.grader.digest,
        digest(dataclasses.asdict(m.suite.sampling)),
        m.suite.samples,
        [p.suite.demonstrations for p in prompts],
    ]
    return run.path(*FOLDER, f"{digest(question)[:16]}.json")


def drawn_before(file: Path, tasks: Sequence[Task]) -> list[Stretch]:
    """What ``file`` says was drawn; empty without one. Raises RunError if it is damaged or those tasks changed."""
    if not file.is_file():
        return []
    content = read_json(file)
    try:
        stretches = [_stretch(each) for each in content["stretches"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"it does not say which tasks were drawn: {error}", where=file, fix="remove the file") from error
    now = group_digests(tasks)
    for name, known in (pair for stretch in stretches for pair in stretch.groups.items()):
        if now.get(name) != known:
            raise RunError(
                f"the test tasks of group {name!r} changed after they were drawn, and what was concluded rests on them",
                where=file,
                fix="give new tasks a group of their own, or judge in another run (--run)",
            )
    return stretches


def keep(file: Path, skill: str, stretches: Sequence[Stretch]) -> None:
    rows = [{"terms": dataclasses.asdict(s.terms), "groups": s.groups} for s in stretches]
    write_json(file, {"skill": skill, "stretches": rows})


def group_digests(tasks: Sequence[Task]) -> dict[str, str]:
    members: dict[str, list[str]] = {}
    for task in tasks:
        members.setdefault(task.group, []).append(task.id)
    return {name: digest(sorted(ids))[:16] for name, ids in members.items()}


def _stretch(row: Any) -> Stretch:
    terms, groups = row["terms"], row["groups"]
    if not isinstance(groups, dict) or not all(isinstance(known, str) for known in groups.values()):
        raise ValueError("groups")
    if set(terms) != set(KINDS) or not all(type(terms[name]) is kind for name, kind in KINDS.items()):
        raise ValueError("terms")
    found = Terms(**terms)
    if found.drawn != len(groups) or not (0 < found.drawn <= found.groups <= found.tasks and 0.0 < found.goal < 1.0):
        raise ValueError("terms")
    return Stretch(found, dict(groups))
