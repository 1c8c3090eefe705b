"""``ilab taxonomy new``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.import_ import contributor, lines, refuse
from rft_ilab.errors import SkillError

if TYPE_CHECKING:
    from rft_ilab.pipeline.importing import Imported
    from rft_ilab.skills.importing.draft import SourceRow

SOURCE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("name", metavar="SKILL")
@options.taxonomy_option
@click.option("--description", metavar="TEXT", help="What the model is to do, as it is told before every prompt.")
@click.option(
    "--example",
    "typed",
    nargs=2,
    multiple=True,
    metavar="PROMPT ANSWER",
    help="A prompt and its right answer; at least five.",
)
@click.option(
    "--examples",
    "file",
    type=SOURCE,
    metavar="FILE",
    help="Examples in a file: a table (.csv) with the columns prompt and answer, or rows as in tasks.jsonl.",
)
@click.option(
    "--grader",
    "kind",
    metavar="KIND",
    help="How an answer is checked: number, label, date, json, text, exact or python.",
)
@click.option(
    "--label", "labels", metavar="LABEL", multiple=True, help="Label of a label grader. [default: those that occur]"
)
@click.option("--created-by", metavar="NAME", help="Who contributes the skill. [default: git's user.name]")
@click.option("--source", metavar="TEXT", help="Where the texts come from: a link, or who wrote them.")
@click.option("--license", "licence", metavar="NAME", help="Licence of the texts.")
@click.option("--again", is_flag=True, help="Forget the answers of a session that was interrupted.")
@handled
def new(
    name: str,
    taxonomy_path: Path,
    description: str | None,
    typed: tuple[tuple[str, str], ...],
    file: Path | None,
    kind: str | None,
    labels: tuple[str, ...],
    created_by: str | None,
    source: str | None,
    licence: str | None,
    again: bool,
) -> None:
    """Start a skill: asks what it needs, and writes a leaf that lints.

    SKILL is its place in the taxonomy, such as healthcare/refill_dose. Whatever an option says is not asked. Answers
    are kept until the skill is written, so an interrupted session goes on where it stopped. Nothing that is there is
    replaced. Without a terminal nothing is asked: --description, examples, --source and --license are needed, and the
    grader is the kind that fits the answers.

    Exit code: 0, or 2 if nothing was written.
    """
    from rft_ilab.pipeline.starting import MENU
    from rft_ilab.skills.leaf import free_place

    free_place(taxonomy_path, name, force=False)
    if kind is not None and kind not in MENU:
        raise SkillError(f"no kind of grader {kind!r}", fix=f"one of {', '.join(MENU)}")
    given = {
        "description": description,
        "examples": [list(pair) for pair in typed] or None,
        "kind": kind,
        "labels": list(labels) or None,
        "created_by": created_by,
        "source": source,
        "licence": licence,
    }
    if asking():
        _session(taxonomy_path, name, given, file, again)
        return
    missing = [flag for flag, value in (("--description", description), ("--example or --examples", typed or file),
               ("--source", source), ("--license", licence)) if not value]  # fmt: skip
    if missing:
        raise SkillError(f"no terminal to ask on, and missing: {', '.join(missing)}", fix="ilab taxonomy new --help")
    _write(taxonomy_path, name, given, file)


def asking() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty()


def _session(taxonomy: Path, name: str, given: dict[str, Any], file: Path | None, again: bool) -> None:
    """Ask for what is not given, keeping every answer, and write the skill."""
    from rft_ilab.cli.questions import Notebook, ask
    from rft_ilab.skills.importing.draft import ImportRefused

    notebook = Notebook.of(name)
    if again:
        notebook.forget()
    notebook.take(given)
    ask(notebook, _read(file), taxonomy)
    try:
        _write(taxonomy, name, notebook.answers, file)
    except (ImportRefused, click.exceptions.Exit):
        # The way of checking is what may be at fault; the rest need not be typed again.
        notebook.drop("kind", "labels")
        click.echo("your answers are kept: the same command goes on, --again asks all of it anew", err=True)
        raise
    notebook.forget()


def _read(file: Path | None) -> list[SourceRow]:
    from rft_ilab.pipeline.starting import read_examples
    from rft_ilab.skills.importing.draft import ImportRefused

    try:
        return read_examples(file) if file else []
    except ImportRefused as refused:
        refuse(refused)


def _write(taxonomy: Path, name: str, answers: dict[str, Any], file: Path | None) -> None:
    from rft_ilab.pipeline.starting import Answers, fitting_kind, start_skill, typed_rows
    from rft_ilab.skills.importing.draft import ImportRefused

    rows = typed_rows(answers.get("examples") or ()) + _read(file)
    kind = answers.get("kind") or fitting_kind(rows)
    said = Answers(
        description=answers["description"], rows=rows, kind=kind, labels=answers.get("labels") or (),
        created_by=answers.get("created_by") or contributor(taxonomy), source=answers["source"],
        licence=answers["licence"],
    )  # fmt: skip
    try:
        written = start_skill(taxonomy, name, said)
    except ImportRefused as refused:
        refuse(refused)
    _told(taxonomy, name, written, kind)


def _told(taxonomy: Path, name: str, written: Imported, kind: str) -> None:
    """What was written, what of it is still too little, and the next two commands."""
    from rft_ilab.pipeline.starting import MENU, planned
    from rft_ilab.report.wording import count

    target, watched = planned(taxonomy, name, options.load_settings(taxonomy))
    splits = ", ".join(f"{written.splits.get(split, 0)} {split}" for split in ("train", "val", "test"))
    click.echo(f"wrote {written.leaf}")
    click.echo(f"  qna.yaml         what the model is told, and {written.seeds} seed examples")
    click.echo(f"  grader.json      {kind}: {MENU[kind]}")
    click.echo(f"  tasks.jsonl      {written.tasks} tasks: {splits}")
    click.echo("  attribution.txt  where the texts come from")
    lines([f"  {note}" for note in written.notes], err=False)
    lines([str(finding) for finding in written.warnings])
    gain = "no gain" if target.detectable is None else f"a gain of {100 * target.detectable:.0f} points or more"
    needed = "more than a million" if watched.needed is None else f"about {watched.needed:,}"
    click.echo(f"{count(target.tasks, 'test task')} in {count(target.groups, 'group')} can show {gain}.")
    click.echo(f"To show that no {100 * watched.asked:.0f} points are lost, when others are trained, takes {needed}.")
    click.echo(
        'One group in five is drawn for testing. Rows of one template or source need the same "group", which never'
    )
    click.echo("crosses a split. As tasks.jsonl grows, `ilab rft plan` counts again.")
    click.echo(f"next: ilab taxonomy lint --skill {name}, then ilab rft run --target {name}")
