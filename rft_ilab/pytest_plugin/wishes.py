"""What the command line asks for, checked before anything is collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rft_ilab.store import user_directory
from rft_ilab.types import Split

if TYPE_CHECKING:
    from rft_ilab.config import GateSettings
    from rft_ilab.types import Sampling

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """``model`` is as given; ``directory`` is None for the embedded model and for a server (``url``).

    ``samples`` 0 is one greedy answer a task. ``least`` maps skills to the accuracy asked of them, "" all others.
    """

    model: str
    directory: Path | None
    url: str | None
    endpoint_model: str | None
    split: Split
    limit: int | None
    demonstrations: int
    samples: int
    pass_rate: float
    least: Mapping[str, float]
    fresh: bool

    @property
    def answers(self) -> int:
        """Answers to each task."""
        return self.samples or 1

    def sampling(self, gate: GateSettings, max_tokens: int) -> Sampling:
        """As the gate asks a model: greedy, or with its temperature and seed."""
        from rft_ilab.types import Sampling

        if not self.samples:
            return Sampling(temperature=0.0, max_tokens=max_tokens)
        return Sampling(temperature=gate.temperature, max_tokens=max_tokens, seed=gate.seed)

    def wanted(self, skill: str) -> float | None:
        """The accuracy asked of a skill, if any is."""
        return self.least.get(skill, self.least.get(""))

    def __str__(self) -> str:
        how = f"{self.samples} samples a task, {self.pass_rate:g} of them right" if self.samples else "greedy"
        shown = f", {self.demonstrations} demonstrations" if self.demonstrations else ""
        return f"{self.model}, {self.split} split, {how}{shown}"


def read_wishes(config: pytest.Config) -> Wishes:
    """The options of this run. Raises pytest.UsageError for what can be seen to be wrong without a model."""
    option = config.getoption
    model: str = option("--rft-model")
    url = model if model.lower().startswith(("http://", "https://")) else None
    for name, least in (("--rft-limit", 1), ("--rft-demonstrations", 0), ("--rft-samples", 1)):
        value = option(name)
        if value is not None and value < least:
            raise pytest.UsageError(f"{name} {value}: must be at least {least}")
    if not 0.0 < option("--rft-pass-rate") <= 1.0:
        raise pytest.UsageError(f"--rft-pass-rate {option('--rft-pass-rate')}: must be above 0, at most 1")
    if option("--rft-endpoint-model") and not url:
        raise pytest.UsageError("--rft-endpoint-model: --rft-model is no URL of a server")
    return Wishes(
        model=model,
        directory=None if url or model == EMBEDDED else _directory(model),
        url=url,
        endpoint_model=option("--rft-endpoint-model"),
        split=option("--rft-split"),
        limit=option("--rft-limit"),
        demonstrations=option("--rft-demonstrations"),
        samples=option("--rft-samples") or 0,
        pass_rate=option("--rft-pass-rate"),
        least=_least(option("--rft-min-accuracy")),
        fresh=option("--rft-fresh"),
    )


def _directory(model: str) -> Path:
    path = Path(model).expanduser()
    if model and path.is_dir():
        return path.resolve()
    run = user_directory("data") / "runs" / model / "model"
    if model and "/" not in model and run.is_dir():
        return run
    known = f"a model directory, a run in {run.parent.parent}, '{EMBEDDED}', or http(s)://host/v1"
    raise pytest.UsageError(f"--rft-model {model!r}: no such model ({known})")


def _least(given: Sequence[str]) -> dict[str, float]:
    least = {}
    for text in given:
        skill, _, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= 1.0 or ("=" in text and not skill):
            raise pytest.UsageError(f"--rft-min-accuracy {text!r}: write area/skill=0.8, or 0.8 for all skills")
        least[skill.strip("/")] = value
    return least
