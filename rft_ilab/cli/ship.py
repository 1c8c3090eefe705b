"""``ilab rft ship``."""

from __future__ import annotations

from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import handled


@click.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory to make; it must not be there. [default: bundle in the run directory]",
)
@click.option("--adapter", is_flag=True, help="Ship the adapter instead of the merged model and its GGUF.")
@click.option(
    "--despite-verdict", "despite", is_flag=True, help="Ship also what is no PASS; the card says so on its first line."
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --adapter: the base model, if it is no longer where the run found it.",
)
@click.option("--base-name", default="", metavar="NAME", help="Name of the base model, e.g. owner/name on a hub.")
@click.option(
    "--licence", "--license", "licence", default="", metavar="ID", help="Licence of the base model (SPDX id)."
)
@handled
def ship(
    run_name: str | None,
    output: Path | None,
    adapter: bool,
    despite: bool,
    base: Path | None,
    base_name: str,
    licence: str,
) -> None:
    """Bundle a run that passed: model card, weights, verdict, evidence, attribution and digests.

    RUN is a run directory, by name or path; the latest that trained if absent. The bundle is checked as `ilab rft
    verify-bundle` does before it is put in place. Interrupted, the same command goes on; a directory that is there is
    not replaced. Prints the path of the bundle and its digest: hand that over another way, and the receiver can check
    that nobody made the bundle anew.
    """
    from rft_ilab.disk import size
    from rft_ilab.pipeline.ship import Wishes
    from rft_ilab.pipeline.ship import ship as shipped

    run = options.existing_run(run_name, trained=True)
    wishes = Wishes(output=output, adapter=adapter, despite=despite, base=base, licence=licence, base_name=base_name)
    console = options.progress()
    found = shipped(run, wishes, lambda line: console.print(line, markup=False, highlight=False))
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    click.echo(f"{found.directory}\n{found.outcome}, {size(found.bytes)}\nsha256:{found.digest}")
