"""Run directory -> RunReport: what is read, what is skipped, what is refused."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.errors import RunError
from rft_ilab.report.json_report import json_summary
from rft_ilab.report.load import load_run

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
RUN = FIXTURES / "run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUN, tmp_path / "demo"))


def edit_verdict(run: Path, *path: Any, value: Any) -> None:
    file = run / "gate" / "verdict.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(raw), encoding="utf-8")


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_fixture_is_what_its_script_writes(tmp_path: Path) -> None:
    runpy.run_path(str(FIXTURES / "make_run.py"))["write_run"](tmp_path)
    assert files_of(tmp_path) == files_of(RUN)


def test_fixture_agrees_with_itself() -> None:
    gate = load_run(RUN).gate
    assert gate is not None
    (target,) = gate.targets
    assert sum(c.n for c in target.classes) == target.n
    assert sum(c.n * c.after for c in target.classes) / target.n == pytest.approx(target.greedy.after)
    sides = [1 if f.direction == "fixed" else -1 for f in gate.flips if f.skill == target.skill]
    assert sum(sides) / target.n == pytest.approx(target.greedy.delta, abs=1e-5)


def test_reads_every_file() -> None:
    report = load_run(RUN)
    assert report.gate and report.gate.outcome == "PASS" and len(report.gate.watched) == 4
    assert [s.stage for s in report.steps] == ["sft"] * 22 + ["grpo"] * 30
    assert report.selection and report.selection.chosen == "step-30"
    assert report.signals[0].numbers["pass_at_k"] == 38 / 48
    assert report.ledger and sum(report.ledger.counts["healthcare/patient_triage"].values()) == 150
    tasks = report.ledger.tasks["healthcare/patient_triage"]
    assert tasks["paraphrase"] == {"kept": 5, "no_agreement": 6, "contaminated": 1} and set(report.ledger.tasks) == {
        "healthcare/patient_triage"
    }
    assert report.rollouts and (report.rollouts.total, report.rollouts.errors, report.rollouts.truncated) == (120, 1, 1)
    assert [group.step for group in report.rollouts.groups] == [1, 15, 30]
    assert report.wall_s == pytest.approx(96.4 + 48.1 + 131.9 + 21.0 + 142.7)
    assert report.damaged == ()


def test_missing_verdict_says_what_to_do(run: Path) -> None:
    (run / "gate" / "verdict.json").unlink()
    with pytest.raises(RunError, match=r"no verdict yet \(finish the run with: ilab model regress\)"):
        load_run(run)
    report = load_run(run, require_verdict=False)
    assert report.gate is None and report.steps
    with pytest.raises(RunError, match="no verdict yet"):
        json_summary(report)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run directory"):
        load_run(tmp_path / "none")


def test_verdict_alone_is_enough(run: Path) -> None:
    for part in ("rl", "data", "manifest.json"):
        path = run / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = load_run(run)
    assert report.steps == () and report.selection is None and report.ledger is None and report.rollouts is None
    assert json_summary(report)["peak_rss_mb"] is None


def test_torn_line_is_skipped_and_said(run: Path) -> None:
    with (run / "rl" / "steps.jsonl").open("ab") as file:
        file.write(b'{"stage": "grpo", "step": 31, "rew')
    report = load_run(run)
    assert len(report.steps) == 52
    assert report.damaged == ("rl/steps.jsonl: 1 unreadable line was skipped",)


def test_repeated_step_of_a_resumed_run_counts_once(run: Path) -> None:
    with (run / "rl" / "steps.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"stage": "grpo", "step": 30, "reward": 0.5, "entropy": NaN}\n')
    last = load_run(run).steps[-1]
    assert (last.step, last.values) == (30, {"reward": 0.5})


def test_line_separators_inside_a_completion_do_not_split_the_row(run: Path) -> None:
    row = {"task_id": "t", "skill": "s", "disposition": "kept", "completion": "a\u2028b\u0085c\u2029d", "reason": ""}
    with (run / "data" / "ledger.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    report = load_run(run)
    assert report.damaged == () and report.ledger and report.ledger.examples[-1].completion == row["completion"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("outcome",), "MAYBE", "outcome must be one of PASS, FAIL, INCONCLUSIVE"),
        (("targets", 0, "greedy", "after"), "high", r"targets\[0\].greedy.after must be a finite number"),
        (
            ("targets", 0, "greedy", "ci"),
            [0.9, 0.1],
            r"targets\[0\].greedy.ci must be a pair \[low, high\] with low <=",
        ),
        (("targets", 0, "n"), -1, r"targets\[0\].n must be a whole number"),
        (("watched", 1, "delta"), float("nan"), r"watched\[1\].delta must be a finite number"),
        (("watched", 1, "margin"), 10**400, r"watched\[1\].margin must be a finite number"),
        (("watched", 2, "ci"), 0.1, r"watched\[2\].ci must be a pair"),
        (("flips", 0, "direction"), "sideways", r"flips\[0\].direction must be fixed or broken"),
        (("flips",), {"a": 1}, "flips must be a list"),
        (("reasons",), [1], "reasons must be a list of texts"),
    ],
)
def test_wrong_verdict_names_the_field(run: Path, path: tuple[Any, ...], value: Any, message: str) -> None:
    edit_verdict(run, *path, value=value)
    with pytest.raises(RunError, match=message) as caught:
        load_run(run)
    assert "gate/verdict.json" in str(caught.value)


def test_unmeasured_parts_are_none(run: Path) -> None:
    for key in ("sampled", "macro", "majority", "majority_class", "after_vs_majority", "classes"):
        edit_verdict(run, "targets", 0, key, value=None)
    summary = json_summary(load_run(run))
    assert summary["targets"][0]["sampled"] is None and summary["targets"][0]["macro"] is None
