"""The skills of a taxonomy as SDG names them: by the parts of the leaf's path, joined with underscores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rft_ilab.config import load_settings
from rft_ilab.errors import HostError, SkillError
from rft_ilab.grading.engine import build_grader
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import ROOT, find_skills
from rft_ilab.synth.duplicates import NearDuplicates
from rft_ilab.synth.screening import question
from rft_ilab.types import digest


def load_environments(taxonomy: Path) -> tuple[Environment, ...]:
    """All skills with a grader; none is no error, since a generation may be about other leaves.

    Raises SkillError or GraderError if one of them is broken: held-out tasks of all skills count.
    """
    if not taxonomy.is_dir():
        raise SkillError("no such taxonomy directory", where=taxonomy, fix="see --taxonomy-path")
    if not any(next((taxonomy / ROOT).rglob(name), None) for name in ("grader.json", "tasks.jsonl")):
        return ()
    settings = load_settings(taxonomy)
    return tuple(
        Environment.of(skill, load_tasks(skill), build_grader(skill), settings.skill(skill.name))
        for skill in find_skills(taxonomy, settings)
    )


def find(environments: Sequence[Environment], leaf: str, description: str | None) -> Environment | None:
    """The skill of SDG's ``leaf_node_path``; None if that leaf has no grader.

    ``a/b_c`` and ``a_b/c`` have the same name there; the task's description tells them apart.
    Raises HostError if it does not.
    """
    found = [e for e in environments if sdg_name(e) == leaf]
    if description is not None:
        found = [e for e in found if e.skill.description == description.strip()]
    if len(found) > 1:
        names = " and ".join(e.skill.name for e in found)
        raise HostError(f"{names} have the same name in SDG, {leaf!r}", fix="rename one of them")
    return found[0] if found else None


def sdg_name(environment: Environment) -> str:
    return f"{ROOT}_{environment.skill.name.replace('/', '_')}"


def fingerprint(pipeline: Path, model: str | None, environments: Iterable[Sequence[Environment]]) -> str:
    """Identity of all that decides what a pipeline directory lets through."""
    files = [[path.relative_to(pipeline).as_posix(), digest(path.read_bytes().hex())] for path in
             sorted(pipeline.rglob("*.yaml"))]  # fmt: skip
    skills = {
        e.skill.name: [e.skill.grader_digest, digest([task.id for task in e.tasks]), asdict(e.settings)]
        for some in environments
        for e in some
    }
    return digest([files, model, skills])


class ByContext(NearDuplicates):
    """Near-duplicates among questions with a context before them: of one context, only the questions are compared.

    Else all questions about one long document would be alike.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self._tasks = [(task.id, question(task)) for task in environment.split("train")]
        self._by_context: dict[str, NearDuplicates] = {}
        for key, text in self._tasks:
            super().add(key, text)

    def about(self, context: str) -> None:
        """From now on, texts that begin with ``context`` are compared among each other."""
        if context in self._by_context:
            return
        own = self._by_context[context] = NearDuplicates()
        for key, text in self._tasks:
            if text.startswith(context):
                own.add(key, text.removeprefix(context))

    def add(self, key: str, text: str) -> None:
        index, rest = self._split(text)
        NearDuplicates.add(index, key, rest)

    def find(self, text: str) -> str | None:
        index, rest = self._split(text)
        return NearDuplicates.find(index, rest)

    def _split(self, text: str) -> tuple[NearDuplicates, str]:
        context = max((c for c in self._by_context if text.startswith(c)), key=len, default=None)
        return (self, text) if context is None else (self._by_context[context], text.removeprefix(context))
