"""Which skills a change concerns: for lint, of the working tree, uncommitted and new files included, since a branch
left another; for a pull request, of two commits (:mod:`.proposal`).

Compared is with the merge base, so that what the other branch did meanwhile is nobody's change here. As in
:mod:`.revision`, git is asked directly, with replacement objects, hooks and file system monitors switched off.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rft_ilab.config import FILE_NAME
from rft_ilab.errors import SkillError
from rft_ilab.skills.gitobjects import ask
from rft_ilab.skills.revision import Revision, find_revision
from rft_ilab.skills.tree import ROOT, shared_names

MAX_SETTINGS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """``skills``: those that are there and need a look. ``graders``: names of changed shared graders. ``gone``: skills
    that are no more, deleted or renamed."""

    skills: tuple[str, ...] = ()
    graders: frozenset[str] = frozenset()
    gone: tuple[str, ...] = ()


def find_changes(taxonomy: Path, ref: str, names: Collection[str]) -> Changes:
    """What differs from ``ref``; ``names`` are the skills of the working tree. Raises SkillError, see
    :func:`find_revision`.
    """
    revision = find_revision(taxonomy, ref)
    base = _merge_base(revision)
    inside = revision.inside
    paths = list(_changed(revision, base, [inside / ROOT, inside / FILE_NAME, *_folders(inside)]))
    return concerned(paths, revision, base, taxonomy, names)


def _folders(inside: PurePosixPath) -> list[PurePosixPath]:
    """Where shared graders may lie."""
    return [inside / "graders", *([inside.parent / "graders"] if inside.name else [])]


def concerned(
    paths: Collection[PurePosixPath], revision: Revision, base: str, taxonomy: Path, names: Collection[str]
) -> Changes:
    """What changed ``paths`` of a repository mean for the skills ``names``. ``taxonomy`` holds the files as they are
    now, the commit ``base`` those before.

    A skill needs a look if a file of its leaf, a shared grader that it names, or its table in ``rft.toml`` changed.
    """
    inside, folders = revision.inside, _folders(revision.inside)
    skills, gone = set[str](), set[str]()
    for path in paths:
        if (inside / ROOT) in path.parents:
            place = path.relative_to(inside / ROOT)
            above = {str(parent) for parent in place.parents}
            skills |= above.intersection(names)
            if place.name in ("grader.json", "tasks.jsonl") and str(place.parent) not in names:
                gone.add(str(place.parent))
    graders = frozenset(path.name.partition(".")[0] for path in paths if path.parent in folders)
    if graders:
        leaf = taxonomy / ROOT
        skills |= {name for name in names if graders & shared_names(leaf / name / "grader.json")}
    if inside / FILE_NAME in paths:
        skills |= _reconfigured(revision, base, taxonomy).intersection(names)
    return Changes(skills=tuple(sorted(skills)), graders=graders, gone=tuple(sorted(gone)))


def _merge_base(revision: Revision) -> str:
    """Where the branch left the other one; its tip where both share no history (or a shallow clone does not know)."""
    found, _ = ask(revision.repository, "merge-base", revision.commit, "HEAD")
    return found.decode().strip() if found else revision.commit


def _changed(revision: Revision, base: str, wanted: Iterable[PurePosixPath]) -> Iterable[PurePosixPath]:
    """Paths below the repository that differ from ``base`` or are new; not what git is told to ignore."""
    among = ["--", *map(str, wanted)]
    differs = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", base, *among]
    for arguments in (differs, ["ls-files", "--others", "--exclude-standard", "-z", *among]):
        listing, complaint = ask(revision.repository, *arguments)
        if listing is None:
            raise SkillError(f"git cannot compare with {revision.ref}: {complaint}", where=revision.repository)
        yield from (PurePosixPath(os.fsdecode(name)) for name in listing.split(b"\0") if name)


def _reconfigured(revision: Revision, base: str, taxonomy: Path) -> set[str]:
    """Names of the skills whose table in ``rft.toml`` differs. A file that cannot be read has no tables."""
    before, _ = ask(revision.repository, "cat-file", "blob", f"{base}:{revision.inside / FILE_NAME}")
    path = taxonomy / FILE_NAME
    here = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_SETTINGS_BYTES else b""
    old, new = _tables(before or b""), _tables(here)
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def _tables(text: bytes) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text.decode()).get("skills", {})
    except (ValueError, RecursionError, AttributeError):
        return {}
    return tables if isinstance(tables, dict) else {}
