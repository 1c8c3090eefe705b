"""A GRPO step of a model with 1.24 billion parameters: how much memory it takes."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

from tools.bench_rl_ours import Bench, Rows

# Llama-3.2-1B's, with tied embeddings.
SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
NAME = "1.24 billion parameters"
TOKENS = 8


def large_model(tokenizer_of: Path, device: str = "cpu") -> Any:
    """Random weights, made in memory in bfloat16; the embedded model's tokenizer, whose ids are among the first."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from rft_ilab.policy.local import attention
    from rft_ilab.policy.local.model import LoadedModel

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, max_position_embeddings=4096, rope_theta=500_000.0, tie_word_embeddings=True)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16, attn_implementation=attention.NAME)
    model.eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of, local_files_only=True)
    return LoadedModel(model, tokenizer, frozenset({tokenizer.eos_token_id}), "random", tokenizer_of)


def large(tokenizer_of: Path, rows: Rows) -> None:
    """One step, printed with the memory it takes."""
    started = time.monotonic()
    loaded = large_model(tokenizer_of)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    took = time.monotonic() - started
    print(f"{parameters / 1e9:.2f} billion parameters made in {took:.0f} s: {_memory()}", flush=True)
    bench = Bench(loaded, rows, TOKENS, "halves", exact=True)
    print(f"with adapters, and base and merged weights apart: {_memory()}", flush=True)
    found = bench.step()
    row = found["row"]
    print(
        f"one step, {row['groups']} groups, {row['completion_tokens']} tokens, {row['nodes']} trie nodes: {_memory()}; "
        f"decode {found['decode_s']:.0f} s, train {found['train_s']:.0f} s of the processor"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    last = {"large_parameters": parameters, "large_peak_rss_mb": round(peak / 2**20)}
    last |= {f"large_{key}": round(found[key], 1) for key in ("wall_s", "cpu_s", "decode_s", "train_s")}
    print(json.dumps(last | {"large_nodes": row["nodes"], "large_fits_24_gb": peak < 24e9}))


def _memory() -> str:
    """Present and highest resident memory of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(status[key].split()[0]) / 2**20 for key in ("VmRSS", "VmHWM"))
    return f"{now:.1f} GiB resident, at most {peak:.1f} so far"
