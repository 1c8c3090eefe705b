"""The stage's result on disk: PEFT adapter, merged safetensors, and a GGUF that was asked the same questions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import GenerationConfig

from rft_ilab.disk import PARTIAL, full_disk_named, make_directory, put_in_place
from rft_ilab.policy.local.gguf_file import write_llama
from rft_ilab.policy.local.model import LoadedModel
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.rl.checkpoint import scaled
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.lora import TARGETS
from rft_ilab.store import read_json, write_json
from rft_ilab.types import Prompt, Sampling

# Share of greedy answers in which GGUF (F16) and merged model must agree; near ties may fall either way.
GGUF_AGREEMENT = 0.9


def save_peft_adapter(engine: Engine, scale: float, directory: Path) -> None:
    """The adapter in PEFT's format, with ``scale`` folded into its B matrices."""
    weights = scaled(engine.adapter(), scale)
    settings = engine.settings
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(engine.loaded.directory),
        inference_mode=True,
    )
    with _fresh_directory(directory) as work:
        config.save_pretrained(str(work))
        # PEFT keeps the targets as a set, whose order is another one in every process.
        written = read_json(work / "adapter_config.json")
        write_json(work / "adapter_config.json", written | {"target_modules": sorted(TARGETS)})
        save_file({n: w.cpu() for n, w in weights.items()}, work / "adapter_model.safetensors", {"format": "pt"})


def save_merged(engine: Engine, directory: Path) -> None:
    """The sampler's weights (base + LoRA) as a Hugging Face directory, with the tokenizer.

    The result is stored in bfloat16, whatever it was trained in.
    """
    loaded = engine.sampler
    state = {
        name: tensor.to(torch.bfloat16)
        for name, tensor in loaded.model.state_dict().items()
        if "lora_" not in name and not (loaded.model.config.tie_word_embeddings and name == "lm_head.weight")
    }
    with _fresh_directory(directory) as work:
        config, dtype = loaded.model.config, loaded.model.config.torch_dtype
        generation, file = loaded.model.generation_config, loaded.directory / "generation_config.json"
        config.torch_dtype = torch.bfloat16
        if file.exists():
            # As it is: transformers reads files that it refuses to write, e.g. a temperature without do_sample.
            loaded.model.generation_config = GenerationConfig()
        loaded.model.save_pretrained(work, state_dict=state, safe_serialization=True)
        if file.exists():
            shutil.copy(file, work)
        config.torch_dtype, loaded.model.generation_config = dtype, generation
        loaded.tokenizer.save_pretrained(work)


@contextlib.contextmanager
def _fresh_directory(target: Path) -> Iterator[Path]:
    """Write into a directory beside ``target``; it takes that place only when complete."""
    work = target.with_name(f".{target.name}{PARTIAL}")
    shutil.rmtree(work, ignore_errors=True)
    with full_disk_named(target):
        try:
            make_directory(work)
            yield work
            put_in_place(work, target)
        except BaseException:
            # On a full disk what was half written would only be in the way.
            shutil.rmtree(work, ignore_errors=True)
            raise


def save_gguf(merged: LoadedModel, prompts: Sequence[Prompt], max_tokens: int, path: Path) -> dict[str, Any]:
    """Export ``merged`` as GGUF and compare greedy answers on ``prompts`` through llama.cpp.

    Returns ``{"checked", "agree", "kept", "sha256"}``; when too few agree the file is removed, since it would be
    another model than the one that is judged, and ``kept`` is False. Raises PolicyError for a model that the export
    does not cover.
    """
    write_llama(merged.directory, path)
    ours = [
        r.completion for r in LocalPolicy(merged).sample(prompts, 1, Sampling(temperature=0, max_tokens=max_tokens))
    ]
    theirs = _llama_cpp_answers(path, merged, prompts, max_tokens)
    agree = sum(a.strip() == b.strip() for a, b in zip(ours, theirs, strict=True))
    kept = agree >= GGUF_AGREEMENT * len(prompts)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if not kept:
        path.unlink()
    return {"checked": len(prompts), "agree": agree, "kept": kept, "sha256": sha256}


def _llama_cpp_answers(path: Path, merged: LoadedModel, prompts: Sequence[Prompt], max_tokens: int) -> list[str]:
    from llama_cpp import Llama

    encoded = [merged.encode_prompt(prompt.messages) for prompt in prompts]
    context = max(map(len, encoded)) + max_tokens
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        llama = Llama(str(path), n_ctx=context, n_batch=512, verbose=False, logits_all=False)
    answers = []
    for tokens in encoded:
        llama.reset()
        out: list[int] = []
        for token in llama.generate(tokens, temp=0.0, repeat_penalty=1.0):
            out.append(token)
            if token in merged.eos or len(out) == max_tokens:
                break
        answers.append(merged.decode(out))
    llama.close()
    return answers
