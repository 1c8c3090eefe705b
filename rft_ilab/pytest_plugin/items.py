"""What pytest collects: a file of tasks, one test a task, and one for the accuracy that was asked for.

Right passes, wrong fails, and what could not be graded is pytest's *error*: it is raised in the setup of the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rft_ilab.errors import RftError
from rft_ilab.grading.engine import build_grader
from rft_ilab.pytest_plugin.answers import Answered
from rft_ilab.pytest_plugin.wording import accuracy_line, answer_lines, first_line, wrong_line
from rft_ilab.regress.statistics import wilson
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import scan_tasks
from rft_ilab.skills.tree import ROOT, load_skill
from rft_ilab.types import Task, digest

if TYPE_CHECKING:
    from rft_ilab.pytest_plugin.session import Session

MAX_GROUP = 40
MAX_PROPERTY = 1000


def leaf_of(path: Path) -> tuple[Path, str] | None:
    """Taxonomy and skill name of a file in a leaf; None below no ``compositional_skills``."""
    for parent in path.parent.parents:
        if parent.name == ROOT:
            return parent.parent, path.parent.relative_to(parent).as_posix()
    return None


# pytest formats no traceback of it, which would be our own code, and costs more than all the rest of a test.
Failed: Any = pytest.fail.Exception


class Verdict(Failed):  # type: ignore[misc]
    """What a test came to, in words: ``line`` for the summary, ``lines`` for the section of the test."""

    def __init__(self, line: str, lines: Iterable[str]) -> None:
        self.line, self.lines = line, tuple(lines)
        super().__init__(line, pytrace=False)


class Place:
    """Where and what, as pytest's summary and JUnit files read it (``longrepr.reprcrash``)."""

    def __init__(self, path: str, line: int, message: str) -> None:
        self.path, self.lineno, self.message = path, line, message

    def __str__(self) -> str:
        return f"{self.path}:{self.lineno}: {self.message}"


class Shown:
    """A verdict as pytest prints it (``longrepr`` of a report). ``brief`` (--tb=line): pytest adds the place itself."""

    def __init__(self, path: str, line: int, verdict: Verdict, *, brief: bool) -> None:
        self.reprcrash = Place(path, line, verdict.line)
        self._lines, self._brief = () if brief else verdict.lines, brief

    def __str__(self) -> str:
        return "\n".join([str(self.reprcrash), *self._lines])

    def toterminal(self, tw: Any) -> None:
        for line in [] if self._brief else str(self).split("\n"):
            tw.line(line)


class SkillFile(pytest.File):
    """``tasks.jsonl`` of a leaf. Raises CollectError (file:line, what, repair) when the skill cannot be used."""

    rft: Session
    environment: Environment

    def collect(self) -> Iterator[pytest.Item]:
        rft, wishes = self.rft, self.rft.wishes
        leaf = leaf_of(self.path)
        assert leaf is not None
        taxonomy, self.skill = leaf
        try:
            settings = rft.settings(taxonomy)
            skill = load_skill(taxonomy, self.skill, settings)
            lined, errors = scan_tasks(skill)
            if errors:
                errors.sort(key=lambda error: error.line or 0)
                raise pytest.Collector.CollectError("\n".join(map(str, errors)))
            tasks = tuple(task for _, task in lined)
            self.environment = Environment.of(skill, tasks, build_grader(skill), settings.skill(skill.name))
            if not self.config.option.collectonly:
                rft.answers.policy  # noqa: B018 - whether there is one
        except RftError as error:
            raise pytest.Collector.CollectError(str(error)) from error
        self.sampling = wishes.sampling(settings.gate, self.environment.settings.max_tokens)
        self.add_marker(pytest.mark.rft(skill=skill.name, tier=skill.tier, split=wishes.split))
        self.extra_keyword_matches.add(skill.name)
        least = wishes.wanted(skill.name)
        # By content, so that a limit takes the same tasks wherever they stand in the file, and not all of one class.
        some = sorted(self.environment.split(wishes.split), key=lambda task: task.id)[: wishes.limit]
        if not some and least is not None:
            raise pytest.Collector.CollectError(f"{self.path}: no {wishes.split} tasks to reach an accuracy with")
        if not some:
            pytest.skip(f"no {wishes.split} tasks", allow_module_level=True)
        chosen = {task.id for task in some}
        self.tasks = [task for task in tasks if task.id in chosen]
        for line, task in lined:
            if task.id in chosen:
                yield TaskItem.from_parent(self, name=f"{line}[{_short(task)}]", task=task, line=line)
        if least is not None:
            yield AccuracyItem.from_parent(self, name=f"accuracy[{least:g}]", least=least)


