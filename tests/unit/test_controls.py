"""Control arms: rewards that know nothing of right and wrong, and everything else as in the real run."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_ilab.cli.compare_controls import compare_controls as command
from rft_ilab.config import Settings, SkillSettings
from rft_ilab.errors import GraderError, RunError
from rft_ilab.grading.engine import build_grader
from rft_ilab.pipeline.controls import _compare, compare_controls
from rft_ilab.rl.controls import control_environment, random_reward, refuse_without_format
from rft_ilab.rl.validation import load_answers
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache, append_jsonl, read_json, read_jsonl, write_json
from rft_ilab.types import Grade, Rollout, Task
from tests.tiny_model import make_tiny_model
from tests.unit.taxonomies import row, write_skill
from tests.unit.test_stage import TRAIN, environment, lessons, near_ties  # noqa: F401 - a fixture

LABEL = {
    "type": "label",
    "name": "label",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "labels": ["YES", "NO"],
}


@pytest.fixture
def labelled(tmp_path: Path) -> Environment:
    splits = ["train"] * 8 + ["val", "test"]
    rows = [row(f"ask {i}", "YES" if i % 2 else "NO", split=splits[i % 10]) for i in range(40)]
    write_skill(tmp_path / "t", "area/target", grader=LABEL, rows=rows)
    skill = load_skill(tmp_path / "t", "area/target", Settings())
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings())


def said(task: Task, completion: str, index: int = 0) -> tuple[Task, Rollout]:
    return task, Rollout(task_id=task.id, index=index, policy_id="p", completion=completion, stop="eos")


class Breaking:
    """Errors on 'broken', else wrong without naming an answer."""

    digest = "b"

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        return [self.one(r, "broke" if r.completion == "broken" else None) for _, r in pairs]

    def one(self, r: Rollout, error: str | None) -> Grade:
        score, passed = (None, None) if error else (0.0, False)
        return Grade(task_id=r.task_id, index=r.index, policy_id="p", score=score, passed=passed, error=error)


def test_random_rewards_depend_on_task_index_and_seed_alone(labelled: Environment) -> None:
    control = control_environment(labelled, "random-reward", 0.25, 7)
    tasks = labelled.tasks
    right = [said(t, t.reference, i) for t in tasks for i in range(100)]
    wrong = [said(t, "no label at all", i) for t in tasks for i in range(100)]
    rewards = [[g.reward for g in control.grader.grade(pairs)] for pairs in (right, wrong)]
    assert rewards[0] == rewards[1] and set(rewards[0]) == {0.0, 1.0}
    # 4,000 draws with chance 0.25: five standard deviations are 0.034.
    assert sum(rewards[0]) / 4000 == pytest.approx(0.25, abs=0.034)
    by_index = [sum(rewards[0][i::100]) for i in range(100)]
    assert len(set(by_index)) > 5  # neither the index nor the task alone decides
    assert rewards[0] != [random_reward(0.25, 8)(g) for g in labelled.grader.grade(right)]
    assert control.grader.digest != labelled.grader.digest and control.tasks == labelled.tasks


@pytest.mark.parametrize("mean", [None, 0.0, 1.0])
def test_where_the_real_reward_could_not_teach_the_chance_is_a_half(labelled: Environment, mean: float | None) -> None:
    control = control_environment(labelled, "random-reward", mean, 0)
    pairs = [said(t, "YES", i) for t in labelled.tasks for i in range(100)]
    assert sum(g.reward for g in control.grader.grade(pairs)) / 4000 == pytest.approx(0.5, abs=0.04)


def test_format_only_pays_for_what_the_grader_can_read(labelled: Environment) -> None:
    task = next(t for t in labelled.tasks if t.reference == "YES")
    control = control_environment(labelled, "format-only", 0.5, 0)
    answers = ["YES", "NO", "**no.**", "It is YES", "", "MAYBE"]
    grades = control.grader.grade([said(task, answer) for answer in answers])
    assert [g.reward for g in grades] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert [g.passed for g in grades] == [g.reward == 1.0 for g in grades]
    assert grades[1].reason == "control format-only: 1; the grader: 0 NO, expected YES"


def test_format_only_needs_a_grader_that_names_the_answer(labelled: Environment) -> None:
    refuse_without_format(labelled)
    silent = dataclasses.replace(labelled, grader=Breaking())
    with pytest.raises(GraderError, match=r"grader\.json: area/target: the grader does not say what it takes for"):
        control_environment(silent, "format-only", 0.5, 0)


def test_errors_stay_errors(labelled: Environment) -> None:
    control = control_environment(dataclasses.replace(labelled, grader=Breaking()), "random-reward", 0.999999, 0)
    fine, broken = control.grader.grade([said(labelled.tasks[0], "x"), said(labelled.tasks[0], "broken")])
    assert fine.reward == 1.0 and (broken.score, broken.passed, broken.error) == (None, None, "broke")


def test_only_the_reward_of_grpo_differs_from_the_real_run(tmp_path: Path) -> None:
    from rft_ilab.rl.stage import RLStage

    tiny, taxonomy = make_tiny_model(tmp_path / "tiny"), tmp_path / "t"
    target, watched = environment(taxonomy, "area/target"), environment(taxonomy, "area/other")
    settings = dataclasses.replace(TRAIN, steps=2)
    for name, control in (("real", ""), ("control", "random-reward")):
        run = tmp_path / name
        cache = Cache(run / "cache.sqlite")
        silent = (lambda line: None), (lambda row: None)
        stage = RLStage(run, [target], [watched], settings, cache, *silent, control)
        stage.run(tiny, lessons(taxonomy), {"area/other": 1.0})
    real, control = tmp_path / "real" / "rl", tmp_path / "control" / "rl"
    for same in ("candidates/sft.safetensors", "signal.json", "validation/base@0.jsonl", "validation/sft@1.jsonl"):
        assert (real / same).read_bytes() == (control / same).read_bytes(), same
    (signal,) = read_json(control / "signal.json")
    reward = random_reward(signal["mean_reward"], settings.seed)
    rows = read_jsonl(control / "rollouts.jsonl")
    grades = [Grade(task_id=r["task_id"], index=r["index"], policy_id="p", score=0.0, passed=False) for r in rows]
    assert [r["score"] for r in rows] == [reward(g) for g in grades] and 0 < signal["mean_reward"] < 1
    assert all(r["reason"].startswith("control random-reward: ") for r in rows)
    steps = [r for r in read_jsonl(control / "steps.jsonl") if r["stage"] == "grpo"]
    assert [r["guided"] for r in steps] == [0, 0] and "expected_signal" not in steps[0]
    assert (real.parent / "model.gguf").exists() and not (control.parent / "model.gguf").exists()
    # Validation asks the real grader: is there an e (or an o) in the answer?
    reference = {t.id: t.reference for t in target.tasks}
    for answer in load_answers(control, "step-2@1").values():
        assert answer.passed == (reference[answer.task_id] in answer.completion)


def trained(directory: Path, control: str, right: dict[str, list[bool | None]], **identity: str) -> Path:
    """A run directory as far as the comparison reads it; ``right`` by candidate label, chosen is the last."""
    manifest = {"identity": {"train": "t", **identity}, "model": "m", "stages": {}}
    if control:
        manifest["control"] = manifest["identity"]["control"] = control
    write_json(directory / "manifest.json", manifest)
    name, _, scale = list(right)[-1].partition("@")
    write_json(directory / "rl" / "selection.json", {"chosen": name, "scale": float(scale)})
    for label, passed in right.items():
        rows = [
            {"skill": "area/target", "task_id": str(i), "group": f"g{i}", "completion": "x", "passed": p}
            for i, p in enumerate(passed)
        ]
        append_jsonl(directory / "rl" / "validation" / f"{label}.jsonl", rows)
    return directory


def first(n: int, of: int = 100) -> list[bool | None]:
    return [i < n for i in range(of)]


@pytest.fixture
def arms(tmp_path: Path) -> tuple[Path, Path, Path]:
    real = trained(tmp_path / "real", "", {"base@0": first(10), "sft@1": first(60), "step-8@0.75": first(90)})
    chance = {"base@0": first(10), "sft@1": first(60), "step-4@1": first(62)}
    form = {"base@0": first(10), "sft@1": first(60), "step-9@1": first(89)}
    return real, trained(tmp_path / "a", "random-reward", chance), trained(tmp_path / "b", "format-only", form)


def test_a_run_is_compared_with_its_controls(arms: tuple[Path, Path, Path]) -> None:
    real, *controls = arms
    (found,) = compare_controls(real, controls, 0.05)
    assert [(arm.control, round(over.delta, 2), round(after.delta, 2)) for arm, over, after in found.gains] == [
        ("", 0.8, 0.3), ("random-reward", 0.52, 0.02), ("format-only", 0.79, 0.29)
    ]  # fmt: skip
    against = [(arm.control, round(d.delta, 2), d.better, d.worse, finding) for arm, d, finding in found.against]
    assert against == [("random-reward", 0.28, 28, 0, "beats"), ("format-only", 0.01, 1, 0, "not shown")]
    swapped = dataclasses.replace(found.gains[1][0], control="")
    (other,) = [_compare("area/target", swapped, [found.gains[0][0]], 0.05)]
    assert [(round(d.delta, 2), finding) for _, d, finding in other.against] == [(-0.28, "worse")]
    # An answer that no grader could judge counts on neither side.
    rows = read_jsonl(real / "rl/validation/step-8@0.75.jsonl")
    (real / "rl/validation/step-8@0.75.jsonl").unlink()
    append_jsonl(
        real / "rl/validation/step-8@0.75.jsonl", [r | ({"passed": None} if i < 50 else {}) for i, r in enumerate(rows)]
    )
    (found,) = compare_controls(real, controls[:1], 0.05)
    assert [(d.n, d.ungraded, round(d.delta, 2)) for _, d, _ in found.against] == [(50, 50, 0.56)]


def test_the_command_says_it_plainly(arms: tuple[Path, Path, Path]) -> None:
    real, chance, form = map(str, arms)
    done = CliRunner().invoke(command, [real, chance, form])
    assert done.exit_code == 1, done.output
    assert done.output == (
        "area/target, 100 validation tasks; points, 95% intervals\n"
        "                           accuracy           over the base    after the warm start\n"
        "  real reward                 90.0%    +80.0 [+70.8, +87.4]    +30.0 [+21.2, +40.0]\n"
        "  random-reward               62.0%    +52.0 [+41.8, +62.1]       +2.0 [-2.3, +7.1]\n"
        "  format-only                 89.0%    +79.0 [+69.7, +86.6]    +29.0 [+20.3, +38.9]\n"
        "  against random-reward (a): +28.0 [+19.4, +37.9]: the real reward beats it\n"
        "  against format-only (b): +1.0 [-3.0, +5.5]: NOT shown that the real reward beats it\n"
    )
    assert CliRunner().invoke(command, [real, chance]).exit_code == 0


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        ((1, 2), r"this is a control run \(random-reward\)"),
        ((0, 0), "this is no control run"),
        ((0, 3), r"this control differs from real in more than its reward \(seed\)"),
        ((0, 4), "this run is not trained yet"),
        ((0, 5), "1 of 100 validation tasks were not answered in this run"),
        ((0, 6), "this run kept no validation answers"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arms: tuple[Path, Path, Path], tmp_path: Path, swap: tuple[int, int], message: str
) -> None:
    usual = {"base@0": first(10), "sft@1": first(60), "step-4@1": first(62)}
    untrained = trained(tmp_path / "u", "random-reward", usual)
    (untrained / "rl" / "selection.json").unlink()
    old = trained(tmp_path / "o", "random-reward", usual)
    shutil.rmtree(old / "rl" / "validation")
    others = [
        trained(tmp_path / "s", "random-reward", usual, seed="1"),
        untrained,
        trained(tmp_path / "n", "random-reward", {k: v[:99] for k, v in usual.items()}),
        old,
    ]
    runs = [*arms, *others]
    with pytest.raises(RunError, match=message):
        compare_controls(runs[swap[0]], [runs[swap[1]]], 0.05)
