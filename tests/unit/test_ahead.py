"""Sampling ahead: a step old, the same bits beside training or after it, and nothing lost in between."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rft_ilab.errors import GraderError
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl import ahead, groups, grpo
from rft_ilab.rl.ahead import meanwhile
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.grpo import grpo_step
from rft_ilab.rl.progress import Progress
from rft_ilab.store import read_jsonl
from tests.tiny_model import make_tiny_model
from tests.unit.test_stage import TRAIN, environment

SETTINGS = dataclasses.replace(TRAIN, steps=5, prompts=4, warmup_steps=0, kl_every=0, async_steps=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Run:
    """An engine on the tiny model, a target, and where they stand."""

    def __init__(self, tiny: Path, root: Path, **changed: Any) -> None:
        self.settings = dataclasses.replace(SETTINGS, **changed)
        self.engine, self.progress = Engine(load_model(tiny, torch.float32), self.settings), Progress()
        self.environment, self.log = environment(root / "t", "area/target"), root / "rl"

    def steps(self, count: int) -> list[dict[str, Any]]:
        return [
            grpo_step(self.engine, [self.environment], self.settings, self.progress, self.log) for _ in range(count)
        ]

    def rollouts(self) -> list[dict[str, Any]]:
        return read_jsonl(self.log / "rollouts.jsonl")

    def weights(self) -> dict[str, torch.Tensor]:
        return self.engine.adapter()


def assert_same(one: Run, other: Run) -> None:
    assert one.rollouts() == other.rollouts()
    theirs = other.weights()
    assert all(torch.equal(weight, theirs[name]) for name, weight in one.weights().items())


def test_every_batch_but_the_first_is_a_step_old(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled, trained = [], []
    sample, accumulate = groups.sample_batch, Engine.accumulate

    def running(engine: Engine) -> float:
        return float(sum(layer.weight.double().abs().sum() for layer in engine._lora.values()))

    def sampling(engine: Engine, *rest: Any) -> Any:
        sampled.append((rest[-1], running(engine)))
        return sample(engine, *rest)

    def training(self: Engine, *a: Any, **k: Any) -> Any:
        trained.append(running(self))
        return accumulate(self, *a, **k)

    monkeypatch.setattr(grpo, "sample_batch", sampling)
    monkeypatch.setattr(Engine, "accumulate", training)
    run = Run(tiny, tmp_path)
    rows = run.steps(5)
    weights = [trained[0], *trained[:4]]
    assert sorted(sampled) == list(enumerate(weights)) and len(set(trained)) == 5
    # On the policy that sampled it the gap is rounding.
    gaps = [row["importance_gap"] for row in rows]
    assert gaps[0] < 1e-4 < min(gaps[1:])
    assert run.progress.ahead == []  # nothing is sampled for a step that will not come


def test_beside_training_or_after_it_the_bits_are_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, after = Run(tiny, tmp_path / "beside"), Run(tiny, tmp_path / "after")
    where: set[str] = set()
    sample = groups.sample_batch
    monkeypatch.setattr(grpo, "sample_batch", lambda *a: where.add(threading.current_thread().name) or sample(*a))
    # One thread each, so that what neither does beside the other is the same, too.
    torch.set_num_threads(1)
    with monkeypatch.context() as patched:
        patched.setattr(ahead, "cores", lambda: 2)
        beside.steps(5)
    assert {name.split("_")[0] for name in where} == {threading.main_thread().name, "sampling"}
    where.clear()
    after.steps(5)
    assert where == {threading.main_thread().name}
    assert_same(beside, after)


def test_a_batch_that_waits_survives_as_json(tiny: Path, tmp_path: Path) -> None:
    whole, broken = Run(tiny, tmp_path / "whole"), Run(tiny, tmp_path / "broken")
    whole.steps(3)
    broken.steps(2)
    facts = json.loads(json.dumps(broken.progress.as_dict()))
    assert [len(g["graded"]) for g in facts["ahead"]][:4] == [SETTINGS.group_size] * 4
    before = broken.progress.guard.before
    broken.progress = Progress.of(facts)
    broken.progress.guard.before = before
    broken.steps(1)
    assert_same(whole, broken)
    assert whole.progress.as_dict()["pass_rate"] == broken.progress.as_dict()["pass_rate"]


def test_where_kl_is_measured_sampling_waits(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference runs in the layers that sample."""
    asked = []

    def spied(work: Any, *, together: bool) -> Any:
        asked.append(together)
        return meanwhile(work, together=together)

    monkeypatch.setattr(grpo, "meanwhile", spied)
    Run(tiny, tmp_path, kl_every=2).steps(5)
    assert asked == [False, True, False, True]


def test_a_batch_without_signal_samples_the_next_all_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo, "has_signal", lambda advantages_G: False)
    run = Run(tiny, tmp_path, guidance=0.0)
    (row,) = run.steps(1)
    assert "loss" not in row and run.progress.ahead


def test_what_sampling_raises_is_raised_when_both_are_over() -> None:
    order = []

    def work() -> None:
        time.sleep(0.05)
        order.append("sampled")
        raise GraderError("the sandbox is gone", fix="start it")

    with pytest.raises(GraderError, match="the sandbox is gone"), meanwhile(work, together=True):
        assert torch.get_num_threads() == 1
        order.append("trained")
    assert order == ["trained", "sampled"] and torch.get_num_threads() == 2


def test_what_training_raises_waits_for_sampling() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), meanwhile(lambda: time.sleep(0.05) or done.append(1), together=True):
        raise KeyboardInterrupt
    assert done == [1] and torch.get_num_threads() == 2


def test_processes_that_work_together_do_not_sample_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their messages must come in the same order everywhere."""
    monkeypatch.setattr(ahead.parallel, "size", lambda: 2)
    threads = []
    with meanwhile(lambda: threads.append(threading.current_thread()), together=True):
        assert threads == [threading.main_thread()]
