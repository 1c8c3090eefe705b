"""Llama-family models between GGUF and Hugging Face, both ways.

The two differ in tensor names and in the order of query and key rows (GGUF interleaves the halves that
rotary embedding pairs; Hugging Face keeps them apart). Format: the GGUF specification of ggml.
What is not covered: quantising on export (F16 is written), other architectures, SentencePiece tokenizers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from rft_ilab.disk import PARTIAL, full_disk_named, put_in_place
from rft_ilab.errors import PolicyError

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name: str) -> str:
    """Hugging Face name of a GGUF tensor.

    >>> hf_name("blk.3.attn_q.weight"), hf_name("token_embd.weight")
    ('model.layers.3.self_attn.q_proj.weight', 'model.embed_tokens.weight')
    """
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    return f"{OUTER_NAMES[parts[0]]}.weight"


def gguf_name(name: str) -> str:
    """GGUF name of a Hugging Face tensor; the inverse of :func:`hf_name`."""
    parts = name.removesuffix(".weight").split(".")
    if parts[:2] == ["model", "layers"]:
        inverse = {hf: short for short, hf in LAYER_NAMES.items()}
        return f"blk.{parts[2]}.{inverse['.'.join(parts[3:])]}.weight"
    return f"{ {hf: short for short, hf in OUTER_NAMES.items()}['.'.join(parts)] }.weight"


def to_rotate_half(rows_OI: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows from GGUF's interleaved order to Hugging Face's, shape (heads * D, in)."""
    out, width = rows_OI.shape
    return rows_OI.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)


def to_interleaved(rows_OI: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of :func:`to_rotate_half`."""
    out, width = rows_OI.shape
    return rows_OI.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


def read_llama(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Fields and dequantised tensors (bfloat16, Hugging Face names) of a Llama GGUF.

    Raises PolicyError when the file is not a GGUF of that architecture.
    """
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise PolicyError(f"not a readable GGUF: {error}", where=path) from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama":
        raise PolicyError(f"architecture {fields.get('general.architecture')!r} is not supported", where=path)
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    tensors: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            weights = to_rotate_half(weights, heads if ".attn_q." in tensor.name else kv_heads)
        tensors[hf_name(tensor.name)] = torch.from_numpy(np.array(weights)).to(torch.bfloat16)
    return fields, tensors


# What llama.cpp calls a tokenizer's pre-splitting, by the splitting itself (tokenizer.json, pre_tokenizer).
PRE_TOKENIZERS = {"Digits+ByteLevel": "smollm", "ByteLevel": "gpt-2"}


def uncovered(model_directory: Path) -> str:
    """What of a model this exporter does not cover; empty if it can be exported."""
    config = json.loads((model_directory / "config.json").read_text())
    if config.get("model_type") != "llama":
        return f"export covers Llama models, not {config.get('model_type')}"
    for key in ("rope_scaling", "attention_bias", "mlp_bias"):
        if config.get(key):
            return f"export covers Llama models without {key}"
    file = model_directory / "tokenizer.json"
    raw = json.loads(file.read_text()) if file.exists() else {}
    if raw.get("model", {}).get("type") != "BPE" or _splitting(raw) not in PRE_TOKENIZERS:
        return f"export covers byte-level BPE tokenizers split by {' or '.join(PRE_TOKENIZERS)}"
    return ""


def _splitting(raw: Mapping[str, Any]) -> str:
    pre = raw.get("pre_tokenizer") or {}
    return "+".join(p.get("type", "?") for p in pre.get("pretokenizers", [pre]))


def write_llama(model_directory: Path, path: Path) -> None:
    """Write a merged Llama model (safetensors, byte-level BPE) as an F16 GGUF, atomically.

    Raises PolicyError for what is :func:`uncovered`, DiskError when there is no room.
    """
    from safetensors import safe_open

    if why := uncovered(model_directory):
        raise PolicyError(f"no GGUF: {why}", where=model_directory)
    config = json.loads((model_directory / "config.json").read_text())
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(temporary, "llama")
    writer.add_name(model_directory.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(config["rope_theta"])
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, model_directory)
    for file in sorted(model_directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                weights = tensors.get_tensor(name).float().numpy()
                if ".q_proj." in name or ".k_proj." in name:
                    weights = to_interleaved(weights, heads if ".q_proj." in name else kv_heads)
                # llama.cpp wants norms (vectors) in full precision.
                kept = weights if weights.ndim == 1 else weights.astype(np.float16)
                writer.add_tensor(gguf_name(name), np.ascontiguousarray(kept))
    with full_disk_named(path):
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            put_in_place(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _add_tokenizer(writer: Any, model_directory: Path) -> None:
    """Vocabulary, merges, special tokens and chat template from ``tokenizer.json`` and its config."""
    raw = json.loads((model_directory / "tokenizer.json").read_text())
    config = json.loads((model_directory / "tokenizer_config.json").read_text())
    vocabulary: dict[str, int] = raw["model"]["vocab"]
    special = {t["content"]: t["id"] for t in raw["added_tokens"]}
    tokens = sorted({**vocabulary, **special}.items(), key=lambda entry: entry[1])
    types = [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t, _ in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZERS[_splitting(raw)])
    writer.add_token_list([t for t, _ in tokens])
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]])
    for key, add in {
        "bos_token": writer.add_bos_token_id,
        "eos_token": writer.add_eos_token_id,
        "pad_token": writer.add_pad_token_id,
        "unk_token": writer.add_unk_token_id,
    }.items():
        name = config.get(key)
        name = name["content"] if isinstance(name, dict) else name
        if name is not None:
            add(special.get(name, vocabulary.get(name)))
    writer.add_add_bos_token(False)
    template_file = model_directory / "chat_template.jinja"
    writer.add_chat_template(template_file.read_text() if template_file.exists() else config["chat_template"])
