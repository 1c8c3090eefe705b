"""How findings are printed: for people, programs and GitHub; whatever a pull request calls its files and classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_ilab.cli.lint import lint
from rft_ilab.config import Settings
from rft_ilab.errors import SandboxError
from rft_ilab.grading.proof.golden import Finding
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.report.findings import render
from tests.unit.repositories import commit_all
from tests.unit.taxonomies import LABEL_GRADER, plain_rows, write_skill

HOSTILE = "bad\x1b[2J\r\n::error::owned\u202e100%"
FINDING = Finding(severity="error", message=HOSTILE, file=Path("/r/a:b,c%\n.json"), line=7, fix="mend: it, 100 %")


def test_annotations_are_escaped_as_github_asks() -> None:
    text = render([FINDING], "github", Path("/r"))
    assert text.isprintable() and text.startswith("::error file=a%3Ab%2Cc%25") and "%0A::error::owned" in text
    assert text.endswith("100%25 (mend: it, 100 %25)")
    warning = Finding(severity="warning", message="m", file=Path("/elsewhere/x"))
    assert render([warning], "github", Path("/r")) == "::warning file=/elsewhere/x::m"


def test_a_finding_is_one_line_that_commands_no_terminal() -> None:
    text = render([FINDING], "text", Path("/r"))
    assert text.isprintable() and r"a:b,c%\n.json:7: error: bad\x1b[2J\r\n::error::owned\u202e100%" in text


def test_json_has_everything_as_it_is() -> None:
    (told,) = json.loads(render([FINDING], "json", Path("/r")))
    assert told == {"severity": "error", "message": HOSTILE, "file": str(FINDING.file), "line": 7, "fix": FINDING.fix}
    assert render([], "json", Path()) == "[]" and render([], "github", Path()) == ""


@pytest.mark.parametrize("form", [["--format", "github"], ["--format", "json"], ["--json"], []])
def test_the_command_prints_them(tmp_path: Path, form: list[str]) -> None:
    leaf = write_skill(tmp_path / "taxonomy", rows=[*plain_rows(), "{broken"])
    commit_all(tmp_path)
    done = CliRunner(mix_stderr=False).invoke(lint, ["--taxonomy-path", str(tmp_path / "taxonomy"), *form])
    assert done.exit_code == 2
    if form[-1:] == ["github"]:
        (line,) = done.stdout.splitlines()
        where = "taxonomy/compositional_skills/area/skill/tasks.jsonl"
        assert line.startswith(f"::error file={where},line=301::not valid JSON: ")
    elif form:
        assert [(f["line"], f["severity"]) for f in json.loads(done.stdout)] == [(301, "error")]
    else:
        assert done.stdout.startswith(f"{leaf / 'tasks.jsonl'}:301: error: not valid JSON: ")


def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(9):
        grader = LABEL_GRADER if index % 3 else '{"type": "label"'
        write_skill(tmp_path, f"area/skill_{index}", grader=grader, rows=plain_rows()[index : index + 60])
    alone = lint_taxonomy(tmp_path, Settings(), style=True)
    monkeypatch.setattr("rft_ilab.grading.proof.linters.WORTH", 4)
    monkeypatch.setattr("rft_ilab.grading.proof.linters.CHUNK", 1)
    assert len(alone) > 9 and lint_taxonomy(tmp_path, Settings(), style=True, workers=3) == alone


def test_a_process_that_ends_early_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its skills are not taken for clean."""
    for index in range(6):
        write_skill(tmp_path, f"area/skill_{index}")
    monkeypatch.setattr("rft_ilab.grading.proof.linters.WORTH", 1)
    monkeypatch.setattr("rft_ilab.grading.proof.linters.CHUNK", 1)
    monkeypatch.setattr("rft_ilab.grading.proof.linters.sys.executable", "/bin/false")
    with pytest.raises(SandboxError, match="a process that lints ended early, near area/skill_"):
        lint_taxonomy(tmp_path, Settings(), workers=3)
