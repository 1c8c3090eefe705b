"""``ilab rft serve-graders``."""

from __future__ import annotations

import importlib.util
import os
import socket
from functools import partial
from pathlib import Path

import click

from rft_ilab.cli import options
from rft_ilab.cli.failures import fail, handled

MAX_CONNECTIONS = 512
QUICKER = ("httptools", "uvloop")  # uvicorn takes them where they are


@click.command("serve-graders")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8790, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--token-env",
    metavar="NAME",
    help="Environment variable that holds the bearer token of every request. Needed for any address but loopback.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that answer; one that dies is started again.",
)
@click.option(
    "--open-program-route",
    is_flag=True,
    help="With a token: let /test_program in without one, since Open-Instruct's --code_api_url sends none.",
)
@options.taxonomy_option
@handled
def serve_graders(
    host: str, port: int, token_env: str | None, workers: int, open_program_route: bool, taxonomy_path: Path
) -> None:
    """Serve graders over HTTP, as OpenAI does, until Ctrl-C.

    POST /v1/fine_tuning/alpha/graders/run and .../validate take and return what OpenAI's do. POST /v1/rft/grade
    grades many completions with one grader, or with the grader of a skill of the taxonomy. POST /test_program is for
    Open-Instruct's --code_api_url. GET /healthz.

    Graders that come over HTTP are not trusted: their Python runs in the sandbox, and they may not name addresses.
    """
    from rft_ilab.scaleout.server import is_loopback, served_app

    token = os.environ.get(token_env) if token_env else None
    if token_env and not token:
        fail(f"environment variable {token_env} is not set or empty")
    if token is None and not is_loopback(host):
        fail(f"{host} can be reached by others: name a token with --token-env, or listen on 127.0.0.1")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}")

    import uvicorn
    from uvicorn.supervisors import Multiprocess

    where = f"[{host}]" if ":" in host else host
    who = "with a token" if token else "this machine only"
    click.echo(f"graders at http://{where}:{listener.getsockname()[1]} ({who}); stop with Ctrl-C", err=True)
    if missing := [name for name in QUICKER if importlib.util.find_spec(name) is None]:
        click.echo(
            f"note: without {' and '.join(missing)} a request takes three times the processor time "
            "(pip install 'rft-ilab[serve]')",
            err=True,
        )
    config = uvicorn.Config(
        partial(served_app, token, taxonomy_path, open_program_route),
        factory=True,
        workers=workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
    else:
        Multiprocess(config, sockets=[listener]).run()
        raise KeyboardInterrupt  # it ends when it is told to, and says so to nobody
