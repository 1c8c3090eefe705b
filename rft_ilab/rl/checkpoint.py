"""Resumable training state: written whole to a new directory, then made current by one atomic rename.

Weights and optimiser moments are safetensors, everything else JSON; no pickle.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rft_ilab.errors import RunError
from rft_ilab.rl.engine import Engine
from rft_ilab.store import read_json, write_json

POINTER = "current.json"


def save_adapter(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write adapter weights atomically as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file({n: w.contiguous().cpu() for n, w in weights.items()}, temporary)
    temporary.replace(path)


def load_adapter(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"adapter cannot be read: {error}", where=path, fix="remove the run and start again") from error


def scaled(weights: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """Adapter weights with ``scale`` folded into the B matrices."""
    return {n: w * scale if "lora_B" in n else w for n, w in weights.items()}


def save_checkpoint(engine: Engine, directory: Path, facts: Mapping[str, Any]) -> None:
    """Save adapter, optimiser and ``facts`` (JSON, with a ``step``) below ``directory``; keep the newest only."""
    fresh = directory / f"step-{facts['step']:05d}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_adapter(engine.adapter(), fresh / "adapter.safetensors")
    moments: dict[str, torch.Tensor] = {}
    for i, parameter in enumerate(engine.parameters):
        for key, value in engine.optimizer.state.get(parameter, {}).items():
            moments[f"{i}.{key}"] = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
    save_adapter(moments, fresh / "optimizer.safetensors")
    write_json(fresh / "facts.json", dict(facts))
    write_json(directory / POINTER, {"checkpoint": fresh.name})
    for old in directory.glob("step-*"):
        if old != fresh:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(engine: Engine, directory: Path) -> dict[str, Any] | None:
    """Restore the newest state into ``engine``; returns its facts, or None if there is none."""
    if not (directory / POINTER).exists():
        return None
    current = directory / read_json(directory / POINTER)["checkpoint"]
    engine.load_adapter(load_adapter(current / "adapter.safetensors"))
    moments = load_adapter(current / "optimizer.safetensors")
    for i, parameter in enumerate(engine.parameters):
        state = {key.split(".", 1)[1]: value for key, value in moments.items() if key.startswith(f"{i}.")}
        if state:
            engine.optimizer.state[parameter] = state
    facts: dict[str, Any] = read_json(current / "facts.json")
    return facts
