"""What a branch would change, read from git's objects: which skills, and what else. Nothing is checked out.

A branch is anybody's. What a skill may not be made of (links, submodules, names that lead out of the tree, floods) is
a :class:`Problem` with its file, not an exception: a report names them all. Only regular files with good names are ever
written to disk, below a directory of ours.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from rft_ilab.config import FILE_NAME
from rft_ilab.errors import SkillError
from rft_ilab.skills.gitobjects import LFS, REGULAR, Entry, ask, contents, entries
from rft_ilab.skills.revision import MAX_BYTES, MAX_FILES, Revision, find_revision
from rft_ilab.skills.tasks import FILE as TASKS
from rft_ilab.skills.tree import ROOT

MAX_FILE_BYTES = 64 << 20
MAX_ROWS = 100_000  # lines of one file
MAX_PART = 255  # bytes of one part of a path, as file systems have it
OWN_FILES = ("grader.json", TASKS)

Kind = Literal["new", "changed", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something of the branch that is refused. ``file`` is relative to the repository, and may hold anything."""

    file: str
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The difference between ``base`` and ``head`` since they ``parted`` (a commit). Paths are relative to the
    repository.

    ``skills``: those with a grader or tasks of which a file changed. ``judging``: changed files outside of them that
    judge (settings, baselines, shared graders). ``plain``: changed leaves that InstructLab alone knows. ``others``: all
    the rest, and ``links`` those of them that are no regular files. ``problems`` are those of ``listed``, the files of
    the taxonomy at ``head``.
    """

    base: Revision
    head: Revision
    parted: str
    skills: Mapping[str, Kind]
    files: Mapping[str, tuple[str, ...]]
    judging: tuple[str, ...]
    plain: tuple[str, ...]
    others: tuple[str, ...]
    links: tuple[Problem, ...]
    problems: tuple[Problem, ...]
    listed: tuple[Entry, ...]
    uncommitted: bool

    @property
    def root(self) -> PurePosixPath:
        return self.base.inside / ROOT

    def skill_of(self, file: str) -> str | None:
        """The skill in whose leaf a file lies, if it changed."""
        folder = PurePosixPath(file).parent
        name = folder.relative_to(self.root).as_posix() if self.root in folder.parents else None
        return name if name in self.skills else None


def read_proposal(taxonomy: Path, base: str, head: str = "HEAD") -> Proposal:
    """Compare two revisions of the repository that holds ``taxonomy``.

    Changed is what differs between ``head`` and the commit where it left ``base``. Raises SkillError if there is no
    such commit or the two have none in common.
    """
    judge, proposed = find_revision(taxonomy, base), find_revision(taxonomy, head)
    repository = judge.repository
    found, _ = ask(repository, "merge-base", judge.commit, proposed.commit)
    if found is None:
        fix = "fetch the whole history: git fetch --unshallow"
        raise SkillError(f"{base!r} and {head!r} have no commit in common", where=repository, fix=fix)
    parted = found.decode().split()[0]
    before = _files(repository, parted, base)
    after = _files(repository, proposed.commit, head)
    differing = {path for path in {*before, *after} if _state(before.get(path)) != _state(after.get(path))}
    root = judge.inside / ROOT
    leaves = {
        PurePosixPath(path).parent
        for path in (*before, *after)
        if path.endswith(tuple(f"/{name}" for name in OWN_FILES)) and root in PurePosixPath(path).parents
    }
    sorted_out = _Sorted(judge.inside, leaves)
    for path in sorted(differing):
        sorted_out.add(path)
    skills: dict[str, Kind] = {}
    for name in sorted_out.files:
        there = [any(f"{root / name / own}" in side for own in OWN_FILES) for side in (before, after)]
        skills[name] = "changed" if all(there) else "new" if there[1] else "deleted"
    # Baselines of a branch are never read: the base's judge.
    listed = [
        entry
        for path, entry in after.items()
        if root in (parents := PurePosixPath(path).parents)
        or (sorted_out.judges(path) and sorted_out.baselines not in parents)
    ]
    return Proposal(
        base=judge,
        head=proposed,
        parted=parted,
        skills=skills,
        files={name: tuple(paths) for name, paths in sorted_out.files.items()},
        judging=tuple(sorted_out.judging),
        plain=tuple(sorted(sorted_out.plain)),
        others=tuple(sorted_out.others),
        links=tuple(
            Problem(file=path, what=f"is {after[path].kind}")
            for path in sorted_out.others
            if path in after and after[path].mode not in REGULAR
        ),
        problems=tuple(_problems(listed, differing, leaves, root)),
        listed=tuple(listed),
        uncommitted=head == "HEAD" and _may_differ(repository, str(judge.inside)),
    )


def _may_differ(repository: Path, inside: str) -> bool:
    """Whether files of the working tree may differ from ``HEAD``: by what git remembers of them, as reading them would
    run the filters that ``.gitattributes`` names."""
    options = ("--raw", "--no-ext-diff", "--ignore-submodules=all")
    staged, _ = ask(repository, "diff-index", "--cached", *options, "HEAD", "--", inside)
    edited, _ = ask(repository, "diff-files", *options, "--", inside)
    new, _ = ask(repository, "ls-files", "--others", "--exclude-standard", "-z", "--", inside)
    return any((staged, edited, new))


class _Sorted:
    """Changed paths by what they are to us."""

    def __init__(self, inside: PurePosixPath, leaves: set[PurePosixPath]) -> None:
        self.root, self.inside, self.leaves = inside / ROOT, inside, leaves
        self.graders = {inside / "graders", inside.parent / "graders"}
        self.baselines = inside / "baselines"
        self.files: dict[str, list[str]] = {}
        self.judging: list[str] = []
        self.plain: set[str] = set()
        self.others: list[str] = []

    def judges(self, path: str) -> bool:
        place = PurePosixPath(path)
        return bool(
            place == self.inside / FILE_NAME
            or self.baselines in (place, *place.parents)
            or self.graders & {place, place.parent}
            or place in (self.root, self.inside, *self.inside.parents)  # a file where a directory should be
        )

    def add(self, path: str) -> None:
        folder = PurePosixPath(path).parent
        if folder in self.leaves:
            self.files.setdefault(folder.relative_to(self.root).as_posix(), []).append(path)
        elif self.root in folder.parents:
            self.plain.add(folder.relative_to(self.root).as_posix())
        elif self.judges(path):
            self.judging.append(path)
        else:
            self.others.append(path)


def _files(repository: Path, commit: str, ref: str) -> dict[str, Entry]:
    found, complaint = entries(repository, commit)
    if found is None:
        raise SkillError(f"git cannot read {ref}: {complaint}", where=repository)
    return {entry.path: entry for entry in found}


def _state(entry: Entry | None) -> tuple[str, str] | None:
    return None if entry is None else (entry.mode, entry.blob)


def _problems(
    listed: Sequence[Entry], differing: set[str], leaves: set[PurePosixPath], root: PurePosixPath
) -> Iterator[Problem]:
    spelled: dict[str, tuple[str, str]] = {}
    for entry in listed:
        path = PurePosixPath(entry.path)
        for place in (path, *path.parents):
            same = unicodedata.normalize("NFC", str(place)).casefold()
            first, owner = spelled.setdefault(same, (str(place), entry.path))
            if first != str(place) and {entry.path, owner} & differing:
                file, other = (entry.path, first) if entry.path in differing else (owner, str(place))
                what = f"the same name as {other!r} on file systems that ignore case"
                yield Problem(file=file, what=what, fix="rename one of the two")
        if not entry.may_be_written:
            yield Problem(file=entry.path, what="a name that no file may have", fix="rename it")
        elif any(len(os.fsencode(part)) > MAX_PART for part in path.parts):
            yield Problem(file=entry.path, what="a name that is too long", fix="rename it")
        elif entry.mode not in REGULAR:
            # What lies beside other people's plain leaves is theirs, unless this branch brings it.
            if entry.path in differing or path.parent in leaves or root not in path.parents:
                yield Problem(file=entry.path, what=f"is {entry.kind}", fix="put the file itself there")
        elif entry.path in differing and entry.size > MAX_FILE_BYTES:
            what = f"{entry.size:,} bytes are more than the limit of {MAX_FILE_BYTES:,}"
            yield Problem(file=entry.path, what=what, fix="split it")
    size = sum(entry.size for entry in listed)
    if len(listed) > MAX_FILES or size > MAX_BYTES + sum(e.size for e in listed if e.size > MAX_FILE_BYTES):
        what = f"{len(listed):,} files of {size >> 20:,} MiB are more than {MAX_FILES:,} or {MAX_BYTES >> 20} MiB"
        yield Problem(file=str(root), what=what, fix="split the change")


def write_proposal(proposal: Proposal, target: Path) -> list[Problem]:
    """Write the taxonomy of ``head`` (without its baselines) below ``target``; returns further problems.

    Files with a problem are left out, and nothing at all is written when there are too many.
    """
    bad = {problem.file for problem in proposal.problems}
    if str(proposal.root) in bad:
        return []
    wanted = [
        e for e in proposal.listed if e.mode in REGULAR and e.may_be_written and not {e.path, *_parents(e.path)} & bad
    ]
    found = []
    changed = {path for paths in proposal.files.values() for path in paths} | set(proposal.judging)
    for entry, content in zip(wanted, contents(proposal.head.repository, wanted), strict=True):
        problem = _content_problem(entry, content) if entry.path in changed else None
        if problem is not None:
            found.append(problem)
            continue
        file = target.joinpath(*PurePosixPath(entry.path).parts)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            # No tool of git makes such a tree, but one can be made.
            found.append(Problem(file=entry.path, what="a file and a directory of the same name", fix="rename one"))
    return found


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents][:-1]


def _content_problem(entry: Entry, content: bytes) -> Problem | None:
    if content.startswith(LFS):
        return Problem(file=entry.path, what="is a Git LFS pointer", fix="keep skills in git itself")
    rows = content.count(b"\n")
    if entry.path.endswith(".jsonl") and rows > MAX_ROWS:
        what = f"{rows:,} lines are more than the limit of {MAX_ROWS:,}"
        return Problem(file=entry.path, what=what, fix="split the skill, or sample its tasks")
    return None
