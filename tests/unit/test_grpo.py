"""One GRPO step with each of its options, on the tiny model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from rft_ilab.policy.local.model import load_model
from rft_ilab.rl import groups as groups_module
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.grpo import grpo_step
from rft_ilab.rl.progress import Progress
from rft_ilab.rl.stopping import BONUS_STEP
from rft_ilab.store import read_jsonl
from tests.tiny_model import make_tiny_model
from tests.unit.test_stage import CONTAINS, TRAIN, environment

SETTINGS = dataclasses.replace(TRAIN, steps=7, prompts=8, warmup_steps=0, guidance=0.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def run(tiny: Path, root: Path, steps: int = 1, **changed: Any) -> tuple[Engine, list[dict[str, Any]]]:
    settings = dataclasses.replace(SETTINGS, **changed)
    # A random model hardly ever says its one end token: let it have many, so that answers differ in length.
    loaded = dataclasses.replace(load_model(tiny, torch.float32), eos=frozenset(range(40, 60)))
    engine, progress = Engine(loaded, settings), Progress()
    env = environment(root / "t", "area/target")
    return engine, [grpo_step(engine, [env], settings, progress, root / "rl") for _ in range(steps)]


def test_kl_is_measured_now_and_then_and_at_the_end(tiny: Path, tmp_path: Path) -> None:
    _, rows = run(tiny, tmp_path, 7, kl_every=3)
    assert [row["step"] for row in rows if "kl" in row] == [1, 4, 7]
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6)  # the adapter starts at zero
    assert rows[6]["kl"] > 1e-4 and rows[6]["kl_by_skill"] == {"area/target": rows[6]["kl"]}
    assert all(row["tokens_per_s"] > 0 for row in rows)


def test_kl_in_the_loss_keeps_the_policy_near(tiny: Path, tmp_path: Path) -> None:
    free, held = (run(tiny, tmp_path / str(w), 6, kl_weight=w, kl_every=1)[1][-1]["kl"] for w in (0.0, 1.0))
    assert 0 < held < 0.7 * free


def test_several_updates_a_batch_are_several_steps_of_the_optimiser(tiny: Path, tmp_path: Path) -> None:
    engine, (row,) = run(tiny, tmp_path, updates=3)
    assert {int(state["step"]) for state in engine.optimizer.state.values()} == {3}
    assert row["importance_gap"] > 1e-4  # the third update is off the policy that sampled
    assert len({r["task_id"] for r in read_jsonl(tmp_path / "rl" / "rollouts.jsonl")}) == row["groups"]


@pytest.mark.parametrize(("prompts", "groups", "tasks"), [(20, 40, 40), (30, 42, 42), (60, 84, 42)])
def test_a_refill_draws_other_tasks_while_there_are_any(
    prompts: int, groups: int, tasks: int, tiny: Path, tmp_path: Path
) -> None:
    """Nothing is ever right, so every step is refilled; there are 42 training tasks."""
    never = dict(CONTAINS, reference="this is never said {{item.reference}}")
    env = environment(tmp_path / "t", "area/target", never)
    settings = dataclasses.replace(SETTINGS, prompts=prompts, group_size=2)
    engine = Engine(load_model(tiny, torch.float32), settings)
    row = grpo_step(engine, [env], settings, Progress(), tmp_path / "rl")
    asked = [r["task_id"] for r in read_jsonl(tmp_path / "rl" / "rollouts.jsonl")]
    assert (row["groups"], len(set(asked)), len(asked)) == (groups, tasks, 2 * groups)


def test_an_entropy_bonus_begins_the_step_after_entropy_fell_short(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, accumulate = [], Engine.accumulate

    def spied(self: Engine, sequences: Any, **options: Any) -> Any:
        weights.append(options["entropy_weight"])
        return accumulate(self, sequences, **options)

    monkeypatch.setattr(Engine, "accumulate", spied)
    _, rows = run(tiny, tmp_path, 3, entropy_target=100.0)
    assert weights == pytest.approx([0.0, BONUS_STEP, 2 * BONUS_STEP])
    assert rows[-1]["entropy_weight"] == pytest.approx(3 * BONUS_STEP)


def test_masked_cut_off_answers_get_no_gradient_but_are_graded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: dict[str, list[Any]] = {"graded": [], "masked": []}
    sample = groups_module._sample_groups
    for how, kept in groups.items():
        monkeypatch.setattr(
            groups_module, "_sample_groups", lambda *a, kept=kept: kept.extend(found := sample(*a)) or found
        )
        run(tiny, tmp_path / how, truncated=how)
    pairs = [pair for g in groups["masked"] for pair in zip(g.rollouts, g.advantages_G, strict=True)]
    cut = [(graded.rollout.stop == "length", advantage) for graded, advantage in pairs]
    assert {c for c, _ in cut} == {True, False} and all((a is None) == c for c, a in cut)
    assert all(a is not None for g in groups["graded"] for a in g.advantages_G)
    said = [[r.grade.score for g in found for r in g.rollouts] for found in groups.values()]
    # With fewer groups that carry signal, more are drawn; the first are the same.
    assert said[0][:64] == said[1][:64] and None not in said[0]


def test_every_sequence_may_count_alike(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Any]] = {}
    accumulate = Engine.accumulate
    for mean in ("token", "sequence"):

        def spied(self: Engine, sequences: Any, mean: str = mean, **options: Any) -> Any:
            seen[mean] = list(sequences)
            return accumulate(self, sequences, **options)

        monkeypatch.setattr(Engine, "accumulate", spied)
        run(tiny, tmp_path / mean, loss_mean=mean)
    plain, equal = seen["token"], seen["sequence"]
    assert len({len(s.completion_ids) for s in plain}) > 1
    average = sum(len(s.completion_ids) for s in plain) / len(plain)
    for one, other in zip(plain, equal, strict=True):
        assert other.weight * len(one.completion_ids) == pytest.approx(one.weight * average)
