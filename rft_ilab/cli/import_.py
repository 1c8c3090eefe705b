"""``ilab rft import``: use cases that exist elsewhere become skills."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import EXIT_ERROR, handled

if TYPE_CHECKING:
    from rft_ilab.pipeline.importing import Imported
    from rft_ilab.skills.importing.draft import Draft, ImportRefused

SOURCE = click.Path(path_type=Path, exists=True, dir_okay=False)
to_option = click.option(
    "--to", "name", metavar="SKILL", required=True, help="Skill to write, e.g. healthcare/refill_dose."
)
created_by_option = click.option(
    "--created-by", metavar="NAME", help="Who contributes the skill. [default: git's user.name]"
)
licence_option = click.option(
    "--license", "licence", metavar="NAME", default="not stated", show_default=True, help="Licence of the data."
)
force_option = click.option("--force", is_flag=True, help="Replace the files of a skill that is there.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything and write nothing.")
waivers_option = click.option(
    "--waivers",
    type=SOURCE,
    help="File that says why a try to cheat the grader does not apply; becomes grader.waivers.json.",
)
common_options: Callable[[options.F], options.F] = options.stacked(
    click.option("--limit", type=click.IntRange(min=1), metavar="ROWS", help="Take only the first rows of each file."),
    created_by_option,
    licence_option,
    waivers_option,
    force_option,
    dry_run_option,
)
KINDS = ("date", "number", "json", "label", "text", "exact")


def check_grader(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A kind of grader or a file. Raises BadParameter."""
    if value and value not in KINDS and not Path(value).is_file():
        raise click.BadParameter(f"{value!r} is neither a file nor one of {', '.join(KINDS)}")
    return value


def check_delimiter(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """One character that can stand between cells. Raises BadParameter."""
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is not None and (len(value) != 1 or value in '"\r\n\0'):
        raise click.BadParameter(f"{value!r} is no single character that can stand between cells")
    return value


grader_option = click.option(
    "--grader",
    metavar="KIND|FILE",
    callback=check_grader,
    help=f"Grader: {', '.join(KINDS)}, or a file with a grader. [default: the kind that fits the answers]",
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
@click.option(
    "--description",
    help="What the model is to do: the skill's description and system message. [default: the system message that all "
    "rows share]",
)
@options.taxonomy_option
@common_options
@handled
def openai(
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
    waivers: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """A reinforcement fine-tuning job of OpenAI: grader, training file, validation file."""
    from rft_ilab.pipeline.importing_openai import draft_job
    from rft_ilab.skills.leaf import FILES

    def draft() -> Draft:
        return draft_job(
            taxonomy_path, name, grader_file, train_file, val_file, val_split=val_split, reference=reference,
            description=description, limit=limit, created_by=created_by or contributor(taxonomy_path), licence=licence,
        )  # fmt: skip

    bring(taxonomy_path, name, draft, FILES, waivers, force, dry_run)


@import_.command("csv")
@click.argument("table", type=SOURCE)
@click.option("--prompt", metavar="COLUMN", required=True, help="Column with the user's message.")
@click.option("--reference", metavar="COLUMN", required=True, help="Column with the right answer.")
@click.option("--group", metavar="COLUMN", help="Column whose equal values never cross a split (template, patient).")
@click.option("--split", metavar="COLUMN", help="Column with train, val or test. [default: drawn by group]")
@click.option("--id", "id_", metavar="COLUMN", help="Column with an id of the row.")
@grader_option
@click.option(
    "--delimiter",
    metavar="CHARACTER",
    callback=check_delimiter,
    help="What is between cells; `tab` is a tab. [default: the one of , ; tab | that fits the header]",
)
@to_option
@click.option(
    "--description", required=True, help="What the model is to do: the skill's description and system message."
)
@options.taxonomy_option
@common_options
@handled
def csv_(
    table: Path,
    prompt: str,
    reference: str,
    group: str | None,
    split: str | None,
    id_: str | None,
    grader: str | None,
    delimiter: str | None,
    name: str,
    taxonomy_path: Path,
    description: str,
    limit: int | None,
    created_by: str | None,
    licence: str,
    waivers: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """A table with a header, one task a row."""
    from rft_ilab.pipeline.importing_csv import draft_table
    from rft_ilab.skills.leaf import FILES

    named = {"prompt": prompt, "reference": reference, "group": group, "split": split, "id": id_}
    columns = {use: column for use, column in named.items() if column}

    def draft() -> Draft:
        return draft_table(
            name, table, columns, grader=grader, delimiter=delimiter, description=description, limit=limit,
            created_by=created_by or contributor(taxonomy_path), licence=licence,
        )  # fmt: skip

    bring(taxonomy_path, name, draft, FILES, waivers, force, dry_run)


@import_.command()
@click.option(
    "--qna", "qna_file", type=SOURCE, help="A qna.yaml. [default: the one of the skill, which stays as it is]"
)
@grader_option
@to_option
@options.taxonomy_option
@created_by_option
@licence_option
@waivers_option
@force_option
@dry_run_option
@handled
def qna(
    qna_file: Path | None,
    grader: str | None,
    name: str,
    taxonomy_path: Path,
    created_by: str | None,
    licence: str,
    waivers: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """A skill of InstructLab that has only a qna.yaml: its seed examples become the first tasks."""
    from rft_ilab.pipeline.importing_qna import draft_qna
    from rft_ilab.skills.leaf import FILES, GRADER, TASKS

    def draft() -> Draft:
        return draft_qna(
            taxonomy_path, name, qna_file, grader=grader, created_by=created_by or contributor(taxonomy_path),
            licence=licence,
        )  # fmt: skip

    bring(taxonomy_path, name, draft, FILES if qna_file else (GRADER, TASKS), waivers, force, dry_run)


def bring(
    taxonomy: Path, name: str, draft: Callable[[], Draft], files: Sequence[str], waivers: Path | None, force: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Make the draft, prove and write it, and say so; or say what is to be repaired and leave with exit code 2.

    ``files`` must not be there without ``force``, which is found out before anything is read.
    """
    from rft_ilab.pipeline.importing import bring_in
    from rft_ilab.skills.importing.draft import ImportRefused
    from rft_ilab.skills.leaf import free_place

    free_place(taxonomy, name, files, force=force)
    try:
        made = draft()
        made.waivers = waivers
        told(bring_in(taxonomy, name, made, force=force, dry_run=dry_run), name, dry_run)
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


from rft_ilab.cli.import_open_instruct import open_instruct  # noqa: E402 - it needs what stands above

import_.add_command(open_instruct)
