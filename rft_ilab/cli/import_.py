"""``ilab rft import``: use cases that exist elsewhere become skills."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import EXIT_ERROR, handled

if TYPE_CHECKING:
    from rft_ilab.pipeline.importing import Imported
    from rft_ilab.skills.importing.draft import ImportRefused

SOURCE = click.Path(path_type=Path, exists=True, dir_okay=False)
to_option = click.option(
    "--to", "name", metavar="SKILL", required=True, help="Skill to write, e.g. healthcare/refill_dose."
)
common_options = options.stacked(
    click.option(
        "--description",
        help="What the model is to do: the skill's description and system message. [default: the system message that "
        "all rows share]",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="ROWS", help="Take only the first rows of each file."),
    click.option("--created-by", metavar="NAME", help="Who contributes the skill. [default: git's user.name]"),
    click.option(
        "--license", "licence", metavar="NAME", default="not stated", show_default=True, help="Licence of the data."
    ),
    click.option("--force", is_flag=True, help="Replace the files of a skill that is there."),
    click.option("--dry-run", is_flag=True, help="Check everything and write nothing."),
)


@click.group("import")
def import_() -> None:
    """Make a skill of a use case that exists elsewhere.

    The skill is written only if `ilab taxonomy lint` has no error to tell of it; what is wrong is printed as
    `file:line: error: ...` with the lines of the source. Nothing is replaced without --force.
    """


@import_.command()
@click.option("--grader", "grader_file", type=SOURCE, required=True, help="Grader, or the body of a job that holds it.")
@click.option("--train", "train_file", type=SOURCE, required=True, help="Training file (JSONL).")
@click.option("--val", "val_file", type=SOURCE, help="Validation file (JSONL).")
@click.option(
    "--val-split",
    type=click.Choice(["test", "val"]),
    default="test",
    show_default=True,
    help="What becomes of rows of the validation file that name no split: what the gate judges by, or validation.",
)
@click.option(
    "--reference",
    metavar="FIELD",
    help="Field with a completion that the grader must accept. [default: the field that it accepts]",
)
@to_option
@options.taxonomy_option
@common_options
@click.pass_context
@handled
def openai(
    ctx: click.Context,
    grader_file: Path,
    train_file: Path,
    val_file: Path | None,
    val_split: str,
    reference: str | None,
    name: str,
    taxonomy_path: Path,
    description: str | None,
    limit: int | None,
    created_by: str | None,
    licence: str,
    force: bool,
    dry_run: bool,
) -> None:
    """A reinforcement fine-tuning job of OpenAI: grader, training file, validation file."""
    from rft_ilab.pipeline.importing import bring_in
    from rft_ilab.pipeline.importing_openai import draft_job
    from rft_ilab.skills.importing.draft import ImportRefused
    from rft_ilab.skills.leaf import free_place

    free_place(taxonomy_path, name, force=force)
    try:
        draft = draft_job(
            taxonomy_path, name, grader_file, train_file, val_file, val_split=val_split, reference=reference,
            description=description, limit=limit, created_by=created_by or contributor(taxonomy_path), licence=licence,
        )  # fmt: skip
        told(bring_in(taxonomy_path, name, draft, force=force, dry_run=dry_run), name, dry_run)
    except ImportRefused as refused:
        refuse(refused)


def contributor(taxonomy: Path) -> str:
    """git's user.name, else the name of who is logged in."""
    from rft_ilab.skills.tree import git

    try:
        return git(taxonomy, "config", "user.name") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def told(imported: Imported, name: str, dry_run: bool) -> None:
    """Say what was written and decided on stdout, and lint's warnings on stderr."""
    parts = ", ".join(f"{imported.splits.get(split, 0)} {split}" for split in ("train", "val", "test"))
    done = "would write" if dry_run else "wrote"
    click.echo(f"{done} {imported.leaf}: {imported.tasks} tasks ({parts}), {imported.seeds} seed examples")
    lines([f"  {note}" for note in imported.notes], err=False)
    lines([str(finding) for finding in imported.warnings])
    if not dry_run:
        click.echo(f"next: ilab taxonomy lint --skill {name}")


def refuse(refused: ImportRefused) -> NoReturn:
    """Print every problem with its file and line, and leave with exit code 2."""
    from rft_ilab.grading.proof.golden import Finding

    lines([str(Finding.of(problem, Path("."))) for problem in refused.problems])
    count = len(refused.problems)
    click.echo(f"{count} error{'s' * (count != 1)}; nothing was written", err=True)
    raise click.exceptions.Exit(EXIT_ERROR)


def lines(texts: Sequence[str], err: bool = True) -> None:
    """Print texts that quote foreign files: one line each, without what a terminal would obey."""
    from rft_ilab.report.wording import visible

    for text in texts:
        click.echo(" ".join(visible(text).splitlines()), err=err)
