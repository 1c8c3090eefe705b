"""Planned against simulated power, plans against each other, and ``ilab rft plan``."""

from __future__ import annotations

import json
import math
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import binom  # type: ignore[import-untyped]

from rft_ilab.regress import power
from rft_ilab.regress.power import Assumption
from rft_ilab.regress.simulation import World
from rft_ilab.regress.statistics import Difference, paired_difference

ALPHA, MARGIN = 0.05, 0.1
RUNS = 400
FIXTURES = Path(__file__).parents[1] / "fixtures"
TAXONOMY = Path(__file__).parents[2] / "taxonomy"


def draw(a: Assumption, tasks: int, delta: float, rng: np.random.Generator) -> Difference:
    """Moves as the assumption has them: with chance ``icc`` a cluster has one fate. All clusters are equally large."""
    moves, chances = a._moves(delta)
    groups_N = np.arange(tasks) // a.sizes[0]
    own_N, shared_G = (rng.choice(moves, size, p=chances / chances.sum()) for size in (tasks, groups_N[-1] + 1))
    moves_N = np.where((rng.random(groups_N[-1] + 1) < a.icc)[groups_N], shared_G[groups_N], own_N)
    return paired_difference(
        np.maximum(-moves_N, 0.0), np.maximum(moves_N, 0.0), groups_N.tolist(), ALPHA, interval=False
    )


def close(times: int, planned: float) -> bool:
    """Within 3 points of the plan, and what chance adds in one of a thousand cases."""
    low, high = max(planned - 0.03, 0.0), min(planned + 0.03, 1.0)
    return bool(binom.ppf(1e-3, RUNS, low) <= times <= binom.isf(1e-3, RUNS, high))


@pytest.mark.parametrize("suites", [1, 10])
@pytest.mark.parametrize(
    "a",
    [
        Assumption(discordance=0.1),
        Assumption(discordance=0.3),
        Assumption(discordance=0.1, sizes=(6,), icc=0.5),
        Assumption(discordance=0.1, sizes=(2,), icc=0.5, samples=4),
    ],
    ids=["10 %", "30 %", "groups of 6", "4 samples, pairs"],
)
def test_planned_tasks_give_the_planned_power(a: Assumption, suites: int) -> None:
    level = ALPHA / (2 * suites)
    to_pass = power.tasks_to_pass(a, MARGIN, ALPHA, 0.8, suites)
    to_fail = power.tasks_to_fail(a, MARGIN, 0.15, ALPHA, 0.8, suites)
    assert to_pass and to_fail
    rng = np.random.default_rng(11)
    passed = sum(draw(a, to_pass, 0.0, rng).p_superior(-MARGIN) <= level for _ in range(RUNS))
    assert close(passed, power.power_to_pass(to_pass, a, MARGIN, ALPHA, suites))
    drawn = [draw(a, to_fail, -0.15, rng) for _ in range(RUNS)]
    failed = sum(d.p_inferior() <= level and d.delta <= -MARGIN for d in drawn)
    assert close(failed, power.power_to_fail(to_fail, a, MARGIN, 0.15, ALPHA, suites))


@pytest.mark.parametrize("wanted", [0.8, 0.9])
def test_planned_tasks_show_a_gain_as_often_as_planned(wanted: float) -> None:
    a = Assumption(discordance=0.1)
    tasks = power.tasks_to_gain(a, 0.1, ALPHA, wanted)
    assert tasks
    rng = np.random.default_rng(12)
    shown = sum(draw(a, tasks, 0.1, rng).p_superior() <= ALPHA / 2 for _ in range(RUNS))
    assert close(shown, wanted)


def test_sampled_scores_are_those_of_the_simulation() -> None:
    a = Assumption(samples=4, discordance=0.1)
    moves, chances = a._moves(-0.1)
    before, after, _ = World(tasks=40_000, kind="sampled", delta=-0.1).draw(np.random.default_rng(1))
    assert chances.sum() == pytest.approx(1.0) and chances @ moves == pytest.approx(-0.1, abs=1e-3)
    assert math.sqrt(chances @ moves**2) == pytest.approx(np.sqrt(((after - before) ** 2).mean()), rel=0.02)


