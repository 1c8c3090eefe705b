"""The one place where errors become exit codes.

An error that the user can act on is one line on stderr and exit code 2; an interruption is exit code
130 with the command that resumes. Everything else is a bug: its traceback, and exit code 2 as well,
because Python's own 1 would read as the gate's FAIL.
"""

from __future__ import annotations

import errno
import functools
import re
import sqlite3
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import click

from rft_ilab.disk import disk_error
from rft_ilab.errors import DiskError, RftError

P = ParamSpec("P")
R = TypeVar("R")

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

#: key in ``click.Context.meta``: the command line that continues where an interruption left off
RESUME = "rft_ilab.resume"

_ERRNOS = {errno.EACCES, errno.EROFS}
_SQLITE_CODES = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_RUST_MESSAGES = tuple(f"(os error {number})" for number in _ERRNOS)


def handled(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a click callback (below ``pass_context``): see the module's docstring."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except DiskError as error:
            fail(f"{error}{_resume()}")
        except RftError as error:
            fail(str(error))
        except KeyboardInterrupt:
            click.echo(f"interrupted{_resume()}", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            # Whoever read stdout has left. Click would end with 1, which reads as the gate's FAIL.
            from rft_ilab.cli.console import silence

            silence(sys.stdout)
            raise click.exceptions.Exit(EXIT_ERROR) from None
        except Exception as error:  # noqa: BLE001 - the boundary: nothing may leave with exit code 1
            full, line = disk_error(error) or out_of_memory(error), environment_failure(error)
            if full is not None:
                fail(f"{full}{_resume()}")
            if line is not None:
                fail(line)
            traceback.print_exc()
            raise click.exceptions.Exit(EXIT_ERROR) from None

    return wrapper


def _resume() -> str:
    command = click.get_current_context().meta.get(RESUME)
    return f"; resume with: {command}" if command else ""


def fail(line: str) -> NoReturn:
    """Print ``Error: line`` on stderr, whatever is in it as one line of plain text, and leave with exit code 2."""
    from rft_ilab.report.wording import visible

    click.echo("Error: " + " ".join(visible(line).splitlines()), err=True)
    raise click.exceptions.Exit(EXIT_ERROR)


def out_of_memory(error: Exception) -> str | None:
    """One line if the processor or a GPU has no memory left; None for every other error."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        first = str(error).partition(".")[0]
        return f"{first} (use a smaller model or shorter prompts, or CUDA_VISIBLE_DEVICES= to compute without the GPU)"
    refused = re.search(r"can't allocate memory: (.*? bytes)", str(error))
    if isinstance(error, MemoryError) or refused or getattr(error, "errno", None) == errno.ENOMEM:
        asked = f": {refused[1]}" if refused else ""
        return f"out of memory{asked} (use a smaller model or shorter prompts)"
    return None


def environment_failure(error: Exception) -> str | None:
    """One line for a missing permission; None for every other error. (Full disks: :mod:`rft_ilab.disk`.)"""
    if isinstance(error, OSError):
        if error.errno not in _ERRNOS:
            return None
        return f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}"
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return f"cache: {error}" if code is not None and code & 0xFF in _SQLITE_CODES else None
    if type(error).__name__ == "SafetensorError":  # not imported here: only training needs safetensors
        return str(error) if any(message in str(error) for message in _RUST_MESSAGES) else None
    return None
