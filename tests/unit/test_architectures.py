"""Architectures other than Llama against transformers' own attention and PEFT; what the trie gets wrong is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rft_ilab.config import TrainSettings
from rft_ilab.errors import PolicyError
from rft_ilab.policy.local import faithful
from rft_ilab.policy.local.decode import Row, decode
from rft_ilab.policy.local.faithful import context_length
from rft_ilab.policy.local.model import load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.export import save_merged
from rft_ilab.rl.lora import TARGETS
from rft_ilab.rl.objective import WeightedSequence
from rft_ilab.types import Message, Prompt, Sampling
from tests.tiny_model import make_tiny_model
from tests.unit.test_engine import BATCH, naive_gradients, new_engine, peft_model

# Whatever makes each one another model than a Llama is switched on.
SUPPORTED: dict[str, dict[str, Any]] = {
    "granite": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.1,
        "residual_multiplier": 0.7,
        "logits_scaling": 4.0,
        "attention_bias": True,
    },
    "qwen2": {},  # biases of q, k and v
    "qwen3": {"head_dim": 16},  # norms of q and k
    "mistral": {"head_dim": 16, "sliding_window": 64},
    "phi": {"num_key_value_heads": 4, "tied": False, "partial_rotary_factor": 0.5},  # a bias of the head
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        },
    },
}


@pytest.fixture(scope="module", params=SUPPORTED)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp(request.param), kind=request.param, **SUPPORTED[request.param])


def test_decoding_is_that_of_transformers(tiny: Path) -> None:
    loaded = load_model(tiny, torch.float32)
    prompts = [[1, 50, 60, 70], [1, 50, 60, 71, 72], [1, 80]]
    rows = [Row(i, f"{i}/{k}", float(k > 0), 12) for i in range(3) for k in range(4)]
    decode(loaded.model, prompts, rows, loaded.eos)
    reference = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager")
    for row in rows:
        prompt = prompts[row.prompt]
        with torch.no_grad():
            logits_TV = reference(torch.tensor([prompt + row.token_ids])).logits[0, len(prompt) - 1 : -1]
        if row.temperature == 0:
            assert row.token_ids == logits_TV.argmax(-1).tolist()
        logprobs_T = torch.log_softmax(logits_TV, -1)[range(len(row.token_ids)), row.token_ids]
        assert row.logprobs == pytest.approx(logprobs_T.tolist(), abs=1e-4)


def test_gradients_are_those_of_peft(tiny: Path) -> None:
    engine = new_engine(tiny)
    loss, expected = naive_gradients(engine, BATCH)
    assert engine.accumulate(BATCH).loss == pytest.approx(loss, rel=1e-4)
    actual = {n: p.grad for n, p in engine._named().items()}
    assert set(actual) == set(expected) and any(g.abs().max() > 1e-2 for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=2e-6)


def test_kl_and_entropy_are_those_of_autograd(tiny: Path) -> None:
    engine = new_engine(tiny, kl_weight=0.3)
    sequence = WeightedSequence((5, 6, 7), (8, 9, 2), weight=0.0)
    stats = engine.accumulate([sequence], entropy_weight=0.7)
    model, base = peft_model(engine), AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager")
    ids = torch.tensor([[5, 6, 7, 8, 9, 2]])
    ours, theirs = (torch.log_softmax(m(ids).logits[0, 2:-1].float(), -1) for m in (model, base))
    kl, entropy = (ours.exp() * (ours - theirs.detach())).sum(-1), -(ours.exp() * ours).sum(-1)
    (0.3 * kl.mean() - 0.7 * entropy.mean()).backward()
    assert stats.kl[""][0] == pytest.approx(kl.sum().item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            actual = engine._named()[name.replace(".default", "")].grad
            torch.testing.assert_close(actual, parameter.grad, rtol=1e-3, atol=2e-6)


def test_the_merged_model_is_what_was_trained(tiny: Path, tmp_path: Path) -> None:
    engine = new_engine(tiny)
    trained = peft_model(engine)
    save_merged(engine, tmp_path / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    ids = torch.tensor([[1, 30, 31, 32]])
    with torch.no_grad():
        # Written in bf16: 8 bits.
        difference = merged(ids).logits - trained(ids).logits
        assert difference.std() < 0.05 * trained(ids).logits.std()


REFUSED = {
    "gemma2": ({"head_dim": 8}, r"soft-capped attention scores \(attn_logit_softcapping\)"),
    "cohere": ({}, r"its logits would be others \(by .* standard deviations\)"),
    "gemma": ({"head_dim": 8}, r"it does not run \(TypeError\)"),
    "olmoe": ({}, "its attention cannot be replaced"),
    "gpt_neox": ({}, r"it does not run \(AttributeError\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_trie_would_get_wrong_is_refused(kind: str, tmp_path: Path) -> None:
    config, why = REFUSED[kind]
    with pytest.raises(PolicyError, match=f"this architecture is not supported: {why}") as caught:
        load_model(make_tiny_model(tmp_path, kind=kind, **config), torch.float32)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_small_difference_shows_without_knowing_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, where rounding hides nothing: Gemma 2's caps, were they not looked for."""
    make_tiny_model(tmp_path, kind="gemma2", head_dim=8)
    monkeypatch.setattr(faithful, "UNSUPPORTED", {})
    with pytest.raises(PolicyError, match="its logits would be others"):
        load_model(tmp_path, torch.float32)


