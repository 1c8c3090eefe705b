"""Deciding early: published constants, what a look asks of a claim, the order of drawing, error rates by simulation."""

from __future__ import annotations

import importlib
import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.config import GateSettings
from rft_ilab.regress.aa import claimed, summary
from rft_ilab.regress.gate import judge
from rft_ilab.regress.sequential import MAX_LOOKS, Look, at_look, batches, crossing, levels, schedule
from rft_ilab.regress.statistics import paired_difference, quantile
from rft_ilab.regress.verdict import Answer, TargetInput, TaskResult, WatchedInput
from rft_ilab.types import Tier

SETTINGS = GateSettings()


def evenly(looks: int) -> tuple[float, ...]:
    return schedule([1] * looks)


# ---- boundaries ----


@pytest.mark.parametrize(
    ("looks", "shape", "constant"),
    [
        # Jennison and Turnbull, Group Sequential Methods (2000), tables 2.1, 2.3 and 2.9: two-sided alpha 0.05.
        (2, 0.5, 2.178),
        (5, 0.5, 2.413),
        (10, 0.5, 2.555),
        (2, 0.0, 1.977),
        (5, 0.0, 2.040),
        (10, 0.0, 2.087),
        (2, 0.25, 2.038),
        (5, 0.25, 2.136),
        (10, 0.25, 2.199),
    ],
)
def test_published_constants(looks: int, shape: float, constant: float) -> None:
    last = levels(evenly(looks), 0.025, shape)[-1]
    assert quantile(1.0 - last) == pytest.approx(constant, abs=1e-3)


def test_crossing_of_two_looks_is_a_bivariate_normal_chance() -> None:
    from scipy.stats import multivariate_normal  # type: ignore[import-untyped]

    shares, bounds, drift = (0.3, 1.0), (0.9, 1.4), 1.1
    below = multivariate_normal([drift * t for t in shares], [[0.3, 0.3], [0.3, 1.0]]).cdf(bounds)
    first = crossing(shares, bounds, drift)
    assert sum(first) == pytest.approx(1.0 - below, abs=1e-6)
    assert first[0] == pytest.approx(1.0 - 0.5 * math.erfc(-(0.9 - 0.33) / math.sqrt(0.6)), abs=1e-12)


def test_many_looks_stay_below_the_reflection_principle() -> None:
    ever = [sum(crossing(evenly(k), [2.0] * k)) for k in (1, 5, 20, 40)]
    continuous = math.erfc(2.0 / math.sqrt(2.0))  # 2 P(W(1) > 2)
    assert ever == sorted(ever) and continuous * 0.8 < ever[-1] < continuous


def test_one_look_is_the_fixed_rule() -> None:
    only = Look(shares_K=(1.0,), index=0, available=50)
    assert only.last and only.level(0.05) == pytest.approx(0.05)
    for p in (0.0, 1e-9, 0.025, 0.4, 1.0):
        assert only.p(p) == pytest.approx(p, rel=1e-9)


@given(st.integers(1, 12), st.data())
@settings(max_examples=15, deadline=None)
def test_p_and_level_of_a_look_say_the_same(looks: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, looks - 1))
    sizes = data.draw(st.lists(st.integers(10, 60), min_size=looks, max_size=looks))
    look = Look(shares_K=schedule(sizes), index=index, available=sum(sizes))
    alone = look.level(0.05) / 2.0
    assert alone <= 0.025 + 1e-12
    if alone > 1e-12:
        assert look.p(alone) == pytest.approx(0.025, rel=1e-6)
        assert look.p(alone * 0.9) < 0.025 < look.p(min(alone * 1.1, 0.5)) or looks == 1


def test_interval_and_p_of_an_interim_difference_agree() -> None:
    look = Look(shares_K=evenly(5), index=1, available=200)
    before, after = [0.0] * 20 + [1.0] * 60, [1.0] * 17 + [0.0] * 5 + [1.0] * 58
    fixed = paired_difference(before, after, range(80), 0.05)
    d = at_look(paired_difference(before, after, range(80), look.level(0.05)), look)
    assert d.low < fixed.low < fixed.delta == d.delta < fixed.high < d.high
    for null in (d.low, d.low - 0.01, d.low + 0.01):
        assert (d.p_superior(null) < 0.025 + 1e-6) == (null <= d.low)
    assert d.p_inferior(d.high) == pytest.approx(0.025, rel=1e-3)
    assert d.p_superior(0.0) > fixed.p_superior(0.0)


