"""``ilab data verify``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@options.stacked(
    options.taxonomy_option,
    options.run_option,
    options.model_option,
    options.endpoint_option,
    options.target_option,
    options.seed_option,
    options.tasks_option,
    options.samples_option,
    options.ray_option,
)
@click.option("--endpoint-model", metavar="NAME", help="Model to ask there. [default: the first that it lists]")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=options.CONCURRENCY,
    show_default=True,
    help="Calls of each --endpoint at a time.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=options.TIMEOUT_S,
    show_default=True,
    help="Seconds after which a call of --endpoint that hears nothing is tried again.",
)
@click.option("--generated", type=click.IntRange(min=0), help="Tasks to draw from the target's generator.py.")
@click.option("--paraphrases", type=click.IntRange(min=0), help="Rewordings of training tasks to ask the teacher for.")
@click.option("--questions", type=click.IntRange(min=0), help="New questions to ask the teacher for.")
@click.option(
    "--explain",
    metavar="ID",
    help="Tell the story of one candidate of a finished run (--run, else the latest) and leave: id of a line in its "
    "ledger, or how one begins.",
)
@click.pass_context
@handled
def verify(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    endpoint: str | None,
    targets: tuple[str, ...],
    seed: int | None,
    tasks: int | None,
    samples: int | None,
    ray: str,
    endpoint_model: str | None,
    concurrency: int,
    timeout_s: float,
    generated: int | None,
    paraphrases: int | None,
    questions: int | None,
    explain: str | None,
) -> None:
    """Sample candidate answers and keep what the grader accepts.

    The model answers training tasks with the skill's seed examples as demonstrations: authored tasks, those of a
    generator.py, and those that the teacher writes and independent answers agree on. Accepted answers go to
    data/verified.jsonl of the run as chat messages, as `ilab model train` reads them; tasks with signal for RL to
    data/rlvr/ for Open-Instruct, OpenAI, TRL and verl; data/ledger.jsonl says for every candidate why it was kept or
    not. Prints the path of the verified data.
    """
    from rft_ilab import pipeline

    if explain is not None:
        from rft_ilab.cli.story import tell

        tell(options.existing_run(run_name), explain)
        return
    run = options.startable_run(ctx, run_name)
    further = {"generated": generated, "paraphrases": paraphrases, "questions": questions}
    request = options.request_for(
        taxonomy_path,
        run,
        model=model,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        targets=targets,
        concurrency=concurrency,
        timeout_s=timeout_s,
        ray=ray,
        train={"seed": seed},
        data={"tasks": tasks, "samples": samples, **further},
    )
    click.echo(pipeline.verify_data(request, console=options.progress()))
