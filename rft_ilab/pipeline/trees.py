"""The three taxonomies of a pull request, each in a temporary directory: what it proposes, what judges, what trains.

``head``      as the branch has it: linted, and its graders tried; nothing else
``judges``    the base branch's, with the skills that are new; see :mod:`rft_ilab.pipeline.judging`
``training``  the judges', but the training and validation tasks and the generator of a changed skill are the branch's

So an edit of a grader, a test task, a setting or a baseline of a skill that is there already changes neither what is
learnt nor what is asked; and a test task of the base that the branch made a training task is not learnt either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rft_ilab.config import FILE_NAME, Settings, load_settings
from rft_ilab.errors import SkillError
from rft_ilab.grading.generator import FILE as GENERATOR
from rft_ilab.pipeline.judging import Base, base_tree
from rft_ilab.report.pull import Note
from rft_ilab.skills.proposal import OWN_FILES, Problem, Proposal, write_proposal
from rft_ilab.skills.reading import canonical_json, parse_json
from rft_ilab.skills.tasks import FILE as TASKS
from rft_ilab.skills.tasks import scan_tasks
from rft_ilab.skills.tree import ROOT, graders_directory, load_skill
from rft_ilab.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The taxonomy as the branch has it, below ``root``, and what could not be written of it."""

    root: Path
    taxonomy: Path
    problems: tuple[Problem, ...]

    def place(self, file: Path | str) -> str:
        """A path of the tree as the repository names it; others stay as they are."""
        path = Path(file)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """``targets`` are the skills of which something trains; ``ignored`` are the edits that have no effect here."""

    judges: Base
    training: Path
    targets: tuple[str, ...]
    ignored: tuple[Note, ...]


@contextlib.contextmanager
def head_tree(proposal: Proposal) -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="rft-head-") as temporary:
        root = Path(temporary).resolve()
        found = write_proposal(proposal, root)
        taxonomy = root.joinpath(*proposal.head.inside.parts)
        taxonomy.mkdir(parents=True, exist_ok=True)
        yield Head(root=root, taxonomy=taxonomy, problems=(*proposal.problems, *found))


@contextlib.contextmanager
def trees(proposal: Proposal, head: Head, taxonomy: Path) -> Iterator[Trees]:
    """What judges and what trains. ``head`` has been linted; leaves that the branch did not touch are taken off it.

    Raises SkillError if the base holds no skills, or a changed skill cannot be read.
    """
    for leaf in sorted((head.taxonomy / ROOT).rglob("*")) if (head.taxonomy / ROOT).is_dir() else ():
        if leaf.is_dir() and leaf.relative_to(head.taxonomy / ROOT).as_posix() not in proposal.skills:
            for name in OWN_FILES:
                (leaf / name).unlink(missing_ok=True)
    with (
        base_tree(taxonomy, proposal.base.commit, head.taxonomy) as judges,
        tempfile.TemporaryDirectory(prefix="rft-train-") as temporary,
    ):
        # A commit's name cannot be mistaken; people are told the branch's.
        judges = dataclasses.replace(judges, revision=proposal.base)
        training = Path(temporary).resolve() / "taxonomy"
        shutil.copytree(judges.taxonomy, training)
        graders = graders_directory(judges.taxonomy)
        if graders.is_dir() and graders.parent != judges.taxonomy.resolve():
            shutil.copytree(graders, training.parent / "graders")
        targets, ignored = [], [_edit(file) for file in proposal.judging if not _in_use(file, proposal, judges)]
        for name, files in sorted(proposal.files.items()):
            if proposal.skills[name] == "deleted":
                ignored += [_edit(file, "deleted here; the base still asks for it") for file in files[:1]]
            elif name in judges.new:
                targets.append(name)
            else:
                trains, edits = _take_over(name, files, head, judges.taxonomy, training)
                targets += [name] if trains else []
                ignored += edits
        yield Trees(judges=judges, training=training, targets=tuple(targets), ignored=tuple(ignored))


