"""Notes as annotations of GitHub Actions: ``::error file=F,line=N::message`` on standard output.

The runner obeys any line that looks like such a command, whoever wrote it (and ``##[command]`` anywhere in a line). So
while a program prints what strangers wrote, commands are switched off by :func:`silence`, and only ours are escaped as
the runner reads them (https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from rft_ilab.report import wording
from rft_ilab.report.pull import Note, in_turns

# GitHub shows that many of each kind of one step.
MOST_OF_A_KIND = 10
LONGEST = 500  # characters of a message


def in_actions() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def silence() -> tuple[str, str]:
    """Two lines: from the first one on the runner obeys nothing, until it reads the second, which nobody can guess."""
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}", f"::{token}::"


def annotation_lines(notes: Sequence[Note]) -> list[str]:
    """At most ten of a kind, of as many files as possible."""
    shown: dict[str, list[Note]] = {}
    for note in in_turns(notes):
        shown.setdefault(note.severity, []).append(note)
    return [annotation(note) for kind in shown.values() for note in kind[:MOST_OF_A_KIND]]


def annotation(note: Note) -> str:
    r"""One command, on one line whatever is in it.

    >>> annotation(Note(severity="error", file="a,b:c.jsonl", line=3, message="100 %\n::set-env name=X::y", fix="no"))
    '::error file=a%2Cb%3Ac.jsonl,line=3::100 %25%0A::set-env name=X::y (no)'
    """
    message = note.message if len(note.message) <= LONGEST else f"{note.message[:LONGEST]} ..."
    message += f" ({note.fix})" if note.fix else ""
    place = f" file={_property(note.file)}" + (f",line={note.line}" if note.line else "") if note.file else ""
    return f"::{note.severity}{place}::{_data(message)}"


def _data(text: str) -> str:
    return wording.visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
