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
    return "\n".join(annotation(finding, root) if form == "github" else str(finding) for finding in findings)


def annotation(finding: Finding, root: Path) -> str:
    """One workflow command; GitHub shows it at the line of the file.

    >>> print(annotation(Finding(severity="error", message="100 % bad", file=Path("/r/a,b"), line=3), Path("/r")))
    ::error file=a%2Cb,line=3,title=ilab taxonomy lint::100 %25 bad
    """
    place = {"file": _relative(finding.file, root)} | ({"line": str(finding.line)} if finding.line else {})
    properties = ",".join(f"{key}={_property(value)}" for key, value in place.items())
    message = finding.message + (f" ({finding.fix})" if finding.fix else "")
    return f"::{finding.severity} {properties},title=ilab taxonomy lint::{_data(message)}"


def _relative(file: Path, root: Path) -> str:
    """The path as the repository has it; as it is where the file lies outside."""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(root))
    return str(file) if path.startswith("..") else path


def _data(text: str) -> str:
    """As the toolkit of GitHub's actions escapes a message (packages/core/src/command.ts)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
