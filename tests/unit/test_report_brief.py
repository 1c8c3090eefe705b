"""The manager's questions: never more than the verdict says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rft_ilab.report.brief import brief
from rft_ilab.report.data import RunReport
from rft_ilab.report.gate_data import WatchedResult
from rft_ilab.report.load import load_run
from rft_ilab.types import Outcome

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"


@pytest.fixture(scope="module")
def report() -> RunReport:
    return load_run(RUN)


def said(report: RunReport) -> dict[str, str]:
    return {answer.question: f"{answer.word} {answer.text}" for answer in brief(report)}


def with_watched(report: RunReport, outcome: Outcome, delta: float, ci: tuple[float, float]) -> RunReport:
    """The same run, with the first watched skill come out otherwise."""
    assert report.gate is not None
    first, *others = report.gate.watched
    change = replace(first.greedy, delta=delta, ci=ci)
    watched: tuple[WatchedResult, ...] = (replace(first, outcome=outcome, greedy=change), *others)
    return replace(report, gate=replace(report.gate, outcome=outcome, watched=watched))


def test_a_loss_is_said_with_its_size_and_what_is_tolerated(report: RunReport) -> None:
    found = said(with_watched(report, "FAIL", -0.24, (-0.31, -0.17)))
    assert found["Did anything else get worse?"] == (
        "Yes. office/iso_date: −24.0 points, 95% interval −31.0 to −17.0; a loss of 10 is tolerated. "
        "3 other tested skills stayed within the tolerated loss of 10 points."
    )
    assert found["May it replace the old model?"].startswith("No.")
    assert found["Did it get better?"].startswith("Yes. 89.2% of 120 test questions that it had never seen")


def test_what_is_not_shown_is_neither_yes_nor_no(report: RunReport) -> None:
    found = said(with_watched(report, "INCONCLUSIVE", -0.01, (-0.14, 0.12)))
    assert found["Did anything else get worse?"].startswith("It cannot be ruled out. office/iso_date: −1.0 points")
    assert found["May it replace the old model?"].startswith("Not yet.")


def test_an_untested_rest_is_unknown(report: RunReport) -> None:
    assert report.gate is not None
    found = said(replace(report, gate=replace(report.gate, watched=())))
    assert found["Did anything else get worse?"] == "Unknown. No other skill was tested."


def test_several_targets_are_as_good_as_the_worst(report: RunReport) -> None:
    assert report.gate is not None
    lost = replace(report.gate.targets[0], skill="area/b", outcome="INCONCLUSIVE")
    found = said(
        replace(report, gate=replace(report.gate, outcome="INCONCLUSIVE", targets=(*report.gate.targets, lost)))
    )
    assert found["Did it get better?"].startswith("Not shown. healthcare/patient_triage: 89.2% of")
    assert "area/b: 89.2% of" in found["Did it get better?"]


def test_margins_that_differ_are_given_as_a_range(report: RunReport) -> None:
    assert report.gate is not None
    first, *others = report.gate.watched
    found = said(replace(report, gate=replace(report.gate, watched=(replace(first, margin=0.02), *others))))
    assert "4 other tested skills stayed within the tolerated loss of 2 to 10 points." in str(found)


def test_a_control_arm_and_a_run_without_verdict_may_not_replace_anything(report: RunReport) -> None:
    control = replace(report, manifest={**report.manifest, "control": "random-reward"})
    assert said(control)["May it replace the old model?"].startswith("No. CONTROL RUN")
    unjudged = said(replace(report, gate=None))
    assert unjudged["May it replace the old model?"].startswith("Not yet.") and "Did it get better?" not in unjudged
