"""Lint one skill: everything that would stop a run, found before it, all at once, with file, line and repair.

Reading errors of every file and line; graders that do not load; references that their own grader
refuses; answers that pass and should not (a sample of what ``ilab rft grader-test`` tries); the first rows of a
``generator.py``; too few seeds, no attribution, classes that cannot be learned or judged. ``qna.yaml`` in depth stays
with ``ilab taxonomy diff``.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rft_ilab.errors import RftError, SkillError
from rft_ilab.grading.engine import SkillGrader, build_grader
from rft_ilab.grading.generator import FILE as GENERATOR
from rft_ilab.grading.generator import checked_row, generated_rows, has_generator
from rft_ilab.grading.proof.golden import MAX_ALIKE, Finding, Numbered
from rft_ilab.grading.proof.prove import LINT, LINT_SLOW, REMOTE, SLOW, has_part, prove
from rft_ilab.grading.proof.waivers import read_waivers
from rft_ilab.skills.reading import read_text
from rft_ilab.skills.restyle import Untidy, untidy_files
from rft_ilab.skills.tasks import FILE, class_of, scan_tasks, task_from_row
from rft_ilab.skills.tree import (
    ROOT,
    check_leaf,
    graders_directory,
    read_grader,
    read_qna,
)
from rft_ilab.types import Skill, Task, digest

MIN_SEEDS = 5
MIN_CLASS_TESTS = 15
MAX_ATTRIBUTION_BYTES = 1 << 20
GENERATED_ROWS = 16
STYLE_FIX = "ilab taxonomy lint --fix"
T = TypeVar("T")


def attempt(step: Callable[[], T], file: Path, findings: list[Finding]) -> T | None:
    """The step's value; an error of ours becomes a finding and None."""
    try:
        return step()
    except RftError as error:
        findings.append(Finding.of(error, file))
        return None


def lint_skill(taxonomy: Path, name: str, style: bool = False) -> list[Finding]:
    """All findings of one leaf, in no order. Raises SandboxError if Python graders cannot run at all."""
    leaf = taxonomy / ROOT / name
    findings = untidy_findings(untidy_files(taxonomy, [name])) if style else []
    attempt(lambda: check_leaf(taxonomy, name), leaf, findings)
    if not name.isprintable():  # nor may it be text that can be written down
        return findings
    qna = attempt(lambda: read_qna(leaf / "qna.yaml"), leaf, findings)
    config = attempt(lambda: read_grader(leaf / "grader.json", graders_directory(taxonomy)), leaf, findings)
    description, seeds = qna or ("unknown", ())
    if qna and len({seed.question.strip() for seed in seeds}) < MIN_SEEDS:
        message = f"fewer than {MIN_SEEDS} different seed examples"
        findings.append(
            Finding(severity="error", message=message, file=leaf / "qna.yaml", fix="InstructLab asks for 5")
        )
    findings += _attribution(leaf / "attribution.txt")
    skill = Skill(
        name=name,
        directory=leaf,
        description=description,
        seeds=seeds,
        grader=config or {},
        grader_digest=digest(config),
    )
    scanned = attempt(lambda: scan_tasks(skill), leaf, findings)
    tasks, errors = scanned or ([], [])
    findings += [Finding.of(error, leaf / FILE) for error in errors]
    if tasks:
        findings += _splits(tasks, skill, leaf / FILE)
    if config is not None:
        grader = attempt(lambda: build_grader(skill), leaf / "grader.json", findings)
        if grader is not None and tasks:
            findings += quick_findings(grader, skill, tasks)
        if grader is not None and has_generator(skill):
            findings += attempt(lambda: _generated(grader, skill), leaf / GENERATOR, findings) or []
    return findings


def untidy_findings(found: Iterable[Untidy]) -> list[Finding]:
    """A warning for every file that is not laid out as the others are."""
    return [
        Finding(severity="warning", message=f"style: {each.problem}", file=each.file, line=each.line, fix=STYLE_FIX)
        for each in found
    ]


