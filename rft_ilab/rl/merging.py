"""An adapter merged into its base once more, to prove that together they are the weights that were judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rft_ilab.errors import PolicyError
from rft_ilab.rl.lora import merged

PREFIX = "base_model.model."


def merged_digests(base: Path, adapter: Path, files: Mapping[str, Sequence[str]], dtype: str) -> dict[str, str]:
    """sha256 of each file of merged weights, as training would write it (rft_ilab/rl/export.py), in bfloat16.

    ``files`` names the tensors of each; ``adapter`` is a PEFT directory; ``dtype`` is the number format in which
    training merged. Rounding follows :func:`rft_ilab.rl.lora.merged`. A processor that multiplies in another order may
    round otherwise. Raises PolicyError where a tensor is missing or a file cannot be read.
    """
    scaling = _scaling(adapter / "adapter_config.json")
    own = _tensors(sorted(base.glob("*.safetensors")))
    low = _tensors([adapter / "adapter_model.safetensors"])
    working = getattr(torch, dtype)
    found = {}
    for file, names in files.items():
        state = {}
        for name in names:
            if name not in own:
                raise PolicyError(
                    f"no tensor {name!r} in the base model", where=base, fix="name the right one with --base"
                )
            weight, stem = own[name].to(working), PREFIX + name.removesuffix(".weight")
            a, b = low.get(f"{stem}.lora_A.weight"), low.get(f"{stem}.lora_B.weight")
            if a is not None and b is not None:
                weight = merged(weight, a, b, scaling)
            state[name] = weight.to(torch.bfloat16).contiguous()
        found[file] = hashlib.sha256(save(state, {"format": "pt"})).hexdigest()
    return found


def tensor_names(file: Path) -> list[str]:
    """The names of the tensors in a safetensors file. Raises PolicyError if it is none."""
    try:
        with safe_open(file, "pt") as opened:
            return sorted(opened.keys())
    except (OSError, SafetensorError) as error:
        raise PolicyError(f"cannot be read: {error}", where=file) from error


def _tensors(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise PolicyError(f"cannot be read: {error}", where=file) from error
    return tensors


def _scaling(config: Path) -> float:
    """alpha / r. Raises PolicyError where the settings are not those of a plain LoRA, which is all we write."""
    try:
        found: Any = json.loads(config.read_text(encoding="utf-8"))
        rank, alpha = float(found["r"]), float(found["lora_alpha"])
        plain = found["peft_type"] == "LORA" and not any(
            found.get(k) for k in ("use_dora", "use_rslora", "rank_pattern")
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"not the settings of a LoRA adapter: {error!r}", where=config) from error
    if not plain or not 0 < rank < 1e6:
        raise PolicyError("not a plain LoRA adapter", where=config)
    return alpha / rank
