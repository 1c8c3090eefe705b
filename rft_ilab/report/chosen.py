"""Which weights left training: ``rl/selection.json`` as checked values."""

from __future__ import annotations

from pathlib import Path

from rft_ilab.report.data import Checkpoint, Selection
from rft_ilab.report.fields import Fields, finite_numbers
from rft_ilab.store import read_json


def parse_selection(path: Path) -> Selection | None:
    """None without the file. Raises RunError if it has a wrong shape."""
    if not path.exists():
        return None
    fields = Fields(read_json(path), path)
    frontier = [_checkpoint(row) for row in fields.objects("frontier")]
    return Selection(
        candidates=tuple(_checkpoint(row) for row in fields.objects("candidates")),
        chosen=fields.text("chosen", ""),
        scale=fields.maybe_number("scale"),
        frontier=tuple(sorted((c for c in frontier if c.scale is not None), key=lambda c: c.scale or 0.0)),
        allowed_loss=finite_numbers(fields.raw.get("allowed_loss")),
    )


def _checkpoint(row: Fields) -> Checkpoint:
    return Checkpoint(
        name=row.text("name"),
        scale=row.maybe_number("scale"),
        score=row.maybe_number("score"),
        val=row.maybe_number("val"),
        macro=row.maybe_number("macro"),
        watched=finite_numbers(row.raw.get("watched")),
    )
