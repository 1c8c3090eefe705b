"""``ilab rft import``: use cases that exist elsewhere become skills."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.drafts import bring, contributor
from rft_ilab.cli.failures import handled
from rft_ilab.cli.import_open_instruct import open_instruct
from rft_ilab.cli.import_options import (
    SOURCE,
    check_delimiter,
    common_options,
    created_by_option,
    dry_run_option,
    force_option,
    grader_option,
    licence_option,
    to_option,
    waivers_option,
)

if TYPE_CHECKING:
    from rft_ilab.skills.importing.draft import Draft


@click.group("import")
def import_() -> None:
    """Make a skill of a use case that exists elsewhere.

    The skill is written only if `ilab taxonomy lint` has no error to tell of it; what is wrong is printed as
    `file:line: error: ...` with the lines of the source. Nothing is replaced without --force.
    """


import_.add_command(open_instruct)


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
