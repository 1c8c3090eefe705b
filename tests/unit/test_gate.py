"""The gate on made-up results: what passes, every sabotage that must fail, and what must stay undecided."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.config import GateSettings
from rft_ilab.errors import RunError
from rft_ilab.regress.flips import MAX_FLIPS
from rft_ilab.regress.gate import judge
from rft_ilab.regress.groups import worst_group
from rft_ilab.regress.verdict import (
    Answer,
    Flip,
    FlipCount,
    PassAtK,
    TargetInput,
    TargetRow,
    TaskResult,
    Verdict,
    WatchedInput,
    WatchedRow,
)
from rft_ilab.types import Tier

SETTINGS = GateSettings()
LABELS = ("EMERGENCY", "REFILL", "OTHER", "REFILL", "REFILL", "OTHER")  # REFILL is half of the tasks
TARGET = "healthcare/patient_triage"


def results(
    scores: Sequence[float | None],
    classes: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    samples: int = 4,
) -> list[TaskResult]:
    """One side of a suite; a task's samples all score like its greedy answer."""
    return [
        TaskResult(
            task_id=f"task-{i}",
            group=f"group-{i}",
            cls=classes[i] if classes else None,
            reference=classes[i] if classes else "gold",
            prompt=f"question {i}",
            greedy=Answer(score=score, text=texts[i] if texts else f"answer {i} {score}", reason="graded"),
            sampled=(score,) * samples,
        )
        for i, score in enumerate(scores)
    ]


def labels(n: int) -> list[str]:
    return [LABELS[i % len(LABELS)] for i in range(n)]


def target(
    after: Sequence[float | None],
    zero_shot: Sequence[float | None] | None = None,
    demonstrations: Sequence[float | None] | None = None,
    texts: Sequence[str] | None = None,
) -> TargetInput:
    n = len(after)
    few = demonstrations if demonstrations is not None else [float(i % 10 == 0) for i in range(n)]
    before = {
        "zero-shot": results(zero_shot if zero_shot is not None else [0.0] * n, labels(n)),
        "8 demonstrations": results(few, labels(n)),
    }
    return TargetInput(skill=TARGET, before=before, after=results(after, labels(n), texts))


def watched(
    before: Sequence[float | None],
    after: Sequence[float | None],
    name: str = "dates/iso",
    tier: Tier = "supporting",
    margin: float = 0.1,
    samples: int = 4,
) -> WatchedInput:
    return WatchedInput(
        skill=name,
        tier=tier,
        margin=margin,
        prompt_label="8 demonstrations",
        before=results(before, samples=samples),
        after=results(after, samples=samples),
    )


def verdict_of(
    targets: Sequence[TargetInput], suites: Sequence[WatchedInput], settings: GateSettings = SETTINGS
) -> dict[str, Any]:
    return judge(targets, suites, settings, {"id": "b", "name": "base"}, {"id": "c", "name": "tuned"})


