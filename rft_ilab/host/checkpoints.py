"""What ilab's own commands left on disk: the model that a training wrote, the directory that a generation wrote."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

import yaml

from rft_ilab.errors import HostError

_DATED = re.compile(r"\d{4}-\d\d-\d\d_\d{6}")


def newest_checkpoint(output: Path, since: float) -> Path:
    """The highest ``hf_format/samples_N`` below ``output`` written after ``since`` (seconds since the epoch).

    Older ones belong to an earlier training in the same directory: ilab does not clear it.
    Raises HostError if there is none.
    """
    found: dict[int, Path] = {}
    for directory in (output / "hf_format").glob("samples_*"):
        number, config = directory.name.removeprefix("samples_"), directory / "config.json"
        if number.isdigit() and config.exists() and config.stat().st_mtime >= since:
            found[int(number)] = directory
    if not found:
        raise HostError("the training left no new hf_format/samples_N checkpoint", where=output)
    return found[max(found)]


def final_output(journal: Path) -> Path:
    """The best checkpoint that a multi-phase training names in its journal. Raises HostError."""
    try:
        entry = yaml.safe_load(journal.read_text(encoding="utf-8"))["final_output"]
        return Path(entry["checkpoint"])
    except FileNotFoundError as error:
        raise HostError("the training left no journal", where=journal) from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise HostError("the journal names no final_output checkpoint", where=journal) from error


def generated_directories(output: Path) -> set[Path]:
    """The dated directories of ``ilab data generate`` below ``output``."""
    return {path for path in output.glob("*") if _DATED.fullmatch(path.name) and path.is_dir()}


def new_generation(output: Path, before: Set[Path]) -> Path:
    """The dated directory that was not there ``before``. Raises HostError if there is none."""
    new = generated_directories(output) - before
    if not new:
        raise HostError("the generation left no new dated directory", where=output)
    return max(new, key=lambda path: path.name)
