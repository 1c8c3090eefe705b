"""Options added to ilab's own commands: ``ilab model train --rft`` and ``ilab data generate --verify``; and a value of
one of its own, ``ilab data generate --pipeline rft``.

Called by :mod:`rft_ilab.host.hook` when ilab imports the command. Without the new options a command
does exactly what it did: ours are removed before the original callback runs (``train`` hands
``ctx.params`` to pydantic models).
"""

from __future__ import annotations

import functools
import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from rft_ilab.cli.failures import RESUME, fail, handled
from rft_ilab.cli.options import check_report_to
from rft_ilab.host import checkpoints, pipelines
from rft_ilab.scaleout.openinstruct.site import CHECKOUT, PYTHON, Site, find

Stage = Callable[[click.Context, Callable[..., Any], Mapping[str, Any]], Any]

_TARGET_HELP = "Skill to learn with --rft; may be repeated. [default: the skills of tier target in rft.toml]"
_REPORT_HELP = (
    "Where the numbers of every step of --rft go: tensorboard, wandb, mlflow or none; may be repeated. "
    "[default: tensorboard]"
)
_ENGINE_HELP = (
    "Engine of --rft: local, or open-instruct, whose checkout, Python and cluster are named by RFT_OPEN_INSTRUCT, "
    "RFT_OPEN_INSTRUCT_PYTHON and RAY_ADDRESS. [default: local]"
)
_RUN_HELP = "Run directory of --rft: a name or a path. [default: a new one named after the time]"


def train_stage(ctx: click.Context, original: Callable[..., Any], ours: Mapping[str, Any]) -> Any:
    """ilab's training as ever, then the RL stage and the gate on the checkpoint that it wrote."""
    if not ours["rft"]:
        _refuse_without("--rft", ours)
        return original()
    if ctx.params["pipeline"] not in ("full", "accelerated"):
        fail("--rft needs --pipeline full or accelerated: simple leaves no Hugging Face checkpoint")
    taxonomy = Path(ctx.obj.config.generate.taxonomy_path)
    site = _site(ours)
    _check_skills(taxonomy, ours["rft_target"], ours["rft_report_to"], site)
    run = _named_run(ctx, ours["rft_run"])
    started = time.time() - 1  # file systems round modification times down
    original()
    checkpoint = _checkpoint(ctx.params, started)
    return _learn_and_judge(ctx, checkpoint, ours["rft_target"], taxonomy, run, ours["rft_report_to"], site)


def _site(ours: Mapping[str, Any]) -> Site | None:
    """Where Open-Instruct is to run, if it is to; its checkout, Python and cluster are named by the environment."""
    if ours["rft_engine"] in (None, "local"):
        for name in ("rft_gpus", "rft_nodes", "rft_ray_job"):
            if ours[name]:
                fail(f"--{name.replace('_', '-')} needs --rft-engine open-instruct")
        return None
    from rft_ilab.cli.engine import checked

    checkout, python = (os.environ.get(variable) for variable in (CHECKOUT, PYTHON))
    return checked(
        Site(
            checkout=Path(checkout) if checkout else None,
            python=Path(python) if python else None,
            gpus=ours["rft_gpus"],
            nodes=ours["rft_nodes"] or 1,
            ray_address=os.environ.get("RAY_ADDRESS", ""),
            ray_job=ours["rft_ray_job"],
        )
    )


@handled
def _check_skills(
    taxonomy: Path, targets: tuple[str, ...] = (), report_to: str | None = "none", site: Site | None = None
) -> None:
    """Fail on bad skills, missing trackers or Open-Instruct before hours of training or generation, not after."""
    from rft_ilab.cli import options
    from rft_ilab.pipeline.request import Workspace
    from rft_ilab.pipeline.tracking import check_trackers

    request = options.request_for(taxonomy, Path(), targets=targets, tracking={"report_to": report_to})
    check_trackers(request.settings.tracking.report_to)
    if site is not None:
        find(site)
    Workspace(request)


@handled
def _named_run(ctx: click.Context, name: str | None) -> Path:
    from rft_ilab.cli import options

    run = options.startable_run(ctx, name)
    ctx.meta.pop(RESUME)  # repeating the whole command would train from the start
    return run


@handled
def _checkpoint(params: Mapping[str, Any], started: float) -> Path:
    if params.get("strategy"):
        journal = params.get("training_journal") or Path(params["phased_base_dir"]) / "journalfile.yaml"
        return checkpoints.final_output(Path(journal))
    return checkpoints.newest_checkpoint(Path(params["ckpt_output_dir"]), started)


@handled
def _learn_and_judge(
    ctx: click.Context,
    checkpoint: Path,
    targets: tuple[str, ...],
    taxonomy: Path,
    run: Path,
    report_to: str | None,
    site: Site | None,
) -> None:
    from rft_ilab import pipeline
    from rft_ilab.cli import options
    from rft_ilab.cli.outcome import conclude

    command = ["ilab", "rft", "run", "--run", run, "--model", checkpoint]
    if site is not None:
        command = ["ilab", "model", "rft", "--engine", "open-instruct", "--run", run, "--model", checkpoint]
        command += ["--gpus", site.gpus] if site.gpus else []
        command += ["--nodes", site.nodes, *(["--ray-job"] if site.ray_job else [])]
    command += [part for target in targets for part in ("--target", target)]
    command += ["--report-to", report_to] if report_to else []
    ctx.meta[RESUME] = shlex.join(map(str, command))
    click.echo(f"RL stage on {checkpoint}", err=True)
    request = options.request_for(
        taxonomy, run, model=checkpoint, targets=targets, site=site, tracking={"report_to": report_to}
    )
    pipeline.train(request, console=options.progress())
    conclude(ctx, run, pipeline.regress(request, console=options.progress()))