def first(n: int, right: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


GOOD = target([float(i % 12 != 5) for i in range(240)])
HELD = watched(first(200, 150), first(200, 149))


# ---- what passes, and its form ----


def test_better_target_and_unharmed_skills_pass() -> None:
    verdict = verdict_of([GOOD], [HELD, watched([1.0] * 100, [1.0] * 100, "json/order", "critical")])
    assert verdict["outcome"] == "PASS"
    assert verdict["reasons"][0].startswith(f"{TARGET} is better") and "2 watched skills" in verdict["reasons"][1]
    row = verdict["targets"][0]
    assert (row["greedy"]["before_prompt"], row["sampled"]["before_prompt"]) == ("8 demonstrations",) * 2
    assert row["greedy"]["delta"] == pytest.approx(row["greedy"]["after"] - row["greedy"]["before"])
    assert (row["majority_class"], row["majority"]) == ("REFILL", 0.5)
    assert row["after_vs_majority"]["ci"][0] > 0
    assert [c["class"] for c in row["classes"]] == ["EMERGENCY", "OTHER", "REFILL"]
    assert row["macro"]["after"] == pytest.approx(np.mean([c["after"] for c in row["classes"]]))
    assert (row["n"], row["ungraded"], row["clusters"], row["sampled"]["samples"]) == (240, 0, 240, 4)


def test_verdict_has_exactly_the_keys_of_its_contract_and_is_json() -> None:
    verdict = verdict_of([GOOD], [HELD])
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict

    def check(value: Mapping[str, Any], form: type) -> None:
        assert set(value) == set(get_type_hints(form)) - {"looks"}  # which is there where tasks come in batches

    check(verdict, Verdict)
    check(verdict["targets"][0], TargetRow)
    check(verdict["watched"][0], WatchedRow)
    assert set(verdict["targets"][0]["greedy"]) == {"before", "before_prompt", "after", "delta", "ci", "p"}
    assert set(verdict["targets"][0]["sampled"]) == set(verdict["targets"][0]["greedy"]) | {"samples"}
    assert set(verdict["watched"][0]["sampled"]) == {"before", "after", "delta", "ci", "samples"}
    for row in (verdict["targets"][0], verdict["watched"][0]):
        assert [entry["k"] for entry in row["pass_at_k"]] == [1, 2, 4]
        check(row["pass_at_k"][0], PassAtK)
        assert set(row["pass_at_k"][0]["pass_hat"]) == {"before", "after", "delta", "ci"}
    check(verdict["flips"][0], Flip)
    check(verdict["flip_counts"][0], FlipCount)


def test_better_base_is_chosen_apart_for_greedy_and_sampled() -> None:
    n = 120
    zero, few = results(first(n, 30), labels(n)), results(first(n, 40), labels(n))
    zero = [replace(r, sampled=(0.5, 0.5)) for r in zero]
    after = results([1.0] * n, labels(n))
    row = verdict_of([TargetInput(skill=TARGET, before={"zero-shot": zero, "few": few}, after=after)], [])["targets"][0]
    assert (row["greedy"]["before_prompt"], row["sampled"]["before_prompt"]) == ("few", "zero-shot")
    assert (row["greedy"]["before"], row["sampled"]["before"]) == (pytest.approx(1 / 3), 0.5)


def test_skill_without_classes_has_no_majority() -> None:
    plain = TargetInput(skill="math/sums", before={"zero-shot": results([0.0] * 100)}, after=results(first(100, 60)))
    row = verdict_of([plain], [])["targets"][0]
    assert row["outcome"] == "PASS"
    assert (row["majority"], row["majority_class"], row["after_vs_majority"], row["macro"]) == (None,) * 4
    assert row["classes"] == []


# ---- sabotage ----


def test_always_answering_the_majority_class_fails() -> None:
    constant = target([float(name == "REFILL") for name in labels(240)], texts=["REFILL"] * 240)
    verdict = verdict_of([constant], [HELD])
    assert verdict["outcome"] == "FAIL"  # although it beats the base model by 40 points
    assert verdict["targets"][0]["greedy"]["ci"][0] > 0.3
    assert TARGET in verdict["reasons"][0] and "same answer to all 240 tasks" in verdict["reasons"][0]


def test_constant_answer_in_disguise_fails() -> None:
    disguised = target([float(name == "REFILL") for name in labels(60)])  # the texts differ
    verdict = verdict_of([disguised], [])
    assert verdict["outcome"] == "FAIL" and "always answering REFILL" in verdict["reasons"][0]


def test_hardly_better_than_the_majority_fails() -> None:
    noisy = [float(name == "REFILL") for name in labels(600)]
    noisy[0], noisy[1] = 1.0, 0.0
    verdict = verdict_of([target(noisy)], [])
    assert verdict["outcome"] == "FAIL" and "always answering REFILL" in verdict["reasons"][0]


def test_all_wrong_fails() -> None:
    verdict = verdict_of([target([0.0] * 240)], [HELD])
    assert verdict["outcome"] == "FAIL"
    assert TARGET in verdict["reasons"][0] and "base model" in verdict["reasons"][0]


def test_gain_over_one_base_prompt_alone_does_not_pass() -> None:
    after = [float(i % 12 != 5) for i in range(240)]
    verdict = verdict_of([target(after, zero_shot=[0.0] * 240, demonstrations=after)], [])
    assert verdict["outcome"] == "FAIL" and "8 demonstrations" in verdict["reasons"][0]


def test_greedy_gain_without_sampled_gain_does_not_pass() -> None:
    good = replace(GOOD, after=[replace(r, sampled=(0.0, 0.0, 0.0, 0.0)) for r in GOOD.after])
    verdict = verdict_of([good], [])
    assert verdict["outcome"] == "INCONCLUSIVE" and "sampled" in verdict["reasons"][0]


def test_watched_collapse_fails_and_names_the_skill() -> None:
    broken = watched(first(200, 150), first(200, 20), "banking/intents")
    verdict = verdict_of([GOOD], [HELD, broken])
    assert verdict["outcome"] == "FAIL" and len(verdict["reasons"]) == 1
    assert verdict["reasons"][0].startswith("banking/intents: FAIL")
    assert [row["outcome"] for row in verdict["watched"]] == ["PASS", "FAIL"]
    assert (verdict["watched"][1]["better"], verdict["watched"][1]["worse"]) == (0, 130)


def test_significant_loss_at_the_margin_fails_though_the_interval_reaches_back() -> None:
    verdict = verdict_of([], [watched([1.0] * 100, first(100, 88))])
    row = verdict["watched"][0]
    assert row["outcome"] == "FAIL" and row["ci"][1] > -0.10 > row["delta"]


def test_advisory_collapse_is_told_but_decides_nothing() -> None:
    verdict = verdict_of([GOOD], [HELD, watched(first(200, 150), first(200, 20), "chat/style", "advisory")])
    assert verdict["outcome"] == "PASS"
    assert verdict["reasons"][-1].startswith("chat/style: FAIL (advisory")


# ---- what must stay undecided ----


def test_too_few_tasks_are_inconclusive_and_say_how_many_would_do() -> None:
    verdict = verdict_of([GOOD], [watched(first(20, 15), first(20, 15))])
    assert verdict["outcome"] == "INCONCLUSIVE"
    assert "dates/iso: INCONCLUSIVE" in verdict["reasons"][0] and "tasks would decide" in verdict["reasons"][0]


def test_few_groups_are_inconclusive_even_for_a_collapse() -> None:
    suite = watched([1.0] * 100, [0.0] * 100)
    suite = replace(
        suite,
        before=[replace(r, group=str(i % 5)) for i, r in enumerate(suite.before)],
        after=[replace(r, group=str(i % 5)) for i, r in enumerate(suite.after)],
    )
    verdict = verdict_of([], [suite])
    assert verdict["outcome"] == "INCONCLUSIVE" and "5 independent groups" in verdict["reasons"][0]


def test_crashing_the_grader_cannot_pass() -> None:
    after: list[float | None] = [1.0] * 94 + [None] * 6
    verdict = verdict_of([GOOD], [watched([1.0] * 100, after)])
    assert verdict["outcome"] == "INCONCLUSIVE" and "6 of 100 tasks have no grade" in verdict["reasons"][0]
    row = verdict["watched"][0]
    assert (row["n"], row["ungraded"]) == (94, 6)
    assert verdict_of([GOOD], [watched([1.0] * 100, after[:95] + [1.0] * 5)])["outcome"] == "PASS"


def test_crashing_the_grader_on_samples_cannot_pass_a_target() -> None:
    crashed = [replace(r, sampled=(1.0, None, 1.0, 1.0)) if i < 20 else r for i, r in enumerate(GOOD.after)]
    verdict = verdict_of([replace(GOOD, after=crashed)], [])
    assert verdict["outcome"] == "INCONCLUSIVE" and "sampled" in verdict["reasons"][0]


def test_nothing_graded_gives_no_number() -> None:
    nothing: list[float | None] = [None] * 50
    verdict = verdict_of([target(nothing)], [watched(nothing, nothing)])
    assert verdict["outcome"] == "INCONCLUSIVE"
    assert verdict["targets"][0]["greedy"] == {
        "before": None, "after": None, "delta": None, "ci": [-1.0, 1.0], "before_prompt": "zero-shot", "p": 1.0,
    }  # fmt: skip
    assert verdict["watched"][0]["p"] == 1.0


def test_nothing_at_all_is_no_pass() -> None:
    assert verdict_of([], [])["outcome"] == "INCONCLUSIVE"
    assert verdict_of([], [watched([], [])])["outcome"] == "INCONCLUSIVE"
    assert verdict_of([], [watched([1.0] * 100, [1.0] * 100, tier="advisory")])["outcome"] == "INCONCLUSIVE"


def test_fail_outweighs_inconclusive() -> None:
    small = watched(first(20, 15), first(20, 15), "tiny/skill")
    verdict = verdict_of([GOOD], [small, watched([1.0] * 100, [0.0] * 100)])
    assert verdict["outcome"] == "FAIL"
    assert [line.split(":")[0] for line in verdict["reasons"]] == ["dates/iso", "tiny/skill"]


def test_holm_asks_more_of_each_of_many_suites() -> None:
    edge = (first(100, 90), first(100, 87))
    alone = verdict_of([], [watched(*edge)])["watched"][0]
    among = verdict_of([], [watched(*edge, name=f"skill/{i}") for i in range(8)])["watched"][0]
    free = verdict_of([], [watched(*edge, name=f"skill/{i}", tier="advisory") for i in range(8)])["watched"][0]
    assert among["p"] == pytest.approx(8 * alone["p"]) and free["p"] == alone["p"]
    assert alone["outcome"] == "PASS" and among["outcome"] == "INCONCLUSIVE"
    assert "not among 8 suites" in among["reason"]


# ---- input that does not fit, flips ----


def test_sides_must_hold_the_same_tasks() -> None:
    suite = watched([1.0] * 10, [1.0] * 10)
    for after in (suite.after[1:], [*suite.after[1:], suite.after[1]]):
        with pytest.raises(RunError, match="dates/iso"):
            verdict_of([], [replace(suite, after=after)])
    with pytest.raises(RunError, match="group"):
        verdict_of([], [replace(suite, after=[replace(r, group="other") for r in suite.after])])
    with pytest.raises(RunError, match="base model"):
        verdict_of([replace(GOOD, before={})], [])
    assert verdict_of([], [replace(suite, after=suite.after[::-1])]) == verdict_of([], [suite])


def test_flips_are_capped_with_the_broken_ones_first() -> None:
    before, after = [0.0] * 250 + [1.0] * 50, [1.0] * 250 + [0.0] * 50
    verdict = verdict_of([GOOD], [watched(before, after)])
    flips = verdict["flips"]
    mine = [flip for flip in flips if flip["skill"] == "dates/iso"]
    assert len(mine) == MAX_FLIPS and [f["direction"] for f in mine] == ["broken"] * 50 + ["fixed"] * 150
    assert [f["direction"] for f in flips] == sorted(f["direction"] for f in flips)
    assert verdict["flip_counts"][1] == {"skill": "dates/iso", "broken": 50, "fixed": before.count(0.0), "listed": 200}
    assert mine[0]["task_id"] == "task-250" and mine[0]["before"] == "answer 250 1.0"


def test_a_flip_has_everything_that_explains_it() -> None:
    before, after = results([1.0] * 100), results([1.0] * 99 + [0.0])
    before[99] = replace(before[99], cls="A", greedy=Answer(score=1.0, text="It is A.", answer="A", reason="right"))
    after[99] = replace(after[99], cls="A", greedy=Answer(score=0.0, text="hm", answer=None, reason="no label found"))
    suite = replace(watched([1.0], [1.0]), before=before, after=after)
    (flip,) = judge([], [suite], SETTINGS, {}, {}, run="two words")["flips"]
    assert (flip["group"], flip["class"], flip["direction"]) == ("group-99", "A", "broken")
    assert (flip["before_answer"], flip["before_score"], flip["before_reason"]) == ("A", 1.0, "right")
    assert (flip["after_answer"], flip["after_score"], flip["after_reason"]) == (None, 0.0, "no label found")
    assert flip["command"] == "ilab rft explain task-99 --run 'two words'"


# ---- the worst group, classes of watched skills ----


def grouped(scores: Sequence[float | None], size: int) -> list[TaskResult]:
    return [replace(result, group=f"template-{i // size}") for i, result in enumerate(results(scores))]


def test_the_worst_group_is_the_one_with_the_largest_loss() -> None:
    before, after = [1.0] * 120, [1.0] * 120
    after[12:15] = [0.0] * 3  # template-2 loses 3 of 6
    after[30:32] = [0.0] * 2  # template-5 loses 2 of 6
    suite = replace(watched([1.0], [1.0]), before=grouped(before, 6), after=grouped(after, 6))
    (row,) = verdict_of([], [suite])["watched"]
    assert row["worst_group"] == {"group": "template-2", "n": 6, "before": 1.0, "after": 0.5}


def test_no_group_is_the_worst_where_none_lost() -> None:
    assert verdict_of([GOOD], [watched(first(100, 50), first(100, 60))])["watched"][0]["worst_group"] is None
    assert verdict_of([], [watched([None] * 100, [1.0] * 100)])["watched"][0]["worst_group"] is None


def test_the_worst_group_by_hand() -> None:
    # a: 0.2 of 2 lost, b: 0.2 of 1, c: gained; d lost most but its loss has no grade
    before, after = [0.5, 0.7, 1.0, 0.0, 1.0], [0.4, 0.6, 0.8, 1.0, math.nan]
    groups, graded = ["a", "a", "b", "c", "d"], [True, True, True, True, False]
    assert worst_group(before, after, groups, graded) == {"group": "b", "n": 1, "before": 1.0, "after": 0.8}
    assert worst_group([0.3, 0.1], [0.1, 0.3], ["a", "a"], [True, True]) is None  # lost as much as it gained
    assert worst_group([], [], [], []) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=30))
