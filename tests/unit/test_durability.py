"""The RL stage against kill -9 and full disks: the same bytes as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.store import read_json, read_jsonl
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
STEP = "rft_ilab.rl.engine.Engine.step"
ACCUMULATE = "rft_ilab.rl.engine.Engine.accumulate"
#: in the order in which a run comes by them
KILLS: list[list[Any]] = [
    [ACCUMULATE, "", 2, "after"],  # warm start, before its first checkpoint
    ["os.fsync", "state.safetensors", 1, "torn"],
    ["os.replace", "sft-00003", 1, "after"],
    [STEP, "", 2, "after"],
    ["os.replace", "sft-00006", 1, "before"],
    ["os.fsync", "sft.safetensors", 1, "torn"],  # a candidate
    ["os.replace", "signal.json", 1, "after"],
    ["os.replace", "step-00000", 1, "after"],
    ["rft_ilab.rl.evaluate.grade_groups", "", 2, "before"],  # a GRPO step: sampled, not graded
    [ACCUMULATE, "", 2, "before"],  # its rollouts written, its update not done
    ["os.fsync", "steps.jsonl", 2, "torn"],
    ["os.fsync", "before.safetensors", 1, "torn"],
    ["os.replace", "step-00002", 2, "after"],  # the first is the candidate's adapter
    ["os.fsync", "rollouts.jsonl", 2, "torn"],
    ["os.replace", "facts.json", 1, "after"],
    [STEP, "", 3, "before"],
    ["os.replace", "step-5.safetensors", 1, "after"],
    ["rft_ilab.rl.selection.load_adapter", "", 2, "before"],
    ["os.replace", "selection.json", 1, "before"],
    ["os.replace", "run/adapter", 1, "after"],
    ["os.fsync", ".model.partial/model.safetensors", 1, "torn"],
    ["os.replace", "run/model", 1, "after"],
    ["os.replace", "model.gguf", 1, "before"],
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def lives(home: Path, tiny: Path, *wanted: list[Any], **environment: str) -> tuple[list[int], str]:
    """Exit statuses of these lives of the stage in ``home`` (see tests/durable_stage.py), and all of stderr."""
    home.mkdir(exist_ok=True)
    made = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MODEL": str(tiny), **environment}
    # The number format is measured once, and the same for all.
    made["XDG_CACHE_HOME"] = str(tiny.parent / "cache")
    command = [sys.executable, "-m", "tests.durable_stage", str(home), json.dumps(wanted)]
    done = subprocess.run(command, cwd=ROOT, env=made, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [int(status) for status in done.stdout.split()], done.stderr


@pytest.fixture(scope="module")
def unbroken(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """What a run that nothing stops leaves, and the seconds it takes."""
    home, started = tmp_path_factory.mktemp("unbroken"), time.monotonic()
    assert lives(home, tiny, [])[0] == [0]
    return produced(home), time.monotonic() - started


def produced(home: Path) -> dict[str, Any]:
    """Everything that a run leaves but its timing; and there must be nothing else."""
    run = home / "run"
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.name.startswith("cache.sqlite") and path.name != "adapter_config.json"
    }
    steps = read_jsonl(run / "rl" / "steps.jsonl")
    files["rl/steps.jsonl"] = [{k: v for k, v in r.items() if k not in ("sample_s", "train_s", "seconds")} for r in steps]  # type: ignore[assignment]
    return files


def assert_same(home: Path, expected: dict[str, Any]) -> None:
    found = produced(home)
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_the_unbroken_run_has_something_to_lose(unbroken: tuple[dict[str, Any], float]) -> None:
    files, _ = unbroken
    assert [r["step"] for r in files["rl/steps.jsonl"]] == [*range(1, 9), *range(1, 6)]
    assert {
        "adapter/adapter_model.safetensors", "model/model.safetensors", "model.gguf", "rl/rollouts.jsonl",
        "rl/selection.json", "rl/signal.json", "rl/candidates/sft.safetensors", "rl/candidates/step-2.safetensors",
        "rl/candidates/step-4.safetensors", "rl/candidates/step-5.safetensors", "rl/checkpoint/step-00005/facts.json",
        "rl/checkpoint/step-00004/before.safetensors",
    } < set(files)  # fmt: skip


@pytest.mark.slow
def test_kills_everywhere_change_nothing(
    tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    """23 kills, most of them in the middle of a write; the run goes on each time and ends in the same bytes."""
    statuses, said = lives(tmp_path / "killed", tiny, *KILLS, [])
    assert statuses == [-9] * len(KILLS) + [0], said
    assert_same(tmp_path / "killed", unbroken[0])
    # Not one checkpoint was found damaged: they take their names when they are whole.
    assert "damaged" not in said and said.count("resuming after batch 3 of the warm start") == 2


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(
    tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    rng = random.Random(7)
    statuses, _ = lives(tmp_path / "killed", tiny, *[[rng.uniform(0.5, 4.0)] for _ in range(8)], [])
    assert -9 in statuses and statuses[-1] == 0
    assert_same(tmp_path / "killed", unbroken[0])
