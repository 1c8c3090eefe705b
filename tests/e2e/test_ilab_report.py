"""``ilab rft report`` on a finished run: JSON for scripts, a page for people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "run"


@pytest.fixture
def run(ilab):
    return Path(shutil.copytree(FIXTURE, ilab.runs / "finished"))


def test_json_is_one_object_with_the_promised_keys(ilab, run):
    for arguments in (["finished"], [str(run)], []):
        result = ilab("rft", "report", "--json", *arguments)
        assert result.returncode == 0, result.stderr
        summary = json.loads(result.stdout)
        promised = {"verdict", "control", "targets", "watched", "selection", "wall_s", "cpu_s", "peak_rss_mb"}
        assert set(summary) == promised and summary["control"] is None
        for target in summary["targets"]:
            assert set(target) >= {"skill", "n", "greedy", "sampled", "macro", "majority"}
            assert set(target["greedy"]) >= {"before", "after", "ci"}
        for watched in summary["watched"]:
            assert set(watched) >= {"skill", "n", "delta", "ci", "outcome"}
    assert not (run / "report.html").exists()


def test_the_summary_writes_the_page(ilab, run):
    result = ilab("rft", "report")
    assert result.returncode == 0, result.stderr
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["outcome"] in result.stdout and str(run / "report.html") in result.stdout
    assert (run / "report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_markdown(ilab, run):
    result = ilab("rft", "report", "finished", "--markdown")
    assert result.returncode == 0 and result.stdout.startswith("## "), result.stderr


def test_a_run_without_verdict(ilab, run):
    shutil.rmtree(run / "gate")
    assert ilab("rft", "report").returncode == 0
    result = ilab("rft", "report", "--json")
    assert result.returncode == 2 and result.stderr.startswith("Error: ") and "no verdict yet" in result.stderr


def test_a_damaged_verdict_is_one_line(ilab, run):
    (run / "gate" / "verdict.json").write_text("{", encoding="utf-8")
    result = ilab("rft", "report")
    assert result.returncode == 2 and "verdict.json: not valid JSON" in result.stderr
    assert result.stderr.count("\n") == 1


def test_flips_and_one_of_them(ilab, run):
    listed = ilab("rft", "explain", "--run", "finished")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.startswith("4 broken (right before, wrong now), 100 fixed; the worst group first.")
    result = ilab("rft", "explain", "6820212c", "--run", "finished")
    assert result.returncode == 0, result.stderr
    assert "broken (right before, wrong now)" in result.stdout and "extracted REFILL" in result.stdout
    result = ilab("rft", "explain", "zz", "--run", "finished")
    assert result.returncode == 2 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
