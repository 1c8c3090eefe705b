"""What judges, read from the base branch: graders, test tasks, settings and stored baselines of a git revision.

A change cannot edit what it is judged by. Skills that the revision does not have are judged by the working tree's own
files, and the verdict says so; a skill that the working tree lacks is judged all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab import config
from rft_ilab.errors import RftError, SkillError
from rft_ilab.skills.revision import Revision, find_revision, write_revision
from rft_ilab.skills.tree import ROOT, graders_directory, leaf_names


@dataclass(frozen=True, kw_only=True)
class Base:
    """``taxonomy`` is a temporary copy of the revision's, with the ``new`` skills of the working tree (``own``)."""

    revision: Revision
    taxonomy: Path
    own: Path
    new: tuple[str, ...]

    def settings(self) -> config.Settings:
        """The revision's; a new skill brings its own table."""
        settings = config.load_settings(self.taxonomy)
        mine = config.load_settings(self.own).skills if self.new else {}
        added = {name: mine[name] for name in self.new if name in mine}
        return dataclasses.replace(settings, skills={**settings.skills, **added})

    def annotate(self, verdict: dict[str, Any]) -> None:
        """Say in a verdict which commit judged, and what of it was judged by the change itself."""
        verdict["base"] = {"ref": self.revision.ref, "commit": self.revision.commit}
        for row in (*verdict["targets"], *verdict["watched"]):
            row["judged_by"] = "branch" if row["skill"] in self.new else "base"
        if self.new:
            names = ", ".join(self.new)
            verdict["reasons"].append(f"judged by the change's own files, not on {self.revision.ref} yet: {names}")


@contextlib.contextmanager
def base_tree(taxonomy: Path, ref: str, own: Path | None = None) -> Iterator[Base]:
    """What judges, as ``ref`` has it, for as long as the context lasts. New skills are those of ``own``, a taxonomy
    that need not lie in the repository, instead of the working tree's.

    Raises SkillError if there is no such commit or it holds no skills. Errors in the files that it wrote name the
    revision's file, not the temporary one.
    """
    if not taxonomy.is_dir():
        raise SkillError("no such taxonomy directory", where=taxonomy, fix="see --taxonomy-path")
    revision = find_revision(taxonomy, ref)
    with tempfile.TemporaryDirectory(prefix="rft-base-") as temporary:
        root = Path(temporary).resolve()
        judges = write_revision(revision, root)
        known, own = leaf_names(judges), own or taxonomy
        new = tuple(name for name in _own_names(own) if name not in known)
        for name in new:
            # Links stay links, so that reading the skill refuses them.
            leaf = judges / ROOT / name
            shutil.copytree(own / ROOT / name, leaf, symlinks=True, ignore=_folders, dirs_exist_ok=True)
        if new:
            _add_graders(graders_directory(own), graders_directory(judges))
        base = Base(revision=revision, taxonomy=judges, own=own, new=new)
        try:
            yield base
        except RftError as error:
            renamed = _renamed(error, base, root)
            if renamed is error:
                raise
            raise renamed from error


def _own_names(taxonomy: Path) -> tuple[str, ...]:
    try:
        return leaf_names(taxonomy)
    except SkillError:  # the working tree has none any more; the revision's are judged
        return ()


def _folders(directory: str, names: list[str]) -> list[str]:
    """A leaf's files are wanted, not the leaves below it."""
    return [name for name in names if Path(directory, name).is_dir() and not Path(directory, name).is_symlink()]


def _add_graders(own: Path, judging: Path) -> None:
    """Shared graders that the revision lacks; one that it has stays as it is there, whatever its suffix."""
    known = {path.stem for path in judging.iterdir()} if judging.is_dir() else set()
    for path in sorted(own.iterdir()) if own.is_dir() else ():
        if path.suffix in (".py", ".json") and path.stem not in known and (path.is_file() or path.is_symlink()):
            judging.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, judging / path.name, follow_symlinks=False)


def _renamed(error: RftError, base: Base, root: Path) -> RftError:
    """The same error with a place that is there when somebody reads it."""
    if error.where is None or not Path(error.where).is_relative_to(root):
        return error
    place = Path(error.where)
    for name in base.new:
        leaf = base.taxonomy / ROOT / name
        if place.is_relative_to(leaf):
            return type(error)(
                error.what, where=base.own / ROOT / name / place.relative_to(leaf), line=error.line, fix=error.fix
            )
    where = f"{base.revision.ref}:{place.relative_to(root).as_posix()}"
    return type(error)(error.what, where=where, line=error.line, fix=error.fix)
