"""The engine against the plain way of doing the same: padding-free sequences one by one, HF's own forward."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rft_ilab.config import TrainSettings
from rft_ilab.policy.local import attention
from rft_ilab.policy.local.decode import Row, decode
from rft_ilab.policy.local.model import load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.rl import engine as engine_module
from rft_ilab.rl.checkpoint import load_checkpoint, save_checkpoint
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.objective import WeightedSequence
from rft_ilab.types import Message, Prompt, Sampling
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def new_engine(tiny: Path, **settings: float) -> Engine:
    loaded = load_model(tiny, torch.float32)
    engine = Engine(loaded, TrainSettings(lora_rank=4, lora_alpha=8, **settings))  # type: ignore[arg-type]
    # B starts at zero, which would make half of all gradients vanish: move it.
    torch.manual_seed(1)
    engine.load_adapter({n: torch.randn_like(w) * 0.1 for n, w in engine.adapter().items()})
    engine.refresh_sampler()
    return engine


BATCH = [
    WeightedSequence((5, 6, 7), (8, 9, 2), weight=1.5, logprobs_T=(-1.0, -2.0, -9.0)),
    WeightedSequence((5, 6, 7), (8, 10, 2), weight=-0.5, logprobs_T=(-1.0, -3.0, -0.5)),
    WeightedSequence((5, 6, 7), (8, 9, 2), weight=0.25, logprobs_T=(-1.0, -2.0, -9.0)),
    WeightedSequence((5, 11), (12, 2), weight=2.0, logprobs_T=(-6.0, -1.0)),
    WeightedSequence((20, 21, 22, 23), (24,), weight=1.0),
]


def naive_gradients(engine: Engine, batch: list[WeightedSequence]) -> tuple[float, dict[str, torch.Tensor]]:
    """The same objective, one sequence at a time, through the model's own causal forward."""
    engine.optimizer.zero_grad(set_to_none=True)
    model = engine.peft.get_base_model()
    model.config._attn_implementation = "eager"
    total = sum(len(s.completion_ids) for s in batch)
    loss = torch.zeros(())
    for s in batch:
        ids = torch.tensor([s.prompt_ids + s.completion_ids])
        logprobs_TV = torch.log_softmax(model(ids).logits[0].float(), -1)
        start = len(s.prompt_ids) - 1
        for t, token in enumerate(s.completion_ids):
            logprob = logprobs_TV[start + t, token]
            rho = 1.0 if s.logprobs_T is None else min(math.exp(logprob.item() - s.logprobs_T[t]), 2.0)
            loss = loss - s.weight * rho * logprob / total
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in engine.peft.named_parameters() if p.grad is not None}
    model.config._attn_implementation = "rft_trie"
    engine.optimizer.zero_grad(set_to_none=True)
    return loss.item(), gradients


