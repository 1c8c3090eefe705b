"""The whole story on the real ``ilab``, as small as it can be: train, RL, gate, report; verify; resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rft_ilab.types import EXIT_CODE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = """
[data]
tasks = 8
samples = 2
keep_per_class = 4

[train]
sft_epochs = 2
sft_batch = 4
steps = 2
prompts = 4
group_size = 4
val_every = 1
val_tasks = 4
"""

EMBEDDED = "from rft_ilab.policy.local.embedded import embedded_model; print(embedded_model())"


@pytest.fixture
def small(ilab):
    """Settings with which a stage takes seconds."""
    with (ilab.taxonomy / "rft.toml").open("a", encoding="utf-8") as file:
        file.write(SMALL)
    return ilab


@pytest.fixture
def model(small):
    result = subprocess.run(
        [sys.executable, "-c", EMBEDDED], env=small.environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def verdict_of(ilab, run):
    return json.loads((ilab.runs / run / "gate" / "verdict.json").read_text(encoding="utf-8"))


def test_ilab_model_train_with_rft(small, model):
    answers = [("A tomato", "red"), ("A frog", "green"), ("A ruby", "red"), ("Grass", "green")]
    rows = [
        {
            "id": str(i),
            "messages": [{"role": "user", "content": thing}, {"role": "assistant", "content": colour}],
            "metadata": "{}",
            "unmask": False,
        }
        for i, (thing, colour) in enumerate(answers)
    ]
    data = small.root / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    checkpoints = small.root / "checkpoints"
    arguments = [
        "--pipeline",
        "full",
        "--device",
        "cpu",
        "--model-path",
        model,
        "--data-path",
        data,
        "--num-epochs",
        "1",
    ]
    arguments += ["--effective-batch-size", "4", "--max-seq-len", "256", "--max-batch-len", "1024"]
    arguments += ["--ckpt-output-dir", checkpoints, "--data-output-dir", small.root / "data-output"]
    result = small("model", "train", *arguments, "--rft", "--rft-run", "after", timeout=1500)
    verdict = verdict_of(small, "after")
    assert result.returncode == EXIT_CODE[verdict["outcome"]], result.stderr
    assert "Traceback" not in result.stderr
    assert (checkpoints / "hf_format" / "samples_0" / "pytorch_model.bin").exists()
    assert (small.runs / "after" / "model" / "model.safetensors").exists()
    assert (small.runs / "after" / "report.html").exists()
    assert [target["skill"] for target in verdict["targets"]] == ["demo/colour"]


def test_stage_by_stage(small):
    """`data verify`, `model rft`, `model regress` and `rft report` share a run directory."""
    verified = small("data", "verify", "--run", "steps", timeout=600)
    assert verified.returncode == 0, verified.stderr
    rows = [json.loads(line) for line in Path(verified.stdout.strip()).read_text(encoding="utf-8").splitlines()]
    assert rows and all(row["messages"][-1]["role"] == "assistant" for row in rows)

    trained = small("model", "rft", "--run", "steps", timeout=600)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.strip() == str(small.runs / "steps" / "model")

    judged = small("model", "regress", timeout=600)
    assert judged.returncode == EXIT_CODE[verdict_of(small, "steps")["outcome"]], judged.stderr

    report = small("rft", "report", "--json")
    assert report.returncode == 0, report.stderr
    summary = json.loads(report.stdout)
    assert set(summary) >= {"verdict", "targets", "watched", "selection", "wall_s", "cpu_s", "peak_rss_mb"}
    assert summary["verdict"] == verdict_of(small, "steps")["outcome"]


def test_an_interrupted_run_is_resumed(small):
    process = subprocess.Popen(
        [os.path.join(os.path.dirname(sys.executable), "ilab"), "rft", "run", "--run", "again"],
        env=dict(small.environment),
        cwd=small.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that started the tests in the background made them, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    steps = small.runs / "again" / "rl" / "steps.jsonl"
    while process.poll() is None and not steps.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "interrupted; resume with: ilab rft run --run again" in errors and "Traceback" not in errors

    result = small("rft", "run", "--run", "again", timeout=900)
    assert result.returncode == EXIT_CODE[verdict_of(small, "again")["outcome"]], result.stderr
