"""A local model by its name: loaded when it is first asked something. What is cached needs the name alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rft_ilab.errors import PolicyError
from rft_ilab.policy.local.identity import check_model_directory, directory_digest, remembered_format
from rft_ilab.store import Cache
from rft_ilab.types import Prompt, Rollout, Sampling

if TYPE_CHECKING:
    from rft_ilab.policy.local.model import LoadedModel
    from rft_ilab.policy.local.sampler import LocalPolicy


class LazyPolicy:
    """The policy of a model directory. ``id`` is that of its :class:`~rft_ilab.policy.local.sampler.LocalPolicy`.

    Raises PolicyError unless the directory looks like a model.
    """

    def __init__(self, directory: Path, cache: Cache | None = None) -> None:
        check_model_directory(directory)
        self.directory = directory
        self.dtype = remembered_format() or _found_format()
        self.id = f"local:{directory_digest(directory, cache)}:{self.dtype}"

    @cached_property
    def policy(self) -> LocalPolicy:
        """The loaded model. Raises PolicyError."""
        import torch

        from rft_ilab.policy.local.model import load_model
        from rft_ilab.policy.local.sampler import LocalPolicy

        # In the number format of the name, so that what is cached under it is true whatever the machine prefers now.
        policy = LocalPolicy(load_model(self.directory, getattr(torch, self.dtype)))
        if policy.id != self.id:
            raise PolicyError("is not the model that it was a moment ago", where=self.directory, fix="start again")
        return policy

    @property
    def loaded(self) -> LoadedModel:
        """Raises PolicyError."""
        return self.policy.loaded

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        return self.policy.sample(prompts, n, sampling)


def _found_format() -> str:
    from rft_ilab.policy.local.model import choose_dtype

    return str(choose_dtype()).removeprefix("torch.")
