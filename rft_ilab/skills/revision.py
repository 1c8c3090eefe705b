"""Files of a taxonomy as a git revision has them, read from git's objects and not from the working tree.

No checkout, no archive, no filters, no hooks: names and sizes come from ``git ls-tree``, contents from
``git cat-file``. Nothing of the working tree decides what is read, and replacement objects do not either.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rft_ilab.config import FILE_NAME
from rft_ilab.errors import SkillError
from rft_ilab.skills.gitobjects import LFS, REGULAR, Entry, ask, contents, entries
from rft_ilab.skills.tree import ROOT

MAX_FILES = 20_000
MAX_BYTES = 256 * 1024 * 1024  # of all files together
# What of a taxonomy judges; the rest of it is not read.
PARTS = (ROOT, "baselines", "graders", FILE_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A commit of the repository that holds a taxonomy. ``inside`` is the taxonomy's place in it."""

    repository: Path
    inside: PurePosixPath
    ref: str
    commit: str


def find_revision(taxonomy: Path, ref: str) -> Revision:
    """The commit that ``ref`` names. Raises SkillError if there is none, or if the name has two meanings."""
    if not ref or ref[0] in "-^" or not ref.isprintable() or re.search(r"[\s:]|\.\.", ref):
        raise SkillError(f"bad git reference {ref[:80]!r}", fix="name a branch, tag or commit, e.g. origin/main")
    directory = taxonomy.resolve()
    top, complaint = ask(directory, "rev-parse", "--show-toplevel")
    if not top:
        raise SkillError(f"in no git repository: {complaint}", where=taxonomy, fix="--base reads what judges from git")
    repository = Path(os.fsdecode(top.rstrip(b"\n"))).resolve()
    found, complaint = ask(repository, "rev-parse", "--verify", f"{ref}^{{commit}}")
    if found is None or not re.fullmatch(rb"[0-9a-f]{40,64}\n", found):
        fix = "fetch it, e.g. git fetch origin main; a shallow clone may lack it"
        raise SkillError(f"no commit {ref!r} in this repository", where=repository, fix=fix)
    if "ambiguous" in complaint:
        # A tag that a stranger calls origin/main would win over the branch.
        fix = "write it out: refs/remotes/... or refs/heads/..."
        raise SkillError(f"{ref!r} has two meanings in this repository", where=repository, fix=fix)
    inside = PurePosixPath(directory.relative_to(repository).as_posix())
    return Revision(repository=repository, inside=inside, ref=ref, commit=found.decode().strip())


def write_revision(revision: Revision, target: Path) -> Path:
    """Write what judges below ``target``: the taxonomy, and ``graders/`` beside it; returns the taxonomy there.

    Raises SkillError on symbolic links, submodules and LFS pointers where a skill would need them, on names that lead
    out of the tree, and beyond ``MAX_FILES`` or ``MAX_BYTES``.
    """
    inside = revision.inside
    wanted = [str(inside / part) for part in PARTS]
    if inside.name:
        wanted.append(str(inside.parent / "graders"))
    commit = revision.commit
    listing, complaint = entries(revision.repository, commit, *wanted)
    if listing is None:
        raise SkillError(f"git cannot read {revision.ref}: {complaint}", where=revision.repository)
    found = [(_place(entry, revision), entry) for entry in listing]
    skills = inside / ROOT
    ours = {path.parent for path, _ in found if path.name in ("grader.json", "tasks.jsonl")}
    if not any(skills in folder.parents for folder in ours):
        raise SkillError(f"{revision.ref} has no skill in {skills}", where=revision.repository)
    files = []
    for path, entry in found:
        if entry.mode in REGULAR:
            files.append((path, entry))
        elif entry.mode != "120000" or skills not in path.parents or path.parent in ours:
            raise SkillError(f"is {entry.kind}", where=f"{revision.ref}:{path}", fix="put the file itself there")
    size = sum(entry.size for _, entry in files)
    if len(files) > MAX_FILES or size > MAX_BYTES:
        raise SkillError(
            f"{len(files)} files of {size >> 20} MiB are more than {MAX_FILES} or {MAX_BYTES >> 20} MiB",
            where=f"{revision.ref}:{inside}",
        )
    for (path, _), content in zip(files, contents(revision.repository, [e for _, e in files]), strict=True):
        if content.startswith(LFS):
            raise SkillError(
                "is a Git LFS pointer", where=f"{revision.ref}:{path}", fix="keep what judges in git itself"
            )
        file = target.joinpath(*path.parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return target.joinpath(*inside.parts)


def _place(entry: Entry, revision: Revision) -> PurePosixPath:
    if not entry.may_be_written:
        what = f"a name in the tree that no file may have: {entry.path!r}"
        raise SkillError(what, where=revision.ref, fix="rename it")
    return PurePosixPath(entry.path)