def test_no_other_group_lost_more_than_the_worst(rows: list[tuple[str, float, float, bool]]) -> None:
    worst = worst_group(
        [b for _, b, _, _ in rows], [a for _, _, a, _ in rows], [g for g, *_ in rows], [k for *_, k in rows]
    )
    lost = {g: sum(b - a for name, b, a, kept in rows if kept and name == g) for g in "abc"}
    if worst is None:
        assert max(lost.values()) <= 1e-8
    else:
        assert worst["n"] * (worst["before"] - worst["after"]) == pytest.approx(max(lost.values()))


def test_watched_skills_have_results_per_class() -> None:
    side = [replace(result, cls=name) for result, name in zip(results([1.0] * 100), labels(100), strict=True)]
    worse = [replace(r, greedy=replace(r.greedy, score=float(r.cls != "OTHER"))) for r in side]
    (row,) = verdict_of([], [replace(HELD, before=side, after=worse)])["watched"]
    assert {c["class"]: (c["before"], c["after"]) for c in row["classes"]} == {
        "EMERGENCY": (1.0, 1.0),
        "OTHER": (1.0, 0.0),
        "REFILL": (1.0, 1.0),
    }
    assert sum(c["n"] for c in row["classes"]) == 100
    half = [replace(worse[0], cls=None), *worse[1:]]
    (row,) = verdict_of([], [replace(HELD, before=[replace(side[0], cls=None), *side[1:]], after=half)])["watched"]
    assert row["classes"] == []


