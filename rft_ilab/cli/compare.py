"""``ilab rft compare``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import RESUME, handled


@click.command()
@click.argument("models", metavar="MODEL MODEL...", nargs=-1, required=True)
@options.taxonomy_option
@click.option("--skill", "skills", metavar="SKILL", multiple=True, help="On this skill; repeatable. [default: all]")
@click.option("--samples", type=click.IntRange(min=0), default=0, help="Also sample this many answers for each task.")
@click.option(
    "--demonstrations",
    type=click.IntRange(min=0),
    help="Seed examples before every prompt. [default: none for skills of tier target, else as in rft.toml]",
)
@options.ray_option
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one JSON object.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the comparison in Markdown.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Also write a self-contained page to FILE."
)
@click.pass_context
@handled
def compare(
    ctx: click.Context,
    models: tuple[str, ...],
    taxonomy_path: Path,
    skills: tuple[str, ...],
    samples: int,
    demonstrations: int | None,
    ray: str,
    as_json: bool,
    as_markdown: bool,
    page: Path | None,
) -> None:
    """Compare two and many models on the test tasks of every skill.

    Each MODEL is a model directory, `embedded`, a run (its tuned model, by name or path) or RUN:base (what the run
    started from). All get the same prompts and seeds. What is claimed, that one model is better or that two are equal
    within the margin, is adjusted for the number of pairs and skills. Answers are cached.

    This is no gate: the exit code is 0 whoever is better, 2 on an error.
    """
    if len(models) < 2:
        raise click.UsageError("name two models or more")
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    from rft_ilab.cli.console import LastingConsole
    from rft_ilab.pipeline.compare import compare as compared
    from rft_ilab.pipeline.contenders import contenders
    from rft_ilab.report import compare_text

    ctx.meta[RESUME] = shlex.join(["ilab", *sys.argv[1:]])
    runs = options.runs_directory()
    request = options.request_for(taxonomy_path, runs, ray=ray)
    found = compared(
        request,
        contenders(models, runs),
        only=skills,
        demonstrations=demonstrations,
        samples=samples,
        console=options.progress(),
    )
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif as_markdown:
        click.echo(compare_text.markdown_comparison(found), nl=False)
    else:
        compare_text.print_comparison(found, LastingConsole())
    if page:
        from rft_ilab.report.compare_html import write_comparison

        write_comparison(found, page)
        click.echo(f"page: {page}", err=True)
