"""``ilab rft pr``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import RESUME, handled
from rft_ilab.errors import HostError
from rft_ilab.types import EXIT_CODE

if TYPE_CHECKING:
    from rft_ilab.report.pull import PullReport


@click.command()
@options.taxonomy_option
@click.option(
    "--base",
    metavar="REF",
    envvar="RFT_ILAB_BASE_REF",
    show_envvar=True,
    default="origin/main",
    show_default=True,
    help="Git revision that the change is for; what judges is read from there.",
)
@click.option("--head", metavar="REF", default="HEAD", show_default=True, help="Git revision that is to be judged.")
@click.option("--precheck", is_flag=True, help="Train nothing: lint, self-test, signal, power and sample rows only.")
@click.option(
    "--run",
    "run_name",
    metavar="NAME|PATH",
    help="Run directory: a name below the run directories, or a path. [default: pr-..., named after what trains]",
)
@options.model_option
@click.option("--baseline", metavar="NAME", help="Compare with this baseline, stored on the base. [default: the model]")
@options.tasks_option
@options.training_options
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report there. [default: to standard output]",
)
@click.option(
    "--annotate/--no-annotate",
    default=None,
    help="Print annotations for the lines of a pull request. [default: in GitHub Actions]",
)
@click.option("--install-workflows", is_flag=True, help="Write GitHub workflows that do this into the repository.")
@click.option("--force", is_flag=True, help="With --install-workflows: replace files that are there.")
@click.pass_context
@handled
def pr(
    ctx: click.Context,
    taxonomy_path: Path,
    base: str,
    head: str,
    precheck: bool,
    run_name: str | None,
    model: Path | None,
    baseline: str | None,
    tasks: int | None,
    markdown: Path | None,
    annotate: bool | None,
    install_workflows: bool,
    force: bool,
    **train: float | None,
) -> None:
    """Judge a branch that adds or changes skills, as a pull request.

    Reads the branch from git's objects: lint, self-test of its graders, what the base model knows already, power,
    sample rows; then trains on what it brings and judges the model by the base's graders, test tasks, settings and
    baselines. Code of the branch runs in the sandbox only. The report is Markdown. The same command resumes.

    Exit code: 0 PASS, 1 FAIL (the reasons are named), 2 INCONCLUSIVE or an error.
    """
    if install_workflows:
        _install(taxonomy_path, force)
        return
    if force:
        raise click.UsageError("--force goes with --install-workflows")
    _refuse_own_code(taxonomy_path)
    # What a stranger wrote is never run without walls, unless somebody says that it may be.
    os.environ.setdefault("RFT_ILAB_UNTRUSTED", "1")

    from rft_ilab.pipeline.pull import PullWish, pull_request
    from rft_ilab.report.annotations import annotation_lines, in_actions, silence

    annotate = in_actions() if annotate is None else annotate
    wish = PullWish(
        taxonomy=taxonomy_path,
        base=base,
        head=head,
        precheck=precheck,
        runs=options.runs_directory(),
        run=options.run_path(run_name) if run_name else None,
        model=model,
        baseline=baseline or "",
        data={"tasks": tasks},
        train=train,
    )
    given: dict[str, object] = {"--model": model, "--baseline": baseline, "--tasks": tasks}
    given |= {f"--{name.replace('_', '-')}": value for name, value in train.items()}
    again = ["ilab", "rft", "pr", "--base", base, "--head", head, *(["--precheck"] if precheck else [])]
    again += [part for name, value in given.items() if value is not None for part in (name, str(value))]
    ctx.meta[RESUME] = shlex.join(again + (["--run", run_name] if run_name else []))
    quiet, loud = silence()
    if annotate:
        click.echo(quiet)
    try:
        report = pull_request(wish, command=again, console=options.progress())
        _show(report, markdown)
    finally:
        if annotate:
            click.echo(loud)
    if annotate:
        for line in annotation_lines(report.notes):
            click.echo(line)
    ctx.exit(EXIT_CODE[report.outcome])


def _show(report: PullReport, markdown: Path | None) -> None:
    from rft_ilab.report.markdown import append_text
    from rft_ilab.report.pull_markdown import pull_markdown
    from rft_ilab.store import write_atomic

    text = pull_markdown(report)
    if markdown:
        write_atomic(markdown, text)
        click.echo(text.splitlines()[0].removeprefix("## "))
    else:
        click.echo(text, nl=False)
    append_text(text)


def _install(taxonomy: Path, force: bool) -> None:
    from rft_ilab.cli.workflows import install

    for file in install(taxonomy, force=force):
        click.echo(f"wrote {file}")


def _refuse_own_code(taxonomy: Path) -> None:
    """Where nobody vouches for the checkout, rft-ilab may not come from it. Raises HostError."""
    import rft_ilab
    from rft_ilab.grading.cage.capabilities import nobody_vouches
    from rft_ilab.skills.gitobjects import ask

    top, _ = ask(taxonomy.resolve(), "rev-parse", "--show-toplevel") if taxonomy.is_dir() else (None, "")
    code = Path(rft_ilab.__file__).resolve()
    if top and nobody_vouches() and code.is_relative_to(repository := Path(os.fsdecode(top.rstrip(b"\n"))).resolve()):
        fix = "install it from a release, and run the command outside of the checkout"
        raise HostError(f"rft-ilab itself comes from the repository that it is to judge, {repository}", fix=fix)