# ---- error rates ----


def simulated(rng: np.random.Generator, n: int, down: float, up: float) -> tuple[list[float], list[float]]:
    before = rng.random(n) < 0.5
    fate = rng.random(n)
    lost, won = before & (fate < 2 * down), ~before & (fate < 2 * up)
    return before.astype(float).tolist(), (before & ~lost | won).astype(float).tolist()


def test_true_loss_at_the_margin_rarely_passes() -> None:
    runs, suites, passed, any_passed = 200, 3, 0, 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        rows = verdict_of(
            [], [watched(*simulated(rng, 100, 0.12, 0.02), name=f"s/{i}", samples=0) for i in range(suites)]
        )
        outcomes = [row["outcome"] for row in rows["watched"]]
        passed += outcomes.count("PASS")
        any_passed += "PASS" in outcomes
        assert rows["outcome"] != "PASS"  # all three at once
    assert passed / (runs * suites) <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / (runs * suites))
    assert any_passed / runs <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / runs)  # family-wise, by Holm


def test_identical_models_rarely_fail() -> None:
    runs, failed, passed = 200, 0, 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        outcome = verdict_of(
            [], [watched(*simulated(rng, 100, 0.05, 0.05), name=f"s/{i}", samples=0) for i in range(3)]
        )
        failed += outcome["outcome"] == "FAIL"
        passed += outcome["outcome"] == "PASS"
    assert failed / runs <= 0.05
    assert passed / runs >= 0.3  # 10 % discordance on 100 tasks: mostly, not always, enough for 10 points
