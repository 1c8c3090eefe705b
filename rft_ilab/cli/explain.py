"""``ilab rft explain``: which test tasks flipped, and why."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@click.argument("task_id", metavar="[TASK]", required=False)
@options.latest_run_option
@click.option(
    "--taxonomy-path",
    type=click.Path(path_type=Path),
    help="Taxonomy that has the task. [default: the one that the gate read, else ilab's]",
)
@click.option("--again", is_flag=True, help="Ask both models once more; say whether they answer the same bytes.")
@click.option("--messages", is_flag=True, help="Show the demonstrations, too.")
@click.option("--skill", metavar="SKILL", help="Without TASK: list the flips of this skill only.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=40, show_default=True, help="Without TASK: list this many."
)
@click.pass_context
@handled
def explain(
    ctx: click.Context,
    task_id: str | None,
    run_name: str | None,
    taxonomy_path: Path | None,
    again: bool,
    messages: bool,
    skill: str | None,
    limit: int,
) -> None:
    """Show one test task as the last gate of a run saw it, or list the tasks whose answer changed sides.

    TASK is the beginning of a task's id. Shown are the messages that were sent, the right answer, both models' answers
    side by side, what the grader extracted and said, and every random draw. All of it comes from the run and the cache:
    no model is asked without --again. Without TASK, the flips are listed, those of the worst group first.
    """
    from rft_ilab.cli.console import LastingConsole
    from rft_ilab.report import flips, load
    from rft_ilab.report.explained import print_explanation
    from rft_ilab.store import name_of_run

    run = options.existing_run(run_name)
    if task_id is None:
        flips.print_flips(load.load_gate(run), LastingConsole(), run=name_of_run(run), skill=skill, limit=limit)
        return
    from rft_ilab.pipeline.explain import explain as explained
    from rft_ilab.pipeline.explain import recorded_taxonomy

    taxonomy = taxonomy_path or recorded_taxonomy(run) or Path(ctx.obj.config.generate.taxonomy_path)
    print_explanation(explained(run, task_id, taxonomy, again=again), LastingConsole(), unfold=messages)
