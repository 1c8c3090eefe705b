"""The engine against the plain way of doing the same: padding-free sequences one by one, HF's own forward."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM

from rft_ilab.config import TrainSettings
from rft_ilab.policy.local import attention, lanes, seats
from rft_ilab.policy.local import decode as decode_module
from rft_ilab.policy.local.decode import Row, Weights, decode
from rft_ilab.policy.local.model import load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.policy.local.trie import build_trie
from rft_ilab.rl import pieces, predictions
from rft_ilab.rl.checkpoint import load_checkpoint, save_checkpoint
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.export import save_merged
from rft_ilab.rl.lora import TARGETS
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


def peft_model(engine: Engine) -> Any:
    """The same base and adapter through the library PEFT, with transformers' own attention."""
    base = AutoModelForCausalLM.from_pretrained(engine.loaded.directory, attn_implementation="eager")
    settings = engine.settings
    config = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=list(TARGETS))
    model = get_peft_model(base, config)
    found = set_peft_model_state_dict(model, engine.adapter())
    assert not found.unexpected_keys
    return model


def naive_gradients(engine: Engine, batch: list[WeightedSequence]) -> tuple[float, dict[str, torch.Tensor]]:
    """The same objective, one sequence at a time, through PEFT and the model's own causal forward."""
    model, settings = peft_model(engine), engine.settings
    total = sum(len(s.completion_ids) for s in batch)
    loss = torch.zeros(())
    for s in batch:
        ids = torch.tensor([s.prompt_ids + s.completion_ids])
        logprobs_TV = torch.log_softmax(model(ids).logits[0].float(), -1)
        start = len(s.prompt_ids) - 1
        for t, token in enumerate(s.completion_ids):
            logprob = logprobs_TV[start + t, token]
            ratio = 1.0 if s.logprobs_T is None else math.exp(logprob.item() - s.logprobs_T[t])
            if (s.weight > 0 and ratio > 1 + settings.clip_high) or (s.weight < 0 and ratio < 1 - settings.clip_low):
                continue
            loss = loss - s.weight * min(ratio, 2.0) * logprob / total
    loss.backward()
    gradients = {n.replace(".default", ""): p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


@pytest.mark.parametrize("limit", [1024, 4])
@pytest.mark.parametrize("clip", [{}, {"clip_low": 1.0, "clip_high": 1e9}])
def test_trie_gradients_equal_naive_gradients(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, limit: int, clip: dict[str, float]
) -> None:
    monkeypatch.setattr(pieces, "MICRO_BATCH_NODES", limit)
    engine = new_engine(tiny, **clip)
    loss, expected = naive_gradients(engine, BATCH)
    stats = engine.accumulate(BATCH)
    assert stats.loss == pytest.approx(loss, rel=1e-5)
    assert stats.tokens == 12
    actual = {n: p.grad for n, p in engine._named().items()}
    assert set(actual) == set(expected) and len(expected) == 2 * 2 * 7
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 256])
def test_kl_and_entropy_terms_by_autograd(tiny: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Exact over the vocabulary, value and gradient, however few rows go through the head at once."""
    monkeypatch.setattr(predictions, "ROWS", rows)
    engine = new_engine(tiny, kl_weight=0.3)
    batch = [replace(s, skill="b" if s.logprobs_T is None else "a") for s in BATCH]
    stats = engine.accumulate([replace(s, weight=0.0) for s in batch], entropy_weight=0.7)
    model, base = peft_model(engine), AutoModelForCausalLM.from_pretrained(tiny)
    kls, entropies = {"a": [], "b": []}, []  # type: ignore[var-annotated]
    for s in batch:
        ids, first = torch.tensor([s.prompt_ids + s.completion_ids]), len(s.prompt_ids) - 1
        ours, theirs = (torch.log_softmax(m(ids).logits[0, first:-1].float(), -1) for m in (model, base))
        kls[s.skill].append((ours.exp() * (ours - theirs.detach())).sum(-1))
        entropies.append(-(ours.exp() * ours).sum(-1))
    (0.3 * torch.cat(kls["a"] + kls["b"]).mean() - 0.7 * torch.cat(entropies).mean()).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            actual = engine._named()[name.replace(".default", "")].grad
            torch.testing.assert_close(actual, parameter.grad, rtol=1e-3, atol=1e-6)
    assert {k: n for k, (_, n) in stats.kl.items()} == {"a": 11, "b": 1}
    for skill, (total, _) in stats.kl.items():
        assert total == pytest.approx(torch.cat(kls[skill]).sum().item(), rel=1e-4)
    assert stats.entropy == pytest.approx(torch.cat(entropies).mean().item(), rel=1e-4)
    layer = engine._lora["model.layers.0.mlp.up_proj"]
    torch.testing.assert_close(layer.weight, layer.base + layer.scaling * layer.lora_B @ layer.lora_A)


@pytest.mark.parametrize("kept", [0, 1000])
@pytest.mark.parametrize("block", [1, 3, 8, 1000])
def test_attention_in_blocks_is_attention(block: int, kept: int, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    """Over a random trie, values and gradients; a block boundary may fall anywhere, weights kept or computed again."""
    monkeypatch.setattr(attention, "KEPT_ROW_BYTES", kept)
    rng = random.Random(0)
    sequences = [[rng.randrange(2) for _ in range(rng.randrange(1, 8))] for _ in range(12)]
    trie = build_trie(sequences)
    monkeypatch.setattr(attention, "QUERY_BLOCK", block)
    model = load_model(tiny, torch.float32).model
    heads, kv_heads, nodes = model.config.num_attention_heads, model.config.num_key_value_heads, len(trie)
    assert nodes > 20 and heads > kv_heads
    torch.manual_seed(0)
    inputs = [torch.randn(1, h, nodes, 16, requires_grad=True) for h in (heads, kv_heads, kv_heads)]
    query, key, value = inputs
    weight = torch.randn(1, nodes, heads, 16)
    (attention.TriePlan(trie, model).attend(0, query, key, value, 0.25) * weight).sum().backward()
    gradients = [x.grad.clone() for x in inputs]  # type: ignore[union-attr]
    for x in inputs:
        x.grad = None
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=trie.ancestor_mask(), scale=0.25, enable_gqa=True
    )
    (expected.transpose(1, 2) * weight).sum().backward()
    for x, gradient in zip(inputs, gradients, strict=True):
        torch.testing.assert_close(gradient, x.grad, rtol=1e-4, atol=1e-5)


def test_entropy_and_gap_by_hand(tiny: Path) -> None:
    engine = new_engine(tiny)
    sequence = WeightedSequence((5, 6), (7,), weight=1.0, logprobs_T=(-2.0,))
    stats = engine.accumulate([sequence])
    model = peft_model(engine)
    logprobs_V = torch.log_softmax(model(torch.tensor([[5, 6]])).logits[0, -1].float(), -1)
    assert stats.entropy == pytest.approx(-(logprobs_V.exp() * logprobs_V).sum().item(), rel=1e-5)
    assert stats.importance_gap == pytest.approx(abs(logprobs_V[7].item() + 2.0), rel=1e-5)


@pytest.mark.parametrize("limit", [1024, 4])
def test_scores_are_the_models_log_probabilities(tiny: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """One sequence at a time through the plain forward; repeated, shared and empty ones in the order given."""
    monkeypatch.setattr(pieces, "MICRO_BATCH_NODES", limit)
    engine = new_engine(tiny)
    pairs = [((20, 21, 22), (24,)), *((s.prompt_ids, s.completion_ids) for s in BATCH), ((5, 6), ()), ((5, 11), (12,))]
    scores = engine.score(pairs)
    assert not any(p.grad is not None for p in engine.parameters)
    model = peft_model(engine)
    for (prompt, completion), score_T in zip(pairs, scores, strict=True):
        with torch.no_grad():
            logits_TV = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected_T = torch.log_softmax(logits_TV.float(), -1)[range(len(completion)), list(completion)].tolist()
        assert score_T == pytest.approx(expected_T, abs=1e-5) and len(score_T) == len(completion)


def test_the_sampler_has_the_trained_weights(tiny: Path) -> None:
    engine = new_engine(tiny)
    ids = torch.tensor([[1, 30, 31, 32]])
    merged, trained = engine.policy("x").loaded.model, peft_model(engine)
    merged.config._attn_implementation = "eager"
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, trained(ids).logits, rtol=1e-4, atol=1e-4)
        engine.refresh_sampler(0.0)
        base = AutoModelForCausalLM.from_pretrained(tiny)
        torch.testing.assert_close(merged(ids).logits, base(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_generation_config_that_transformers_would_not_write_is_kept(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "base")
    file = tmp_path / "base" / "generation_config.json"
    found = json.loads(file.read_text()) | {"temperature": 0.6}
    file.write_text(json.dumps(found))
    engine = new_engine(tmp_path / "base")
    save_merged(engine, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_text()) == found
    assert load_model(tmp_path / "merged").model.generation_config.temperature == 0.6
    assert engine.loaded.model.generation_config.eos_token_id == 2


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


@pytest.fixture(params=["lanes", "seats"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within, rows are decoded in lanes, or in seats as on a GPU (but for the recording)."""
    monkeypatch.setattr(seats, "suit", lambda _: request.param == "seats")


@pytest.mark.parametrize("growth", [5, 32])
@pytest.mark.usefixtures("either")
def test_greedy_decoding_equals_transformers_generate(growth: int, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr(lanes, "GROWTH", growth)
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


@pytest.mark.usefixtures("either")
def test_logprobs_are_those_of_the_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "GROWTH", 2)
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


@pytest.mark.usefixtures("either")
def test_what_a_row_says_does_not_depend_on_its_neighbours(tiny: Path) -> None:
    policy = LocalPolicy(load_model(tiny, torch.float32))
    prompts = [Prompt(task_id=f"t{i}", messages=(Message("user", "x" * i),)) for i in range(1, 5)]
    sampling = Sampling(max_tokens=5, seed=3)
    together = [(r.task_id, r.index, r.completion) for r in policy.sample(prompts, 3, sampling)]
    alone = [(r.task_id, r.index, r.completion) for p in prompts for r in policy.sample([p], 3, sampling)]
    assert together == alone
    other_seed = [(r.task_id, r.index, r.completion) for r in policy.sample(prompts, 3, Sampling(max_tokens=5, seed=4))]
    assert together != other_seed


def test_lanes_and_seats_say_the_same(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(tiny, torch.float32)
    said = []
    for seated in (False, True):
        monkeypatch.setattr(seats, "suit", lambda _, seated=seated: seated)
        rows = [Row(i % 3, f"{i}", 0.7 * (i % 4 > 0), 1 + i % 9) for i in range(24)]
        decode(loaded.model, [[1, 50, 60, 70], [1, 50], [1, 50, 61]], rows, loaded.eos)
        said.append([([*row.token_ids, row.finished], row.logprobs) for row in rows])
    for (tokens, logprobs), (others, other_logprobs) in zip(*said, strict=True):
        assert tokens == others and logprobs == pytest.approx(other_logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("config", "suits"),
    [
        ({}, True),
        ({"rope_scaling": {"rope_type": "llama3"}}, True),
        ({"rope_scaling": {"rope_type": "dynamic"}}, False),
        ({"rope_scaling": {"type": "longrope"}}, False),
        ({"num_local_experts": 8}, False),
    ],
)
def test_what_a_model_decides_by_its_data_is_not_recorded(config: dict[str, Any], suits: bool) -> None:
    for on_gpu in (True, False):
        weight = SimpleNamespace(is_cuda=on_gpu)
        model = SimpleNamespace(
            config=SimpleNamespace(**config), get_input_embeddings=lambda weight=weight: SimpleNamespace(weight=weight)
        )
        assert seats.suit(model) is (suits and on_gpu)


def test_rows_may_part_after_most_others_have_ended(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 of 24 prompts are answered at once, so lanes are closed up; the rows of the others part only then."""
    logits_of = decode_module.logits_of

    def steered(model: Any, hidden_AD: torch.Tensor) -> torch.Tensor:
        logits_AV = logits_of(model, hidden_AD)
        nonlocal step
        step += 1
        if step <= 3:
            logits_AV[:] = -1e9
            logits_AV[:, 70] = 0.0
            logits_AV[: 20 if step == 1 else 0] = torch.nn.functional.one_hot(torch.tensor(2), logits_AV.shape[1]) * 1e9
        return logits_AV

    loaded, step = load_model(tiny, torch.float32), 0
    monkeypatch.setattr(lanes, "GROWTH", 3)
    prompts = [[1, 50 + p] for p in range(24)]
    rows = [Row(p, f"{p}/{k}", 1.0, 8) for p in range(24) for k in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "logits_of", steered)
        decode(loaded.model, prompts, rows, loaded.eos)
    assert [len(row.token_ids) for row in rows[:160]] == [1] * 160
    reference = AutoModelForCausalLM.from_pretrained(tiny)
    said = rows[160:]
    assert len({(row.prompt, *row.token_ids) for row in said}) > 28
    for row in said:
        with torch.no_grad():
            logits = reference(torch.tensor([[1, 50 + row.prompt, *row.token_ids]])).logits[0, 1:-1]
        expected = torch.log_softmax(logits, -1)[range(len(row.token_ids)), row.token_ids]
        assert row.token_ids[:3] == [70] * 3
        assert row.logprobs[3:] == pytest.approx(expected[3:].tolist(), abs=1e-4)


@pytest.mark.parametrize("width", [3, 256, 257, 1000])
def test_drawing_by_blocks_is_the_inverse_cdf(width: int) -> None:
    """Every draw falls where float64 says, also at the ends and where most tokens have no weight at all."""
    torch.manual_seed(width)
    logits_AV = torch.randn(4, width) * 4
    logits_AV[1, 1:] = -1e9
    logits_AV[2, :-1] = -1e9
    entries = [a for a in range(4) for _ in range(200)]
    uniform = [0.0, 1 - 2**-53, *(torch.rand(198, dtype=torch.float64).tolist())] * 4
    drawn = Weights.of(logits_AV).inverse_cdf(entries, uniform)
    cdf_AV = torch.softmax(logits_AV.double(), -1).cumsum(-1)
    for a, u, token in zip(entries, uniform, drawn, strict=True):
        below = cdf_AV[a, token - 1].item() if token else 0.0
        assert below - 1e-6 <= u <= cdf_AV[a, token].item() + 1e-6
        assert logits_AV[a, token] > -1e9
