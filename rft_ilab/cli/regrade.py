"""``ilab rft regrade``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled
from rft_ilab.cli.outcome import conclude
from rft_ilab.config import load_settings

if TYPE_CHECKING:
    from rft_ilab.pipeline import Request
    from rft_ilab.pipeline.regrade import Regraded


@click.command()
@options.taxonomy_option
@options.latest_run_option
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Candidate that the gate judged. [default: that of the last verdict]",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Model directory that it was compared with. [default: that of the last verdict]",
)
@options.judged_options
@click.option(
    "--examples", type=click.IntRange(min=0), default=3, show_default=True, help="Changed grades to show of a skill."
)
@click.pass_context
@handled
def regrade(
    ctx: click.Context,
    taxonomy_path: Path,
    run_name: str | None,
    model: Path | None,
    baseline: Path | None,
    targets: tuple[str, ...],
    no_target: bool,
    samples: int | None,
    suites: tuple[str, ...],
    lm_eval_include: Path | None,
    ray: str,
    examples: int,
) -> None:
    """Judge a run again after a change of graders, without asking a model.

    The same question as last time: models, targets, samples and suites of the last gate, where no option says
    otherwise. Grades the cached answers with the graders as they are now, shows which grades changed, and writes the
    verdict anew. Other changes (tasks, prompts, a model) need new answers: then this says how many, and the command
    that makes them.

    Exit code: 0 PASS, 1 FAIL (the skills are named), 2 INCONCLUSIVE or an error.
    """
    from rft_ilab.pipeline.question import last_question, refuse_other_kinds, same_again
    from rft_ilab.pipeline.regrade import regrade as regraded

    options.refuse_both_targets(targets, no_target)
    run = options.existing_run(run_name)
    request = options.request_for(
        taxonomy_path,
        run,
        model=baseline,
        targets=targets,
        no_target=no_target,
        suites=suites,
        lm_eval_include=lm_eval_include,
        ray=ray,
        gate={"samples": samples},
    )
    if question := last_question(run):
        refuse_other_kinds(question, run, baseline=baseline is not None)
        request = same_again(request, question, suites=bool(suites), samples=samples is not None)
        model = model or (Path(question["candidate"]) if question["candidate"] else None)
    own = ctx.get_parameter_source("taxonomy_path") is click.core.ParameterSource.COMMANDLINE
    command = sampling_command(request, run_name or str(run), model, taxonomy=own)
    found, verdict = regraded(request, model, command=command, examples=examples, console=options.progress())
    click.echo("\n".join(line for skill in found for line in described(skill)) or "No grader has changed.")
    conclude(ctx, run, verdict)


def sampling_command(request: Request, run: str, model: Path | None, *, taxonomy: bool) -> str:
    """The gate that asks just what ``request`` does of the models themselves."""
    gate, plain = request.settings.gate, load_settings(request.taxonomy)
    given: list[tuple[str, object]] = [("--run", run), ("--model", model), ("--baseline", request.model)]
    given += [("--samples", gate.samples if gate.samples != plain.gate.samples else None)]
    given += [("--lm-eval-include", request.lm_eval_include)]
    given += [("--target", target) for target in request.targets]
    if request.settings.suites != plain.suites:
        given += [("--suite", "none")] if plain.suites else []
        given += [("--suite", f"{n}:{s.limit}" if s.limit else n) for n, s in request.settings.suites.items()]
    given += [("--taxonomy-path", request.taxonomy if taxonomy else None)]
    words = [str(part) for pair in given if pair[1] is not None for part in pair]
    return shlex.join(["ilab", "model", "regress", *words, *(["--no-target"] if request.no_target else [])])


def described(skill: Regraded) -> Iterator[str]:
    """A line of counts, then the examples: what was answered, and what the old and the new grader said of it."""
    from rft_ilab.report.wording import count, one_line

    moves = ", ".join(f"{n} {before} -> {after}" for (before, after), n in sorted(skill.moves.items()))
    changed = sum(skill.moves.values())
    yield f"{skill.skill}: {count(skill.answers, 'answer')} regraded, {count(changed, 'grade')} changed" + (
        f": {moves}" if changed else ""
    )
    for change in skill.examples:
        sample = f", sample {change.index}" if change.index else ""
        yield f"  {change.before} -> {change.after}  task {change.task_id[:12]}, {change.model}{sample}"
        yield f"    asked     {one_line(change.prompt)}"
        yield f"    answered  {one_line(change.completion)}"
        yield f"    before    {one_line(change.before_reason)}"
        yield f"    now       {one_line(change.after_reason)}"
