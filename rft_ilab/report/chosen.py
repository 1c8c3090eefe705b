"""Which weights left training, and what each stage did: ``rl/selection.json`` and ``rl/attribution.json``, checked."""

from __future__ import annotations

from pathlib import Path

from rft_ilab.report.data import Attribution, Checkpoint, Selection, State, Transition
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


def parse_attribution(path: Path) -> tuple[Attribution, ...]:
    """One entry a target; empty without the file. Raises RunError if it has a wrong shape."""
    if not path.exists():
        return ()
    found = []
    for skill in Fields({"skills": read_json(path)}, path).objects("skills"):
        states = tuple(
            State(name=s.text("name"), weights=s.text("weights", ""), accuracy=s.maybe_number("accuracy"))
            for s in skill.objects("states")
        )
        transitions = tuple(
            Transition(
                before=t.text("from"),
                after=t.text("to"),
                compared=t.count("compared"),
                gain=t.maybe_number("gain"),
                fixed=t.count("fixed"),
                broken=t.count("broken"),
                kl=t.maybe_number("kl"),
            )
            for t in skill.objects("transitions")
        )
        entry = Attribution(
            skill=skill.text("skill"), tasks=skill.count("tasks"), states=states, transitions=transitions
        )
        found.append(entry)
    return tuple(found)
