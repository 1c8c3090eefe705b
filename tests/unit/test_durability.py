"""The RL stage against kill -9 and full disks: the same bytes as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.store import read_jsonl
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEP = "rft_ilab.rl.engine.Engine.step"
ACCUMULATE = "rft_ilab.rl.engine.Engine.accumulate"
#: in the order in which a run comes by them
KILLS: list[list[Any]] = [
    [ACCUMULATE, "", 2, "after"],  # warm start, before its first checkpoint
    ["os.fsync", "state.safetensors", 1, "torn"],
    ["os.replace", "checkpoint/sft-00003", 1, "after"],
    [STEP, "", 2, "after"],
    ["os.replace", "checkpoint/sft-00006", 1, "before"],
    ["os.fsync", "sft.safetensors", 1, "torn"],  # a candidate
    ["os.replace", "signal.json", 1, "after"],
    ["os.replace", "checkpoint/step-00000", 1, "after"],
    ["rft_ilab.rl.evaluate.grade_groups", "", 2, "before"],  # a GRPO step: sampled, not graded
    [ACCUMULATE, "", 2, "before"],  # its rollouts written, its update not done
    ["os.fsync", "steps.jsonl", 2, "torn"],
    ["os.fsync", "before.safetensors", 1, "torn"],
    ["os.replace", "checkpoint/step-00002", 1, "after"],
    ["os.fsync", "rollouts.jsonl", 2, "torn"],
    ["os.replace", "facts.json", 1, "after"],
    [STEP, "", 3, "before"],
    ["os.replace", "step-5.safetensors", 1, "after"],
    ["rft_ilab.rl.selection.load_adapter", "", 1, "after"],
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
    run = home if (home / "rl").exists() else home / "run"
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.name.startswith("cache.sqlite")
    }
    steps = read_jsonl(run / "rl" / "steps.jsonl")
    timing = {"sample_s", "train_s", "seconds", "tokens_per_s"}
    return files | {"rl/steps.jsonl": [{k: v for k, v in r.items() if k not in timing} for r in steps]}


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
    # Selection compares scores, so a resumed run must have them as they were, not rounded.
    facts = json.loads(files["rl/checkpoint/step-00005/facts.json"])["facts"]
    assert [c["val"] for c in facts["candidates"] if c["name"] == "step-4"] == [1 / 3]


def test_kills_everywhere_change_nothing(tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]) -> None:
    """23 kills, most of them in the middle of a write; the run goes on each time and ends in the same bytes."""
    statuses, said = lives(tmp_path / "killed", tiny, *KILLS, [])
    assert statuses == [-9] * len(KILLS) + [0], said
    assert_same(tmp_path / "killed", unbroken[0])
    # Not one checkpoint was found damaged: they take their names when they are whole.
    assert "damaged" not in said and said.count("resuming after batch 3 of the warm start") == 3


def test_a_batch_sampled_ahead_survives_kills(
    tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    """It is part of the checkpoint, whether it was sampled before the kill, during it, or is sampled again."""
    assert lives(tmp_path / "whole", tiny, [], ASYNC_STEPS="1")[0] == [0]
    expected = produced(tmp_path / "whole")
    assert expected["rl/rollouts.jsonl"] != unbroken[0]["rl/rollouts.jsonl"]
    kills = [
        ["rft_ilab.rl.evaluate.grade_groups", "", 5, "before"],
        [ACCUMULATE, "", 2, "after"],
        ["os.replace", "checkpoint/step-00002", 1, "after"],
        ["rft_ilab.rl.groups._count", "", 3, "after"],
        ["os.replace", "checkpoint/step-00004", 1, "before"],
    ]
    statuses, said = lives(tmp_path / "killed", tiny, *kills, [], ASYNC_STEPS="1")
    assert statuses == [-9] * len(kills) + [0], said
    assert_same(tmp_path / "killed", expected)


def test_kills_at_random_moments_change_nothing(
    tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    rng = random.Random(7)
    statuses, _ = lives(tmp_path / "killed", tiny, *[[rng.uniform(0.5, 4.0)] for _ in range(8)], [])
    assert -9 in statuses and statuses[-1] == 0
    assert_same(tmp_path / "killed", unbroken[0])


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    """The newest cut short, then a byte of the newest turned, then both gone: a line each, and the same end."""
    home, checkpoints = tmp_path / "home", tmp_path / "home/run/rl/checkpoint"
    lives(home, tiny, ["rft_ilab.rl.selection.load_adapter", "", 1, "before"])
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-00004", "step-00005"]
    newest = checkpoints / "step-00005" / "state.safetensors"
    os.truncate(newest, newest.stat().st_size - 1)
    kill = ["os.replace", "step-5.safetensors", 1, "before"]
    statuses, said = lives(home, tiny, kill)
    assert statuses == [-9]
    damage = "checkpoint step-00005 is damaged (state.safetensors is not what was written): going back to the one"
    assert damage in said and "resuming after GRPO step 4" in said
    newest = checkpoints / "step-00004" / "before.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    statuses, said = lives(home, tiny, [])
    assert statuses == [0] and "step-00004 is damaged" in said and "resuming" not in said
    assert_same(home, unbroken[0])


#: errors in the order in which a run comes by them: checkpoints, candidates, rows, results
FULL: list[list[Any]] = [
    [errno.ENOSPC, "os.fsync", "state.safetensors", 1],
    [errno.ENOSPC, "os.fsync", "steps.jsonl", 4],
    [errno.EDQUOT, "os.fsync", "sft.safetensors", 1],
    [errno.ENOSPC, "os.fsync", "signal.json", 1],
    [errno.ENOSPC, "os.fsync", "rollouts.jsonl", 2],
    [errno.ENOSPC, "os.fsync", "facts.json", 1],
    [errno.ENOSPC, "os.fsync", "selection.json", 1],
    [errno.ENOSPC, "os.fsync", "adapter_config.json", 1],
    [errno.ENOSPC, "os.fsync", ".model.partial", 1],
    [errno.ENOSPC, "os.fsync", ".model.gguf.partial", 1],
]


def test_errors_of_a_full_disk_stop_cleanly_and_the_run_goes_on(
    tiny: Path, tmp_path: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    statuses, said = lives(tmp_path / "full", tiny, *FULL, [])
    assert statuses == [2] * len(FULL) + [0], said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(lines) == len(FULL)
    for line, (number, _, text, _) in zip(lines, FULL, strict=True):
        full = r"no space left on the disk, [\d.]+ [kMG]B free"
        reason = "the disk quota is used up" if number == errno.EDQUOT else full
        place = text.removeprefix(".").removesuffix(".partial")
        assert re.fullmatch(
            rf"Error: {tmp_path}/full/run/\S*{re.escape(place)}: cannot be written: {reason} "
            r"\(make room there, then give the same command again: it goes on where it stopped\)",
            line,
        ), line
    assert_same(tmp_path / "full", unbroken[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system of its own for a test: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_again_and_again(
    tiny: Path, tmp_path: Path, small_disk: Path, unbroken: tuple[dict[str, Any], float]
) -> None:
    """The run needs 0.6 MB; it gets a little more room each time."""
    rooms = [["room", room] for room in [*range(8_000, 700_000, 60_000), 2_000_000]]
    statuses, said = lives(tmp_path, tiny, *rooms, RUN=str(small_disk / "run"), UNCHECKED="1")
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    failures = statuses.index(0)
    assert statuses == [2] * failures + [0] * (len(rooms) - failures), said
    assert failures >= 5 and len(lines) == failures and "Traceback" not in said, said
    assert len({line.split(": ")[1] for line in lines}) >= 4, "always the same file"
    assert all("no space left on the disk, " in line for line in lines)
    assert_same(small_disk / "run", unbroken[0])


def test_too_little_room_is_said_before_training(tiny: Path, tmp_path: Path, small_disk: Path) -> None:
    statuses, said = lives(tmp_path, tiny, ["room", 500_000], ["room", 2_000_000], RUN=str(small_disk / "run"))
    assert statuses == [2, 0]
    assert re.search(
        rf"Error: {small_disk}/run: training would write about 8\d\d kB more here, and 4\d\d kB are free \(in all: "
        r"checkpoints 295 kB, adapters 82 kB, rollouts 320 kB, model 12\d kB\) "
        r"\(make room there, or start a run elsewhere with --run PATH\)",
        said,
    ), said
