"""Is there room for what the stage will write? Asked before hours of training, not after them."""

from __future__ import annotations

from pathlib import Path

from rft_ilab.config import TrainSettings
from rft_ilab.disk import free_bytes, size
from rft_ilab.errors import DiskError
from rft_ilab.rl import parallel
from rft_ilab.rl.checkpoint import KEPT
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.groups import REFILLS

# Of one rollout in rollouts.jsonl, with its prompt, roughly.
ROW_BYTES = 1000
WEIGHT_BYTES = 2  # bfloat16 in model/, F16 in model.gguf


def planned_bytes(engine: Engine, settings: TrainSettings) -> dict[str, int]:
    """What the whole stage has on disk at its fullest, by kind."""
    adapter = sum(p.numel() * p.element_size() for p in engine.parameters)
    # Weights and two moments, and the same as they were before the last update; one more while it is written.
    checkpoint = 2 * 3 * adapter
    model = engine.sampler.model
    others = sum(
        p.stat().st_size for p in engine.loaded.directory.iterdir() if p.suffix not in {".safetensors", ".bin"}
    )
    merged = WEIGHT_BYTES * sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n) + others
    rollouts = settings.steps * settings.prompts * (1 + REFILLS) * settings.group_size
    return {
        "checkpoints": (KEPT + 1) * checkpoint,
        "adapters": (3 + settings.steps // max(1, settings.val_every)) * adapter,
        "rollouts": rollouts * ROW_BYTES,
        "model": merged * (2 if model.config.model_type == "llama" else 1),
    }


def require_space(engine: Engine, settings: TrainSettings, directory: Path) -> None:
    """Raises DiskError when what is still to be written below ``directory`` will not fit."""
    planned = planned_bytes(engine, settings)
    if parallel.rank():
        # Where several processes train, only the first one writes the result.
        planned["model"] = 0
    present = sum(p.stat().st_size for p in (directory / "rl").rglob("*") if p.is_file())
    needed = max(sum(planned.values()) - present, planned["model"])
    free = free_bytes(directory)
    if free < needed:
        parts = ", ".join(f"{kind} {size(count)}" for kind, count in planned.items())
        raise DiskError(
            f"training would write about {size(needed)} more here, and {size(free)} are free (in all: {parts})",
            where=directory,
            fix="make room there, or start a run elsewhere with --run PATH",
        )