def test_a_model_that_computes_no_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_model(tmp_path)
    monkeypatch.setattr(faithful, "logits_of", lambda model, hidden_ND: torch.full((len(hidden_ND), 260), math.nan))
    with pytest.raises(PolicyError, match=r"by nan standard deviations"):
        load_model(tmp_path, torch.float32)


def test_code_in_a_model_directory_is_neither_run_nor_offered(tmp_path: Path) -> None:
    make_tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(PolicyError, match="cannot be loaded"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ['{"version": "1.0", "model', "{}", "[]"])
def test_a_damaged_tokenizer_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (make_tiny_model(tmp_path) / "tokenizer.json").write_text(content)
    with pytest.raises(PolicyError, match="its tokenizer cannot be loaded: ") as refused:
        load_model(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    make_tiny_model(tmp_path)
    (tmp_path / "special_tokens_map.json").unlink()
    found = json.loads((tmp_path / "tokenizer_config.json").read_text())
    found |= {"eos_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(found))
    with pytest.raises(PolicyError, match="no end-of-text token"):
        load_model(tmp_path)


PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN


def with_template(directory: Path, template: str) -> Path:
    make_tiny_model(directory)
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return directory


def test_a_template_without_system_turns_gets_it_in_the_first_of_the_user(tmp_path: Path) -> None:
    loaded = load_model(with_template(tmp_path, NO_SYSTEM))
    asked, shown = Message("user", "Which?"), (Message("user", "Q"), Message("assistant", "A"))
    written = [
        loaded.decode(loaded.encode_prompt(chat))
        for chat in ((asked,), (Message("system", "Be brief."), *shown, asked))
    ]
    assert written == ["[user]Which?[assistant]", "[user]Be brief.\n\nQ[assistant]A[user]Which?[assistant]"]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('not today') }}", "its chat template refuses a chat: not today"),
        (
            "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}",
            "leaves out what the system",
        ),
        ("{{ messages[0]['content'] }}{{ messages[-1]['content'] }}", "leaves out what the user says"),
    ],
)
def test_a_template_that_cannot_say_it_all_is_refused(template: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=why):
        load_model(with_template(tmp_path, template))


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("llama", {"max_position_embeddings": 512}, 512),
        ("mistral", {"max_position_embeddings": 512, "sliding_window": 64}, 64),
        ("mistral", {"max_position_embeddings": 512, "sliding_window": None}, 512),
        ("qwen2", {"max_position_embeddings": 512, "sliding_window": 64, "use_sliding_window": False}, 512),
        ("qwen2", {"max_position_embeddings": 512, "sliding_window": 64, "use_sliding_window": True}, 64),
        ("llama4_text", {"max_position_embeddings": 512, "attention_chunk_size": 128}, 128),
    ],
)
def test_windows_and_chunks_limit_the_context(kind: str, config: dict[str, Any], expected: int) -> None:
    assert context_length(AutoConfig.for_model(kind, **config)) == expected


def test_up_to_its_window_a_model_is_exact_and_beyond_it_refused(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, kind="mistral", sliding_window=24)
    loaded = load_model(tmp_path, torch.float32)
    engine = Engine(loaded, TrainSettings(lora_rank=4, lora_alpha=8))
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ids = tuple(range(30, 55))
    with torch.no_grad():
        logprobs_TV = torch.log_softmax(reference(torch.tensor([ids])).logits[0], -1)
    (score_T,) = engine.score([(ids[:1], ids[1:])])
    expected_T = logprobs_TV[range(24), ids[1:]].tolist()
    assert score_T[:24] == pytest.approx(expected_T[:24], abs=1e-4)
    engine.accumulate([WeightedSequence(ids[:20], ids[20:24], 1.0)])
    message = "a prompt of 20 tokens and an answer of 5 are more than the 24 that it can see"
    with pytest.raises(PolicyError, match=message):
        engine.accumulate([WeightedSequence(ids[:20], ids[20:25], 1.0)])
    prompt = Prompt(task_id="t", messages=(Message("user", "x"),))
    with pytest.raises(PolicyError, match=r"a prompt of .* an answer of 12 are more than the 24"):
        next(LocalPolicy(loaded).sample([prompt], 1, Sampling(max_tokens=12)))
    assert set(TARGETS) == {name.split(".")[-1] for name in engine._lora}
