"""Files of a taxonomy as a git revision has them, read from git's objects and not from the working tree.

No checkout, no archive, no filters, no hooks: names and sizes come from ``git ls-tree``, contents from
``git cat-file``. Nothing of the working tree decides what is read, and replacement objects do not either.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rft_ilab.config import FILE_NAME
from rft_ilab.errors import SkillError
from rft_ilab.skills.tree import ROOT

MAX_FILES = 20_000
MAX_BYTES = 256 * 1024 * 1024  # of all files together
SECONDS = 120  # of one git command
LFS = b"version https://git-lfs.github.com/spec/"
# What of a taxonomy judges; the rest of it is not read.
PARTS = (ROOT, "baselines", "graders", FILE_NAME)
# What would make git look elsewhere than into the repository of the taxonomy.
FOREIGN = tuple(
    f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "NAMESPACE")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A commit of the repository that holds a taxonomy. ``inside`` is the taxonomy's place in it."""

    repository: Path
    inside: PurePosixPath
    ref: str
    commit: str


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: str
    blob: str
    size: int
    path: PurePosixPath


def find_revision(taxonomy: Path, ref: str) -> Revision:
    """The commit that ``ref`` names. Raises SkillError if there is none, or if the name has two meanings."""
    if not ref or ref[0] in "-^" or not ref.isprintable() or re.search(r"[\s:]|\.\.", ref):
        raise SkillError(f"bad git reference {ref[:80]!r}", fix="name a branch, tag or commit, e.g. origin/main")
    directory = taxonomy.resolve()
    top, complaint = run_git(directory, "rev-parse", "--show-toplevel")
    if not top:
        raise SkillError(f"in no git repository: {complaint}", where=taxonomy, fix="a revision is read from git")
    repository = Path(os.fsdecode(top.rstrip(b"\n"))).resolve()
    found, complaint = run_git(repository, "rev-parse", "--verify", f"{ref}^{{commit}}")
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
    listing, complaint = run_git(revision.repository, "ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--", *wanted)
    if listing is None:
        raise SkillError(f"git cannot read {revision.ref}: {complaint}", where=revision.repository)
    entries = [_entry(line, revision) for line in listing.split(b"\0") if line]
    skills = inside / ROOT
    ours = {e.path.parent for e in entries if e.path.name in ("grader.json", "tasks.jsonl")}
    if not any(skills in folder.parents for folder in ours):
        raise SkillError(f"{revision.ref} has no skill in {skills}", where=revision.repository)
    files = []
    for entry in entries:
        if entry.mode in ("100644", "100755"):
            files.append(entry)
        elif entry.mode != "120000" or skills not in entry.path.parents or entry.path.parent in ours:
            kind = {"120000": "a symbolic link", "160000": "a submodule"}.get(entry.mode, "no regular file")
            raise SkillError(f"is {kind}", where=f"{revision.ref}:{entry.path}", fix="put the file itself there")
    if len(files) > MAX_FILES or sum(e.size for e in files) > MAX_BYTES:
        raise SkillError(
            f"{len(files)} files of {sum(e.size for e in files) >> 20} MiB are more than {MAX_FILES} or "
            f"{MAX_BYTES >> 20} MiB",
            where=f"{revision.ref}:{inside}",
        )
    for entry, content in zip(files, _contents(revision.repository, files), strict=True):
        if content.startswith(LFS):
            raise SkillError(
                "is a Git LFS pointer", where=f"{revision.ref}:{entry.path}", fix="keep what judges in git itself"
            )
        path = target.joinpath(*entry.path.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return target.joinpath(*inside.parts)


def _entry(line: bytes, revision: Revision) -> _Entry:
    """One line of ``ls-tree -l``: mode, type, object, size (a dash for what is no blob), tab, path."""
    facts, _, name = line.partition(b"\t")
    mode, _, blob, size = facts.decode().split()
    path = os.fsdecode(name)
    # A tree object is only bytes: nothing stops one from holding a name like `..`.
    if any(part in ("", ".", "..", ".git") for part in path.split("/")) or not path.isprintable():
        raise SkillError(f"a name in the tree that no file may have: {path!r}", where=revision.ref, fix="rename it")
    return _Entry(mode, blob, int(size) if size.isdigit() else 0, PurePosixPath(path))


def _contents(repository: Path, entries: Sequence[_Entry]) -> Iterator[bytes]:
    """The blobs, one at a time, from one process. Raises SkillError if git does not have one."""
    with subprocess.Popen(
        ["git", "-C", str(repository), "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    ) as process:
        assert process.stdin and process.stdout
        for entry in entries:
            process.stdin.write(f"{entry.blob}\n".encode())
            process.stdin.flush()
            header = process.stdout.readline().split()
            if header[1:2] != [b"blob"]:
                raise SkillError(f"git has no content of {entry.path}", where=repository, fix="fetch it: git fetch")
            content = process.stdout.read(int(header[2]))
            process.stdout.read(1)  # the line feed that closes it
            yield content


def run_git(directory: Path, *arguments: str) -> tuple[bytes | None, str]:
    """What git said, None if it failed, and what it complained of (one line)."""
    quiet = ["-c", "core.fsmonitor=false", "-c", "core.warnAmbiguousRefs=true"]
    command = ["git", "-C", str(directory), *quiet, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, env=_environment())
    except FileNotFoundError as error:
        raise SkillError("git is not installed", fix="a revision is read with it") from error
    except subprocess.TimeoutExpired as error:
        raise SkillError(f"git {arguments[0]} took more than {SECONDS} s", where=directory) from error
    complaint = " ".join(done.stderr.decode(errors="replace").split())[:200]
    return (None if done.returncode else done.stdout), complaint


def _environment() -> Mapping[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in FOREIGN}
    fixed = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_LITERAL_PATHSPECS": "1", "GIT_OPTIONAL_LOCKS": "0"}
    return {**kept, **fixed, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
