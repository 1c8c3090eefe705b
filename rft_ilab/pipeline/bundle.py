"""What a shipped bundle is: its files, and ``bundle.json``, which lists them; read as what a stranger sent.

::

    README.md               model card
    *.safetensors, config.json, tokenizer ...   the judged model's files (or the adapter, and the small ones of these)
    model.gguf              if the run has one
    verdict.json verdict.md report.html         what the gate said
    evidence.jsonl          every answer that it rests on (``gate/results.jsonl``)
    ATTRIBUTION.md LICENSES/                    of the data and of the base model
    bundle.json             this list, the judged digest, the base
    SHA256SUMS              the same digests for ``sha256sum -c``

Nothing in a bundle is executed, followed or believed: names are plain relative paths, links are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rft_ilab.errors import RunError

BUNDLE, SUMS, CARD = "bundle.json", "SHA256SUMS", "README.md"
VERDICT, EVIDENCE, GGUF = "verdict.json", "evidence.jsonl", "model.gguf"
FORMAT = "rft-ilab bundle 1"
DOCUMENTS = {CARD, VERDICT, EVIDENCE, "verdict.md", "report.html", "ATTRIBUTION.md"}
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
ADAPTER_FILES = {ADAPTER, ADAPTER_CONFIG}
MOST_FILES = 10_000
MOST_BYTES = 32 << 20  # of bundle.json and verdict.json each
FIX = "ship it again with: ilab rft ship"
Kind = Literal["model", "adapter"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One file: its size in bytes and sha256 (hex)."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """``bundle.json``. ``judged`` is the policy id of the verdict's candidate, ``judged_files`` the sha256 of every
    file of the judged model that decides its answers; ``tensors`` names those in each weights file that an adapter
    bundle does not hold, and ``base`` is the digest of the model that the adapter belongs to."""

    kind: Kind
    run: str
    outcome: str
    judged: str
    judged_files: Mapping[str, str] = field(hash=False)
    base: str
    base_name: str
    tensors: Mapping[str, tuple[str, ...]] = field(hash=False)
    files: Mapping[str, Listed] = field(hash=False)

    def belongs(self, name: str) -> bool:
        """May a bundle hold this file? Only what is covered by the judged digest, or what nobody loads.

        Else a loader might find, beside the judged weights, an adapter or code that nobody judged.
        """
        if name in DOCUMENTS or re.fullmatch(r"LICENSES/[\w.-]+", name):
            return True
        if self.kind == "adapter":
            return name in ADAPTER_FILES or (name in self.judged_files and name not in self.tensors)
        return name in self.judged_files or name == GGUF

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "run": self.run,
            "outcome": self.outcome,
            "judged": {"id": self.judged, "files": dict(self.judged_files)},
            "base": {"name": self.base_name, "digest": self.base},
            "tensors": {name: list(found) for name, found in self.tensors.items()},
            "files": {name: {"bytes": f.size, "sha256": f.sha256} for name, f in sorted(self.files.items())},
        }


def split_id(policy_id: str) -> tuple[str, str]:
    """Digest and number format of a local policy's id; two empty texts for any other.

    >>> split_id("local:" + "0" * 64 + ":bfloat16")[1], split_id("gpt-x")
    ('bfloat16', ('', ''))
    """
    found = re.fullmatch(r"local:([0-9a-f]{64}):(bfloat16|float32)", policy_id)
    return (found[1], found[2]) if found else ("", "")


def sums(files: Mapping[str, Listed], own: str) -> str:
    """The text of SHA256SUMS; ``own`` is the sha256 of bundle.json."""
    lines = {name: f.sha256 for name, f in files.items()} | {BUNDLE: own}
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))


def present(directory: Path) -> dict[str, os.stat_result]:
    """The plain files below ``directory`` by relative name. Raises RunError for links, pipes, or too many of them."""
    found: dict[str, os.stat_result] = {}
    pending = [directory]
    while pending:
        for entry in os.scandir(pending.pop()):
            name = Path(entry.path).relative_to(directory).as_posix()
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                pending.append(Path(entry.path))
            elif stat.S_ISREG(status.st_mode):
                found[name] = status
            else:
                what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no plain file"
                raise RunError(f"{name} is {what}; a bundle holds none", where=directory, fix=FIX)
            if len(found) + len(pending) > MOST_FILES:
                raise RunError(f"more than {MOST_FILES:,} files", where=directory, fix="is this a bundle?")
    return found


def sha256(path: Path) -> str:
    """Of a file's content; a link that took its place meanwhile is not followed (OSError)."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(directory: Path) -> Bundle:
    """Raises RunError, in one line, for whatever is not a list of this format."""
    path = directory / BUNDLE
    if path.is_symlink() or not path.is_file():
        raise RunError("no bundle: bundle.json is missing", where=directory, fix="ilab rft ship writes one")
    raw = strict_json(path)
    try:
        return _bundle(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"not a list of a bundle: {error!r:.200}", where=path, fix=FIX) from error


def strict_json(path: Path) -> Any:
    """JSON without NaN, repeated keys, or more bytes than a bundle needs. Raises RunError."""
    if path.stat().st_size > MOST_BYTES:
        raise RunError(f"more than {MOST_BYTES >> 20} MiB", where=path, fix=FIX)
    try:
        return json.loads(path.read_bytes(), parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RunError(f"not the JSON of a bundle: {error!s:.200}", where=path, fix=FIX) from error


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _bundle(raw: Any) -> Bundle:
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']!r}, not {FORMAT!r}")
    if raw["kind"] not in ("model", "adapter"):
        raise ValueError(f"kind {raw['kind']!r}")
    files = {_name(name): Listed(_count(f["bytes"]), _digest(f["sha256"])) for name, f in raw["files"].items()}
    if len(files) > MOST_FILES:
        raise ValueError("too many files")
    return Bundle(
        kind=raw["kind"],
        run=_text(raw["run"]),
        outcome=_text(raw["outcome"]),
        judged=_text(raw["judged"]["id"]),
        judged_files={_name(name): _digest(found) for name, found in raw["judged"]["files"].items()},
        base=_text(raw["base"]["digest"]),
        base_name=_text(raw["base"]["name"]),
        tensors={_name(name): tuple(_text(t) for t in found) for name, found in raw["tensors"].items()},
        files=files,
    )


def _name(value: Any) -> str:
    """A relative path that stays inside, written in one way only."""
    name = _text(value)
    path = PurePosixPath(name)
    if path.is_absolute() or path.as_posix() != name or {".", ".."} & set(path.parts) or not name.isprintable():
        raise ValueError(f"path {name!r} does not stay in the bundle")
    if "\\" in name or name in (BUNDLE, SUMS):
        raise ValueError(f"path {name!r}")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{str(value)[:40]!r} is no sha256")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 50:
        raise ValueError(f"{str(value)[:40]!r} is no size")
    return value
