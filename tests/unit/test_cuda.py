"""The engine on a GPU against the CPU: the same code, other kernels. Without a GPU they are skipped."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rft_ilab.config import TrainSettings
from rft_ilab.policy.local import seats
from rft_ilab.policy.local.decode import Row, decode
from rft_ilab.policy.local.model import LoadedModel, load_model
from rft_ilab.rl import pieces
from rft_ilab.rl.checkpoint import load_checkpoint, save_checkpoint
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.export import save_merged
from rft_ilab.rl.objective import WeightedSequence
from rft_ilab.rl.pieces import most_nodes
from tests.tiny_model import make_tiny_model
from tests.unit.test_architectures import SUPPORTED

# Asked before the fixture of all tests hides the GPU.
AVAILABLE, VISIBLE = torch.cuda.is_available(), os.environ.get("CUDA_VISIBLE_DEVICES")

BATCH = [
    WeightedSequence((5, 6, 7), (8, 9, 2), weight=1.5, logprobs_T=(-1.0, -2.0, -9.0), skill="a"),
    WeightedSequence((5, 6, 7), (8, 10, 2), weight=-0.5, logprobs_T=(-1.0, -3.0, -0.5), skill="a"),
    WeightedSequence((5, 11), (12, 2), weight=2.0, skill="b"),
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within, the GPU is seen again."""
    if not AVAILABLE:
        pytest.skip("no CUDA GPU on this machine")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if VISIBLE is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", VISIBLE)


def loaded_on(device: str, model: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
        loaded = load_model(model, dtype)
    assert loaded.model.device.type == device
    return loaded


def engine_on(device: str, model: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine(
        loaded_on(device, model, dtype, monkeypatch), TrainSettings(lora_rank=4, lora_alpha=8, kl_weight=0.1)
    )
    torch.manual_seed(1)
    engine.load_adapter({n: torch.randn(w.shape) * 0.1 for n, w in engine.adapter().items()})
    engine.refresh_sampler()
    return engine


@pytest.mark.usefixtures("gpu")
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


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", SUPPORTED)
def test_what_is_said_is_that_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Greedy and drawn: the recorded pass has its own rows and columns, ends included."""
    model, said = make_tiny_model(tmp_path, kind=kind, **SUPPORTED[kind]), []
    for device in ("cpu", "cuda"):
        loaded = loaded_on(device, model, torch.float32, monkeypatch)
        assert seats.suit(loaded.model) is (device == "cuda")
        rows = [Row(i % 3, f"{i}", 0.7 * (i % 2), 4 + i) for i in range(12)]
        decode(loaded.model, [[5, 6, 7], [5, 11], [5, 6, 9, 13, 14]], rows, loaded.eos)
        said.append([([*row.token_ids, row.finished], row.logprobs) for row in rows])
    for (tokens, logprobs), (others, other_logprobs) in zip(*said, strict=True):
        assert tokens == others and logprobs == pytest.approx(other_logprobs, abs=1e-3)


@pytest.mark.usefixtures("gpu")
def test_what_is_sampled_has_the_trainers_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after an update: a recorded pass must not remember the weights of another moment."""
    engine = engine_on("cuda", make_tiny_model(tmp_path), torch.float32, monkeypatch)
    for _ in range(2):
        engine.refresh_sampler()
        rows = [Row(0, f"{i}", 1.0, 12) for i in range(16)]
        decode(engine.sampler.model, [[5, 6, 7]], rows, engine.sampler.eos)
        scored = engine.score([((5, 6, 7), tuple(row.token_ids)) for row in rows])
        for row, logprobs in zip(rows, scored, strict=True):
            assert row.logprobs == pytest.approx(logprobs, abs=1e-3)
        engine.accumulate(BATCH)
        engine.step(1e-1)


@pytest.mark.usefixtures("gpu")
def test_a_checkpoint_goes_on_where_it_was_written_and_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny_model(tmp_path / "model")
    engine = engine_on("cuda", model, torch.float32, monkeypatch)
    engine.accumulate(BATCH)
    engine.step(1e-2)
    save_checkpoint(engine, tmp_path, "step-00001", {"step": 1})
    others = [engine_on(device, model, torch.float32, monkeypatch) for device in ("cuda", "cpu")]
    for other in others:
        assert load_checkpoint(other, tmp_path, print) is not None
    for one in (engine, *others):
        one.accumulate(BATCH)
        one.step(1e-2)
    for other in others:
        for name, weights in engine.adapter().items():
            torch.testing.assert_close(other.adapter()[name].cpu(), weights.cpu(), rtol=1e-3, atol=1e-4)
    engine.refresh_sampler()
    save_merged(engine, tmp_path / "merged")
    merged = loaded_on("cpu", tmp_path / "merged", torch.float32, monkeypatch).model
    name = "model.layers.0.mlp.up_proj"
    expected = engine._lora[name].weight.cpu().to(torch.bfloat16).float()
    torch.testing.assert_close(merged.get_submodule(name).weight, expected)


@pytest.mark.parametrize(("free_gb", "nodes"), [(1, 1024), (16, 1695), (140, 8192)])
def test_a_pass_is_as_large_as_the_gpu_has_room(monkeypatch: pytest.MonkeyPatch, free_gb: int, nodes: int) -> None:
    """36 hidden states of 2048 numbers in 2 bytes, 16 layers: 2.4 MB a node, a quarter of what is free for them."""
    config: Any = SimpleNamespace(num_hidden_layers=16, hidden_size=2048)
    config.get_text_config = lambda: config
    model = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, config=config)
    for name, said in (("memory_reserved", 2e9), ("memory_allocated", 1e9), ("mem_get_info", ((free_gb - 1) * 1e9, 0))):
        monkeypatch.setattr(torch.cuda, name, lambda _, said=said: said)
    assert most_nodes(model) == nodes
    model.device = torch.device("cpu")
    monkeypatch.setattr(pieces, "MICRO_BATCH_NODES", 7)
    assert most_nodes(model) == 7