def _in_use(file: str, proposal: Proposal, judges: Base) -> bool:
    """Whether a changed file that judges is used as it is: a grader or settings that only new skills need."""
    inside = proposal.base.inside
    place = PurePosixPath(file)
    if place == inside / FILE_NAME:
        try:
            return load_settings(judges.own) == judges.settings()
        except SkillError:
            return False
    if place.parent.name != "graders":
        return False
    own, judging = (graders_directory(taxonomy) / place.name for taxonomy in (judges.own, judges.taxonomy))
    return own.is_file() and judging.is_file() and own.read_bytes() == judging.read_bytes()


def _edit(file: str, message: str = "judges; that of the base is used") -> Note:
    return Note(severity="warning", file=file, message=message)


def _take_over(name: str, files: Sequence[str], head: Head, judges: Path, training: Path) -> tuple[bool, list[Note]]:
    """Put what trains of a changed skill into ``training``; whether that is anything, and the edits left out."""
    trains, edits = False, []
    own, leaf = head.taxonomy / ROOT / name, training / ROOT / name
    for file in files:
        match file.rsplit("/", 1)[-1]:
            case "tasks.jsonl":
                changed, left_out = _merge_tasks(name, file, head.taxonomy, judges, leaf / TASKS)
                trains |= changed
                edits += left_out
            case "generator.py":
                trains = True
                (leaf / GENERATOR).unlink(missing_ok=True)
                if (own / GENERATOR).is_file():
                    shutil.copyfile(own / GENERATOR, leaf / GENERATOR)
            case "qna.yaml":
                edits.append(_edit(file, "instruction and demonstrations are the base's until this is merged"))
            case "attribution.txt":
                pass
            case _:
                edits.append(_edit(file))
    return trains, edits


def _merge_tasks(name: str, file: str, head: Path, judges: Path, target: Path) -> tuple[bool, list[Note]]:
    """Write the base's test tasks and the branch's others; whether these differ from the base's, and what was left out.

    A branch's task that is in a group of the base's test split, has the id of one of its tasks, or asks what one asks
    in any of its turns, would teach the test: it is left out.
    """
    before, after = _rows(judges, name), _rows(head, name)
    tests = [row for row in before if row.task.split == "test"]
    groups, ids, questions = ({key(row.task) for row in tests} for key in (_group, _id, _question))
    kept: list[_Row] = []
    leaks: list[_Row] = []
    for row in after:
        if row.task.split != "test":
            known = (_group(row.task), groups), (_id(row.task), ids - {None})
            leak = any(value in those for value, those in known) or not questions.isdisjoint(_turns(row.task))
            (leaks if leak else kept).append(row)
    notes = []
    if leaks:
        message = (
            f"{len(leaks)} training tasks are test tasks of the base, or of their groups; left out, the first here"
        )
        notes.append(dataclasses.replace(_edit(file, message), line=leaks[0].line))
    asked, proposed = ({row.content for row in side if row.task.split == "test"} for side in (before, after))
    if asked != proposed:
        added, gone = len(proposed - asked), len(asked - proposed)
        message = f"test tasks: {added} added or changed, {gone} gone or changed; the base's are asked"
        first = next((row.line for row in after if row.task.split == "test" and row.content not in asked), None)
        notes.append(dataclasses.replace(_edit(file, message), line=first))
    # Written alike, however the branch spaced it: the same tasks are the same run.
    lines = (canonical_json(parse_json(row.text)) for row in [*tests, *kept])
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    learnt = {row.content for row in before if row.task.split != "test"}
    return {row.content for row in kept} != learnt, notes


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    text: str
    task: Task

    @property
    def content(self) -> tuple[str, str, str]:
        """What makes it the task that it is, also where a split or a group is not written but drawn."""
        return (self.task.split, self.task.group, canonical_json(parse_json(self.text)))


def _rows(taxonomy: Path, name: str) -> list[_Row]:
    """Raises SkillError at the first bad line."""
    skill = load_skill(taxonomy, name, Settings())
    tasks, errors = scan_tasks(skill)
    if errors:
        raise errors[0]
    lines = (skill.directory / TASKS).read_text(encoding="utf-8").split("\n")
    return [_Row(line, lines[line - 1], task) for line, task in tasks]


def _group(task: Task) -> str:
    return task.group


def _id(task: Task) -> str | None:
    return str(task.item["id"]) if "id" in task.item else None


def _question(task: Task) -> str:
    return _turns(task)[-1]


def _turns(task: Task) -> list[str]:
    return [" ".join(message.content.casefold().split()) for message in task.messages]
