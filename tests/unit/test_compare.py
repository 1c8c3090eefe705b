"""Many models side by side: hand-worked numbers, what is claimed and what is not, and error rates by simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.errors import RunError
from rft_ilab.regress.accuracy import accuracy_interval
from rft_ilab.regress.compare import ComparedSuite, Comparison, PairRow, compare_models
from rft_ilab.regress.statistics import paired_difference, wilson
from rft_ilab.regress.verdict import Answer, TaskResult

ALPHA = 0.05


def side(
    scores: Sequence[float | None], groups: Sequence[int] | None = None, classes: Sequence[str] | None = None
) -> list[TaskResult]:
    return [
        TaskResult(
            task_id=f"task-{i}",
            group=str(groups[i] if groups is not None else i),
            cls=classes[i] if classes else None,
            reference="gold",
            prompt=f"question {i}",
            greedy=Answer(score=score),
        )
        for i, score in enumerate(scores)
    ]


def table(*suites: Mapping[str, Sequence[TaskResult]], margin: float = 0.1) -> Comparison:
    compared = [
        ComparedSuite(skill=f"area/skill{i}", margin=margin, prompt_label="zero-shot", results=results)
        for i, results in enumerate(suites)
    ]
    return compare_models(compared, {label: f"id-{label}" for label in suites[0]}, ALPHA)


def pair(comparison: Comparison, first: str, second: str, row: int = 0) -> PairRow:
    (found,) = [p for p in comparison["rows"][row]["pairs"] if (p["first"], p["second"]) == (first, second)]
    return found


def first(n: int, right: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def upper_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2.0))


# ---- numbers worked out by hand ----


def test_two_models_by_hand() -> None:
    """B wins 12 tasks and loses 2: McNemar's z, less half a task, is (12 - 2.5) / sqrt(14); two hypotheses double p."""
    a = [1.0] * 50 + [0.0] * 50
    b = [1.0] * 48 + [0.0] * 2 + [1.0] * 12 + [0.0] * 38
    comparison = table({"A": side(a), "B": side(b)})
    row = comparison["rows"][0]
    assert [(s["model"], s["n"], s["score"]) for s in row["scores"]] == [("A", 100, 0.5), ("B", 100, 0.6)]
    assert row["scores"][1]["ci"] == pytest.approx(wilson(60, 100))
    found = pair(comparison, "A", "B")
    assert found["p"] == pytest.approx(2 * upper_tail(9.5 / math.sqrt(14)))
    assert (found["delta"], found["better"], found["worse"]) == (pytest.approx(0.1), 12, 2)
    assert (found["finding"], found["equivalent"], row["best"]) == ("second better", False, ["B"])
    assert comparison["standings"] == [
        {"model": "A", "mean": 0.5, "won": 0, "lost": 1, "best_on": 0},
        {"model": "B", "mean": 0.6, "won": 1, "lost": 0, "best_on": 1},
    ]
    assert comparison["unbeaten"] == ["B"]


def test_holm_runs_over_both_directions_of_all_pairs_and_skills() -> None:
    """Three models on two skills are six pairs, twelve hypotheses: the smallest p is multiplied by twelve."""
    base, better = first(100, 40), first(100, 60)
    comparison = table({"A": side(base), "B": side(base), "C": side(better)}, {k: side(base) for k in "ABC"})
    assert comparison["pairs"] == 6
    p = upper_tail(19.5 / math.sqrt(20))  # 20 won, none lost; less half a task
    assert pair(comparison, "A", "C")["p"] == pytest.approx(12 * p)
    assert pair(comparison, "B", "C")["p"] == pytest.approx(12 * p, rel=1e-6)  # step-down: never below the first
    assert pair(comparison, "A", "B")["p"] == 1.0
    assert comparison["rows"][0]["best"] == ["C"] and comparison["rows"][1]["best"] == ["A", "B", "C"]
    assert comparison["unbeaten"] == ["C"]
    assert [s["best_on"] for s in comparison["standings"]] == [1, 1, 2]


def test_claims_are_symmetrical() -> None:
    a, b = side(first(120, 40)), side(first(120, 80))
    there, back = table({"A": a, "B": b}), table({"B": b, "A": a})
    assert pair(there, "A", "B")["finding"] == "second better" and pair(back, "B", "A")["finding"] == "first better"
    assert pair(there, "A", "B")["p"] == pytest.approx(pair(back, "B", "A")["p"])
    assert there["rows"][0]["best"] == back["rows"][0]["best"] == ["B"]


