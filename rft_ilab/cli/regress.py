"""``ilab model regress``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude

BATCH = 32


@click.command()
@options.taxonomy_option
@options.latest_run_option
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Candidate: a Hugging Face model directory. [default: the model of the run]",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Model directory to compare with. [default: the model that the run started from]",
)
@options.target_option
@options.samples_option
@click.option(
    "--until-decided",
    is_flag=True,
    help="Draw tasks in batches and stop with a skill as soon as it is decided; error rates stay as they are.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help=f"Tasks of a skill between two looks, with --until-decided. [default: {BATCH}]",
)
@click.option(
    "--aa",
    "repeats",
    metavar="N",
    type=click.IntRange(min=1),
    help="Judge --model (else the baseline) against itself, N times: how often is a difference claimed? "
    "Exit code 1 if more often than alpha.",
)
@click.pass_context
@handled
def regress(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    baseline: Path | None,
    targets: tuple[str, ...],
    samples: int | None,
    until_decided: bool,
    batch: int | None,
    repeats: int | None,
) -> None:
    """Judge a tuned model: is the target better, and is no other skill worse?

    Compares candidate and baseline on the test tasks of every skill, task by task. Answers are cached, so that
    repeating costs only what changed.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab import pipeline

    if batch and not until_decided:
        raise click.UsageError("--batch goes with --until-decided")
    if repeats and until_decided:
        raise click.UsageError("--aa judges whole suites; it does not go with --until-decided")
    run = options.existing_run(run_name)
    request = options.request_for(taxonomy_path, run, model=baseline, targets=targets, gate={"samples": samples})
    if repeats:
        result = pipeline.against_itself(request, model, repeats, console=options.progress())
        click.echo(aa_sentence(result))
        ctx.exit(1 if result["exceeds"] else 0)
    batch = (batch or BATCH) if until_decided else None
    conclude(ctx, run, pipeline.regress(request, candidate=model, batch=batch, console=options.progress()))


def aa_sentence(result: Mapping[str, Any]) -> str:
    """What came of a model against itself, for people.

    >>> result = {"repeats": 20, "flips": 1, "interval": [0.009, 0.236], "alpha": 0.05, "exceeds": False, "p": 0.642}
    >>> print(aa_sentence(result))
    1 of 20 verdicts claimed a difference: 5.0 % [0.9, 23.6]. Not shown to be more often than alpha, 5 % (p = 0.642).
    """
    low, high = result["interval"]
    shown = "More often than" if result["exceeds"] else "Not shown to be more often than"
    return (
        f"{result['flips']} of {result['repeats']} verdicts claimed a difference: "
        f"{result['flips'] / result['repeats']:.1%} [{100 * low:.1f}, {100 * high:.1f}]. ".replace("%", " %")
        + f"{shown} alpha, {100 * result['alpha']:g} % (p = {result['p']:.3f})."
    )
