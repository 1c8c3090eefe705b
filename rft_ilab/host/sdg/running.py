"""A generation that runs, as its blocks and its ledger know it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Below SDG's logger, so that ilab's log level and log file are its own too.
log = logging.getLogger("instructlab.sdg.rft_ilab")


@dataclass(eq=False, kw_only=True)
class Generation:
    """One call of ``generate_data``. ``ledgers`` are the files that blocks wrote to; ``tallies`` count dispositions."""

    taxonomy: Path
    output: Path | None = None
    checkpoints: Path | None = None
    ledgers: set[Path] = field(default_factory=set)
    tallies: dict[str, Counter[str]] = field(default_factory=dict)
