"""The engine on a GPU against the CPU: the same code, another attention kernel. Without one they are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rft_ilab.config import TrainSettings
from rft_ilab.policy.local.decode import Row, decode
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.objective import WeightedSequence
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")

BATCH = [
    WeightedSequence((5, 6, 7), (8, 9, 2), weight=1.5, logprobs_T=(-1.0, -2.0, -9.0), skill="a"),
    WeightedSequence((5, 6, 7), (8, 10, 2), weight=-0.5, logprobs_T=(-1.0, -3.0, -0.5), skill="a"),
    WeightedSequence((5, 11), (12, 2), weight=2.0, skill="b"),
]


def engine_on(device: str, model: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Engine:
    with monkeypatch.context() as patch:
        if device == "cpu":
            patch.setattr(torch.cuda, "is_available", lambda: False)
        engine = Engine(load_model(model, dtype), TrainSettings(lora_rank=4, lora_alpha=8, kl_weight=0.1))
    torch.manual_seed(1)
    engine.load_adapter({n: torch.randn(w.shape) * 0.1 for n, w in engine.adapter().items()})
    assert engine.loaded.model.device.type == device
    return engine


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_gradients_and_figures_are_those_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    model = make_tiny_model(tmp_path)
    found = []
    for device in ("cpu", "cuda"):
        engine = engine_on(device, model, dtype, monkeypatch)
        stats = engine.accumulate(BATCH, entropy_weight=0.1)
        gradient = torch.cat([p.grad.flatten().cpu() for p in engine.parameters if p.grad is not None])
        figures = [stats.loss, stats.entropy, stats.importance_gap, stats.kl["a"][0], stats.kl["b"][0]]
        found.append((gradient, torch.tensor(figures), engine.step(1e-3)))
    (cpu, cpu_figures, cpu_norm), (gpu, gpu_figures, gpu_norm) = found
    assert torch.nn.functional.cosine_similarity(cpu, gpu, dim=0) > 1 - tolerance
    torch.testing.assert_close(gpu_figures, cpu_figures, rtol=tolerance, atol=tolerance)
    assert gpu_norm == pytest.approx(cpu_norm, rel=tolerance)


def test_greedy_decoding_is_that_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = make_tiny_model(tmp_path), []
    for device in ("cpu", "cuda"):
        loaded = engine_on(device, model, torch.float32, monkeypatch).loaded
        rows = [Row(i % 2, f"{i}", 0.0, 8) for i in range(6)]
        decode(loaded.model, [[5, 6, 7], [5, 11]], rows, loaded.eos)
        said.append([row.token_ids for row in rows])
    assert said[0] == said[1]
