"""Options that several commands share, and what becomes of them: a run directory and overridden settings."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from instructlab.clickext import ConfigOption

from rft_ilab import config, store
from rft_ilab.cli.failures import RESUME
from rft_ilab.errors import RunError, SkillError
from rft_ilab.types import CONTROLS

if TYPE_CHECKING:
    from rich.console import Console

    from rft_ilab.pipeline import Request
    from rft_ilab.pipeline.judging import Base
    from rft_ilab.scaleout.openinstruct.site import Site

# Of an endpoint: calls at a time, and seconds of silence after which one is tried again.
CONCURRENCY, TIMEOUT_S = 16, 120.0

F = TypeVar("F", bound=Callable[..., Any])


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one; the help lists them in the order given."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


taxonomy_option = click.option(
    "--taxonomy-path",
    type=click.Path(path_type=Path),
    cls=ConfigOption,
    config_class="generate",
)
run_option = click.option(
    "--run",
    "run_name",
    metavar="NAME|PATH",
    help="Run directory: a name below the run directories, or a path. An unfinished one is resumed. "
    "[default: a new one named after the time]",
)
latest_run_option = click.option(
    "--run", "run_name", metavar="NAME|PATH", help="Run directory, by name or path. [default: the latest run]"
)
model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Directory of a Hugging Face causal language model. [default: the embedded SmolLM2-135M-Instruct]",
)


def joined_urls(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Several --endpoint as one value, whatever their order; None if there is none."""
    urls = {url.strip() for value in values for url in value.split(",")}
    return ",".join(sorted(urls)) if values else None


endpoint_option = click.option(
    "--endpoint",
    metavar="URL",
    multiple=True,
    callback=joined_urls,
    help="OpenAI-compatible server that samples the candidate answers instead of the model in this process; may be "
    "repeated (or URL,URL): servers of the same model share the calls, and stand in for one that fails.",
)
ray_option = click.option(
    "--ray",
    metavar="ADDRESS",
    default="",
    help="Grade answers and sample local models on the Ray cluster at this address (auto, HOST:PORT or "
    "ray://HOST:PORT), whose machines have rft-ilab and see the models. [default: in this process]",
)
judged_target_option = click.option(
    "--target",
    "targets",
    metavar="SKILL",
    multiple=True,
    help="Skill that is to be better; may be repeated. [default: what the run learnt, else the skills of tier target "
    "in rft.toml]",
)
target_option = click.option(
    "--target",
    "targets",
    metavar="SKILL",
    multiple=True,
    help="Skill that is to become better, e.g. healthcare/patient_triage; may be repeated. "
    "[default: the skills of tier target in rft.toml]",
)
suite_option = click.option(
    "--suite",
    "suites",
    metavar="NAME[:LIMIT]",
    multiple=True,
    help="Ready suite to watch, too: gsm8k, ifeval, bbh, reasoning_gym or lm_eval:TASK, or no more than LIMIT of its "
    "tasks; may be repeated; none leaves out those of rft.toml. [default: the [suites] of rft.toml]",
)
lm_eval_include_option = click.option(
    "--lm-eval-include",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of further tasks of lm-evaluation-harness. Code that they name is run.",
)
no_target_option = click.option("--no-target", is_flag=True, help="No skill is to be better; none may be worse.")
seed_option = click.option("--seed", type=click.IntRange(min=0), help="Seed of sampling and training.")
tasks_option = click.option("--tasks", type=click.IntRange(min=1), help="Training tasks to sample answers for.")
samples_option = click.option("--samples", type=click.IntRange(min=1), help="Answers sampled for each task.")
judged_options = stacked(
    judged_target_option,
    no_target_option,
    samples_option,
    suite_option,
    lm_eval_include_option,
    ray_option,
)
training_options = stacked(
    seed_option,
    click.option("--steps", type=click.IntRange(min=1), help="GRPO steps."),
    click.option("--group-size", type=click.IntRange(min=2), help="Rollouts of one prompt in a step."),
    click.option(
        "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="GRPO learning rate of the LoRA weights."
    ),
)

history_option = click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also append the verdict to FILE, e.g. one that is kept in the repository: ilab rft history --history FILE.",
)


