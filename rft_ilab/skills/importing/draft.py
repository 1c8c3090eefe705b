"""What an importer hands on: a skill to be, of which every row knows the line of its source."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rft_ilab.errors import RftError, SkillError
from rft_ilab.types import Seed, Task, digest

MIN_SEEDS, MAX_SEEDS = 5, 8
SHORT = 2000  # characters of a prompt and its answer that make a handy demonstration
MAX_PROBLEMS = 20
TEMPLATE_SHARE = 10  # a template of more than a tenth of the rows is the form of the question
SPLITS: Mapping[str, str] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


class ImportRefused(SkillError):
    """Nothing was written; ``problems`` says why, each with its file and line."""

    def __init__(self, problems: Sequence[RftError]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problems")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """A row of ``tasks.jsonl`` that was made of ``line`` (1-based) of ``file``."""

    row: Mapping[str, Any]
    file: Path
    line: int

    def having(self, **fields: Any) -> SourceRow:
        """This row with other or further fields."""
        return SourceRow(row={**self.row, **fields}, file=self.file, line=self.line)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True, kw_only=True)
class Draft:
    """A skill to be. ``blame`` is the file to name if the grader is at fault; ``notes`` tell people what was decided.

    Without ``seeds`` they are chosen among the training tasks. ``files`` are texts to write instead of what would be
    made of description, seeds and attribution; those in ``kept`` are in the leaf already and are not written again.
    ``waivers`` is a file to take along as ``grader.waivers.json``.
    """

    description: str
    rows: list[SourceRow]
    grader: Mapping[str, Any]
    blame: Path
    attribution: str
    created_by: str
    seeds: tuple[Seed, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    waivers: Path | None = None
    notes: list[str] = field(default_factory=list)


class Problems:
    """Collects what is wrong with single rows, up to twenty; ``stop`` raises them all."""

    def __init__(self) -> None:
        self.found: list[RftError] = []

    def add(self, error: RftError) -> None:
        self.found.append(error)
        if len(self.found) >= MAX_PROBLEMS:
            self.stop()

    def stop(self) -> None:
        """Raises ImportRefused if anything was added."""
        if self.found:
            raise ImportRefused(self.found)


def common_system(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The system message with which every row begins, if it can be the description of a skill."""
    first = {row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else None for row in rows}
    text = first.pop() if len(first) == 1 else None
    # Descriptions are stripped when they are read; then the tasks would not be the same.
    return text if text and text == text.strip() else None


def grouped(rows: Sequence[SourceRow]) -> tuple[list[SourceRow], int]:
    """Rows that ask the same but for case, numbers and signs get a ``group``, so no split tears them; how many got one.

    Rows with a ``group`` or a ``split`` of their own stay as they are, and so does a form that many rows share ("What
    is 3 + 4?"): there the numbers are the question.
    """
    free = ["group" not in one.row and "split" not in one.row for one in rows]
    asked = [_outline(one.row) if able else "" for one, able in zip(rows, free, strict=True)]
    counts = Counter(asked)
    most = max(2, len(rows) // TEMPLATE_SHARE)
    made = [
        one.having(group=f"alike-{outline}") if outline and 1 < counts[outline] <= most else one
        for one, outline in zip(rows, asked, strict=True)
    ]
    return made, sum(new is not old for new, old in zip(made, rows, strict=True))


def _outline(row: Mapping[str, Any]) -> str:
    turns = [(turn["role"], re.sub(r"[\W\d_]+", " ", turn["content"].casefold())) for turn in row["messages"]]
    # What has no words ("3 + 4") has no outline: all of it would be one group.
    return digest(turns)[:12] if any(text.strip() for role, text in turns if role == "user") else ""


def train_or_val(row: Mapping[str, Any]) -> str:
    """The split of a row of a training file beside which there is a file to test with: one group in eight is val."""
    group = str(row.get("group", row.get("id", digest(row["messages"]))))
    return "val" if hashlib.sha256(f"train or val: {group}".encode()).digest()[0] < 32 else "train"


def conflicts(tasks: Sequence[tuple[SourceRow, Task]]) -> Iterator[SkillError]:
    """What is wrong between rows: an id twice, a group in two splits."""
    ids: dict[str, SourceRow] = {}
    groups: dict[str, tuple[SourceRow, str]] = {}
    for one, task in tasks:
        if "id" in task.item and (first := ids.setdefault(str(task.item["id"]), one)) is not one:
            what = f"id {task.item['id']!r} is also that of {first.place}"
            yield SkillError(what, where=one.file, line=one.line, fix="give every row its own id")
        first, split = groups.setdefault(task.group, (one, task.split))
        if split != task.split:
            what = f"group {task.group!r} is in {task.split} here and in {split} at {first.place}"
            yield SkillError(what, where=one.file, line=one.line, fix="put all rows of a group into one split")


def unique(
    rows: Sequence[SourceRow], same_answer: Callable[[SourceRow, SourceRow], bool]
) -> tuple[list[SourceRow], int]:
    """Rows without those that say what a row before them says, and how many these were.

    Raises ImportRefused for rows with the same messages and another reference, unless ``same_answer`` takes both for
    right, and for the same messages in two splits.
    """
    kept: dict[str, list[SourceRow]] = {}
    problems, dropped = Problems(), 0
    for one in rows:
        before = kept.setdefault(digest(one.row["messages"]), [])
        if any(other.row.get("reference") == one.row.get("reference") for other in before):
            other = before[0]
            if other.row.get("split") != one.row.get("split"):
                what = f"the same messages as {other.place}, which is in another split"
                problems.add(SkillError(what, where=one.file, line=one.line, fix="remove one of the two"))
            dropped += 1
        elif before and not same_answer(before[0], one):
            what = f"the same messages as {before[0].place} with another answer"
            problems.add(SkillError(what, where=one.file, line=one.line, fix="keep the right one of the two"))
        else:
            before.append(one)
    problems.stop()
    return [one for same in kept.values() for one in same], dropped


def choose_seeds(tasks: Sequence[Task]) -> tuple[Seed, ...]:
    """Up to eight demonstrations among the training tasks with one turn: each answer once before any comes twice."""
    able = [task for task in tasks if task.split == "train" and [m.role for m in task.messages[1:]] == ["user"]]
    able.sort(key=lambda task: len(task.messages[-1].content) + len(task.reference) > SHORT)
    seen: Counter[str] = Counter()
    ranked = []
    for index, task in enumerate(able):
        ranked.append((seen[task.reference], index))
        seen[task.reference] += 1
    questions: dict[str, Seed] = {}
    for _, index in sorted(ranked):
        question = able[index].messages[-1].content
        if len(questions) < MAX_SEEDS:
            questions.setdefault(question.strip(), Seed(question=question, answer=able[index].reference))
    return tuple(questions.values())


def attribution(title: str, files: Sequence[Path], licence: str, creator: str) -> str:
    """An ``attribution.txt``: which files, by their digests, under which licence."""
    revisions = ", ".join(f"{file.name} sha256 {_sha256(file)[:16]}" for file in files)
    return (
        f"Title of work: {title}\nLink to work: -\nRevision: {revisions}\nLicense of the work: {licence}\n"
        f"Creator names: {creator}\nChanges: imported with ilab rft import\n"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
