"""From a draft of an importer to a leaf: proven as lint proves it, in a copy, and written only if nothing is wrong."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.config import Settings
from rft_ilab.errors import SkillError
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.grading.proof.golden import Finding
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.grading.proof.prove import REMOTE, has_part
from rft_ilab.grading.proof.waivers import SUFFIX
from rft_ilab.skills.importing.draft import (
    MIN_SEEDS,
    Draft,
    ImportRefused,
    Problems,
    SourceRow,
    choose_seeds,
    conflicts,
    grouped,
    unique,
)
from rft_ilab.skills.importing.openai_job import reference_fields, with_reference
from rft_ilab.skills.leaf import ATTRIBUTION, GRADER, QNA, TASKS, put_files, qna_text, rows_text, value_text
from rft_ilab.skills.reading import read_text
from rft_ilab.skills.tasks import task_from_row
from rft_ilab.skills.tree import MAX_GRADER_BYTES, ROOT, expand, graders_directory
from rft_ilab.types import Skill, Task, digest

WAIVERS = f"grader{SUFFIX}"
PROBE = 64  # rows on which fields that may be the reference are tried
LINE = re.compile(r"(?<=(?:as|of|on) line )(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was written (or would be): the leaf, counts by split, what was decided, and lint's warnings."""

    leaf: Path
    tasks: int
    splits: Mapping[str, int]
    seeds: int
    notes: tuple[str, ...]
    warnings: tuple[Finding, ...]


def bring_in(taxonomy: Path, name: str, draft: Draft, *, force: bool = False, dry_run: bool = False) -> Imported:
    """Prove a draft and write its leaf. Raises ImportRefused with all that is to be repaired; then nothing is written.

    Rows that are there twice are dropped, rows alike get a group, and both are told.
    """
    grader = load_grader(draft, taxonomy)
    skill = Skill(
        name=name, directory=taxonomy / ROOT / name, description=draft.description, seeds=draft.seeds,
        grader=draft.grader, grader_digest=grader.digest,
    )  # fmt: skip
    notes = list(draft.notes)
    rows, dropped = unique(draft.rows, lambda first, second: _accepts(grader, skill, first, second))
    rows, alike = grouped(rows)
    notes += [f"{dropped} rows that were there twice were left out"] if dropped else []
    notes += [f"{alike} rows that differ by case, numbers or signs only were put into groups"] if alike else []
    tasks = _tasks(skill, rows)
    seeds = draft.seeds or choose_seeds([task for _, task in tasks])
    if len(seeds) < MIN_SEEDS and QNA not in draft.files:
        what = f"only {len(seeds)} different questions of one turn to show as seed examples"
        fix = f"InstructLab asks for {MIN_SEEDS}; add rows to the training split"
        raise ImportRefused([SkillError(what, where=rows[0].file, line=rows[0].line, fix=fix)])
    files = {
        QNA: qna_text(draft.description, seeds, draft.created_by),
        GRADER: value_text(draft.grader),
        TASKS: rows_text([one.row for one in rows]),
        ATTRIBUTION: draft.attribution,
        **draft.files,
        **({WAIVERS: read_text(draft.waivers, MAX_GRADER_BYTES)} if draft.waivers else {}),
    }
    warnings = _proven(taxonomy, name, files, rows, draft)
    written = {file: text for file, text in files.items() if file not in draft.kept}
    leaf = skill.directory if dry_run else put_files(taxonomy, name, written, force=force)
    splits = Counter[str](task.split for _, task in tasks)
    return Imported(
        leaf=leaf, tasks=len(tasks), splits=splits, seeds=len(seeds), notes=tuple(notes), warnings=tuple(warnings)
    )  # fmt: skip


def load_grader(draft: Draft, taxonomy: Path) -> SkillGrader:
    """Build the grader of a draft. Raises GraderError, SkillError that name its file."""
    expanded = expand(dict(draft.grader), draft.blame, graders_directory(taxonomy))
    return grader_of(expanded, digest(expanded), draft.blame)


