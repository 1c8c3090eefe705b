"""Bad updates against a real engine: which weights and moments are there afterwards, to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rft_ilab.config import TrainSettings
from rft_ilab.errors import TrainingError
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl.checkpoint import load_checkpoint, save_checkpoint
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.guard import FEWEST, FLOORS, UpdateGuard, restore_state, training_state
from rft_ilab.rl.objective import WeightedSequence
from rft_ilab.rl.progress import Progress
from tests.tiny_model import make_tiny_model

BATCH = [WeightedSequence((5, 6, 7), (8, 9, 2), weight=1.0), WeightedSequence((5, 11), (12, 2), weight=1.0)]
RATE = 1e-3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


class Trainee:
    """An engine and its guard, updated on the same batch again and again; ``states`` are those after each update."""

    def __init__(self, tiny: Path, log: Path) -> None:
        self.engine = Engine(load_model(tiny, torch.float32), TrainSettings(lora_rank=4, lora_alpha=8))
        self.guard, self.log = UpdateGuard(), log
        self.states = [training_state(self.engine)]

    def update(self, gradient: float | None = None, **stats: float) -> dict[str, Any]:
        """One update; ``gradient`` replaces one entry of the true one, ``stats`` what the pass measured."""
        found = dataclasses.replace(self.engine.accumulate(BATCH), **stats)  # type: ignore[arg-type]
        if gradient is not None:
            self.engine.parameters[3].grad[0, 0] = gradient  # type: ignore[index]
        row = self.guard.update(self.engine, found, RATE, step=f"step {len(self.states)}", log=self.log)
        self.states.append(training_state(self.engine))
        return row

    def is_at(self, state: int) -> bool:
        """Are weights and moments those after that many updates, bit for bit?"""
        now, then = training_state(self.engine), self.states[state]
        return set(now) == set(then) and all(torch.equal(now[name], then[name]) for name in then)


@pytest.fixture
def trainee(tiny: Path, tmp_path: Path) -> Trainee:
    return Trainee(tiny, tmp_path / "rl")


def test_ordinary_updates_pass(trainee: Trainee) -> None:
    rows = [trainee.update() for _ in range(4)]
    assert all(set(row) == {"grad_norm"} for row in rows)
    assert (trainee.guard.factor, trainee.guard.updates, len(trainee.guard.recent["loss"])) == (1.0, 4, 4)
    assert not any(trainee.is_at(i) for i in range(4)) and trainee.is_at(4)


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_skipped(trainee: Trainee, gradient: float) -> None:
    for _ in range(2):
        trainee.update()
    assert trainee.update(gradient) == {"skipped": True}
    assert trainee.is_at(2) and trainee.guard.factor == 0.5
    trainee.update()
    assert trainee.guard.in_a_row == 0 and trainee.guard.factor == 0.5


@pytest.mark.parametrize(
    ("gradient", "stats", "reason"),
    [
        (1e6, {}, r"gradient norm 1e\+06 after a median of \d"),
        (None, {"loss": -500.0}, r"loss 500 after a median of \d"),
        (None, {"importance_gap": 3.5}, r"importance gap 3.5 after a median of 0"),
        (None, {"importance_gap": math.nan}, "importance gap nan"),
        (None, {"loss": math.inf}, "loss inf"),
    ],
)
def test_an_exploding_update_takes_the_one_before_it_back(
    trainee: Trainee, gradient: float | None, stats: dict[str, float], reason: str
) -> None:
    for _ in range(FEWEST):
        trainee.update()
    row = trainee.update(gradient, **stats)
    assert re.search(reason, row["rolled_back"])
    assert trainee.is_at(FEWEST - 1) and not trainee.is_at(FEWEST)
    assert trainee.guard.factor == 0.5
    # There is nothing further back: another one is only left out.
    trainee.update(1e6)
    assert trainee.is_at(FEWEST - 1) and trainee.guard.factor == 0.25
    trainee.update()
    assert not trainee.is_at(FEWEST - 1) and trainee.guard.in_a_row == 0


def test_early_updates_and_small_figures_never_explode(trainee: Trainee) -> None:
    for _ in range(FEWEST - 1):
        trainee.update()
    assert "rolled_back" not in trainee.update(1e6), "too few to compare with"
    quiet = UpdateGuard(recent={name: [1e-9] * FEWEST for name in FLOORS})
    found = {name: 0.99 * floor for name, floor in FLOORS.items()}
    assert quiet._explodes(found) == ""
    assert quiet._explodes(found | {"loss": 10.01}) == "loss 10.01 after a median of 1e-09"
    loud = UpdateGuard(recent={"gradient norm": [7.0] * 16, "loss": [5.0] * 16, "importance gap": [0.01] * 16})
    assert loud._explodes({"gradient norm": 139.0, "loss": 99.0, "importance gap": 0.9}) == ""
    assert loud._explodes({"gradient norm": 141.0, "loss": 1.0, "importance gap": 0.0})


def test_weights_that_are_no_numbers_are_put_back(trainee: Trainee, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        trainee.update()
    step = trainee.engine.step

    def ruin(rate: float) -> float:
        norm = step(rate)
        with torch.no_grad():
            trainee.engine.parameters[5][0, 0] = math.inf
        return norm

    with monkeypatch.context() as patch:
        patch.setattr(trainee.engine, "step", ruin)
        assert trainee.update()["rolled_back"].startswith("weights that are no finite numbers")
    assert trainee.is_at(2) and trainee.guard.factor == 0.5
    trainee.update()
    assert all(p.isfinite().all() for p in trainee.engine.parameters)


def test_three_in_a_row_stop_with_the_evidence(trainee: Trainee) -> None:
    for _ in range(FEWEST):
        trainee.update()
    trainee.update(1e6)
    trainee.update(math.nan)
    with pytest.raises(TrainingError) as caught:
        trainee.update(math.nan)
    said = str(caught.value)
    assert said.startswith(
        f"{trainee.log}: step 8: 3 updates in a row had to be skipped or taken back (step 6: gradient"
    )
    assert "step 7: a gradient of nan; step 8: a gradient of nan)" in said
    assert "steps.jsonl and rollouts.jsonl" in said and "start a new run" in said
    assert trainee.is_at(FEWEST - 1)


def test_three_within_ten_stop_too(trainee: Trainee) -> None:
    for _ in range(FEWEST + 2):
        trainee.update()
    for _ in range(2):
        assert "rolled_back" in trainee.update(1e6)
        trainee.update()
        trainee.update()
    with pytest.raises(TrainingError, match="step 14: 3 of the last 10 updates had to be"):
        trainee.update(1e6)
    assert trainee.guard.factor == 0.125


def test_three_far_apart_do_not_stop(trainee: Trainee) -> None:
    for _ in range(3):
        for _ in range(FEWEST):
            trainee.update()
        assert "rolled_back" in trainee.update(1e6)
    assert trainee.guard.factor == 0.125 and trainee.guard.taken_back == [12, 18]


def test_a_resumed_run_takes_back_what_the_killed_one_did(trainee: Trainee, tiny: Path, tmp_path: Path) -> None:
    """Between update and explosion a process dies: what the update before replaced must be in the checkpoint."""
    for _ in range(FEWEST):
        trainee.update()
    facts = json.loads(json.dumps({"progress": Progress(guard=trainee.guard).as_dict()}))
    save_checkpoint(trainee.engine, tmp_path / "c", "step-00001", facts, trainee.guard.before)
    other = Trainee(tiny, tmp_path)
    found = load_checkpoint(other.engine, tmp_path / "c", print)
    assert found is not None
    progress = Progress.of(found.facts["progress"])
    progress.guard.before = found.before
    assert progress.guard == trainee.guard
    other.guard, other.states = progress.guard, list(trainee.states)
    for one in (trainee, other):
        assert "rolled_back" in one.update(1e6)
        assert one.is_at(FEWEST - 1)
        one.update()
    assert other.is_at(-1) and trainee.is_at(-1)
    assert all(torch.equal(w, other.states[-1][n]) for n, w in trainee.states[-1].items())
    assert other.guard == trainee.guard


def test_a_state_from_before_the_first_update_has_no_moments(trainee: Trainee) -> None:
    first = trainee.states[0]
    assert not any("exp_avg" in name for name in first)
    trainee.update()
    restore_state(trainee.engine, first)
    assert trainee.is_at(0) and not trainee.engine.optimizer.state
