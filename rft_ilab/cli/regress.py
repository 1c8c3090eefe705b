"""``ilab model regress``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude
from rft_ilab.cli.outputs import output_options
from rft_ilab.errors import RunError

if TYPE_CHECKING:
    from rft_ilab.pipeline.judging import Base


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
    metavar="NAME|PATH",
    help="What to compare with: a baseline stored in the repository, by name, or a model directory, by path. "
    "[default: the model that the run started from]",
)
@click.option(
    "--base",
    metavar="REF",
    envvar="RFT_ILAB_BASE_REF",
    show_envvar=True,
    help="Git revision whose graders, test tasks, settings and baselines judge, e.g. origin/main. "
    "[default: the files as they are]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Without a training run: where the verdict on --model goes. "
    "[default, with --model and --baseline: gate-... among the runs]",
)
@options.target_option
@options.no_target_option
@options.samples_option
@options.suite_option
@options.lm_eval_include_option
@output_options
@options.history_option
@click.pass_context
@handled
def regress(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    baseline: str | None,
    base: str | None,
    output: Path | None,
    targets: tuple[str, ...],
    no_target: bool,
    samples: int | None,
    suites: tuple[str, ...],
    lm_eval_include: Path | None,
    history: Path | None,
    **outputs: Path | None,
) -> None:
    """Judge a tuned model: is the target better, and is no other skill worse?

    Compares candidate and baseline on the test tasks of every skill, task by task. Answers are cached, so that
    repeating costs only what changed. Needs no training run: --model and --baseline suffice.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab import pipeline

    if output and (run_name or not model):
        raise click.UsageError("--output goes with --model and without --run")
    if no_target and targets:
        raise click.UsageError("--target and --no-target exclude each other")
    with _judging(taxonomy_path, base) as judges:
        taxonomy = judges.taxonomy if judges else taxonomy_path
        directory, name = _compared_with(taxonomy, baseline, judges)
        if model and (output or (baseline and not run_name)):
            run = pipeline.gate_run(model, options.runs_directory(), output)
        else:
            run = options.existing_run(run_name, trained=True)
        request = options.request_for(
            taxonomy,
            run,
            model=directory,
            targets=targets,
            no_target=no_target,
            baseline=name,
            base=judges,
            history=history,
            suites=suites,
            lm_eval_include=lm_eval_include,
            gate={"samples": samples},
        )
        conclude(ctx, run, pipeline.regress(request, candidate=model, console=options.progress()), **outputs)


@contextlib.contextmanager
def _judging(taxonomy: Path, ref: str | None) -> Iterator[Base | None]:
    from rft_ilab import pipeline

    if ref is None:
        yield None
        return
    with pipeline.base_tree(taxonomy, ref) as base:
        yield base


def _compared_with(taxonomy: Path, value: str | None, judges: Base | None) -> tuple[Path | None, str]:
    """A model directory, or the name of a stored baseline (then the other is None or empty).

    A bare word that names a stored baseline is that one, even where a directory is called the same: a change could
    bring such a directory. For the same reason it is never a directory where a revision judges.
    """
    from rft_ilab.pipeline.baselines import baseline_names

    if value is None:
        return None, ""
    if not value.strip():
        raise RunError("--baseline must not be empty")
    if os.sep in value or value in (".", ".."):
        return Path(value), ""
    if value not in baseline_names(taxonomy) and judges is None and Path(value).is_dir():
        return Path(value), ""
    return None, value
