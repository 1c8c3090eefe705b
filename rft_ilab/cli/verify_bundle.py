"""``ilab rft verify-bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command(name="verify-bundle")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Base model of an adapter. [default: the embedded model, if it is that]",
)
@click.option(
    "--expect", default="", metavar="SHA256", help="The digest that `ilab rft ship` printed, as you got it another way."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.pass_context
@handled
def verify_bundle(ctx: click.Context, directory: Path, base: Path | None, expect: str, as_json: bool) -> None:
    """Prove that the weights in a bundle are those that the gate judged.

    Recomputes every digest, the judged model's among them, and the verdict's figures from the answers beside it; an
    adapter is merged into its base. Names whatever was altered, is missing or additional.

    Exit code 0: proven; 1: something does not fit; 2: no bundle, or one that cannot be read. The verdict itself, PASS
    or not, is printed and changes nothing here.
    """
    from rft_ilab.pipeline import verify_bundle as module
    from rft_ilab.report.wording import one_line

    console = options.progress()
    checked = module.verify_bundle(
        directory,
        base=base or module.known_base(directory),
        expect=expect,
        say=lambda line: console.print(line, markup=False, highlight=False),
    )
    if as_json:
        click.echo(module.as_json(checked))
    else:
        for line in checked.findings or checked.proof:
            click.echo(one_line(line))
        click.echo("NOT PROVEN" if checked.findings else f"PROVEN. Verdict: {checked.bundle.outcome}")
    ctx.exit(1 if checked.findings else 0)