def check_report_to(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Several --report-to as one value of the setting; None if there is none. Raises BadParameter."""
    joined = ",".join(values)
    try:
        config.tracker_names(joined or "none")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return joined or None


report_option = click.option(
    "--report-to",
    multiple=True,
    metavar="TRACKER",
    callback=check_report_to,
    help="Where the numbers of every training step go: tensorboard, wandb, mlflow or none; may be repeated. "
    "[default: tensorboard]",
)

control_option = click.option(
    "--control",
    type=click.Choice(CONTROLS),
    metavar="ARM",
    help="Train a control arm: random-reward (GRPO is rewarded by chance) or format-only (for any answer that the "
    "grader can read, right or wrong). Compare it with the real run: ilab rft compare-controls.",
)


start_options = stacked(
    taxonomy_option,
    run_option,
    model_option,
    endpoint_option,
    target_option,
    training_options,
    report_option,
    control_option,
    ray_option,
)


def refuse_both_targets(targets: tuple[str, ...], no_target: bool) -> None:
    """Raises UsageError if skills are to be better and none is."""
    if no_target and targets:
        raise click.UsageError("--target and --no-target exclude each other")


def runs_directory() -> Path:
    """Where runs live that are given by name."""
    return store.user_directory("data") / "runs"


def history_file() -> Path:
    """Where every verdict is appended: beside the runs."""
    return runs_directory() / "history.jsonl"


def run_path(value: str) -> Path:
    """A run given by name lies below :func:`runs_directory`; whatever has a separator is a path."""
    if not value.strip():
        raise RunError("--run must not be empty")
    is_path = os.sep in value or value in (".", "..") or value.startswith("~")
    return Path(value).expanduser() if is_path else runs_directory() / value


def existing_run(value: str | None, *, trained: bool = False) -> Path:
    """The run of that name or path, else the latest (``trained``: that trained). Raises RunError if there is none."""
    directory = run_path(value) if value else store.latest_run(runs_directory(), trained=trained)
    if not (directory / "manifest.json").exists():
        raise RunError("no such run", where=directory, fix=f"runs are in {runs_directory()}")
    return directory


def startable_run(ctx: click.Context, value: str | None, control: str | None = None) -> Path:
    """The run to start or resume; remembers the command line that resumes it after an interruption.

    A new run of a control arm has that in its name. Raises RunError under ``torchrun`` without a ``value``: each
    process would make up a name of its own.
    """
    from rft_ilab.pipeline.workers import MARK

    if not value and MARK in os.environ:
        raise RunError("under torchrun a run needs a name, or each process starts one of its own", fix="add --run NAME")
    name = value or time.strftime("%Y-%m-%d_%H%M%S") + (f"-control-{control}" if control else "")
    again = ["ilab", *sys.argv[1:]] + ([] if value else ["--run", name])
    ctx.meta[RESUME] = shlex.join(again)
    return run_path(name)


def overridden(settings: config.Settings, **tables: Mapping[str, Any]) -> config.Settings:
    """Replace single values of settings tables; None means: not given on the command line.

    >>> overridden(config.Settings(), train={"steps": 2, "seed": None}).train.steps
    2
    """
    changed = {
        table: dataclasses.replace(getattr(settings, table), **{k: v for k, v in values.items() if v is not None})
        for table, values in tables.items()
    }
    return dataclasses.replace(settings, **changed)


def load_settings(taxonomy: Path, **tables: Mapping[str, Any]) -> config.Settings:
    """The settings of a taxonomy that exists, with the command line's overrides."""
    if not taxonomy.is_dir():
        raise SkillError("no such taxonomy directory", where=taxonomy, fix="see --taxonomy-path")
    return overridden(config.load_settings(taxonomy), **tables)


def request_for(
    taxonomy: Path,
    run: Path,
    *,
    model: Path | None = None,
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    targets: tuple[str, ...] = (),
    no_target: bool = False,
    baseline: str = "",
    base: Base | None = None,
    control: str | None = None,
    concurrency: int = CONCURRENCY,
    timeout_s: float = TIMEOUT_S,
    suites: tuple[str, ...] = (),
    lm_eval_include: Path | None = None,
    history: Path | None = None,
    site: Site | None = None,
    ray: str = "",
    **tables: Mapping[str, Any],
) -> Request:
    """Everything the pipeline wants to know. Keyword ``tables`` override settings, see :func:`overridden`; those of
    ``base``, where there is one, instead of the taxonomy's own."""
    from rft_ilab.pipeline import Request
    from rft_ilab.suites import parse_suites

    settings = overridden(base.settings(), **tables) if base else load_settings(taxonomy, **tables)
    return Request(
        taxonomy=taxonomy,
        run=run,
        settings=dataclasses.replace(settings, suites=parse_suites(suites, settings.suites)),
        model=model,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        concurrency=concurrency,
        timeout_s=timeout_s,
        targets=targets,
        no_target=no_target,
        baseline=baseline,
        base=base,
        control=control or "",
        lm_eval_include=lm_eval_include,
        site=site,
        ray=ray,
        histories=(history_file(), *([history] if history else [])),
    )


def start_request(
    ctx: click.Context,
    *,
    taxonomy_path: Path,
    run_name: str | None,
    control: str | None,
    report_to: str | None,
    model: Path | None,
    endpoint: str | None,
    targets: tuple[str, ...],
    history: Path | None = None,
    site: Site | None = None,
    ray: str = "",
    **train: Any,
) -> Request:
    """What the commands with :data:`start_options` ask for; the run is new or resumed, see :func:`startable_run`.

    With a ``site`` they speak of Open-Instruct's settings, the seed apart.
    """
    own: dict[str, Any] = train if site is None else {"seed": train.pop("seed")}
    return request_for(
        taxonomy_path,
        startable_run(ctx, run_name, control),
        model=model,
        endpoint=endpoint,
        targets=targets,
        control=control,
        history=history,
        site=site,
        ray=ray,
        train=own,
        open_instruct={} if site is None else train,
        tracking={"report_to": report_to},
    )


def progress() -> Console:
    """The console for progress: stderr, so that results on stdout can be piped."""
    from rft_ilab.cli.console import LastingConsole

    return LastingConsole(stderr=True)
