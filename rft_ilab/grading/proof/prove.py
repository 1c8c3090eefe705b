"""Proof before use: everything that is tried on one grader and its tasks, as one value.

The reference of every task; the exploit battery (:mod:`.battery`), its rules (:mod:`.rules`) and the mutation score
(:mod:`.mutation`) on a spread of the tasks. Lint tries a few of them within seconds, ``ilab rft grader-test`` all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rft_ilab.config import Settings
from rft_ilab.errors import GraderError
from rft_ilab.grading.engine import SkillGrader, grader_of
from rft_ilab.grading.proof.battery import cases_of, extracted, fire, judge, probes_of
from rft_ilab.grading.proof.evidence import Effort, Result, spread
from rft_ilab.grading.proof.exploits import GOLD
from rft_ilab.grading.proof.golden import Finding, NoAnswer, Numbered, broken_cases, cases_file, gold, read_cases
from rft_ilab.grading.proof.mutation import Mutation, mutate
from rft_ilab.grading.proof.rules import latency, run_rules
from rft_ilab.grading.proof.waivers import MUTANT, read_waivers
from rft_ilab.skills.reading import canonical_json
from rft_ilab.skills.tasks import FILE as TASKS
from rft_ilab.skills.tasks import scan_tasks
from rft_ilab.skills.tree import graders_directory, load_skill, read_grader, shared_grader
from rft_ilab.types import digest

LINT = Effort()
LINT_SLOW = Effort(wide=12, narrow=2, mutated=8)
FULL = Effort(narrow=16, single=2, mutated=64, rounds=3, timed=32, hints=True)

#: types that hand every answer to another process: lint tries less of them, to stay within seconds
SLOW = frozenset({"code", "math", "reasoning_gym", "sql"})

#: types that ask a model or a server: a proof of them costs requests, so lint leaves it to the command for it
REMOTE = frozenset({"score_model", "label_model", "endpoint"})

#: types that check the form of an answer and know no right one: any text of that form passes, and is meant to
FORM = frozenset({"ifeval", "json_schema", "regex"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was tried on one grader. ``name`` is the skill, or the file of a shared grader."""

    name: str
    kind: str
    digest: str
    file: Path
    references: int = 0
    refused: int = 0
    results: tuple[Result, ...] = ()
    #: operator -> reason
    waived_mutants: Mapping[str, str] = field(default_factory=dict)
    mutation: Mutation = field(default_factory=Mutation)
    latency_ms: Mapping[str, float] | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.name,
            "type": self.kind,
            "grader_digest": self.digest,
            "file": str(self.file),
            "passed": self.errors == 0,
            "references": {"tried": self.references, "refused": self.refused},
            "probes": [result.as_dict() for result in self.results],
            "mutation": {**self.mutation.as_dict(), "waived": dict(self.waived_mutants)},
            "latency_ms": self.latency_ms,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }


def has_part(config: Mapping[str, Any], kinds: Set[str]) -> bool:
    """Whether a grader, or a part of it, is of one of these types.

    >>> has_part({"type": "multi", "graders": {"a": {"type": "score_model"}}}, REMOTE)
    True
    """
    parts = config.get("graders")
    nested = parts.values() if isinstance(parts, Mapping) else parts if isinstance(parts, list) else ()
    return any(isinstance(part, Mapping) and part.get("type") in kinds for part in (config, *nested))


def prove(
    grader: SkillGrader,
    config: Mapping[str, Any],
    tasks: Sequence[Numbered],
    *,
    name: str,
    tasks_file: Path,
    grader_file: Path,
    effort: Effort = FULL,
) -> Proof:
    """Try everything that ``effort`` allows. ``config`` is the grader object; findings name the line of a task."""
    waivers, findings = read_waivers(grader_file)
    # Every reference costs a request where a model is asked.
    tried = spread(tasks, effort.wide) if has_part(config, REMOTE) else tasks
    refused, accepted = gold(grader, tried, tasks_file)
    findings += refused
    proof = Proof(
        name=name, kind=str(config.get("type")), digest=grader.digest, file=grader_file, references=len(tried)
    )
    proof = dataclasses.replace(proof, refused=len(tried) - len(accepted))
    if not accepted:
        return dataclasses.replace(proof, findings=tuple(findings))
    try:
        return _attacked(proof, grader, config, accepted, waivers, findings, tasks_file, effort)
    except NoAnswer as error:
        return dataclasses.replace(proof, findings=(*findings, Finding.of(error, grader_file)))


