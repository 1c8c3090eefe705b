"""The questions of ``ilab taxonomy new``, in the order in which a person thinks, and the answers given so far."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rft_ilab.cli.drafts import contributor
from rft_ilab.store import user_directory, write_json

if TYPE_CHECKING:
    from rft_ilab.skills.importing.draft import SourceRow

MIN_EXAMPLES = 5
OWN_WORDS, OWN_LICENCE = "written for this skill", "Apache-2.0"


class Notebook:
    """Answers, kept on disk after each one: an interrupted session is not typed again."""

    def __init__(self, path: Path, answers: Mapping[str, Any]) -> None:
        self.path, self.answers = path, dict(answers)

    @classmethod
    def of(cls, name: str) -> Notebook:
        """The one of a skill; empty if there is none, or if it cannot be read."""
        path = user_directory("data") / "new" / f"{name.replace('/', '.')}.json"
        answers: Any = None
        with contextlib.suppress(OSError, ValueError):
            answers = json.loads(path.read_text(encoding="utf-8"))
        return cls(path, answers if isinstance(answers, dict) else {})

    def take(self, given: Mapping[str, Any]) -> None:
        """What the command line says goes first."""
        self.answers |= {key: value for key, value in given.items() if value is not None}

    def note(self, key: str, value: Any) -> None:
        self.answers[key] = value
        write_json(self.path, self.answers)

    def drop(self, *keys: str) -> None:
        for key in keys:
            self.answers.pop(key, None)
        write_json(self.path, self.answers)

    def forget(self) -> None:
        self.answers = {}
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def ask(notebook: Notebook, read: list[SourceRow], taxonomy: Path) -> None:
    """Ask for every answer that is missing. ``read``: examples that a file has."""
    answers = notebook.answers
    if notebook.path.exists():
        click.echo("going on with the answers of before (--again asks anew)")
    if not answers.get("description"):
        notebook.note("description", _line("What is the model to do? It is told this before every prompt"))
    there = len(read) + len(answers.get("examples") or ())
    if there < MIN_EXAMPLES:
        _ask_examples(notebook, there)
    _ask_kind(notebook, read)
    if not answers.get("created_by"):
        notebook.note("created_by", _line("Who contributes it?", contributor(taxonomy)))
    if not answers.get("source"):
        notebook.note("source", _line("Where do the texts come from?", OWN_WORDS))
    if not answers.get("licence"):
        notebook.note("licence", _line("Under which licence?", OWN_LICENCE))


def _ask_examples(notebook: Notebook, there: int) -> None:
    """Prompts and right answers, until there are enough and an empty line comes."""
    pairs = list(notebook.answers.get("examples") or ())
    click.echo(f"Prompts and their right answers: at least {MIN_EXAMPLES}, the more different the better.")
    while True:
        number = there + 1
        enough = number > MIN_EXAMPLES
        prompt = _line(f"Prompt {number}" + (" (empty: that is all)" if enough else ""), "" if enough else None)
        if not prompt:
            return
        pairs.append([prompt, _line("Its right answer")])
        notebook.note("examples", pairs)
        there += 1


def _ask_kind(notebook: Notebook, read: list[SourceRow]) -> None:
    from rft_ilab.pipeline.starting import MENU, fitting_kind, typed_rows

    answers = notebook.answers
    rows = typed_rows(answers.get("examples") or ()) + read
    if not answers.get("kind"):
        click.echo("When is an answer right?")
        for kind, what in MENU.items():
            click.echo(f"  {kind:<7} {what}")
        kind = click.prompt("Grader", type=click.Choice(list(MENU)), default=fitting_kind(rows), show_choices=False)
        notebook.note("kind", kind)
    if answers["kind"] == "label" and not answers.get("labels"):
        found = ", ".join(dict.fromkeys(str(one.row["reference"]) for one in rows))
        notebook.note("labels", [part.strip() for part in _line("All labels, with commas", found).split(",")])


def _line(question: str, default: str | None = None) -> str:
    return str(click.prompt(question, default=default, show_default=bool(default), type=str)).strip()
