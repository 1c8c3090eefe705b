"""``ilab data verify --explain``: the story of one candidate, out of the ledger of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rft_ilab.errors import RunError
from rft_ilab.report.wording import visible
from rft_ilab.store import read_jsonl

Row = Mapping[str, Any]

#: of a task: its answer is right, whatever becomes of it
BELIEVED = ("kept", "too_easy", "too_hard")
SHOWN_ID = 12
MOST_LISTED = 8
WIDTH = 12


def tell(run: Path, wanted: str) -> None:
    """Print what became of the candidate whose id begins with ``wanted``, and why.

    Raises RunError if the run has no ledger, or if no candidate or more than one begins like that.
    """
    path = run / "data" / "ledger.jsonl"
    rows = [row for row in read_jsonl(path) if isinstance(row, dict) and row.keys() >= {"kind", "id", "disposition"}]
    if not rows:
        raise RunError("this run has no ledger", where=path, fix="make one with: ilab data verify")
    for line in story(find(rows, wanted, path), rows):
        click.echo(line)


def find(rows: Sequence[Row], wanted: str, path: Path) -> Row:
    """The one row whose id begins with ``wanted``; of a task and its reference, which share an id, the task."""
    found = [row for row in rows if wanted and str(row.get("id", "")).startswith(wanted)]
    if not found:
        raise RunError(f"no candidate begins with {wanted!r}", where=path, fix="take an id from this file")
    if len({row["id"] for row in found}) > 1:
        some = ", ".join(sorted({str(row["id"])[:SHOWN_ID] for row in found})[:4])
        raise RunError(f"{len(found)} candidates begin with {wanted!r}", where=path, fix=f"write more: {some} ...")
    return min(found, key=lambda row: row.get("kind") != "task")


def story(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    """The lines that are printed: its fate, how it was made, what was said of it, and its relatives."""
    yield f"{row['kind']} {row['id']}: {row['disposition'].replace('_', ' ')}"
    yield from _field("why", row.get("reason"))
    yield from _field("skill", row.get("skill"))
    believed = row["kind"] == "answer" or row["disposition"] in BELIEVED
    yield from _field("source", f"{row.get('source')}" + (f", evidence: {row.get('evidence')}" if believed else ""))
    yield from _field("prompt", row.get("prompt"))
    yield from _field("reference", row.get("reference"))
    if row.get("completion") != row.get("prompt"):
        yield from _field("written", row.get("completion"))
    yield from _field("score", row.get("score"))
    if row.get("samples"):
        yield from _field("agreement", f"{row['agreed']} of {row['samples']} independent answers")
    if row.get("pass_rate") is not None:
        band = str(row.get("band") or "no band").replace("_", " ")
        chance = f"{row['chance_mixed']:.0%}" if row.get("chance_mixed") is not None else "unknown"
        yield from _field("difficulty", f"{row['pass_rate']:.0%} right, chance of a mixed group {chance}: {band}")
    yield from _field("made by", _maker(row))
    yield from _field("grader", row.get("grader_digest") and f"digest {row['grader_digest'][:SHOWN_ID]}")
    yield from _relatives(row, rows)


def _maker(row: Row) -> str | None:
    if not row.get("policy_id"):
        return None
    sampling = row.get("sampling") or {}
    how = [f"{name.replace('_', ' ')} {value}" for name, value in sampling.items()]
    if sampling and row.get("index") is not None:
        how.append(f"sample {row['index']}")
    if row.get("demonstrations"):
        how.append(f"{row['demonstrations']} demonstrations")
    return row["policy_id"] + (f" ({', '.join(how)})" if how else "")


def _relatives(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    tasks = {other["id"]: other for other in rows if other.get("kind") == "task"}
    for name, key in (("made of", "seed_id"), ("like", "duplicate_of"), ("answers", "task_id")):
        other = row.get(key)
        if not other or (key == "task_id" and row["kind"] == "task"):
            continue
        known = tasks.get(other, {})
        text = f"{other[:SHOWN_ID]}: {known['prompt']}" if known.get("prompt") else f"{other[:SHOWN_ID]}"
        overlap = f" ({row['overlap']:.0%} overlap)" if key == "duplicate_of" and row.get("overlap") else ""
        yield from _field(name, text + overlap)
    if row["kind"] == "task":
        answers = [other for other in rows if other.get("kind") == "answer" and other.get("task_id") == row["id"]]
        for other in answers[:MOST_LISTED]:
            yield from _field("answer", f"{other['id'][:SHOWN_ID]} {other['disposition']}: {other.get('completion')}")
        if len(answers) > MOST_LISTED:
            yield from _field("", f"and {len(answers) - MOST_LISTED} more answers")


def _field(name: str, value: object) -> Iterator[str]:
    if value is not None and value != "":
        first, *rest = visible(str(value)).split("\n")
        yield f"  {name:<{WIDTH}}{first}"
        yield from (f"  {'':<{WIDTH}}{line}" for line in rest)