def test_equal_within_the_margin_has_to_be_shown() -> None:
    """Of 300 tasks nothing moved: equal within ten points. Of 20 the same says nothing, and more are asked for."""
    many = table({"A": side(first(300, 200)), "B": side(first(300, 200))})
    assert pair(many, "A", "B")["equivalent"] and pair(many, "A", "B")["finding"] == "not shown"
    d = paired_difference(first(300, 200), first(300, 200), range(300), ALPHA)
    assert pair(many, "A", "B")["p_equivalent"] == pytest.approx(d.p_superior(-0.1))
    few = pair(table({"A": side(first(20, 10)), "B": side(first(20, 10))}), "A", "B")
    assert not few["equivalent"] and "such tasks would decide" in few["note"]
    none = table({"A": side(first(300, 200)), "B": side(first(300, 200))}, margin=0.0)
    assert not pair(none, "A", "B")["equivalent"]


def test_a_small_difference_can_be_shown_and_still_be_within_the_margin() -> None:
    found = pair(table({"A": side(first(2000, 1000)), "B": side(first(2000, 1040))}), "A", "B")
    assert found["finding"] == "second better" and found["equivalent"]


def test_macro_is_of_classes_that_are_large_enough() -> None:
    classes = ["common"] * 40 + ["rare"] * 20 + ["tiny"] * 5
    scores = [1.0] * 40 + [0.0] * 20 + [0.0] * 5
    row = table({"A": side(scores, classes=classes), "B": side(scores, classes=classes)})["rows"][0]
    assert row["scores"][0]["macro"] == 0.5
    assert table({"A": side(scores), "B": side(scores)})["rows"][0]["scores"][0]["macro"] is None


def test_sampled_answers_are_a_row_of_their_own_in_the_same_family() -> None:
    def drawn(scores: Sequence[float], draws: tuple[float, ...]) -> list[TaskResult]:
        return [
            TaskResult(**{f: getattr(r, f) for f in ("task_id", "group", "cls", "reference", "prompt", "greedy")},
                       sampled=draws)
            for r in side(scores)
        ]  # fmt: skip

    comparison = table({"A": drawn(first(100, 50), (0.0, 1.0)), "B": drawn(first(100, 50), (1.0, 1.0))})
    greedy, sampled = comparison["rows"]
    assert [(r["metric"], r["samples"]) for r in (greedy, sampled)] == [("greedy", 0), ("sampled", 2)]
    assert comparison["pairs"] == 2 and sampled["scores"][0]["score"] == 0.5
    assert sampled["best"] == ["B"] and greedy["best"] == ["A", "B"]
    assert comparison["standings"][0]["mean"] == 0.5  # of greedy answers alone


# ---- answers without a grade ----


def test_ungraded_answers_are_counted_and_never_zeros() -> None:
    broken: list[float | None] = [None] * 4 + first(96, 48)
    comparison = table({"A": side(first(100, 52)), "B": side(broken)})
    found, (_, score) = pair(comparison, "A", "B"), comparison["rows"][0]["scores"]
    assert (score["n"], score["ungraded"], score["score"]) == (96, 4, 0.5)
    assert (found["n"], found["ungraded"], found["delta"]) == (96, 4, 0.0)


def test_a_model_that_breaks_the_grader_is_neither_beaten_nor_better() -> None:
    broken: list[float | None] = [None] * 20 + [1.0] * 80
    comparison = table({"A": side(first(100, 10)), "B": side(broken), "C": side(first(100, 90))})
    assert pair(comparison, "A", "B")["finding"] == "undecidable"
    assert "20 of 100 tasks have no grade" in pair(comparison, "A", "B")["note"]
    assert pair(comparison, "A", "C")["finding"] == "second better"
    assert comparison["rows"][0]["best"] == ["B", "C"]
    # Breaking a pair does not ease the others: still three pairs, six hypotheses.
    lone = paired_difference(first(100, 10), first(100, 90), range(100), ALPHA).p_superior()
    assert pair(comparison, "A", "C")["p"] == pytest.approx(6 * lone)


def test_nothing_graded_has_no_numbers() -> None:
    comparison = table({"A": side([None] * 30), "B": side(first(30, 15))})
    assert comparison["rows"][0]["scores"][0]["score"] is None and pair(comparison, "A", "B")["delta"] is None
    assert comparison["standings"][0]["mean"] is None


def test_too_few_groups_show_nothing() -> None:
    groups = [i % 4 for i in range(100)]
    found = pair(table({"A": side([0.0] * 100, groups), "B": side([1.0] * 100, groups)}), "A", "B")
    assert found["finding"] == "undecidable" and "only 4 independent groups" in found["note"]


def test_different_tasks_are_refused() -> None:
    with pytest.raises(RunError, match="only one of the two models answered"):
        table({"A": side(first(30, 15)), "B": side(first(31, 15))})
    with pytest.raises(ValueError, match="two models"):
        table({"A": side(first(30, 15))})


