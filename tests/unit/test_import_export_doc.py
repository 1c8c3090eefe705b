"""Every command of docs/import-export.md, in the order that a reader needs: exports first, then what imports them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rft_ilab.cli.export import export
from rft_ilab.cli.import_ import import_
from rft_ilab.config import Settings
from rft_ilab.grading.proof.lint import lint_taxonomy
from rft_ilab.scaleout.server import make_app
from tests.unit.loopback import serving

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/import-export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
ILAB: dict[tuple[str, str], click.Command] = {("rft", "import"): import_, ("rft", "export"): export}
MEDICINES = ("lisinopril", "morphine", "metformin", "fentanyl", "insulin", "diazepam")
QNA = """version: 3
created_by: tests
task_description: Say whether the medicine may be refilled. Reply yes or no.
seed_examples:
""" + "".join(
    f"  - question: May {name} be refilled?\n    answer: '{'yes' if i % 2 else 'no'}'\n"
    for i, name in enumerate(MEDICINES)
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped skills that the document names, the table that it shows (with more rows), and a bare qna.yaml."""
    skills = tmp_path / "taxonomy/compositional_skills"
    for name in ("healthcare/patient_triage", "dates/iso_date"):
        shutil.copytree(ROOT / "taxonomy/compositional_skills" / name, skills / name)
    shutil.copytree(ROOT / "graders", tmp_path / "graders")
    (skills / "healthcare/refill_advice").mkdir()
    (skills / "healthcare/refill_advice/qna.yaml").write_text(QNA)
    shown = re.search(r"^```csv\n(.*?)^```", TEXT, re.M | re.S)
    assert shown
    header, *rows = shown[1].splitlines()
    more = [row.replace(".,", f" {i}.,").replace("?,", f" {i}?,") + f"-{i}" for i in range(20) for row in rows]
    (tmp_path / "refills.csv").write_text("\n".join([header, *more, ""]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_document(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    # Sorted: the job that is imported is the one that the document exports further down.
    for line in sorted(one for one in COMMANDS if one.startswith(("ilab rft import", "ilab rft export"))):
        _, group, name, *arguments = shlex.split(line)
        result = CliRunner().invoke(ILAB[group, name], [*arguments, "--taxonomy-path", "taxonomy"])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        ran.append(line)
    findings = lint_taxonomy(place / "taxonomy", Settings())
    assert [str(finding) for finding in findings if finding.severity == "error"] == []
    with serving(make_app(taxonomy=place / "taxonomy")) as url:  # ilab rft serve-graders
        monkeypatch.setenv("RFT_GRADER_URL", url)
        for line in (one for one in COMMANDS if one.startswith("python verl/")):
            done = subprocess.run([sys.executable, *shlex.split(line)[1:]], capture_output=True, text=True)
            assert done.stdout == "preflight: the graders of 1 skills answer\n", done.stderr
            ran.append(line)
    # Serves until Ctrl-C, and needs OpenAI: both are run by tests of their own.
    assert set(COMMANDS) - set(ran) == {"ilab rft serve-graders", "python job/start_openai_job.py"}


def test_files_that_the_document_names_are_written(place: Path) -> None:
    for trainer in ("trl", "verl", "openai", "open-instruct"):
        arguments = [trainer, "dates/iso_date", "--output", trainer, "--taxonomy-path", "taxonomy"]
        assert CliRunner().invoke(export, arguments).exit_code == 0
        (row,) = re.findall(rf"^\| `{trainer}` \| (.*) \|$", TEXT, re.M)
        named = set(re.findall(r"`([\w./<>-]+\.(?:jsonl|json|py|sh|parquet))`", row))
        written = {path.name for path in (place / trainer).rglob("*") if path.is_file()}
        assert {Path(name).name for name in named} == written, trainer
