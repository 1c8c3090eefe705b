"""Which model a run began with, for a card: its name, digest and licence, and where it lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rft_ilab.policy.local.embedded import GGUF_SHA256
from rft_ilab.policy.local.identity import directory_digest

EMBEDDED_NAME, EMBEDDED_LICENCE = "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"
MOST_BYTES = 1 << 20
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.txt")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """``directory`` is None where it is not on this machine, ``licence`` empty where unknown; ``texts`` are the
    licence texts that must go along, by file name."""

    name: str
    digest: str
    licence: str
    directory: Path | None
    texts: Mapping[str, str]


def base_model(manifest: Mapping[str, Any], given: Path | None, name: str = "", licence: str = "") -> BaseModel:
    """The base of a run by its manifest; ``given``, ``name`` and ``licence`` stand for what it does not say."""
    recorded, identity = manifest.get("model"), manifest.get("identity")
    directory = given or (Path(recorded) if isinstance(recorded, str) else None)
    directory = directory if directory is not None and (directory / "config.json").is_file() else None
    digest = identity.get("model") if isinstance(identity, dict) else None
    if not isinstance(digest, str):
        digest = directory_digest(directory) if directory else ""
    own = Path(recorded).name if isinstance(recorded, str) else "unknown"
    if own == f"SmolLM2-135M-Instruct-{GGUF_SHA256[:12]}":
        text = resources.files("rft_ilab.report").joinpath("assets/Apache-2.0.txt").read_text(encoding="utf-8")
        return BaseModel(
            name or EMBEDDED_NAME, digest, licence or EMBEDDED_LICENCE, directory, {"base-model-Apache-2.0.txt": text}
        )
    texts = {}
    for file in LICENCE_FILES:
        found = _small_text(directory / file) if directory else None
        if found is not None:
            texts[f"base-model-{file}"] = found
    facts = _front_matter(directory)
    return BaseModel(
        name or facts.get("name", "") or own, digest, licence or facts.get("license", ""), directory, texts
    )


def _front_matter(directory: Path | None) -> dict[str, str]:
    """``license`` of the base model's own card, as far as it says one in a word."""
    text = _small_text(directory / "README.md") if directory else None
    found = re.match(r"---\n(.*?)\n---", text or "", re.S)
    try:
        facts = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, RecursionError):
        facts = None
    value = facts.get("license") if isinstance(facts, dict) else None
    return {"license": value} if isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,60}", value) else {}


def _small_text(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    return path.read_text(encoding="utf-8", errors="replace")
