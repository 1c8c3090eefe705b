"""``--engine``: which engine the RL stage runs on, and where Open-Instruct's is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rft_ilab.cli.failures import fail
from rft_ilab.cli.options import stacked
from rft_ilab.scaleout.openinstruct.site import CHECKOUT, PYTHON, Site

if TYPE_CHECKING:
    from rft_ilab.pipeline import Request

ENGINES = ("local", "open-instruct")
_SITE = ("checkout", "python", "gpus", "nodes", "ray_address", "ray_job", "grader_url", "grader_host")

engine_options = stacked(
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="local",
        show_default=True,
        help="local: this process. open-instruct: its grpo_fast.py, with vLLM, on the GPUs of this machine or of a Ray "
        "cluster; then the gate and the report follow, and the exit code is the gate's (docs/open-instruct.md).",
    ),
    click.option(
        "--open-instruct",
        "checkout",
        type=click.Path(path_type=Path),
        envvar=CHECKOUT,
        show_envvar=True,
        metavar="DIRECTORY",
        help="Checkout of Open-Instruct.",
    ),
    click.option(
        "--open-instruct-python",
        "python",
        type=click.Path(path_type=Path),
        envvar=PYTHON,
        show_envvar=True,
        metavar="PATH",
        help="Python of an environment that can run it.",
    ),
    click.option("--gpus", type=click.IntRange(min=1), help="GPUs of each node. [default: those found]"),
    click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes of the cluster."),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        default="",
        envvar="RAY_ADDRESS",
        show_envvar=True,
        help="Ray cluster to run on, HOST:6379; with --ray-job where it takes jobs, http://HOST:8265. "
        "[default: this machine alone]",
    ),
    click.option("--ray-job", is_flag=True, help="Submit the training as a Ray job, instead of driving it from here."),
    click.option(
        "--grader-url",
        metavar="URL",
        default="",
        help="Grader server (ilab rft serve-graders) that runs already; its token is taken from RFT_GRADER_TOKEN. "
        "[default: one is started here]",
    ),
    click.option(
        "--grader-host",
        metavar="HOST",
        default="",
        help="Name or address by which the cluster reaches the grader server of this machine. "
        "[default: the address on the way to the cluster]",
    ),
    click.option("--dry-run", is_flag=True, help="Say what --engine open-instruct would do, and launch nothing."),
)


def take_site(ctx: click.Context, wishes: dict[str, Any]) -> tuple[Site | None, bool]:
    """Take the options above out of ``wishes``: where Open-Instruct is to run (None: it is not), and ``--dry-run``."""
    engine, dry_run = wishes.pop("engine"), wishes.pop("dry_run")
    values = {name: wishes.pop(name) for name in _SITE}
    if engine == "local":
        # Variables of the environment are no wish of this command.
        for name in (*_SITE, "dry_run"):
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                (option,) = (p.opts[0] for p in ctx.command.params if p.name == name)
                fail(f"{option} needs --engine open-instruct")
        return None, False
    if wishes.get("control"):
        fail("--control is for the local engine: Open-Instruct gets its rewards from the graders alone")
    if wishes.get("endpoint"):
        fail("--endpoint is for the local engine: `ilab data verify --endpoint` samples, and the same --run goes on")
    return checked(Site(**values)), dry_run


def rehearse(request: Request) -> None:
    """``--dry-run``: print what a start would say and do."""
    from rft_ilab.pipeline.openinstruct import dry_run

    for line in dry_run(request):
        click.echo(line)


def checked(site: Site) -> Site:
    """The site, if its parts go together; leaves with one line otherwise."""
    if site.ray_job and not site.ray_address.startswith(("http://", "https://")):
        fail("--ray-job needs --ray-address http://HOST:8265, where the cluster takes jobs")
    if not site.ray_job and "://" in site.ray_address and not site.ray_address.startswith("ray://"):
        fail("--ray-address is HOST:6379; http:// is for --ray-job")
    if site.ray_address.startswith("ray://"):
        fail("--ray-address ray:// is not for training: use HOST:6379 on a node of the cluster, or --ray-job")
    if site.grader_url and not site.grader_url.startswith(("http://", "https://")):
        fail("--grader-url must begin with http:// or https://")
    return site