def _attacked(
    proof: Proof,
    grader: SkillGrader,
    config: Mapping[str, Any],
    accepted: Sequence[Numbered],
    waivers: Mapping[str, str],
    findings: Sequence[Finding],
    tasks_file: Path,
    effort: Effort,
) -> Proof:
    """The proof with all that is tried on ``accepted`` tasks, and their findings after ``findings``.

    Raises NoAnswer.
    """
    cases = cases_of(accepted, _texts(config, "label", "labels"), effort.wide)
    form = config.get("type") in FORM
    probes = probes_of(form)
    fired = fire(grader, probes, cases, waivers, effort)
    results = judge(probes, fired, waivers, tasks_file, effort.hints) + run_rules(
        grader, probes, cases, fired, waivers, tasks_file, effort, form
    )
    waived = {name.removeprefix(MUTANT): reason for name, reason in waivers.items() if name.startswith(MUTANT)}
    # Such a grader sees no negation; the probe "negated" says so, as a hint.
    without = {*waived, "negated"} if extracted(fired) else set(waived)
    changed = mutate(
        grader,
        spread(cases, 0 if form else effort.mutated),
        _texts(config, "json_fields", "fields"),
        without,
        tasks_file,
    )
    found = [finding for result in results for finding in result.findings] + list(changed.findings)
    return dataclasses.replace(
        proof,
        results=tuple(results),
        mutation=changed,
        waived_mutants=waived,
        latency_ms=latency(grader, cases, effort.timed),
        findings=(*findings, *found),
    )


def prove_skill(taxonomy: Path, name: str, settings: Settings, effort: Effort, candidate: Path | None = None) -> Proof:
    """The proof of a skill's grader, or of a ``candidate`` grader file on the skill's tasks. Raises RftError."""
    skill = load_skill(taxonomy, name, settings)
    tasks, errors = scan_tasks(skill)
    file = candidate or skill.directory / "grader.json"
    config = skill.grader if candidate is None else read_candidate(candidate, taxonomy)
    grader = grader_of(config, skill.grader_digest if candidate is None else digest(config), file)
    tasks_file = skill.directory / TASKS
    proof = prove(grader, config, tasks, name=name, tasks_file=tasks_file, grader_file=file, effort=effort)
    broken = [Finding.of(error, tasks_file) for error in errors]
    return dataclasses.replace(proof, findings=(*broken, *proof.findings))


def prove_file(file: Path, taxonomy: Path, effort: Effort) -> Proof:
    """The proof of a grader file on its own golden cases: those that earn all are its tasks. Raises RftError."""
    config = read_candidate(file, taxonomy)
    grader = grader_of(config, digest(config), file)
    path = cases_file(file)
    if not path.exists():
        fix = f"name a SKILL whose tasks it is to grade, or write golden cases to {path.name}"
        raise GraderError("no tasks to try the grader on", where=file, fix=fix)
    cases, findings = read_cases(path)
    findings += broken_cases(grader, cases, path)
    # One right answer an item: another way to write it is no wrong answer.
    right = {
        canonical_json(case.item): case for case in reversed(cases) if case.score is not None and case.score >= GOLD
    }
    tasks = [(case.line, case.task) for case in sorted(right.values(), key=lambda case: case.line)]
    proof = prove(grader, config, tasks, name=file.name, tasks_file=path, grader_file=file, effort=effort)
    return dataclasses.replace(proof, findings=(*findings, *proof.findings))


def read_candidate(file: Path, taxonomy: Path) -> Mapping[str, Any]:
    """The grader object of a ``.json`` or ``.py`` file, with what it refers to. Raises SkillError."""
    return shared_grader(file) if file.suffix == ".py" else read_grader(file, graders_directory(taxonomy))


def _texts(config: Mapping[str, Any], kind: str, key: str) -> list[str]:
    """The labels of a label grader, the fields of a JSON grader; none for other types (a judge has labels too)."""
    return list(config.get(key) or ()) if config.get("type") == kind else []