def test_close_to_the_textbook_where_it_applies() -> None:
    # n = (z_alpha/2 + z_power)^2 * discordance / margin^2 = 78 at 10 %; the null's larger variance asks for more.
    tasks = power.tasks_to_pass(Assumption(discordance=0.1), MARGIN, ALPHA, 0.8)
    assert tasks and 78 < tasks < 120
    # A small margin: 10 times smaller, about 100 times as many tasks, and the two variances agree.
    many = power.tasks_to_pass(Assumption(discordance=0.1), 0.01, ALPHA, 0.8)
    assert many == pytest.approx(7849, rel=0.03)


def test_plans_agree_with_each_other() -> None:
    a = Assumption(discordance=0.1, sizes=(1, 1, 4), icc=0.5)
    loss = power.detectable_loss(300, a, MARGIN, ALPHA, 0.8, suites=4)
    assert loss and power.power_to_fail(300, a, MARGIN, loss, ALPHA, 4) == pytest.approx(0.8, abs=0.01)
    tasks = power.tasks_to_fail(a, MARGIN, loss, ALPHA, 0.8, suites=4)
    assert tasks == pytest.approx(300, abs=4)
    gain = power.detectable_gain(300, a, ALPHA, 0.9)
    assert gain and power.power_to_gain(300, a, gain, ALPHA) == pytest.approx(0.9, abs=0.01)
    assert power.power_to_pass(300, a, MARGIN, ALPHA, 1) > power.power_to_pass(300, a, MARGIN, ALPHA, 10)
    apart = replace(a, icc=0.0)
    assert power.power_to_pass(300, apart, MARGIN, ALPHA) > power.power_to_pass(300, a, MARGIN, ALPHA)


def test_what_cannot_be_shown_is_none() -> None:
    a = Assumption(discordance=0.1)
    assert power.detectable_loss(5, a, MARGIN, ALPHA, 0.8) is None  # fewer tasks than decide anything
    assert power.tasks_to_fail(a, MARGIN, 0.05, ALPHA, 0.8) is None  # half the margin is no failure
    assert power.power_to_pass(5, a, MARGIN, ALPHA) == 0.0


# ---- ilab rft plan ----


def plan(*arguments: str) -> Result:
    from instructlab.configuration import get_default_config

    from rft_ilab.cli.plan import plan as command

    host = types.SimpleNamespace(config=get_default_config())
    return CliRunner().invoke(command, ["--taxonomy-path", str(TAXONOMY), *arguments], obj=host)


def rows(*arguments: str) -> dict[str, dict[str, Any]]:
    result = plan("--json", *arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["planned"] is True
    return {row["skill"]: row for row in document["skills"]}


def test_plan_reads_test_splits_groups_and_margins() -> None:
    found = rows()
    triage, policy = found["healthcare/patient_triage"], found["retail/return_policy"]
    assert (triage["tier"], triage["tasks"], triage["groups"], triage["asked"]) == ("target", 300, 138, 0.05)
    assert (policy["tier"], policy["tasks"], policy["groups"], policy["asked"]) == ("critical", 150, 150, 0.1)
    a = Assumption(discordance=0.1, sizes=(1,) * 150)
    assert policy["tasks_needed"] == power.tasks_to_pass(a, 0.1, 0.05, 0.8, 4)
    assert policy["tasks_lacking"] == max(policy["tasks_needed"] - 150, 0)
    assert next(iter(found)) == "healthcare/patient_triage"  # targets first


def test_plan_takes_measured_flips_from_a_run() -> None:
    found = rows("--run", str(FIXTURES / "run"))
    assert found["retail/return_policy"]["discordance"] == pytest.approx(1 / 96, abs=1e-4)
    assert found["retail/return_policy"]["discordance_measured"]
    assert not found["dates/iso_date"]["discordance_measured"]


@pytest.mark.parametrize(("columns", "name"), [(80, "patient_triage "), (120, "healthcare/patient_triage ")])
def test_plan_prints_a_table_that_says_it_is_a_plan(columns: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = plan("--discordance", "0.2", "--power", "0.9")
    assert result.exit_code == 0 and "Plans, not measurements" in result.output
    assert f"\n{name}" in result.output and "20.0%" in result.output and "at 90%" in result.output
    assert max(len(line) for line in result.output.splitlines()) <= columns


def test_plan_without_such_a_run_is_one_line(tmp_path: Path) -> None:
    result = plan("--run", str(tmp_path))
    assert result.exit_code == 2 and result.output.count("\n") == 1 and "no such run" in result.output
    (tmp_path / "manifest.json").write_text("{}")
    result = plan("--run", str(tmp_path))
    assert result.exit_code == 2 and "no verdict yet" in result.output
