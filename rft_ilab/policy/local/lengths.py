"""How many tokens a chat has, without loading the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rft_ilab.errors import PolicyError
from rft_ilab.types import Message


def chat_counter(directory: Path) -> Callable[[tuple[Message, ...]], int]:
    """Tokens of a chat as the model's own template writes it, system turn included. Raises PolicyError, also later."""
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # nothing more special comes from the tokenizers library for a broken file
        raise PolicyError(f"its tokenizer cannot be loaded: {error}", where=directory) from error
    if not tokenizer.chat_template:
        raise PolicyError("its tokenizer has no chat template", where=directory, fix="use an instruction-tuned model")

    def count(messages: tuple[Message, ...]) -> int:
        try:
            ids = tokenizer.apply_chat_template([m.as_dict() for m in messages], add_generation_prompt=True)
        except TemplateError as error:
            raise PolicyError(
                f"its chat template refuses a chat: {error}", where=directory, fix="use another model"
            ) from error
        return len(ids)

    return count
