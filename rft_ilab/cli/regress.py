"""``ilab model regress``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude
from rft_ilab.cli.outputs import Outputs, output_options
from rft_ilab.errors import RunError
from rft_ilab.store import is_trained

if TYPE_CHECKING:
    from rft_ilab.pipeline.judging import Base
    from rft_ilab.pipeline.sequential import Method

BATCH = 32


@click.command()
@options.taxonomy_option
@click.option(
    "--run",
    "run_name",
    metavar="NAME|PATH",
    help="Run directory, by name or path: its model is judged, the verdict is written there. "
    "[default: the latest run; with --model and --baseline one named after the model]",
)
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
@options.judged_options
@click.option(
    "--until-decided",
    "method",
    type=click.Choice(["auto", "anytime", "scheduled"]),
    is_flag=False,
    flag_value="auto",
    help="Draw tasks in batches and stop with a skill as soon as it is decided; error rates stay as they are. By bets, "
    "which hold at any time (anytime), or looks fixed beforehand (scheduled). [default, if given without a word: bets "
    "wherever a suite's groups let them win]",
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
    "Exit code 1 if that is shown to be more often than alpha.",
)
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
    targets: tuple[str, ...],
    no_target: bool,
    samples: int | None,
    suites: tuple[str, ...],
    lm_eval_include: Path | None,
    ray: str,
    method: Method | None,
    batch: int | None,
    repeats: int | None,
    history: Path | None,
    **outputs: Path | None,
) -> None:
    """Judge a tuned model: is the target better, and is no other skill worse?

    Compares candidate and baseline on the test tasks of every skill, task by task. Answers are cached, so that
    repeating costs only what changed. Needs no training run: --model and --baseline suffice.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error. After an error the files of --junit
    and --markdown are not there.
    """
    from rft_ilab import pipeline

    if batch and not method:
        raise click.UsageError("--batch goes with --until-decided")
    if repeats and method:
        raise click.UsageError("--aa judges whole suites; it does not go with --until-decided")
    if repeats and (history or any(outputs.values())):
        raise click.UsageError("--aa gives no verdict: nothing for --history, --junit, --markdown or --output-dir")
    options.refuse_both_targets(targets, no_target)
    Outputs(**outputs).clear()
    with _judging(taxonomy_path, base) as judges:
        taxonomy = judges.taxonomy if judges else taxonomy_path
        directory, name = _compared_with(taxonomy, baseline, judges)
        if repeats and name and not model:
            raise click.UsageError("a stored baseline answers nothing: --aa needs --model or a --baseline directory")
        # A model against itself needs no run either.
        run = _run_for(run_name, model if baseline or repeats else None)
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
            ray=ray,
            gate={"samples": samples},
        )
        if repeats:
            result = pipeline.against_itself(request, model, repeats, console=options.progress())
            click.echo(aa_sentence(result))
            ctx.exit(1 if result["exceeds"] else 0)
        verdict = pipeline.regress(
            request,
            candidate=model,
            batch=(batch or BATCH) if method else None,
            method=method or "auto",
            console=options.progress(),
        )
        conclude(ctx, run, verdict, **outputs)


def _run_for(value: str | None, candidate: Path | None) -> Path:
    """The run that is judged; of a ``candidate`` that no run made, a directory for its verdicts, new or used before."""
    from rft_ilab import pipeline

    directory = options.run_path(value) if value else None
    if candidate and (directory is None or not is_trained(directory)):
        return pipeline.gate_run(candidate, options.runs_directory(), directory)
    return options.existing_run(value, trained=True)


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
