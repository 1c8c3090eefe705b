"""``ilab rft rollouts``: what the policy said while it was trained, and what the grader made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option("--step", type=click.IntRange(min=1), help="Of this GRPO step only.")
@click.option("--skill", metavar="SKILL", help="Of this skill only.")
@click.option("--task", metavar="ID", help="Of the task whose id begins like that.")
@click.option("--contains", metavar="TEXT", help="Whose prompt or completion contains this.")
@click.option("--worst", "order", flag_value="worst", help="The lowest scores first.")
@click.option("--best", "order", flag_value="best", help="The highest scores first.")
@click.option("--errors", is_flag=True, help="Those that the grader failed on.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, all fields.")
@handled
def rollouts(
    run_name: str | None,
    step: int | None,
    skill: str | None,
    task: str | None,
    contains: str | None,
    order: str | None,
    errors: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Read the rollouts of a run with their grades.

    RUN is a run directory, by name or path; the latest run if absent. In the order of training, unless --worst or
    --best says otherwise; an answer that was not graded has no score and is in neither.
    """
    path = options.existing_run(run_name) / "rl" / "rollouts.jsonl"
    found = [
        row
        for row in _rows(path)
        if (step is None or row.get("step") == step)
        and (skill is None or row.get("skill") == skill)
        and (task is None or str(row.get("task_id", "")).startswith(task))
        and (contains is None or contains in f"{row.get('prompt')}\n{row.get('completion')}")
        and (not errors or row.get("error") is not None)
    ]
    if order:
        sign = 1 if order == "worst" else -1
        found = sorted((r for r in found if r.get("score") is not None), key=lambda r: sign * r["score"])
    for row in found[:limit]:
        click.echo(json.dumps(row, ensure_ascii=False) if as_json else "\n".join(_lines(row)))
    click.echo(f"{min(limit, len(found))} of {len(found)} rollouts, {path}", err=True)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """One at a time: there can be a hundred thousand. Raises RunError if there are none."""
    from rft_ilab.errors import RunError

    if not path.exists():
        raise RunError("this run has no rollouts yet", where=path, fix="train it with: ilab model rft")
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:  # the torn last line of a killed run
                continue
            if isinstance(row, dict):
                yield row


def _lines(row: dict[str, Any]) -> Iterator[str]:
    from rft_ilab.report.wording import one_line, visible

    score = "not graded" if row.get("score") is None else f"{row['score']:.2f}"
    advantage = "" if row.get("advantage") is None else f", advantage {row['advantage']:+.2f}"
    cut = ", cut off" if row.get("stop") == "length" else ""
    yield f"step {row.get('step')}, {row.get('skill')}, task {str(row.get('task_id'))[:12]}: {score}{advantage}{cut}"
    for name, key in (("asked", "prompt"), ("answered", "completion"), ("right is", "reference")):
        first, *rest = visible(str(row.get(key))).split("\n")
        yield f"  {name:<10}{first}"
        yield from (f"  {'':<10}{line}" for line in rest)
    if said := row.get("error") or row.get("reason"):
        yield f"  {'grader':<10}{one_line(str(said))}"
