"""The model that grpo_fast has finished, as this package's own engine and the gate read it.

Open-Instruct writes it with transformers 5, whose ``config.json`` and tokenizer files older versions misread or refuse
(``rope_parameters``, ``TokenizersBackend``). Training changes weights and nothing else, so the weights are taken, and
all other files come from the model that training started from.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from rft_ilab.disk import PARTIAL, full_disk_named, put_in_place
from rft_ilab.errors import RunError
from rft_ilab.scaleout.openinstruct.model_shape import tensor_shapes

MARKER = ".checkpoint_complete"
WEIGHTS = (".safetensors", ".index.json")
_NAME = re.compile(r"(?P<name>.+)__(?P<seed>\d+)__(?P<time>\d+)")


def find_finished(output: Path, experiment: str, seed: int) -> Path | None:
    """The newest complete ``{experiment}__{seed}__{time}`` below ``output``; None if there is none."""
    found: dict[int, Path] = {}
    for marker in output.glob(f"*/{MARKER}"):
        match = _NAME.fullmatch(marker.parent.name)
        if match and match["name"] == experiment and int(match["seed"]) == seed:
            found[int(match["time"])] = marker.parent
    return found[max(found)] if found else None


def adopt(finished: Path, base: Path, target: Path) -> None:
    """Put weights of ``finished`` and everything else of ``base`` into ``target``, all or nothing.

    Raises RunError if the weights are not those of the same architecture.
    """
    before, after = tensor_shapes(base), tensor_shapes(finished)
    for name in ("lm_head.weight",):
        # Tied to the embeddings, and written by some versions nevertheless.
        if (name in before) != (name in after):
            before.pop(name, None)
            after.pop(name, None)
    if before != after:
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        raise RunError(
            f"not the architecture of {base}: {changed[0]} is {after.get(changed[0], 'missing')}, was "
            f"{before.get(changed[0], 'missing')}",
            where=finished,
            fix="train with the model that the run was started with",
        )
    work = target.with_name(f".{target.name}{PARTIAL}")
    shutil.rmtree(work, ignore_errors=True)
    with full_disk_named(target):
        work.mkdir(parents=True)
        for source in sorted(base.iterdir()):
            if source.is_file() and not source.name.endswith((*WEIGHTS, ".bin", ".gguf")) and source.name[0] != ".":
                shutil.copy(source, work)
        for source in sorted(finished.iterdir()):
            if source.name.endswith(WEIGHTS):
                _share(source, work / source.name)
        put_in_place(work, target)


def _share(source: Path, target: Path) -> None:
    """A hard link where possible: a second copy of the weights would be large."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy(source, target)
