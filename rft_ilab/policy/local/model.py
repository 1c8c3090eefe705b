"""Loading a Hugging Face causal LM directory: weights, tokenizer, dtype, identity."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rft_ilab.errors import PolicyError
from rft_ilab.policy.local import attention, faithful
from rft_ilab.policy.local.identity import (
    check_model_directory,
    directory_digest,
    remember_format,
    remembered_format,
)
from rft_ilab.policy.local.packed import pack
from rft_ilab.policy.local.trie import build_trie
from rft_ilab.types import Message


def choose_dtype() -> torch.dtype:
    """The faster of bfloat16 and float32 on this machine, measured once and remembered.

    CPU flags do not tell: of two processors that both list avx512_bf16, one ran bf16 matrix products
    2.4 times as fast as fp32, the other 0.6 times. Emulated bf16 is slower still.
    """
    if torch.cuda.is_available():
        name = "bfloat16"
    elif not torch.cpu._is_avx512_bf16_supported():
        name = "float32"
    elif known := remembered_format():
        name = known
    else:
        seconds = {dtype: _matmul_seconds(dtype) for dtype in (torch.bfloat16, torch.float32)}
        name = "bfloat16" if seconds[torch.bfloat16] < seconds[torch.float32] else "float32"
    if remembered_format() != name:
        remember_format(name)
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Least CPU seconds of a typical matrix product (256 positions); the least is what noise cannot fake."""
    x, w = torch.randn(256, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    best = float("inf")
    for _ in range(12):
        started = time.process_time()
        torch.nn.functional.linear(x, w)
        best = min(best, time.process_time() - started)
    return best


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to decode or train. ``digest`` names its weights and tokenizer."""

    model: Any
    tokenizer: Any
    eos: frozenset[int]
    digest: str
    directory: Path

    def encode_prompt(self, messages: tuple[Message, ...]) -> list[int]:
        """Token ids of the chat, up to where the assistant starts to speak. Raises PolicyError."""
        text = chat_text(self.tokenizer, messages, self.directory)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def refuse_too_long(self, prompt: int, answer: int) -> None:
        """Raises PolicyError if so many tokens do not fit into what the model can see at once."""
        most = faithful.context_length(self.model.config)
        if prompt + answer > most:
            raise PolicyError(
                f"a prompt of {prompt} tokens and an answer of {answer} are more than the {most} that it can see",
                where=self.directory,
                fix="shorten the prompt, or lower demonstrations or max_tokens of the skill in rft.toml",
            )

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of an answer, with the end-of-turn token that closes it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return [*ids, self.tokenizer.eos_token_id]

    def decode(self, token_ids: list[int]) -> str:
        kept = token_ids[:-1] if token_ids and token_ids[-1] in self.eos else token_ids
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def chat_text(tokenizer: Any, messages: Sequence[Message], directory: Path) -> str:
    """The chat as the model's template writes it, up to where the assistant starts to speak.

    A template that knows no system turn (those of Mistral and Gemma) gets it at the head of the first user's, as their
    makers recommend. Raises PolicyError where the template refuses that, too.
    """
    from jinja2 import TemplateError

    turns = [m.as_dict() for m in messages]
    forms = [turns]
    if len(turns) > 1 and (turns[0]["role"], turns[1]["role"]) == ("system", "user"):
        content = f"{turns[0]['content']}\n\n{turns[1]['content']}"
        forms.append([{"role": "user", "content": content}, *turns[2:]])
    for form in forms:
        try:
            text: str = tokenizer.apply_chat_template(form, tokenize=False, add_generation_prompt=True)
            return text
        except TemplateError as error:
            why = error
    raise PolicyError(f"its chat template refuses a chat: {why}", where=directory, fix="use another model") from why


def _check_template(tokenizer: Any, directory: Path) -> None:
    """Raises PolicyError if the chat template leaves out what it is given."""
    chat = (
        Message("system", "Answer briefly."),
        Message("user", "Which?"),
        Message("assistant", "This."),
        Message("user", "Why?"),
    )
    text = chat_text(tokenizer, chat, directory)
    if missing := [m.role for m in chat if m.content not in text]:
        raise PolicyError(
            f"its chat template leaves out what the {missing[0]} says",
            where=directory,
            fix="use an instruction-tuned model",
        )


def load_model(directory: Path, dtype: torch.dtype | None = None) -> LoadedModel:
    """Load a causal LM and its tokenizer from a directory, never from a hub.

    Raises PolicyError when the directory is no model, its tokenizer has no chat template or no end-of-text token, or
    the trie would not run it as it is.
    """
    check_model_directory(directory)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # nothing more special comes from the tokenizers library for a broken file
        raise _unloadable("its tokenizer cannot be loaded", error, directory) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            local_files_only=True,
            # Code in the directory is not run, nor does transformers ask whether it should be.
            trust_remote_code=False,
            torch_dtype=dtype or choose_dtype(),
            attn_implementation=attention.NAME,
            # InstructLab's full training writes "torchscript": true, which makes models return tuples.
            torchscript=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if isinstance(error, KeyError) and error.args == (attention.NAME,):
            raise faithful.refusal("its attention cannot be replaced", directory) from error
        raise _unloadable("cannot be loaded", error, directory) from error
    if not tokenizer.chat_template:
        raise PolicyError("its tokenizer has no chat template", where=directory, fix="use an instruction-tuned model")
    _check_template(tokenizer, directory)
    if tokenizer.eos_token_id is None:
        raise PolicyError("its tokenizer has no end-of-text token", where=directory, fix="name its eos_token there")
    generation = model.generation_config.eos_token_id
    eos = {tokenizer.eos_token_id, *(generation if isinstance(generation, list) else [generation])} - {None}
    if torch.cuda.is_available():
        model = model.cuda()
    model.eval().requires_grad_(False)
    pack(model)
    faithful.refuse_unfaithful(model, directory)
    return LoadedModel(model, tokenizer, frozenset(eos), directory_digest(directory), directory)


def _unloadable(what: str, error: Exception, directory: Path) -> PolicyError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return PolicyError(f"{what}: {first[:200]}", where=directory, fix="copy or train the model again")


def positions_per_second(loaded: LoadedModel) -> float:
    """Speed of a forward pass over 256 positions, the better of two: what estimates are made with."""
    trie = build_trie([[loaded.tokenizer.eos_token_id] * 256])
    plan = attention.TriePlan(trie, loaded.model)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(2):
            started = time.monotonic()
            # Reading a number waits for a GPU, too.
            attention.hidden_states(loaded.model, trie.token_ids_N, trie.depth_N, plan)[-1, 0].item()
            best = min(best, time.monotonic() - started)
    return 256 / best
