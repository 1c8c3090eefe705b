"""A suite by its name: tasks, all of split test, and the grader; chosen as the settings say."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rft_ilab.config import SuiteSettings
from rft_ilab.errors import SkillError
from rft_ilab.grading.engine import grader_of
from rft_ilab.suites.catalog import SUITES, Definition
from rft_ilab.suites.environment import (
    DATA,
    Row,
    SuiteEnvironment,
    environment_of,
    group_of,
    selection_order,
    suite_skill,
)
from rft_ilab.suites.naming import HARNESS, PREFIX, refuse_unknown
from rft_ilab.types import Grade, Grader, Message, Rollout, Skill, Task, digest

DEFAULTS = SuiteSettings()


def load_suite(name: str, settings: SuiteSettings = DEFAULTS, include: Path | None = None) -> SuiteEnvironment:
    """The suite ``name`` (``gsm8k``, ``lm_eval:arc_easy``). ``include``: further tasks of lm-evaluation-harness.

    Raises SkillError or GraderError: no such suite, a package is missing, too few rows for the demonstrations.
    """
    refuse_unknown(name)
    if name.startswith(HARNESS):
        from rft_ilab.suites.harness import load_task

        return load_task(name.removeprefix(HARNESS), settings, include)
    definition = SUITES[name]
    ordered = selection_order(name, read_rows(name))
    limit = settings.limit or len(ordered)
    chosen, rest = ordered[:limit], ordered[limit:]
    shown = _demonstrations(name, chosen, rest, settings.demonstrations)
    skill = suite_skill(name, digest_of_graders(definition), settings.tier)
    tasks = [_task(skill, definition, row, shown.get(group_of(row), ())) for row in chosen]
    return environment_of(
        skill,
        sorted(tasks, key=lambda task: task.id),
        ByKind(name, skill.grader_digest),
        settings,
        definition.max_tokens,
        answer_tokens=definition.answer_tokens,
    )


def read_rows(name: str) -> list[Row]:
    """All rows of a packaged suite."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def sizes(name: str) -> tuple[int, int]:
    """Rows and groups of a packaged suite."""
    about = json.loads((DATA / "MANIFEST.json").read_text(encoding="utf-8"))[name]
    return about["rows"], about["groups"]


def _demonstrations(name: str, chosen: Sequence[Row], rest: Sequence[Row], count: int) -> dict[str, tuple[Row, ...]]:
    """By group, ``count`` rows that are not tested: of the group itself, or of the suite where groups are single rows.

    Raises SkillError if there are too few: fewer than asked for would be another prompt than the one named.
    """
    if not count:
        return {}
    if not all("reference" in row for row in chosen):
        raise SkillError(f"the suite {name!r} has no references to demonstrate", fix="leave demonstrations at 0")
    single = not SUITES[name].grouped
    groups = dict.fromkeys(map(group_of, chosen))
    shown = {}
    for group in groups:
        free = [row for row in rest if single or group_of(row) == group][:count]
        if len(free) < count:
            whose = f"the suite {name!r}" if single else f"{group!r} in the suite {name!r}"
            raise SkillError(
                f"{count} demonstrations must be rows that are not tested, and {whose} has {len(free)}",
                fix=f"set a lower limit than {len(chosen)}, or fewer demonstrations",
            )
        shown[group] = tuple(free)
    return shown


def _task(skill: Skill, definition: Definition, row: Row, shown: Sequence[Row]) -> Task:
    kind = definition.kinds[row.get("kind", "")]
    messages = [Message("system", kind.instruction)] if kind.instruction else []
    for one in shown:
        messages += [Message("user", one["prompt"]), Message("assistant", one["reference"])]
    messages.append(Message("user", row["prompt"]))
    reference = row.get("reference", "")
    item = {key: value for key, value in row.items() if key not in ("prompt", "group")}
    if "entry" in item:
        item["entry"] = {"question": row["prompt"], **item["entry"]}
    return Task(
        # IFEval's prompts have no reference, so the row's id keeps two tasks with one prompt apart.
        id=digest([skill.name, row["id"], [m.as_dict() for m in messages], reference]),
        skill=skill.name,
        messages=tuple(messages),
        reference=reference,
        item=item,
        group=group_of(row),
        split="test",
    )


def digest_of_graders(definition: Definition) -> str:
    return digest({name: dict(kind.grader) for name, kind in definition.kinds.items()})


class ByKind:
    """Each task graded by the grader of its kind (implements :class:`rft_ilab.types.Grader`).

    Raises GraderError if a package that the graders need is missing: before anything is sampled.
    """

    def __init__(self, name: str, grader_digest: str) -> None:
        self.digest = grader_digest
        self._kinds, self._where = SUITES[name].kinds, Path(PREFIX + name)
        self._graders: dict[str, Grader] = {}
        self._grader(next(iter(self._kinds)))

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        """One grade for each pair, in order."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, (task, _) in enumerate(pairs):
            places[str(task.item.get("kind", ""))].append(place)
        grades: dict[int, Grade] = {}
        for kind, where in places.items():
            grades |= dict(zip(where, self._grader(kind).grade([pairs[i] for i in where]), strict=True))
        return [grades[place] for place in range(len(pairs))]

    def _grader(self, kind: str) -> Grader:
        if kind not in self._graders:
            self._graders[kind] = grader_of(self._kinds[kind].grader, self.digest, self._where)
        return self._graders[kind]