# ---- drawing ----


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=150),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_batches_are_whole_groups_in_an_order_of_content(groups: list[str], size: int, random: Any) -> None:
    drawn = batches(groups, size, ["skill", 20])
    assert sorted(i for batch in drawn for i in batch) == list(range(len(groups)))
    assert 1 <= len(drawn) <= MAX_LOOKS
    order = [groups[i] for batch in drawn for i in batch]
    assert sum(a != b for a, b in itertools.pairwise(order)) == max(len(set(groups)) - 1, 0)
    where = {group: {k for k, batch in enumerate(drawn) for i in batch if groups[i] == group} for group in groups}
    assert all(len(places) == 1 for places in where.values())
    assert all(len(batch) >= size for batch in drawn[:-1])
    # A file in another order gives the same batches.
    shuffled = random.sample(groups, len(groups))
    again = batches(shuffled, size, ["skill", 20])
    assert [Counter(shuffled[i] for i in batch) for batch in again] == [
        Counter(groups[i] for i in batch) for batch in drawn
    ]


def test_the_order_depends_on_skill_and_seed() -> None:
    groups = [str(i) for i in range(100)]
    orders = {tuple(batches(groups, 10, key)[0]) for key in (["a", 1], ["a", 2], ["b", 1])}
    assert len(orders) == 3
    assert batches([], 32, ["a", 1]) == [[]] and schedule([0]) == (1.0,)
    assert [len(b) for b in batches(groups, 32, ["a", 1])] == [32, 32, 36]  # 4 are no batch of their own
    assert len(batches([str(i) for i in range(4000)], 32, ["a", 1])) == MAX_LOOKS


# ---- the rules at a look ----


def side(scores: list[float], classes: list[str] | None = None) -> list[TaskResult]:
    return [
        TaskResult(
            task_id=str(i),
            group=str(i),
            cls=classes[i] if classes else None,
            reference="",
            prompt="",
            greedy=Answer(score=score, text=f"{i % 3}"),
            sampled=(score, score),
        )
        for i, score in enumerate(scores)
    ]


def watched(before: list[float], after: list[float], look: Look | None, tier: Tier = "supporting") -> WatchedInput:
    return WatchedInput(
        skill="a/b",
        tier=tier,
        margin=0.1,
        prompt_label="zero-shot",
        before=side(before),
        after=side(after),
        look=look,
    )


def row_of(suite: WatchedInput) -> tuple[dict[str, Any], dict[str, Any]]:
    verdict = judge([], [suite], SETTINGS, {}, {})
    return verdict, verdict["watched"][0]


def test_what_passes_alone_need_not_pass_at_an_early_look() -> None:
    early, last = (Look(shares_K=evenly(5), index=i, available=200) for i in (0, 4))
    same = [1.0] * 40
    verdict, fixed = row_of(watched(same, same, None))
    assert (verdict["mode"], fixed["outcome"], fixed["available"]) == ("fixed", "PASS", 40)
    verdict, row = row_of(watched(same, same, early))
    assert (verdict["mode"], row["outcome"]) == ("until-decided", "INCONCLUSIVE")
    assert row["ci"][0] < -0.1 < fixed["ci"][0]
    assert row["reason"].endswith("undecided after 40 of 200 tasks")
    verdict, row = row_of(watched([1.0] * 110, [1.0] * 110, early))
    assert row["outcome"] == "PASS" and row["reason"].endswith("decided after 110 of 200 tasks")
    verdict, row = row_of(watched([1.0] * 34 + [0.0] * 6, [0.0] * 34 + [1.0] * 6, early))
    assert row["outcome"] == "FAIL" and verdict["reasons"][0].endswith("decided after 40 of 200 tasks")
    half = [1.0] * 40, [0.0] * 3 + [1.0] * 37
    assert row_of(watched(*half, last))[1]["reason"].endswith("undecided after all 40 tasks")


def target(scores: list[float], classes: list[str], look: Look) -> TargetInput:
    before = {"zero-shot": side([0.0] * len(scores), classes)}
    return TargetInput(skill="a/t", before=before, after=side(scores, classes), look=look)


def test_the_rival_of_a_target_is_the_most_frequent_class_of_the_whole_suite() -> None:
    look = Look(shares_K=(0.5, 1.0), index=0, available=120, constant="x")
    classes = ["x"] * 20 + ["y"] * 40
    row = judge([target([1.0] * 60, classes, look)], [], SETTINGS, {}, {})["targets"][0]
    assert (row["majority_class"], row["majority"], row["outcome"]) == ("x", pytest.approx(1 / 3), "PASS")
    assert row["reason"].endswith("decided after 60 of 120 tasks")


def test_a_constant_answer_fails_when_the_whole_suite_was_seen() -> None:
    classes = ["x"] * 30 + ["y"] * 30
    right_on_x = [float(name == "x") for name in classes]
    for index, outcome in ((0, "INCONCLUSIVE"), (1, "FAIL")):
        look = Look(shares_K=(0.5, 1.0), index=index, available=120, constant="z")
        rows = judge([target(right_on_x, classes, look)], [], SETTINGS, {}, {})["targets"]
        assert ("right on every x task" in rows[0]["reason"]) == (outcome == "FAIL")