def generate_stage(ctx: click.Context, original: Callable[..., Any], ours: Mapping[str, Any]) -> Any:
    """ilab's generation as ever, then the graders' verdict on every answer that it wrote.

    ilab takes a pipeline that is not its own by its directory only, so a name of ours becomes that.
    """
    if (directory := pipelines.shipped().get(ctx.params.get("pipeline") or "")) is not None:
        ctx.params["pipeline"] = str(directory)
        original = functools.partial(original, pipeline=str(directory))
    if not ours["verify"]:
        _refuse_without("--verify", ours)
        return original()
    if ctx.params["detached"]:
        fail("--verify cannot be combined with --detached: nothing is written yet when it returns")
    taxonomy = Path(ctx.params["taxonomy_path"])
    _check_skills(taxonomy)
    output = Path(ctx.params["output_dir"])
    before = checkpoints.generated_directories(output)
    original()
    return _verify(output, before, taxonomy, model=ours["verify_model"], endpoint=ours["verify_endpoint"])


@handled
def _verify(output: Path, before: set[Path], taxonomy: Path, *, model: Path | None, endpoint: str | None) -> None:
    from rft_ilab import pipeline
    from rft_ilab.cli import options

    dataset = checkpoints.new_generation(output, before)
    request = options.request_for(taxonomy, dataset, model=model, endpoint=endpoint)
    click.echo(pipeline.verify_generated(request, dataset, console=options.progress()))


def _refuse_without(switch: str, ours: Mapping[str, Any]) -> None:
    given = [name for name, value in ours.items() if value]
    if given:
        fail(f"--{given[0].replace('_', '-')} needs {switch}")


#: module of the command -> what runs in place of its callback, and the added options
EXTENSIONS: Mapping[str, tuple[Stage, tuple[click.Option, ...]]] = {
    "instructlab.cli.model.train": (
        train_stage,
        (
            click.Option(
                ["--rft"],
                is_flag=True,
                help="After this training, tune the checkpoint with verifiable rewards (GRPO) and judge it; the exit "
                "code is the gate's: 0 PASS, 1 FAIL, 2 INCONCLUSIVE. See `ilab model rft`.",
            ),
            click.Option(["--rft-target"], multiple=True, metavar="SKILL", help=_TARGET_HELP),
            click.Option(["--rft-run"], metavar="NAME|PATH", help=_RUN_HELP),
            click.Option(
                ["--rft-report-to"], multiple=True, metavar="TRACKER", callback=check_report_to, help=_REPORT_HELP
            ),
            click.Option(["--rft-engine"], type=click.Choice(("local", "open-instruct")), help=_ENGINE_HELP),
            click.Option(["--rft-gpus"], type=click.IntRange(min=1), help="GPUs of each node for --rft-engine."),
            click.Option(["--rft-nodes"], type=click.IntRange(min=1), help="Nodes of the cluster for --rft-engine."),
            click.Option(["--rft-ray-job"], is_flag=True, help="Submit the training of --rft-engine as a Ray job."),
        ),
    ),
    "instructlab.cli.data.generate": (
        generate_stage,
        (
            click.Option(
                ["--verify"],
                is_flag=True,
                help="Afterwards, keep of the generated rows those that the skill's grader and independent answers "
                "to the same question support: verified_messages.jsonl beside what was generated.",
            ),
            click.Option(
                ["--verify-model"],
                type=click.Path(path_type=Path),
                help="Model directory that gives the independent answers. "
                "[default: the embedded SmolLM2-135M-Instruct]",
            ),
            click.Option(
                ["--verify-endpoint"], metavar="URL", help="OpenAI-compatible server that gives them instead."
            ),
        ),
    ),
}


#: module of the command -> what the help of its own options says in addition
HELP: Mapping[str, Mapping[str, str]] = {
    "instructlab.cli.data.generate": {
        "pipeline": "Also 'rft': rows of a skill with a grader stay only if the grader and other answers support them.",
    },
}


def extend(module: str, command: click.Command) -> None:
    """Append our options to ``command`` and wrap its callback, in place. Raises if the command is not what we know."""
    stage, added = EXTENSIONS[module]
    taken = {name for parameter in command.params for name in parameter.opts} & {o for new in added for o in new.opts}
    if taken or command.callback is None:
        raise RuntimeError(f"unexpected command: options {sorted(taken)} exist already")
    original = command.callback

    @functools.wraps(original)
    def callback(*args: Any, **kwargs: Any) -> Any:
        ctx = click.get_current_context()
        ours = {}
        for option in added:
            name = str(option.name)
            ours[name] = kwargs.pop(name)
            ctx.params.pop(name, None)
        return stage(ctx, functools.partial(original, *args, **kwargs), ours)

    for parameter in command.params:
        if isinstance(parameter, click.Option) and (text := HELP.get(module, {}).get(parameter.name or "")):
            _add_help(parameter, text)
    command.params.extend(added)
    command.callback = callback


def _add_help(option: click.Option, text: str) -> None:
    """Add to what an option says of itself, before its default; ilab makes that up when it is asked for."""
    record_of = option.get_help_record

    def get_help_record(ctx: click.Context) -> tuple[str, str] | None:
        record = record_of(ctx)
        if record is None:
            return None
        said, bracket, default = record[1].partition(" [default")
        return record[0], f"{said} {text}{bracket}{default}"

    option.get_help_record = get_help_record  # type: ignore[method-assign]
