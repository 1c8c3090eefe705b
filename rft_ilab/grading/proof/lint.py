"""Lint a taxonomy: its skills (:mod:`.lint_skill`), on all processors (:mod:`.linters`), and its shared graders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rft_ilab.config import Settings
from rft_ilab.errors import SkillError
from rft_ilab.grading.proof.golden import Finding, golden
from rft_ilab.grading.proof.lint_skill import attempt, untidy_findings
from rft_ilab.grading.proof.linters import lint_skills
from rft_ilab.grading.proof.prove import REMOTE, has_part
from rft_ilab.grading.proof.waivers import SUFFIX
from rft_ilab.skills.restyle import untidy_files
from rft_ilab.skills.tree import ROOT, check_settings, graders_directory, leaf_names, shared_names

__all__ = ["Finding", "lint_taxonomy", "shared_files"]


def lint_taxonomy(
    taxonomy: Path,
    settings: Settings,
    only: Sequence[str] | None = None,
    *,
    shared: Collection[str] = (),
    style: bool = False,
    workers: int = 1,
) -> list[Finding]:
    """All findings, by file and line. ``only`` limits them to some skills, the shared graders that these use, and those
    named in ``shared``. ``style``: say which files are not laid out as the others are. ``workers``: processes.

    Raises SkillError if ``only`` names a skill that is not there; everything else is a finding.
    """
    findings: list[Finding] = []
    try:
        names = leaf_names(taxonomy)
    except SkillError as error:
        return [Finding.of(error, taxonomy)]
    if missing := [name for name in only or () if name not in names]:
        raise SkillError(f"no skill {missing[0]!r}", where=taxonomy / ROOT, fix=f"known: {', '.join(names)}")
    attempt(lambda: check_settings(taxonomy, settings, names), taxonomy, findings)
    findings += lint_skills(taxonomy, names if only is None else only, workers, style)
    graders = graders_directory(taxonomy)
    files = list(shared_files(taxonomy, only, shared))
    if style:
        findings += untidy_findings(untidy_files(taxonomy, [], files))
    for file in files:
        findings += golden(file, graders, lambda config: has_part(config, REMOTE))
    # A missing file, say, is met by more than one step.
    unique: dict[tuple[Path, int | None, str], Finding] = {}
    for finding in findings:
        unique.setdefault((finding.file, finding.line, finding.message), finding)
    return sorted(unique.values(), key=lambda f: (str(f.file), f.line or 0, f.severity))


def shared_files(taxonomy: Path, only: Sequence[str] | None, shared: Collection[str] = ()) -> Iterator[Path]:
    """The shared graders of the skills ``only`` (None: all that there are), and those named in ``shared``."""
    graders = graders_directory(taxonomy)
    leaves = [taxonomy / ROOT / name for name in only or ()]
    used = {*shared, *(name for leaf in leaves for name in shared_names(leaf / "grader.json"))}
    for file in sorted((*graders.glob("*.json"), *graders.glob("*.py"))):
        if not file.name.endswith(SUFFIX) and (only is None or file.stem in used):
            yield file
