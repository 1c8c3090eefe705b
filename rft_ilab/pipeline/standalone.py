"""A gate without a training run: a run directory that holds verdicts and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from rft_ilab.errors import RunError
from rft_ilab.pipeline.request import versions
from rft_ilab.store import Run, is_trained

KIND = "gate"


def gate_run(candidate: Path, runs: Path, output: Path | None = None) -> Path:
    """The directory for the verdict on a model: ``output``, else one below ``runs`` that is named after its weights.

    One that is there is used again, for other candidates too. Raises PolicyError if there is no model, RunError if the
    directory belongs to a training run.
    """
    from rft_ilab.policy.local.model import check_model_directory, directory_digest

    check_model_directory(candidate)
    directory = output or runs / f"gate-{directory_digest(candidate)[:12]}"
    if is_trained(directory):
        raise RunError("belongs to a training run", where=directory, fix="give another --run")
    facts = {
        "identity": {"kind": KIND},
        "kind": KIND,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
    }
    Run.create(directory, facts)
    return directory