class SkillItem(pytest.Item):
    """A test of a skill; ``line`` in its file. What it needs of the model is ``tasks``."""

    parent: SkillFile
    line = 1
    tasks: list[Task]

    def __init__(self, *, parent: SkillFile, **given: Any) -> None:
        super().__init__(parent=parent, **given)
        self.file = parent

    def answered(self) -> Mapping[str, Answered]:
        """Raises what kept the answers from coming: a :class:`Verdict` for what the user can act on."""
        return self.file.rft.answered(self.file)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.line - 1, f"{self.file.skill} {self.name}"

    def properties(self, **given: Any) -> None:
        """What JUnit files and the summary are told of this test; texts cut, what is not there left out."""
        for name, value in given.items():
            if value is not None:
                text = str(value)
                self.user_properties.append((f"rft_{name}", text[:MAX_PROPERTY]))


class TaskItem(SkillItem):
    """Right or wrong answers of the model to one task."""

    def __init__(self, *, task: Task, line: int, **given: Any) -> None:
        super().__init__(**given)
        self.task, self.line, self.tasks = task, line, [task]
        self.extra_keyword_matches.update({task.group, str(task.item.get("id", task.id))})

    def setup(self) -> None:
        wishes = self.file.rft.wishes
        self.answer = self.answered()[self.task.id]
        self.passed = self.answer.passed(wishes.pass_rate)
        shown = self.answer.shown
        classes = self.file.environment.classes or {}
        self.properties(
            skill=self.task.skill,
            outcome={True: "right", False: "wrong", None: "error"}[self.passed],
            task=self.task.id,
            group=self.task.group,
            cls=classes.get(self.task.id),
            split=self.task.split,
            line=self.line,
            policy=shown.rollout.policy_id,
            completion=shown.rollout.completion,
            answer=shown.grade.answer,
            score=shown.grade.score,
            right=f"{self.answer.right} of {len(self.answer.graded)}" if wishes.samples else None,
        )
        if self.answer.problem is not None:
            raise Verdict(first_line(self.answer.problem), self._lines())

    def runtest(self) -> None:
        if not self.passed:
            raise Verdict(wrong_line(self.answer), self._lines())

    def _lines(self) -> list[str]:
        rft = self.file.rft
        return answer_lines(self.answer, rft.wishes, whole=self.config.option.verbose >= 2)


class AccuracyItem(SkillItem):
    """Whether at least the share ``least`` of a skill's tasks pass: of all of them, whichever are selected.

    Tasks that could not be graded count neither way: where they could tip the balance, the test is an error.
    """

    def __init__(self, *, least: float, **given: Any) -> None:
        super().__init__(**given)
        self.least, self.tasks = least, self.file.tasks
        self.add_marker(pytest.mark.rft_accuracy)

    def setup(self) -> None:
        rate = self.file.rft.wishes.pass_rate
        passed = [answer.passed(rate) for answer in self.answered().values()]
        self.right, self.errors, self.n = passed.count(True), passed.count(None), len(passed)
        self.properties(skill=self.file.skill, right=self.right, errors=self.errors, tasks=self.n, least=self.least)
        if self._reached(self.right) != self._reached(self.right + self.errors):
            undecided = f"they decide whether {100 * self.least:.1f} % is reached"
            line = f"{self.errors} of {self.n} tasks could not be graded: {undecided}"
            raise Verdict(line, [])

    def runtest(self) -> None:
        if not self._reached(self.right):
            graded = self.n - self.errors
            interval = wilson(self.right, graded) if graded else None
            reached = accuracy_line(self.right, graded, interval)
            raise Verdict(f"{reached}, at least {100 * self.least:.1f} % asked for", [])

    def _reached(self, right: int) -> bool:
        return right >= self.least * self.n - 1e-9


def _short(task: Task) -> str:
    """The group as part of a node id: no blanks, brackets or colons; a digest of it where it is long."""
    if task.group == Task.make_id(task.skill, task.messages, task.reference):
        return task.group[:8]
    text = re.sub(r"[^\w.+-]", "_", task.group)
    return text if len(text) <= MAX_GROUP else digest(task.group)[:8]
