"""An adapter merged into its base once more, to prove that together they are the weights that were judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rft_ilab.errors import PolicyError
from rft_ilab.rl.lora import merged

PREFIX = "base_model.model."
# What an adapter's settings say that changes no answer, or that is checked below; anything else must be switched off.
# Other libraries add a layer's own alpha, copies of layers, whole other weights, by keys that this one need not know.
FREE = {"r", "lora_alpha", "target_modules", "base_model_name_or_path", "inference_mode", "lora_dropout", "task_type"}
FREE |= {"peft_version", "megatron_core", "qalora_group_size"}
PLAIN = {"peft_type": "LORA", "bias": "none", "init_lora_weights": True}


def merged_digests(base: Path, adapter: Path, files: Mapping[str, Sequence[str]], dtype: str) -> dict[str, str]:
    """sha256 of each file of merged weights, as training would write it (rft_ilab/rl/export.py), in bfloat16.

    ``files`` names the tensors of each; ``adapter`` is a PEFT directory; ``dtype`` is the number format in which
    training merged. Rounding follows :func:`rft_ilab.rl.lora.merged`. A processor that multiplies in another order may
    round otherwise. Raises PolicyError where a tensor is missing or a file cannot be read, and where a program that
    loads the adapter would do more than this: by its settings, or with tensors that take no part here.
    """
    scaling, targets = _settings(adapter / "adapter_config.json")
    own = _tensors(sorted(base.glob("*.safetensors")))
    low = _tensors([adapter / "adapter_model.safetensors"])
    working = getattr(torch, dtype)
    found = {}
    used = set()
    for file, names in files.items():
        state = {}
        for name in names:
            if name not in own:
                raise PolicyError(
                    f"no tensor {name!r} in the base model", where=base, fix="name the right one with --base"
                )
            weight, stem = own[name].to(working), PREFIX + name.removesuffix(".weight")
            a, b = low.get(f"{stem}.lora_A.weight"), low.get(f"{stem}.lora_B.weight")
            if a is not None and b is not None and stem.rsplit(".", 1)[-1] in targets:
                weight = _merged(weight, a, b, scaling, adapter)
                used |= {f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"}
            state[name] = weight.to(torch.bfloat16).contiguous()
        found[file] = hashlib.sha256(save(state, {"format": "pt"})).hexdigest()
    if unused := set(low) - used:
        raise PolicyError(f"{min(unused)!r} takes no part in the judged weights", where=adapter, fix="ship it again")
    return found


def _merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float, adapter: Path) -> torch.Tensor:
    try:
        return merged(weight, a, b, scaling)
    except RuntimeError as error:
        raise PolicyError(f"does not fit its base: {str(error).splitlines()[0]}", where=adapter) from error


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


def _settings(config: Path) -> tuple[float, Collection[str]]:
    """alpha / r, and the last names of the layers that are changed. Raises PolicyError where the settings are not those
    of a plain LoRA, which is all we write."""
    try:
        found: Any = json.loads(config.read_text(encoding="utf-8"))
        rank, alpha, targets = float(found["r"]), float(found["lora_alpha"]), list(found["target_modules"])
        unplain = [key for key, value in PLAIN.items() if found.get(key, value) != value]
        unplain += [key for key in sorted({*found} - FREE - {*PLAIN}) if found[key]]
        unplain += ["target_modules"] * (found["target_modules"] != targets)  # a text would be a pattern
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"not the settings of a LoRA adapter: {error!r}", where=config) from error
    if "peft_type" not in found or unplain or not 0 < rank < 1e6:
        raise PolicyError(f"not a plain LoRA adapter: {', '.join(unplain) or 'r'}", where=config)
    return alpha / rank, targets
