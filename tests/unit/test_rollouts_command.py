"""``ilab rft rollouts`` on the run of the fixtures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rft_ilab.cli.rollouts import rollouts

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "run")
    return tmp_path / "run"


def call(run: Path, *options: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(rollouts, [str(run), *options])


def rows(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_filters_and_order(run: Path) -> None:
    every = rows(call(run, "--json", "--limit", "1000"))
    assert len(every) == 120 and len(rows(call(run, "--json"))) == 20
    step = rows(call(run, "--json", "--limit", "1000", "--step", "15"))
    assert step == [row for row in every if row["step"] == 15] and step
    worst = [row["score"] for row in rows(call(run, "--json", "--step", "1", "--worst", "--limit", "99"))]
    best = [row["score"] for row in rows(call(run, "--json", "--step", "1", "--best", "--limit", "99"))]
    assert worst == sorted(worst) and best == sorted(best, reverse=True) and None not in worst
    assert len(worst) < len([row for row in every if row["step"] == 1])  # one was not graded
    (failed,) = rows(call(run, "--json", "--errors"))
    assert failed["error"] == "grader timed out after 2.0 s" and failed["score"] is None
    task = str(every[0]["task_id"])
    assert {row["task_id"] for row in rows(call(run, "--json", "--task", task[:10]))} == {task}
    assert rows(call(run, "--json", "--contains", "no such text")) == []


def test_people_see_prompt_answer_and_grader(run: Path) -> None:
    with (run / "rl" / "rollouts.jsonl").open("a", encoding="utf-8") as file:
        row = {"step": 99, "skill": "s", "task_id": "t" * 20, "prompt": "a\nb", "completion": "x\x1b[2J", "score": None}
        file.write(json.dumps(row | {"error": "boom", "stop": "length", "reference": "y"}) + '\n{"torn')
    result = call(run, "--step", "99")
    assert result.stdout.splitlines() == [
        "step 99, s, task tttttttttttt: not graded, cut off", "  asked     a", "            b",
        "  answered  x⟨U+001B⟩[2J", "  right is  y", "  grader    boom",
    ]  # fmt: skip
    assert result.stderr.startswith("1 of 1 rollouts, ")


def test_a_run_without_rollouts_says_what_to_do(run: Path) -> None:
    (run / "rl" / "rollouts.jsonl").unlink()
    result = call(run)
    assert result.exit_code == 2 and "no rollouts yet" in result.stderr and "ilab model rft" in result.stderr
