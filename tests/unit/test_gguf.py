"""What the GGUF export covers, and what it says of the rest before it writes anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rft_ilab.errors import PolicyError
from rft_ilab.policy.local.gguf_file import uncovered
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl.export import save_gguf
from rft_ilab.types import Message, Prompt
from tests.tiny_model import make_tiny_model


@pytest.mark.parametrize(
    ("config", "prompt"),
    # A head of another width than hidden_size / heads; prompts longer than llama.cpp's usual context.
    [({"head_dim": 16}, "hello"), ({"max_position_embeddings": 4096}, "x" * 1100)],
)
def test_llama_cpp_answers_alike(
    config: dict[str, Any], prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model's logits lie close together, so F16 may flip some.
    monkeypatch.setattr("rft_ilab.rl.export.GGUF_AGREEMENT", 0.5)
    loaded = load_model(make_tiny_model(tmp_path / "model", **config), torch.float32)
    assert uncovered(loaded.directory) == ""
    prompts = [Prompt(task_id=str(i), messages=(Message("user", f"{prompt}{i}"),)) for i in range(6)]
    found = save_gguf(loaded, prompts, 8, tmp_path / "model.gguf")
    assert found["checked"] == 6 and found["agree"] >= 3 and (tmp_path / "model.gguf").exists()


def test_a_gguf_that_answers_otherwise_is_removed_and_does_not_stop_a_finished_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(make_tiny_model(tmp_path / "model"), torch.float32)
    prompts = [Prompt(task_id="0", messages=(Message("user", "hello"),))]
    monkeypatch.setattr("rft_ilab.rl.export._llama_cpp_answers", lambda *_: ["something else"])
    found = save_gguf(loaded, prompts, 8, tmp_path / "model.gguf")
    assert found == {"checked": 1, "agree": 0, "kept": False, "sha256": found["sha256"]}
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"kind": "qwen2"}, "export covers Llama models, not qwen2"),
        ({"attention_bias": True}, "export covers Llama models without attention_bias"),
        ({"mlp_bias": True}, "export covers Llama models without mlp_bias"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, "export covers Llama models without rope_scaling"),
    ],
)
def test_what_is_not_covered_is_said_and_not_written(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    loaded = load_model(make_tiny_model(tmp_path / "model", **config), torch.float32)
    assert uncovered(loaded.directory) == why
    with pytest.raises(PolicyError, match=f"no GGUF: {why}"):
        save_gguf(loaded, [], 8, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_tokenizers_are_not_covered(tmp_path: Path) -> None:
    make_tiny_model(tmp_path)
    file = tmp_path / "tokenizer.json"
    raw = json.loads(file.read_text())
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}
    file.write_text(json.dumps(raw))
    why = "export covers byte-level BPE tokenizers split by Digits+ByteLevel or ByteLevel"
    assert uncovered(tmp_path) == why
    file.unlink()
    assert uncovered(tmp_path) == why