# ---- error rates and savings, of the rules that are shipped ----


@pytest.fixture(scope="module")
def simulate() -> Any:
    return importlib.import_module("tools.simulate_sequential")


def allowed(level: float, runs: int) -> float:
    return level + 2.5 * math.sqrt(level * (1.0 - level) / runs)


@pytest.mark.parametrize("churn", [0.02, 0.10, 0.30])
@pytest.mark.parametrize(("delta", "sign"), [(-0.10, 1), (0.0, -1)], ids=["PASS", "FAIL"])
def test_stopping_where_it_suits_claims_no_more_than_allowed(
    simulate: Any, churn: float, delta: float, sign: int
) -> None:
    runs, world = 1000, simulate.World(name="", sizes_G=(1,) * 300, delta=delta, churn=churn)
    rates = simulate.claim_rates(world, delta, sign, runs)
    assert rates["scheduled"] <= allowed(0.025, runs)
    # What a look at every batch would do else; where six answers of 300 move, a single look claims nearly nothing.
    assert rates["naive"] > 2 * rates["scheduled"]
    assert rates["naive"] > 0.025 or churn < 0.05


@pytest.mark.parametrize(("sizes", "alike"), [((6,) * 25, 0.3), ((1, 2, 2, 9) * 12, 0.7)])
def test_the_same_in_groups(simulate: Any, sizes: tuple[int, ...], alike: float) -> None:
    runs = 200
    for delta, sign in ((-0.10, 1), (0.0, -1)):
        world = simulate.World(name="", sizes_G=sizes, delta=delta, churn=0.2, alike=alike)
        assert simulate.claim_rates(world, delta, sign, runs)["scheduled"] <= allowed(0.025, runs)


def test_looking_saves_tasks_at_the_same_power(simulate: Any) -> None:
    runs, batch = 300, 16
    for case in (simulate.CASES[0], simulate.CASES[3]):
        n = simulate.planned_tasks(case, 1, 0.0, 0.9)
        most = math.ceil(n * simulate.inflation(n, 0.9, batch))
        churn, delta = case.truth
        world = simulate.World(name="", sizes_G=(1,) * most, delta=delta, churn=churn)
        used, spoke = simulate.drawn(world, case.target, batch, runs)
        once = np.mean([
            bool(simulate.decided(simulate.difference(world, row[:n], world.groups()), case.target))
            for row in world.moves(runs, seed=4)
        ])  # fmt: skip
        assert used < 0.85 * n and spoke > once - 0.05


def test_bets_claim_no_more_than_allowed_and_save_most_where_tasks_come_in_groups(simulate: Any) -> None:
    runs = 1000
    for delta, sign in ((-0.10, 1), (0.0, -1)):
        world = simulate.World(name="", sizes_G=(6,) * 75, delta=delta, churn=0.1, alike=0.3)
        assert (simulate.evidence(world, world.moves(runs, 1), delta, sign)[:, -1] >= simulate.GOAL).mean() <= allowed(
            0.025, runs
        )
    same = simulate.World(name="", sizes_G=(6,) * 89, alike=0.3)
    used, spoke = simulate.drawn_by_bets(same, False, 32, runs)
    looks, said = simulate.drawn(same, False, 32, 60)
    assert used < 0.9 * looks and spoke > said - 0.15
    # More looks at the same bets: earlier, and nothing else.
    assert simulate.drawn_by_bets(same, False, simulate.EVERY_GROUP, runs) == (pytest.approx(used - 10, abs=8), spoke)


# ---- a model against itself ----


def test_claims_of_a_difference() -> None:
    same = side([1.0] * 60)
    lost = watched([1.0] * 60, [0.0] * 60, None)
    up = TargetInput(skill="t", before={"zero-shot": side([0.0] * 60)}, after=same)
    level_ = TargetInput(skill="u", before={"zero-shot": same}, after=same)

    def claims(targets: list[TargetInput], suites: list[WatchedInput]) -> list[str]:
        return claimed(judge(targets, suites, SETTINGS, {}, {}))

    assert claims([up], [watched([1.0] * 60, [1.0] * 60, None)]) == ["t"]
    assert claims([up, level_], [lost]) == ["a/b"]  # only one of two targets is better: that is no PASS
    assert claims([level_], [replace(lost, tier="advisory")]) == []
    assert claims([], []) == []


def test_flip_rate_and_what_is_too_much() -> None:
    found = summary([["a"]] * 3 + [[]] * 17, 0.05)
    assert (found["flips"], found["rate"], found["exceeds"]) == (3, 0.15, False)
    assert found["p"] == pytest.approx(0.0755, abs=1e-4)
    assert found["interval"] == [pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3604, abs=1e-4)]
    assert summary([["a"]] * 4 + [[]] * 16, 0.05)["exceeds"]
    assert summary([[]] * 20, 0.05)["p"] == pytest.approx(1.0)
