"""Pipelines for ``ilab data generate --pipeline NAME`` that come with rft-ilab: each is a directory beside this file.

instructlab-sdg takes the names of its own pipelines and absolute directories.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rft_ilab.errors import HostError

BLOCK = "GraderFilterBlock"
FILES = ("freeform_skills.yaml", "grounded_skills.yaml", "knowledge.yaml")


def shipped() -> dict[str, Path]:
    """Our pipelines by name.

    >>> sorted(shipped())
    ['rft']
    """
    here = Path(__file__).resolve().parent
    return {path.parent.name: path.parent for path in sorted(here.glob(f"*/{FILES[0]}"))}


def grader_blocks(pipeline: str | Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """(file, name, config) of every ``GraderFilterBlock`` of a pipeline; none if it is one of SDG's own.

    Raises HostError if a file is not YAML, or a block has no config. What else may be wrong is for SDG to say.
    """
    directory = Path(pipeline)
    for file in (directory / name for name in FILES if directory.is_absolute()):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise HostError(f"cannot be read: {' '.join(str(error).split())}", where=file) from error
        blocks = content.get("blocks") if isinstance(content, dict) else None
        for block in blocks if isinstance(blocks, list) else []:
            if isinstance(block, dict) and block.get("type") == BLOCK:
                name, config = str(block.get("name", BLOCK)), block.get("config")
                if not isinstance(config, dict):
                    raise HostError(f"the block {name!r} has no config", where=file, fix="see docs/generation.md")
                yield file, name, config
