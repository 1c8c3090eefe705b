"""A directory of results as ``ilab model evaluate`` leaves one: ``DIR/MODEL/``, made if it is not there.

``verdict.json`` and ``results.jsonl`` are the files of the run's ``gate/``; ``report.md``, ``report.html`` and
``junit.xml`` are made from them. A later verdict on the same model replaces all five.
"""

from __future__ import annotations

import re
from pathlib import Path

from rft_ilab.report.data import RunReport
from rft_ilab.report.html import write_html
from rft_ilab.report.junit import write_junit
from rft_ilab.report.markdown import markdown_summary
from rft_ilab.results import FILE
from rft_ilab.store import read_json, write_atomic
from rft_ilab.types import digest


def write_output_dir(report: RunReport, directory: Path) -> Path:
    """Write the files below ``directory``; returns ``DIR/MODEL``.

    Raises RunError if the run has no verdict, DiskError when there is no room.
    """
    verdict = report.directory / "gate" / "verdict.json"
    candidate = read_json(verdict).get("candidate", {})
    place = _place(directory, str(candidate.get("name", "")), str(candidate.get("id", "")))
    results = report.directory.joinpath(*FILE)
    if results.exists():
        write_atomic(place / "results.jsonl", results.read_bytes())
    write_atomic(place / "report.md", markdown_summary(report))
    write_html(report, place / "report.html")
    write_junit(report, place / "junit.xml")
    write_atomic(place / "verdict.json", verdict.read_bytes())
    return place


def _place(directory: Path, name: str, identity: str) -> Path:
    """``DIR/MODEL``, with a digest in its name if another model's results are there."""
    place = directory / model_name(name)
    there = place / "verdict.json"
    if there.exists() and read_json(there).get("candidate", {}).get("id") != identity:
        return place.with_name(f"{place.name}-{digest(identity)[:12]}")
    return place


def model_name(name: str) -> str:
    """What to call a model that is known by its path; that of a run is called as the run is.

    >>> model_name("/runs/train/model"), model_name("org/granite 3.1/"), model_name("..")
    ('train', 'granite_3.1', 'model')
    """
    path = Path(name)
    word = path.parent.name if path.name == "model" and path.parent.name else path.name
    safe = re.sub(r"[^\w.-]", "_", word)
    return safe if safe.strip(".") else "model"