# ---- one model's accuracy ----


def test_accuracy_of_independent_tasks_is_wilsons() -> None:
    assert accuracy_interval(first(80, 20), range(80), ALPHA) == pytest.approx(wilson(20, 80))


def test_copies_of_a_task_add_nothing() -> None:
    """Forty templates of six copies that are all right or all wrong are worth about forty tasks, not 240."""
    scores = np.repeat(first(40, 20), 6)
    low, high = accuracy_interval(scores, np.repeat(range(40), 6).tolist(), ALPHA)
    plain_low, plain_high = wilson(20, 40)
    assert plain_low - 0.02 < low < plain_low and plain_high < high < plain_high + 0.02


def test_too_few_groups_leave_the_accuracy_open() -> None:
    assert accuracy_interval(first(60, 60), [i % 5 for i in range(60)], ALPHA) == (0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=8, max_size=40))
def test_the_interval_holds_the_mean_and_stays_in_bounds(scores: list[float]) -> None:
    low, high = accuracy_interval(scores, range(len(scores)), ALPHA)
    mean = sum(scores) / len(scores)
    assert 0.0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1.0


@pytest.mark.parametrize(("size", "copying"), [(1, 0.0), (6, 0.0), (6, 1.0)])
def test_the_accuracy_interval_covers(size: int, copying: float) -> None:
    """At least 95 % less the noise of 600 draws (three standard errors), however alike the tasks of a group are."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(600):
        scores, groups = clustered(rng, 120, size, copying, 0.7)
        low, high = accuracy_interval(scores, groups, ALPHA)
        covered += low <= 0.7 <= high
    assert covered / 600 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)


# ---- error rates over a whole table, by simulation ----


def clustered(
    rng: np.random.Generator, n: int, size: int, copying: float, right: float
) -> tuple[list[float], list[int]]:
    """``n`` outcomes with chance ``right``; with chance ``copying`` a task does what the first of its group did."""
    groups = np.arange(n) // size
    own = rng.random(n) < right
    copied = own[groups * size]
    return np.where(rng.random(n) < copying, copied, own).astype(float).tolist(), groups.tolist()


def wrong_claims(models: int, size: int, copying: float, tables: int, seed: int) -> tuple[int, int]:
    """In how many tables of equally good models, on three skills, one is called better; and a best is left out."""
    rng = np.random.default_rng(seed)
    claimed = lost = 0
    for _ in range(tables):
        suites = []
        for chance in (0.5, 0.8, 0.95):
            sides = {}
            for m in range(models):
                scores, groups = clustered(rng, 60, size, copying, chance)
                sides[f"m{m}"] = side(scores, groups)
            suites.append(sides)
        comparison = table(*suites)
        claimed += any(p["finding"].endswith("better") for row in comparison["rows"] for p in row["pairs"])
        lost += any(len(row["best"]) < models for row in comparison["rows"])
    return claimed, lost


@pytest.mark.parametrize(("models", "size", "copying", "tables"), [(3, 1, 0.0, 200), (4, 5, 0.6, 120), (5, 1, 0.0, 60)])
def test_equal_models_are_rarely_told_apart(models: int, size: int, copying: float, tables: int) -> None:
    """The family-wise error over all pairs and skills is at most alpha (bound: alpha and three standard errors)."""
    claimed, lost = wrong_claims(models, size, copying, tables, seed=11)
    assert claimed == lost
    assert claimed / tables <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / tables)


def test_the_best_stays_among_the_best_and_the_worst_leaves() -> None:
    """One of three models is 8 points better and one 40 worse: the best is kept, the worst is always out."""
    rng = np.random.default_rng(3)
    kept = out = 0
    for _ in range(150):
        sides = {name: side(clustered(rng, 200, 1, 0.0, p)[0]) for name, p in (("a", 0.72), ("b", 0.8), ("c", 0.4))}
        best = table(sides)["rows"][0]["best"]
        kept, out = kept + ("b" in best), out + ("c" not in best)
    assert kept >= 150 * 0.95 and out >= 149


def test_models_at_the_margin_are_rarely_called_equal() -> None:
    """Truly ten points apart, margin ten: "equal within the margin" is wrong, and said in at most 2.5 % of tables."""
    rng = np.random.default_rng(8)
    said = 0
    for _ in range(300):
        a, b = clustered(rng, 150, 1, 0.0, 0.9)[0], clustered(rng, 150, 1, 0.0, 0.8)[0]
        said += pair(table({"A": side(a), "B": side(b)}), "A", "B")["equivalent"]
    assert said / 300 <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 300)
