"""Resumable training state: written whole to a new directory, then put in place by one atomic rename.

Weights and optimiser moments are safetensors, everything else JSON; no pickle. The two newest are kept: if the newest
turns out to be damaged, its digests tell, and the one before it serves.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save

from rft_ilab.disk import PARTIAL, full_disk_named, make_directory, put_in_place
from rft_ilab.errors import RunError
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.guard import TrainingState, restore_state, training_state
from rft_ilab.store import write_atomic, write_json

KEPT = 2
FACTS = "facts.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``facts`` as they were saved; ``before`` is the training state before the last update, if there was one."""

    facts: dict[str, Any]
    before: TrainingState | None


def save_adapter(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write adapter weights atomically as safetensors."""
    write_atomic(path, save({n: w.contiguous().cpu() for n, w in weights.items()}))


def load_adapter(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"adapter cannot be read: {error}", where=path, fix="remove the run and start again") from error


def scaled(weights: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """Adapter weights with ``scale`` folded into the B matrices."""
    return {n: w * scale if "lora_B" in n else w for n, w in weights.items()}


def save_checkpoint(
    engine: Engine, directory: Path, name: str, facts: Mapping[str, Any], before: TrainingState | None = None
) -> None:
    """Save the engine's training state, ``before`` and ``facts`` (JSON) as ``directory/name``.

    Names must sort by age; all but the newest two are removed. Raises DiskError; the older ones stay then.
    """
    work = directory / f".{name}{PARTIAL}"
    shutil.rmtree(work, ignore_errors=True)
    states = {"state.safetensors": training_state(engine)}
    if before is not None:
        states["before.safetensors"] = before
    with full_disk_named(directory / name):
        try:
            make_directory(work)
            for file, state in states.items():
                save_adapter(state, work / file)
            write_json(work / FACTS, {"files": {file: _sha256(work / file) for file in states}, "facts": dict(facts)})
            put_in_place(work, directory / name)
        except BaseException:
            # On a full disk what was half written would only be in the way.
            shutil.rmtree(work, ignore_errors=True)
            raise
    for old in _names(directory)[:-KEPT]:
        shutil.rmtree(directory / old, ignore_errors=True)


def load_checkpoint(engine: Engine, directory: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Restore the newest state that is whole into ``engine``; None if there is none.

    Damaged ones are removed, with a line each. Raises OSError where files are there but must not be read.
    """
    untouched = training_state(engine)
    for name in reversed(_names(directory)):
        try:
            facts, states = _read(directory / name)
            restore_state(engine, states["state.safetensors"])
        except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, FileNotFoundError) as error:
            say(f"checkpoint {name} is damaged ({error}): going back to the one before it, or to the start")
            shutil.rmtree(directory / name, ignore_errors=True)
            restore_state(engine, untouched)
            continue
        return Checkpoint(facts, states.get("before.safetensors"))
    return None


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, TrainingState]]:
    written = json.loads((directory / FACTS).read_bytes())
    states = {}
    for file, digest in written["files"].items():
        if _sha256(directory / file) != digest:
            raise ValueError(f"{file} is not what was written")
        states[file] = load((directory / file).read_bytes())
    return written["facts"], states


def _names(directory: Path) -> list[str]:
    """Of complete checkpoints, oldest first."""
    return sorted(path.name for path in directory.glob("[!.]*") if path.is_dir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
