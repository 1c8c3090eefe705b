"""Two processes under the real torchrun against one: the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rft_ilab.rl import parallel
from rft_ilab.rl.checkpoint import load_adapter
from rft_ilab.store import read_json, read_jsonl
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def torchrun(home: Path, tiny: Path, processes: int, module: str = "parallel_stage", **environment: str) -> Path:
    """Returns the run of the first process."""
    made = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MODEL": str(tiny), **environment}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launch, "-m", f"tests.{module}", str(home)]
    done = subprocess.run(command, cwd=ROOT, env=made, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return home / "rank-0"


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torchrun(tmp_path_factory.mktemp("one"), tiny, 1)


def rollouts(run: Path) -> list[dict[str, Any]]:
    return read_jsonl(run / "rl" / "rollouts.jsonl")


def test_two_processes_train_what_one_trains(alone: Path, tiny: Path, tmp_path: Path) -> None:
    together = torchrun(tmp_path, tiny, 2)
    assert rollouts(together) == rollouts(alone) and len(rollouts(alone)) >= 5 * 4 * 8
    steps = [read_jsonl(run / "rl" / "steps.jsonl") for run in (alone, together)]
    assert len(steps[0]) == len(steps[1])
    for one, two in zip(*steps, strict=True):
        assert set(one) == set(two)
        for key in {"loss", "grad_norm", "entropy", "reward", "kl"} & set(one):
            assert one[key] == pytest.approx(two[key], rel=1e-3, abs=1e-4), (key, one["step"])
    weights = [load_adapter(run / "adapter" / "adapter_model.safetensors") for run in (alone, together)]
    assert max(float(w.abs().max()) for w in weights[0].values()) > 0.01
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5)
    selections = [read_json(run / "rl" / "selection.json") for run in (alone, together)]
    assert selections[0] == selections[1]
    # Each process decided alike; only the first one exported.
    assert read_json(tmp_path / "rank-1" / "rl" / "selection.json") == selections[0]
    assert not (tmp_path / "rank-1" / "model").exists() and (tmp_path / "rank-0" / "model").exists()


def test_an_interrupt_of_one_stops_all_after_the_same_step(alone: Path, tiny: Path, tmp_path: Path) -> None:
    torchrun(tmp_path, tiny, 2, STOP="1")
    for rank in (0, 1):
        assert (tmp_path / f"rank-{rank}" / "interrupted").exists()
        steps = read_jsonl(tmp_path / f"rank-{rank}" / "rl" / "steps.jsonl")
        assert [row["step"] for row in steps if row["stage"] == "grpo"] == [1, 2]
    resumed = torchrun(tmp_path, tiny, 2)
    assert rollouts(resumed) == rollouts(alone)
    names = load_file(alone / "model" / "model.safetensors")
    assert set(load_file(resumed / "model" / "model.safetensors")) == set(names)


def test_answers_are_the_same_in_all_processes_cached_or_not(tiny: Path, tmp_path: Path) -> None:
    """Even where processes would answer differently themselves: each asks its share, and all decide by the same."""
    torchrun(tmp_path, tiny, 2, module="parallel_answers")
    first, second = (read_json(tmp_path / f"rank-{rank}.json") for rank in (0, 1))
    assert [completion for _, completion in first["sampled"]] == ["eee", "ooo"] * 3
    assert first["sampled"] == first["cached"] == second["sampled"] == second["cached"]
    # When the others have left, the first goes on alone.
    assert [completion for _, completion in first["alone"]] == ["e"] * 6


def test_without_torchrun_there_is_one_process_and_nothing_to_exchange() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    with parallel.joined():
        assert (parallel.size(), parallel.rank(), parallel.anyone(False), parallel.anyone(True)) == (1, 0, False, True)
        assert parallel.share([1, 2, 3]) == [1, 2, 3] == parallel.stretch([1, 2, 3])
        assert parallel.add_up([0.5, 2.0]) == [0.5, 2.0]
        parallel.add_gradients([parameter])
    assert parameter.grad is None
