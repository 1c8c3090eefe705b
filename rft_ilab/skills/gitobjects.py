"""Git's objects, read by plumbing: names and sizes from ``git ls-tree``, contents from ``git cat-file``.

Nothing here makes a working tree or a diff, so nothing that a commit holds is ever acted on: no filter, no attribute,
no ``textconv``, no hook, no submodule. Replacement objects are not looked at, and the file system monitor that a
configuration may name is not started. git takes any directory that looks like the inside of a ``.git`` for a repository
and runs what the ``config`` there names, so files that a commit brought could be one: see :func:`asking`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rft_ilab.errors import SkillError

SECONDS = 120  # of one git command
MAX_LISTING = 64 << 20  # bytes that name the files of a tree; a few objects can hold one another a billion times
REGULAR = ("100644", "100755")
KINDS = {"120000": "a symbolic link", "160000": "a submodule"}
LFS = b"version https://git-lfs.github.com/spec/"
# What would make git look elsewhere than into the repository it is pointed at.
FOREIGN = tuple(
    f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "NAMESPACE")
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree; ``path`` is relative to the repository and not checked, ``size`` is in bytes."""

    mode: str
    blob: str
    size: int
    path: str

    @property
    def kind(self) -> str:
        """What it is instead of a regular file."""
        return KINDS.get(self.mode, "no regular file")

    @property
    def may_be_written(self) -> bool:
        """A tree object is only bytes: nothing stops one from holding a name like ``..``. Nor may a file be ``HEAD``,
        which would make a repository of its directory."""
        parts = self.path.split("/")
        unfit = parts[-1] == "HEAD" or any(part in ("", ".", "..") or part.casefold() == ".git" for part in parts)
        return self.path.isprintable() and not unfit


def entries(repository: Path, commit: str, *paths: str) -> tuple[list[Entry] | None, str]:
    """All files of a commit, or those below ``paths``; None and git's complaint if it cannot be read."""
    wanted = ["ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--", *paths]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [*asking(repository), *wanted], stdout=subprocess.PIPE, stderr=said, env=environment()
        ) as process,
    ):
        assert process.stdout
        ending = threading.Timer(SECONDS, process.kill)
        ending.start()
        listing = process.stdout.read(MAX_LISTING + 1)
        ending.cancel()
        if len(listing) > MAX_LISTING:
            process.kill()
            return None, f"more than {MAX_LISTING >> 20} MiB of names of files"
        if process.wait():
            said.seek(0)
            return None, _line(said.read())
    return [_entry(line) for line in listing.split(b"\0") if line], ""


def _entry(line: bytes) -> Entry:
    """One line of ``ls-tree -l``: mode, type, object, size (a dash for what is no blob), tab, path."""
    facts, _, name = line.partition(b"\t")
    mode, _, blob, size = facts.decode().split()
    return Entry(mode, blob, int(size) if size.isdigit() else 0, os.fsdecode(name))


def contents(repository: Path, wanted: Sequence[Entry]) -> Iterator[bytes]:
    """The blobs, one at a time, from one process. Raises SkillError if git does not have one."""
    with subprocess.Popen(
        [*asking(repository), "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        assert process.stdin and process.stdout
        for entry in wanted:
            process.stdin.write(f"{entry.blob}\n".encode())
            process.stdin.flush()
            header = process.stdout.readline().split()
            if header[1:2] != [b"blob"]:
                raise SkillError(f"git has no content of {entry.path}", where=repository, fix="fetch it: git fetch")
            content = process.stdout.read(int(header[2]))
            process.stdout.read(1)  # the line feed that closes it
            yield content


def asking(directory: Path) -> list[str]:
    """The beginning of a command of git's in a working tree. Only ``.git`` makes a repository here, whatever else lies
    above or in ``directory``; git obeys from 2.38 on.

    Raises SkillError where an older one would find something else, too.
    """
    for folder in (place := Path(os.path.abspath(directory)), *place.parents):
        if os.path.lexists(folder / ".git"):
            break
        if os.path.lexists(folder / "HEAD"):
            raise SkillError("git would take this directory for a repository", where=folder, fix="remove HEAD from it")
    return ["git", "-C", str(directory), "-c", "core.fsmonitor=false", "-c", "safe.bareRepository=explicit"]


def ask(directory: Path, *arguments: str) -> tuple[bytes | None, str]:
    """What git said, None if it failed, and what it complained of (one line). Raises SkillError, see :func:`asking`."""
    command = [*asking(directory), "-c", "core.warnAmbiguousRefs=true", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, env=environment())
    except FileNotFoundError as error:
        raise SkillError("git is not installed", fix="a revision is read with it") from error
    except subprocess.TimeoutExpired as error:
        raise SkillError(f"git {arguments[0]} took more than {SECONDS} s", where=directory) from error
    return (None if done.returncode else done.stdout), _line(done.stderr)


def _line(complaint: bytes) -> str:
    return " ".join(complaint.decode(errors="replace").split())[:200]


def git(directory: Path, *arguments: str) -> str:
    """What git prints there; empty if there is no git, no repository or no answer in time."""
    try:
        said, _ = ask(directory, *arguments)
    except (SkillError, OSError):
        return ""
    return (said or b"").decode(errors="replace").strip()


def environment() -> Mapping[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in FOREIGN}
    fixed = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_LITERAL_PATHSPECS": "1", "GIT_OPTIONAL_LOCKS": "0"}
    return {**kept, **fixed, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
