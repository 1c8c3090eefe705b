"""Files that a verdict is written to, and the page of a job in GitHub Actions."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli import outcome, report
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outputs import output_options
from rft_ilab.report.load import load_run
from rft_ilab.report.output_dir import write_output_dir

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"
FILES = {"verdict.json", "results.jsonl", "report.md", "report.html", "junit.xml"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path(shutil.copytree(RUN, tmp_path / "runs" / "demo"))


def concluded(run: Path, *arguments: str) -> Result:
    @click.command()
    @output_options
    @click.pass_context
    @handled
    def command(ctx: click.Context, **outputs: Path | None) -> None:
        outcome.conclude(ctx, run, {"outcome": "FAIL"}, **outputs)

    return CliRunner(mix_stderr=False).invoke(command, arguments)


def test_every_file_that_was_asked_for_is_written_and_named(run: Path, tmp_path: Path) -> None:
    junit, markdown, out = tmp_path / "a" / "j.xml", tmp_path / "s.md", tmp_path / "out"
    result = concluded(run, "--junit", str(junit), "--markdown", str(markdown), "--output-dir", str(out))
    assert result.exit_code == 1, result.output
    assert ET.parse(junit).getroot().tag == "testsuites" and markdown.read_text().startswith("## PASS")
    place = out / "patient_triage_step-30"
    for words in (f"JUnit: {junit}", f"Markdown: {markdown}", f"Results: {place}"):
        assert words in result.stderr
    assert {file.name for file in place.iterdir()} == FILES
    assert (place / "results.jsonl").read_bytes() == (run / "gate" / "results.jsonl").read_bytes()
    assert json.loads((place / "verdict.json").read_text()) == json.loads((run / "gate" / "verdict.json").read_text())


def test_nothing_is_written_that_was_not_asked_for(run: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    assert concluded(run).exit_code == 1
    assert set(tmp_path.rglob("*")) - before == {run / "report.html"}


def test_another_model_of_the_same_name_gets_a_directory_of_its_own(run: Path, tmp_path: Path) -> None:
    first = write_output_dir(load_run(run), tmp_path / "out")
    assert write_output_dir(load_run(run), tmp_path / "out") == first
    verdict = json.loads((run / "gate" / "verdict.json").read_text())
    verdict["candidate"]["id"] = "another"
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict))
    (run / "gate" / "results.jsonl").unlink()  # a run from before there were any
    second = write_output_dir(load_run(run), tmp_path / "out")
    assert second.parent == first.parent and second.name.startswith(f"{first.name}-")
    assert {file.name for file in second.iterdir()} == FILES - {"results.jsonl"}
    assert json.loads((first / "verdict.json").read_text())["candidate"]["id"] != "another"


@pytest.mark.parametrize("option", ["--junit", "--markdown", "--output-dir"])
def test_a_place_of_the_wrong_kind_is_refused_before_anything_is_judged(option: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = concluded(run, option, str(tmp_path / "file" if option == "--output-dir" else tmp_path))
    assert result.exit_code == 2 and option in result.stderr and "Results" not in result.stderr


def test_the_page_of_a_job_is_appended_to_and_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    result = concluded(run)
    assert page.read_text().startswith("## PASS") and f"appended to {page}" in result.stderr
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "such" / "directory"))
    result = concluded(run)
    assert result.exit_code == 1 and "Warning: no Markdown in GITHUB_STEP_SUMMARY" in result.stderr


def test_report_prints_junit_and_writes_nothing(run: Path) -> None:
    before = set(run.rglob("*"))
    result = CliRunner().invoke(report.report, [str(run), "--junit"])
    assert result.exit_code == 0 and ET.fromstring(result.output).tag == "testsuites"
    assert set(run.rglob("*")) == before
    (run / "gate" / "verdict.json").unlink()
    result = CliRunner().invoke(report.report, [str(run), "--junit"])
    assert result.exit_code == 2 and "no verdict yet" in result.output
