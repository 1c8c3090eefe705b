"""What names a model: the digest of its files and the number format it runs in. Without torch, and without loading it.

That a gate has nothing to ask of a model can be seen from its name alone, so the name must cost nothing: digests of
large files and the measured number format are remembered in the user's cache directory.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
import zipfile
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path

from rft_ilab.errors import PolicyError
from rft_ilab.store import Cache, read_json, user_directory, write_json
from rft_ilab.types import digest

ANSWERS = {
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
}
# What a tokenizer consists of where there is no tokenizer.json.
SLOW_TOKENIZER = {"added_tokens.json", "merges.txt", "special_tokens_map.json", "vocab.json", "vocab.txt"}
# A file may be written twice within one tick of its file system's clock: of one that is younger than this (seconds),
# neither time nor size tells whether it has changed since. FAT has the coarsest clock.
SETTLED_S = 3.0


def check_model_directory(directory: Path) -> None:
    """Raises PolicyError, naming the directory, unless it looks like a Hugging Face causal LM."""
    if not directory.is_dir():
        raise PolicyError("no such model directory", where=directory, fix="give a Hugging Face model directory")
    weights = [*directory.glob("*.safetensors"), *directory.glob("pytorch_model*.bin")]
    if not (directory / "config.json").is_file() or not weights:
        raise PolicyError(
            "not a Hugging Face model: config.json or weights are missing",
            where=directory,
            fix="give a directory written by save_pretrained",
        )
    for path in weights:
        # torch writes zip archives; anything else would be unpickled, which nobody wants.
        if path.suffix == ".bin" and not zipfile.is_zipfile(path):
            raise PolicyError("damaged weights", where=path, fix="copy or train the model again")


def directory_digest(directory: Path, cache: Cache | None = None) -> str:
    """sha256 over the files that determine a model's answers: weights, configs, tokenizer, chat template.

    With a ``cache``, a file that has not been touched since is not read again.
    """
    found = {path.name: path for path in directory.iterdir()}
    return digest_of_files({name: file_digest(found[name], cache) for name in answering_files(list(found))})


def answering_files(names: Collection[str]) -> list[str]:
    """Which of a model directory's files determine its answers, in the order in which they are digested."""
    wanted = ANSWERS if "tokenizer.json" in names else ANSWERS | SLOW_TOKENIZER
    return sorted(
        name
        for name in names
        if name in wanted or name.endswith((".safetensors", ".index.json")) or name.startswith("pytorch_model")
    )


def digest_of_files(digests: Mapping[str, str]) -> str:
    """The digest of a model from the sha256 of each of its :func:`answering_files`."""
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(f"{name} {digests[name]}\n".encode())
    return total.hexdigest()


def file_digest(path: Path, cache: Cache | None) -> str:
    """sha256 of a file's content, remembered under everything that would have changed with the content.

    The time of the last change (ctime) cannot be set back as that of the last write can.
    """
    key = _file_key(path)
    known = cache.get(key) if cache else None
    if isinstance(known, str):
        return known
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    status = path.stat()
    settled = time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_S
    if cache and settled and _file_key(path) == key:
        cache.put([(key, found)])
    return found


def _file_key(path: Path) -> str:
    s = path.stat()
    return digest(["file", str(path.resolve()), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns])


def remembered_format() -> str | None:
    """``bfloat16`` or ``float32``, as found on this machine before; None if it has not been found yet."""
    record = _format_record()
    known = read_json(record).get(_machine()) if record.exists() else None
    return known if known in ("bfloat16", "float32") else None


def remember_format(name: str) -> None:
    record = _format_record()
    write_json(record, (read_json(record) if record.exists() else {}) | {_machine(): name})


def _format_record() -> Path:
    return user_directory("cache") / "dtype.json"


def _machine() -> str:
    """Processor, torch, and GPUs if there are any: what decides the number format."""
    seen = [path.name for pattern in ("nvidia[0-9]*", "kfd", "dxg") for path in Path("/dev").glob(pattern)]
    hidden = [
        f"{name}={os.environ[name]}" for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if name in os.environ
    ]
    gpus = " ".join(["", *sorted(seen), *hidden]) if seen else ""
    return f"{platform.machine()} {platform.processor()} torch {metadata.version('torch')} {_processor_name()}{gpus}"


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
