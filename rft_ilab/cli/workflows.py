"""The shipped GitHub workflows, written into the repository that holds a taxonomy."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from rft_ilab import __version__
from rft_ilab.errors import HostError
from rft_ilab.skills.gitobjects import ask
from rft_ilab.store import write_atomic

NAMES = ("rft-precheck.yaml", "rft-judge.yaml")
PLACE = Path(".github", "workflows")
PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # what needs no quoting anywhere


def workflow(name: str, *, taxonomy: str, package: str = f"rft-ilab=={__version__}") -> str:
    """The text of a shipped workflow for a taxonomy at that place in its repository."""
    text = resources.files("rft_ilab").joinpath("workflows", name).read_text(encoding="utf-8")
    return text.replace("@RFT_ILAB@", package).replace("@TAXONOMY@", taxonomy)


def install(taxonomy: Path, *, force: bool = False) -> list[Path]:
    """Write the workflows into the repository that holds ``taxonomy``; returns the files that were written.

    Raises HostError outside of a repository, where a link stands in the way, or where a file differs and ``force`` is
    not given; then nothing is written.
    """
    top, complaint = (
        ask(taxonomy.resolve(), "rev-parse", "--show-toplevel") if taxonomy.is_dir() else (None, "no directory")
    )
    if top is None:
        raise HostError(f"in no git repository: {complaint}", where=taxonomy, fix="the workflows belong into one")
    repository = Path(os.fsdecode(top.rstrip(b"\n"))).resolve()
    inside = taxonomy.resolve().relative_to(repository).as_posix()
    if not PLAIN.fullmatch(inside):
        raise HostError(f"the name {inside!r} cannot stand in a workflow", where=taxonomy, fix="rename the directory")
    texts = {repository / PLACE / name: workflow(name, taxonomy=inside) for name in NAMES}
    for file, text in texts.items():
        for path in (file, file.parent, file.parent.parent):
            if path.is_symlink():
                raise HostError("is a symbolic link", where=path, fix="remove it")
        if file.exists() and not force and file.read_text(encoding="utf-8", errors="replace") != text:
            raise HostError("is there already, and differs", where=file, fix="look at it; --force replaces it")
    for file, text in texts.items():
        write_atomic(file, text)
    return list(texts)
