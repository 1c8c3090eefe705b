"""Which engine the RL stage of a run was begun on: the local one, or Open-Instruct. A run keeps its engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rft_ilab.errors import RunError
from rft_ilab.store import Run

OPEN_INSTRUCT = "open-instruct"


def refuse_other_engine(run: Run, asked: Mapping[str, Any] | None) -> None:
    """Raises RunError if training was begun on another engine, or on Open-Instruct and ``asked`` for something else.

    ``asked`` is None for the local engine. Verified data serve both, so the run's identity does not name the engine.
    """
    fix = "choose another --run name"
    begun = run.manifest.get("engine")
    if begun is None:
        if asked is not None and run.path("rl", "checkpoint").exists():
            raise RunError("this run was begun on the local engine", where=run.directory, fix=fix)
        return
    if asked is None:
        raise RunError("this run was begun with --engine open-instruct", where=run.directory, fix=fix)
    before = begun.get("asked", {})
    if changed := sorted(key for key in {*before, *asked} if before.get(key) != asked.get(key)):
        raise RunError(
            f"this run was started with other settings of open_instruct ({', '.join(changed)})",
            where=run.directory,
            fix=f"{fix}, or remove the directory",
        )
