"""Findings of lint for a terminal, for programs, and as annotations of GitHub's workflow runs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rft_ilab.grading.proof.golden import Finding

FORMATS = ("text", "json", "github")


def render(findings: Sequence[Finding], form: str, root: Path) -> str:
    """The findings in one of :data:`FORMATS`, without a last line feed. ``root``: what GitHub's paths start from."""
    if form == "json":
        return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1, default=str)
    return "\n".join(_annotation(finding, root) if form == "github" else str(finding) for finding in findings)


def _annotation(finding: Finding, root: Path) -> str:
    from rft_ilab.report.annotations import annotation
    from rft_ilab.report.pull import Note

    file = _relative(finding.file, root)
    return annotation(
        Note(severity=finding.severity, message=finding.message, file=file, line=finding.line, fix=finding.fix)
    )


def _relative(file: Path, root: Path) -> str:
    """The path as the repository has it; as it is where the file lies outside."""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(root))
    return str(file) if path.startswith("..") else path
