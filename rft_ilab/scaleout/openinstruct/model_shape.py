"""What of a model the arithmetic of a plan needs: read from ``config.json`` and the headers of the weights."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.errors import PolicyError
from rft_ilab.store import read_json

MAX_HEADER_BYTES = 100 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``parameters`` in all, embeddings included (tied ones once); ``context`` is the most tokens it can see."""

    name: str
    parameters: int
    layers: int
    hidden: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values of one token, in 16-bit numbers."""
        return 2 * 2 * self.layers * self.kv_heads * self.head


def read_shape(directory: Path) -> Shape:
    """Raises PolicyError if the configuration lacks a size or the weights are not safetensors."""
    config = read_json(directory / "config.json")
    hidden, heads = _size(config, "hidden_size", directory), _size(config, "num_attention_heads", directory)
    return Shape(
        name=directory.name,
        parameters=sum(math.prod(shape) for shape in tensor_shapes(directory).values()),
        layers=_size(config, "num_hidden_layers", directory),
        hidden=hidden,
        kv_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or hidden // heads,
        vocabulary=_size(config, "vocab_size", directory),
        context=_size(config, "max_position_embeddings", directory),
    )


def tensor_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model directory; no weights are read. Raises PolicyError."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise PolicyError("its weights are not safetensors", where=directory, fix="save it with save_pretrained")
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
            found |= {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyError("damaged weights", where=path, fix="copy or train the model again") from error
    return found


def _size(config: Any, key: str, directory: Path) -> int:
    value = config.get(key) if isinstance(config, dict) else None
    if not isinstance(value, int) or value < 1:
        raise PolicyError(f"no {key} in its config.json", where=directory, fix="use a text-only causal language model")
    return value
