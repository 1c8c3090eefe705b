"""``ilab rft suites``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@click.option("--time", "timed", is_flag=True, help="Load the model and say about how long each takes on this machine.")
@options.model_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON list.")
@handled
def suites(timed: bool, model: Path | None, as_json: bool) -> None:
    """List the ready suites that `ilab model regress --suite NAME` watches beside the skills.

    Any text task of lm-evaluation-harness is one, too: `--suite lm_eval:TASK`.
    """
    from rft_ilab.pipeline import cost
    from rft_ilab.pipeline.suites import listed

    speed = None
    if timed:
        from rft_ilab.pipeline.request import local_policy, measure_speed
        from rft_ilab.policy.local.embedded import embedded_model

        speed = measure_speed(local_policy(model or embedded_model()))
    rows = listed(speed)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    for row in rows:
        click.echo(f"{row.name}: {row.title}")
        clusters = f"{row.groups} groups" if row.groups < row.tasks else "each a group of its own"
        time = "" if row.seconds is None else f"; {cost.minutes(row.seconds, 1.0)} a model"
        click.echo(f"    {row.tasks:,} tasks, {clusters}; answers of at most {row.max_tokens} tokens{time}")
        click.echo(f"    grader {row.graders}; licence {row.licence}; {row.origin}")
    click.echo("lm_eval:TASK: any text task of lm-evaluation-harness, e.g. lm_eval:arc_easy")
