"""``ilab rft baseline``: results of a model, stored in the repository under a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled

if TYPE_CHECKING:
    from rft_ilab.regress.baseline import Baseline


@click.group()
def baseline() -> None:
    """Store what a model does on every suite of the gate, for later gates to compare with.

    A baseline is one small file, `baselines/NAME.json` in the taxonomy: commit it. `ilab model regress --baseline NAME`
    then needs the candidate alone.
    """


@baseline.command()
@options.taxonomy_option
@click.argument("name")
@options.model_option
@click.option("--run", "run_name", metavar="NAME|PATH", help="Store the tuned model of this run, by name or path.")
@options.target_option
@options.no_target_option
@options.samples_option
@options.suite_option
@options.lm_eval_include_option
@options.ray_option
@handled
def save(
    taxonomy_path: Path,
    name: str,
    model: Path | None,
    run_name: str | None,
    targets: tuple[str, ...],
    no_target: bool,
    samples: int | None,
    suites: tuple[str, ...],
    lm_eval_include: Path | None,
    ray: str,
) -> None:
    """Measure a model and store its results as NAME; one of that name is replaced.

    What was measured before comes from the cache. Skills that may become targets are measured with each of their
    prompts, the others with the one at which the model does better on validation.
    """
    from rft_ilab import pipeline
    from rft_ilab.pipeline.request import run_model
    from rft_ilab.store import Run

    if model and run_name:
        raise click.UsageError("--model and --run exclude each other")
    options.refuse_both_targets(targets, no_target)
    if run_name:
        model = run_model(Run.open(options.existing_run(run_name)))
    request = options.request_for(
        taxonomy_path,
        Path(),
        model=model,
        targets=targets,
        no_target=no_target,
        suites=suites,
        lm_eval_include=lm_eval_include,
        ray=ray,
        gate={"samples": samples},
    )
    path = pipeline.save_baseline(request, name, console=options.progress())
    click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB; commit it")


@baseline.command("list")
@options.taxonomy_option
@handled
def list_(taxonomy_path: Path) -> None:
    """Name the stored baselines."""
    from rft_ilab.pipeline.baselines import baseline_names, read_baseline

    names = baseline_names(taxonomy_path)
    if not names:
        click.echo("none is stored yet; store one with: ilab rft baseline save NAME", err=True)
    for name in names:
        stored = read_baseline(taxonomy_path, name)
        tasks = sum(len(suite.tasks) for suite in stored.suites)
        click.echo(f"{name}: {_plain(stored.model_name)}, {len(stored.suites)} suites, {tasks} tasks")


@baseline.command()
@options.taxonomy_option
@click.argument("name")
@handled
def show(taxonomy_path: Path, name: str) -> None:
    """Show a stored baseline: its model, and what it does on each suite."""
    from rft_ilab.pipeline.baselines import read_baseline

    for line in described(read_baseline(taxonomy_path, name)):
        click.echo(_plain(line))


def described(stored: Baseline) -> list[str]:
    """A few lines on the model, then one on each suite; percentages are over the graded answers."""
    versions = ", ".join(f"{name} {version}" for name, version in stored.versions.items())
    lines = [f"{stored.name}: {stored.model_name}", f"  {stored.model_id}", f"  {versions}"]
    for suite in stored.suites:
        prompt = f"{suite.demonstrations} demonstrations" if suite.demonstrations else "zero-shot"
        scores = [task.greedy for task in suite.tasks.values()]
        drawn = [score for task in suite.tasks.values() for score in task.sampled]
        lines.append(
            f"  {suite.skill}, {prompt}: {len(scores)} tasks, greedy {_mean(scores)}"
            + (f", {suite.samples} sampled {_mean(drawn)}" if drawn else "")
            + (f", {scores.count(None)} not graded" if None in scores else "")
        )
    return lines


def _mean(scores: list[float | None]) -> str:
    graded = [score for score in scores if score is not None]
    return f"{sum(graded) / len(graded):.1%}" if graded else "not graded"


def _plain(text: str) -> str:
    """One line, its indentation kept, without what a terminal would obey: a change may have written the file."""
    from rft_ilab.report.wording import one_line

    return " " * (len(text) - len(text.lstrip(" "))) + one_line(text)