@pytest.mark.parametrize("limit", [1024, 4])
def test_trie_gradients_equal_naive_gradients(tiny: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(engine_module, "MICRO_BATCH_NODES", limit)
    engine = new_engine(tiny)
    loss, expected = naive_gradients(engine, BATCH)
    stats = engine.accumulate(BATCH)
    assert stats.loss == pytest.approx(loss, rel=1e-5)
    assert stats.tokens == 12
    actual = {n: p.grad for n, p in engine.peft.named_parameters() if p.grad is not None}
    assert set(actual) == set(expected) and len(expected) == 2 * 2 * 7
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("nodes", [7, 8, 9, 40])
def test_attention_in_blocks_is_attention(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a random trie, values and gradients; a block boundary may fall anywhere."""
    torch.manual_seed(nodes)
    parents = [-1, *(int(torch.randint(max(0, i - 5), i, ())) for i in range(1, nodes))]
    # Any order in which ancestors come first will do for attention.
    allowed = torch.eye(nodes, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            allowed[node] |= allowed[parent]
    found = []
    for block in (8, 10_000):
        monkeypatch.setattr(attention, "QUERY_BLOCK", block)
        torch.manual_seed(0)
        query, key, value = (torch.randn(1, heads, nodes, 16, requires_grad=True) for heads in (6, 2, 2))
        out, _ = attention.trie_attention(None, query, key, value, attention.additive(allowed, torch.float32), 0.25)  # type: ignore[arg-type]
        (out * torch.arange(16)).sum().backward()
        found.append([out.detach(), query.grad, key.grad, value.grad])
    for blocked, whole in zip(*found, strict=True):
        torch.testing.assert_close(blocked, whole, rtol=1e-5, atol=1e-5)


def test_entropy_and_gap_by_hand(tiny: Path) -> None:
    engine = new_engine(tiny)
    sequence = WeightedSequence((5, 6), (7,), weight=1.0, logprobs_T=(-2.0,))
    stats = engine.accumulate([sequence])
    model = engine.peft.get_base_model()
    model.config._attn_implementation = "eager"
    logprobs_V = torch.log_softmax(model(torch.tensor([[5, 6]])).logits[0, -1].float(), -1)
    assert stats.entropy == pytest.approx(-(logprobs_V.exp() * logprobs_V).sum().item(), rel=1e-5)
    assert stats.importance_gap == pytest.approx(abs(logprobs_V[7].item() + 2.0), rel=1e-5)


def test_the_sampler_has_the_trained_weights(tiny: Path) -> None:
    engine = new_engine(tiny)
    ids = torch.tensor([[1, 30, 31, 32]])
    merged, trained = engine.policy("x").loaded.model, engine.peft.get_base_model()
    for model in (merged, trained):
        model.config._attn_implementation = "eager"
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, trained(ids).logits, rtol=1e-4, atol=1e-4)
        engine.refresh_sampler(0.0)
        base = AutoModelForCausalLM.from_pretrained(tiny)
        torch.testing.assert_close(merged(ids).logits, base(ids).logits, rtol=1e-5, atol=1e-5)


def test_training_raises_what_is_rewarded(tiny: Path) -> None:
    engine = new_engine(tiny)
    good = WeightedSequence((5, 6, 7), (8, 9, 2), weight=1.0)
    first = engine.accumulate([good]).loss
    for _ in range(5):
        engine.step(1e-2)
        last = engine.accumulate([good]).loss
    assert last < first - 0.5


def test_checkpoint_round_trip(tiny: Path, tmp_path: Path) -> None:
    engine = new_engine(tiny)
    engine.accumulate(BATCH)
    engine.step(1e-2)
    save_checkpoint(engine, tmp_path, "step-00001", {"step": 1, "note": "x"})
    other = new_engine(tiny)
    loaded = load_checkpoint(other, tmp_path, print)
    assert loaded is not None and loaded.facts == {"step": 1, "note": "x"} and loaded.before is None
    for trained in (engine, other):
        trained.accumulate(BATCH)
        trained.step(1e-2)
    for name, weights in engine.adapter().items():
        assert torch.equal(weights, other.adapter()[name])


def test_greedy_decoding_equals_transformers_generate(tiny: Path) -> None:
    loaded = load_model(tiny, torch.float32)
    prompts = [[1, 50, 60, 70], [1, 50, 60, 71, 72], [1, 80]]
    rows = [Row(i, "k", 0.0, 12) for i in range(3)]
    decode(loaded.model, prompts, rows, loaded.eos)
    reference = AutoModelForCausalLM.from_pretrained(tiny)
    for prompt, row in zip(prompts, rows, strict=True):
        ids = torch.tensor([prompt])
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert row.token_ids == out[0, len(prompt) :].tolist()
        assert row.finished == (row.token_ids[-1] == 2)


def test_logprobs_are_those_of_the_model(tiny: Path) -> None:
    loaded = load_model(tiny, torch.float32)
    rows = [Row(0, f"k{i}", 1.0, 6) for i in range(8)]
    decode(loaded.model, [[1, 50, 60]], rows, loaded.eos)
    reference = AutoModelForCausalLM.from_pretrained(tiny)
    for row in rows:
        with torch.no_grad():
            logits = reference(torch.tensor([[1, 50, 60, *row.token_ids]])).logits[0, 2:-1]
        expected = torch.log_softmax(logits, -1)[range(len(row.token_ids)), row.token_ids]
        assert row.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_sampling_follows_the_distribution(tiny: Path) -> None:
    loaded = load_model(tiny, torch.float32)
    rows = [Row(0, f"k{i}", 1.0, 1) for i in range(4000)]
    decode(loaded.model, [[1, 50]], rows, loaded.eos)
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(tiny)
        p_V = torch.softmax(reference(torch.tensor([[1, 50]])).logits[0, -1], -1)
    counts_V = torch.bincount(torch.tensor([r.token_ids[0] for r in rows]), minlength=len(p_V))
    likely = p_V > 0.005
    chi2 = (((counts_V - 4000 * p_V) ** 2) / (4000 * p_V))[likely].sum().item()
    degrees = int(likely.sum())
    assert degrees > 5 and chi2 < degrees + 5 * math.sqrt(2 * degrees)


def test_what_a_row_says_does_not_depend_on_its_neighbours(tiny: Path) -> None:
    policy = LocalPolicy(load_model(tiny, torch.float32))
    prompts = [Prompt(task_id=f"t{i}", messages=(Message("user", "x" * i),)) for i in range(1, 5)]
    sampling = Sampling(max_tokens=5, seed=3)
    together = [(r.task_id, r.index, r.completion) for r in policy.sample(prompts, 3, sampling)]
    alone = [(r.task_id, r.index, r.completion) for p in prompts for r in policy.sample([p], 3, sampling)]
    assert together == alone
    other_seed = [(r.task_id, r.index, r.completion) for r in policy.sample(prompts, 3, Sampling(max_tokens=5, seed=4))]
    assert together != other_seed
