"""``ilab rft export``: skills for other trainers."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled

NEXT = {
    "trl": "ilab rft serve-graders, then: python {output}/train_trl.py --model MODEL --output DIRECTORY",
    "verl": "ilab rft serve-graders, then: MODEL=MODEL sh {output}/train_verl.sh",
    "openai": "python {output}/start_openai_job.py",
    "open-instruct": "--dataset_mixer_list {output}/{directory} 1.0 --verification_reward 1.0",
}


@click.command()
@click.argument("trainer", type=click.Choice(list(NEXT)))
@click.argument("skills", metavar="SKILL...", nargs=-1, required=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    required=True,
    help="Directory to write; new or empty, unless --force is given.",
)
@click.option(
    "--model", metavar="NAME", default="o4-mini-2025-04-16", show_default=True, help="Of an OpenAI job: its model."
)
@click.option("--force", is_flag=True, help="Replace files of the same names.")
@options.taxonomy_option
@handled
def export(
    trainer: str, skills: tuple[str, ...], output: Path, model: str, force: bool, taxonomy_path: Path
) -> None:  # fmt: skip
    """Write the training and validation tasks of skills for TRL, verl, OpenAI or Open-Instruct.

    Beside the rows lie a reward function that asks `ilab rft serve-graders` (TRL, verl) and what starts the training.
    Tasks of the test split are never written.
    """
    from rft_ilab.pipeline.export import export as write

    settings = options.load_settings(taxonomy_path)
    done = write(taxonomy_path, settings, trainer, skills, output, openai_model=model, force=force)  # type: ignore[arg-type]
    click.echo(f"{done.directory}: {done.train} training rows, {done.val} validation rows")
    for name in done.files:
        click.echo(f"  {name}")
    for note in done.notes:
        click.echo(f"  {note}")
    directory = done.files[0].partition("/")[0]
    click.echo(f"next: {NEXT[trainer].format(output=output, directory=directory)}")
