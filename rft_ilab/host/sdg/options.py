"""The ``config`` of a ``GraderFilterBlock`` in a pipeline file, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructlab.sdg.blocks.block import BlockConfigParserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the keys mean stands in docs/generation.md. The two columns have no default."""

    question_column: str
    answer_column: str
    context_column: str | None = None
    samples: int = 4
    needed: int = 3
    seed: int = 0
    concurrency: int | None = None
    ledger: str = "rft_ledger.jsonl"
    taxonomy: str | None = None
    skill: str | None = None
    model_id: str | None = None

    @classmethod
    def parse(cls, config: Mapping[str, Any], *, block: str, where: str | Path | None) -> Options:
        """Raises BlockConfigParserError, one line, for a key that is unknown, missing, or has a bad value."""

        def bad(what: str, fix: str) -> BlockConfigParserError:
            place = f"{where}: " if where else ""
            return BlockConfigParserError(f"{place}GraderFilterBlock {block!r}: {what} ({fix})")

        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := set(config) - set(fields):
            raise bad(f"unknown key {min(map(str, unknown))!r}", f"known: {', '.join(fields)}")
        for name in ("question_column", "answer_column"):
            if name not in config:
                raise bad(f"no {name}", f"name the column, e.g. {name}: {name.split('_')[0]}")
        for name, value in config.items():
            if "int" in str(fields[name].type):
                least = 0 if name == "seed" else 1
                if type(value) is not int or value < least:
                    raise bad(f"{name} is {value!r}", f"a whole number from {least}")
            elif not (isinstance(value, str) and value.strip()):
                raise bad(f"{name} is {value!r}", "a text that is not empty, or leave the key out")
        options = cls(**config)
        if options.needed > options.samples:
            raise bad(f"needed is {options.needed}, of {options.samples} samples", "at most as many as samples")
        return options
