"""The bench of a GRPO step: its drawing, and what a step here reports. Its figures are in docs/log.md."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rft_ilab.policy.local.model import load_model
from rft_ilab.rl import groups, grpo
from rft_ilab.store import read_json
from tests.tiny_model import make_tiny_model

SVG = "{http://www.w3.org/2000/svg}"


def test_both_sides_are_drawn_over_the_same_logarithmic_axis(tmp_path: Path) -> None:
    plot = importlib.import_module("tools.bench_rl_plot")
    ours = [{"cpu_s": 10.0, "reward": 0.0}, {"cpu_s": 90.0, "reward": 0.5}]
    theirs = [{"cpu_s": 100.0, "reward": 0.25}, {"cpu_s": 900.0, "reward": 1.0}]
    numbers = plot.write_plot(tmp_path / "reward.svg", {"a < b": {"ours": ours, "TRL": theirs}})
    assert read_json(numbers)["a < b"]["TRL"] == [
        {"step": 1, "cumulated_cpu_s": 100.0, "reward": 0.25},
        {"step": 2, "cumulated_cpu_s": 1000.0, "reward": 1.0},
    ]
    root = ElementTree.fromstring((tmp_path / "reward.svg").read_text())
    lines = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    (x0, y0), (x1, y1), (x2, _), (x3, y3) = (map(float, point.split(",")) for line in lines for point in line)
    # 10, 100, 100 and 1000 seconds; 100 is the middle of the axis.
    assert x1 == x2 and x1 - x0 == pytest.approx(x3 - x2, abs=0.2) and x3 > x2
    # Rewards 0, 0.5 and 1: down is more.
    assert y0 - y1 == pytest.approx(y1 - y3, abs=0.2) and y0 > y1
    assert "a < b" in {text.text for text in root.iter(f"{SVG}text")}


def test_a_step_says_what_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = importlib.import_module("tools.bench_rl_ours")
    monkeypatch.setattr(grpo, "time", grpo.time)
    monkeypatch.setattr(groups, "REFILLS", groups.REFILLS)
    rows = [{"prompt": [{"role": "user", "content": f"say {i}"}], "reference": ""} for i in range(8)]
    bench = ours.Bench(load_model(make_tiny_model(tmp_path)), rows, 5, "halves", group=4, exact=True)
    found = bench.step()
    row = found["row"]
    assert (row["groups"], row["signal_groups"], row["completion_tokens"]) == (8, 8, 8 * 4 * 5)
    prompt = len(bench.engine.loaded.encode_prompt(bench.environment.tasks[0].messages))
    assert (found["prompt_tokens"], found["answer_tokens"]) == (prompt, 5.0)
    assert found["padded_tokens"] == 8 * 4 * (prompt + 5) > row["nodes"]
    assert 0 < found["decode_s"] + found["train_s"] <= found["cpu_s"] + 0.01
    # Twice the operations of a forward pass, at 2 a weight: all nodes in the decoder, those that predict in the head.
    weights = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    head = bench.model.get_output_embeddings().weight.numel()
    assert found["train_flop"] == 4.0 * (weights * row["nodes"] + head * row["predictions"])


def test_exponents_are_of_the_size(tmp_path: Path) -> None:
    growth = importlib.import_module("tools.bench_rl_growth")
    assert growth.exponent([10, 100], [7.0, 7.0 * math.sqrt(10)]) == pytest.approx(0.5)
    loaded = load_model(make_tiny_model(tmp_path))
    rows = growth.unshared(loaded, 60)
    texts = [row["prompt"][0]["content"] for row in rows]
    assert len({text[:1] for text in texts}) == 8