def find_reference(draft: Draft, taxonomy: Path, name: str, named: str | None) -> None:
    """Give the rows of a draft their ``reference``: the field that the grader accepts as an answer, or ``named``.

    Raises ImportRefused if no field may be one.
    """
    first = draft.rows[0]
    candidates = [named] if named else reference_fields(draft.grader, first.row)
    if not candidates:
        fields = ", ".join(key for key in first.row if key != "messages") or "none"
        what = f"no field of the row is known to be a right answer (fields: {fields})"
        fix = "each row needs a completion that the grader must accept: name its field with --reference"
        raise ImportRefused([SkillError(what, where=first.file, line=first.line, fix=fix)])
    best = candidates[0]
    if len(candidates) > 1 and not has_part(draft.grader, REMOTE):
        grader = load_grader(draft, taxonomy)
        best = max(candidates, key=lambda field: _accepted(grader, name, draft, field))
    draft.rows = with_reference(draft.rows, best)
    if best != "reference":
        draft.notes.append(f"the right answer is the field {best!r}")


def _accepted(grader: SkillGrader, name: str, draft: Draft, field: str) -> int:
    skill = Skill(
        name=name, directory=Path(), description=draft.description, seeds=(), grader=draft.grader, grader_digest=""
    )  # fmt: skip
    pairs = []
    for one in with_reference(draft.rows[:PROBE], field):
        try:
            task = task_from_row(skill, dict(one.row))
        except SkillError:
            continue
        pairs.append((task, task.reference))
    return sum(grade.passed is True for grade in grader.grade_texts(pairs))


def _accepts(grader: SkillGrader, skill: Skill, first: SourceRow, second: SourceRow) -> bool:
    """Whether the grader of the first row's task takes the second row's reference for right: they say the same."""
    if has_part(skill.grader, REMOTE):
        return False
    try:
        one, other = (task_from_row(skill, dict(row.row)) for row in (first, second))
    except SkillError:
        return True  # what is wrong with the row is told later
    return grader.grade_texts([(one, other.reference)])[0].passed is True


def _tasks(skill: Skill, rows: Sequence[SourceRow]) -> list[tuple[SourceRow, Task]]:
    problems, tasks = Problems(), []
    for one in rows:
        try:
            tasks.append((one, task_from_row(skill, dict(one.row), one.file, one.line)))
        except SkillError as error:
            problems.add(error)
    for conflict in conflicts(tasks):
        problems.add(conflict)
    problems.stop()
    return tasks


def _proven(
    taxonomy: Path, name: str, files: Mapping[str, str], rows: Sequence[SourceRow], draft: Draft
) -> list[Finding]:
    """Lint the leaf in a copy; its warnings, at the lines of the source. Raises ImportRefused for its errors."""
    with tempfile.TemporaryDirectory(prefix="rft-import-") as made:
        stage = Path(made) / "taxonomy"
        stage.mkdir()
        if (graders := graders_directory(taxonomy)).is_dir():
            shutil.copytree(graders, Path(made) / "graders", symlinks=True)
        leaf = put_files(stage, name, files)
        findings = [_at_source(f, leaf, rows, draft) for f in lint_taxonomy(stage, Settings(), only=[name])]
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        raise ImportRefused([SkillError(f.message, where=f.file, line=f.line, fix=f.fix) for f in errors])
    return findings


def _at_source(finding: Finding, leaf: Path, rows: Sequence[SourceRow], draft: Draft) -> Finding:
    """A finding in the copied leaf as one in the file that the leaf was made of."""

    def source(line: int) -> SourceRow:
        return rows[min(max(line, 1), len(rows)) - 1]

    message = finding.message
    file, line = draft.blame, finding.line if finding.file == leaf / GRADER else None
    if finding.file == leaf / TASKS:
        message = LINE.sub(lambda found: str(source(int(found[1])).line), message)
        one = source(finding.line or 1)
        file, line = one.file, one.line if finding.line else None
    elif finding.file == leaf / WAIVERS and draft.waivers is not None:
        file, line = draft.waivers, finding.line
    elif finding.file.parent != leaf:
        file, line = finding.file, finding.line
    return Finding(severity=finding.severity, message=message, file=file, line=line, fix=finding.fix)


def description_of(draft_rows: Sequence[SourceRow], given: str | None, shared: str | None) -> str:
    """The description of a skill: the one given, else the system message that all rows share. Raises ImportRefused."""
    text: Any = given or shared
    if not text or not text.strip():
        what = "no description of the skill: the rows do not begin with one common system message"
        one = draft_rows[0]
        fix = 'say what the model is to do, as its system message: --description "..."'
        raise ImportRefused([SkillError(what, where=one.file, line=one.line, fix=fix)])
    return str(text).strip()