def _generated(grader: SkillGrader, skill: Skill) -> list[Finding]:
    """What is wrong with the first rows of ``generator.py``. Raises SkillError, SandboxError if it does not run."""
    path = skill.directory / GENERATOR
    rows = generated_rows(skill, GENERATED_ROWS, 0)
    fix = "tasks(seed) must yield rows as in tasks.jsonl; see docs/data.md"
    found: list[Finding] = []
    if not rows:
        found.append(Finding(severity="warning", message="yields no row", file=path, fix=fix))
    if rows != generated_rows(skill, GENERATED_ROWS, 0):
        message = "yields other rows when asked again with the same seed"
        found.append(Finding(severity="error", message=message, file=path, fix="draw from random.Random(seed) alone"))
    tasks: list[Numbered] = []
    for number, row in enumerate(rows, start=1):
        plain, problem = checked_row(row)
        if plain is None:
            found.append(Finding(severity="error", message=f"row {number}: {problem}", file=path, fix=fix))
            continue
        try:
            tasks.append((number, task_from_row(skill, plain)))
        except SkillError as error:
            message = f"row {number}: {error.what}"
            found.append(Finding(severity="error", message=message, file=path, fix=error.fix or fix))
    if has_part(skill.grader, REMOTE):
        return found
    for (number, _), grade in zip(tasks, grader.grade_texts([(t, t.reference) for _, t in tasks]), strict=True):
        if not grade.passed:
            message = f"row {number}: the grader does not accept the reference: {grade.error or grade.reason}"
            found.append(Finding(severity="error", message=message, file=path, fix="correct one of the two"))
    return found


def _attribution(path: Path) -> Iterator[Finding]:
    fix = "say where the texts come from and under which licence"
    try:
        empty = not read_text(path, MAX_ATTRIBUTION_BYTES).strip()
    except SkillError as error:
        yield dataclasses.replace(Finding.of(error, path), fix=fix)
        return
    if empty:
        yield Finding(severity="error", message="empty file", file=path, fix=fix)


def quick_findings(grader: SkillGrader, skill: Skill, tasks: Sequence[Numbered]) -> list[Finding]:
    """The quick part of the proof; none of a grader that asks a model, which would cost requests."""
    file = skill.directory / "grader.json"
    if has_part(skill.grader, REMOTE):
        _, findings = read_waivers(file)
        message = "not proven here: the grader asks a model or a server"
        fix = f"ilab rft grader-test {skill.name}"
        return [*findings, Finding(severity="warning", message=message, file=file, fix=fix)]
    proof = prove(
        grader,
        skill.grader,
        tasks,
        name=skill.name,
        tasks_file=skill.directory / FILE,
        grader_file=file,
        effort=LINT_SLOW if has_part(skill.grader, SLOW) else LINT,
    )
    return list(proof.findings)


def _splits(tasks: Sequence[Numbered], skill: Skill, file: Path) -> Iterator[Finding]:
    """Warnings about splits and classes, and about prompts that are there twice with different answers."""

    def warning(message: str, fix: str, line: int | None = None) -> Finding:
        return Finding(severity="warning", message=message, file=file, line=line, fix=fix)

    counts = Counter[str](task.split for _, task in tasks)
    for split, use in (("train", "learned"), ("val", "tuned"), ("test", "judged")):
        if not counts[split]:
            yield warning(f"no task in the {split} split, so nothing can be {use}", "add tasks of other groups")
    asked: dict[tuple[Any, ...], int] = {}
    for line, task in tasks:
        first = asked.setdefault(task.messages, line)
        if first != line:
            yield warning(f"the same messages as line {first}", "remove one, unless both answers are right", line)
    yield from _classes([task for _, task in tasks], skill, warning)


def _classes(tasks: Sequence[Task], skill: Skill, warning: Callable[[str, str], Finding]) -> Iterator[Finding]:
    classes = class_of(tasks)
    labelled = skill.grader.get("type") == "label"
    # Few tasks with few references each are not classes, whatever their number.
    if classes is None or not (labelled or 5 * len(set(classes.values())) <= len(tasks)):
        return
    per_split: dict[str, Counter[str]] = {split: Counter() for split in ("train", "val", "test")}
    for task in tasks:
        per_split[task.split][classes[task.id]] += 1
    names = sorted(set(classes.values()))
    rare = [name for name in names if per_split["test"][name] < MIN_CLASS_TESTS]
    if len(rare) > MAX_ALIKE:
        message = f"{len(rare)} of {len(names)} classes have fewer than {MIN_CLASS_TESTS} test tasks, {rare[0]} for one"
        yield warning(f"{message}; the accuracy of one class says little", "add tasks, or look at all classes together")
        rare = []
    for name in rare:
        message = (
            f"class {name} has {per_split['test'][name]} test tasks; below {MIN_CLASS_TESTS} its accuracy says little"
        )
        yield warning(message, "add tasks of this class")
    for name in names:
        if per_split["test"][name] and not per_split["train"][name]:
            yield warning(f"class {name} is in the test split but not in the train split", "add training tasks")
