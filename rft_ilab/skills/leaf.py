"""Write a skill: the four files of a leaf, all of them or none.

What is written can be read back (:mod:`rft_ilab.skills.tree`, :mod:`rft_ilab.skills.tasks`) and passes InstructLab's
schema and yamllint. The files are complete in a hidden directory beside the leaf before they get their name, so an
error or a crash leaves what was there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rft_ilab.disk import make_directory, put_in_place, staged
from rft_ilab.errors import SkillError
from rft_ilab.skills.reading import MAX_YAML_BYTES
from rft_ilab.skills.style import grader_text, row_text
from rft_ilab.skills.tree import ROOT, check_name
from rft_ilab.types import Seed

QNA, GRADER, TASKS, ATTRIBUTION = FILES = ("qna.yaml", "grader.json", "tasks.jsonl", "attribution.txt")
MAX_BLANK_LINES = 2  # yamllint's


def write_leaf(
    taxonomy: Path,
    name: str,
    *,
    description: str,
    seeds: Sequence[Seed],
    grader: Mapping[str, Any],
    tasks: Sequence[Mapping[str, Any]],
    attribution: str,
    created_by: str,
    force: bool = False,
) -> Path:
    """Write the leaf ``name`` (``healthcare/refill_dose``) and return its directory.

    ``tasks`` are rows of ``tasks.jsonl``. Nothing is judged here: lint does that. Raises SkillError for a bad name, one
    that leads through a symlink or another skill, and, without ``force``, for a leaf that is there.
    """
    files = {
        QNA: qna_text(description, seeds, created_by),
        GRADER: value_text(grader),
        TASKS: rows_text(tasks),
        ATTRIBUTION: attribution.rstrip("\n") + "\n",
    }
    return put_files(taxonomy, name, files, force=force)


def put_files(taxonomy: Path, name: str, files: Mapping[str, str], *, force: bool = False) -> Path:
    """Put ``files`` (name -> text) into the leaf, all at once; other files of the leaf stay. Raises SkillError.

    Without ``force`` a file that is there is an error; with it the file is replaced.
    """
    leaf = free_place(taxonomy, name, files, force=force)
    with _parents(leaf.parent), staged(leaf) as fresh:
        if leaf.is_dir():
            shutil.copytree(leaf, fresh, symlinks=True, dirs_exist_ok=True)
        for file, text in files.items():
            (fresh / file).write_text(text, encoding="utf-8", newline="")
        put_in_place(fresh, leaf)
    return leaf


def free_place(taxonomy: Path, name: str, files: Sequence[str] | Mapping[str, str] = FILES, *, force: bool) -> Path:
    """The directory of a leaf that may be written. Raises SkillError, see :func:`write_leaf`."""
    check_name(name, taxonomy / ROOT)
    if not taxonomy.is_dir():
        raise SkillError("no such taxonomy directory", where=taxonomy, fix="see --taxonomy-path")
    leaf = taxonomy / ROOT / name
    depth = name.count("/") + 1
    for place in (leaf, *leaf.parents[:depth]):
        if place.is_symlink():
            raise SkillError("is a symbolic link", where=place, fix="put the directory itself there")
        if place.exists() and not place.is_dir():
            raise SkillError("is a file", where=place, fix="choose another name")
    for above in leaf.parents[: depth - 1]:
        if (above / QNA).exists():
            raise SkillError(f"{name} would lie inside another skill", where=above / QNA, fix="choose another name")
    if leaf.is_dir() and any(path.is_dir() and not path.is_symlink() for path in leaf.iterdir()):
        raise SkillError("holds other skills, so it cannot be one", where=leaf, fix="choose another name")
    for file in files:
        if os.path.lexists(leaf / file) and (not force or (leaf / file).is_symlink()):
            fix = "choose another name, or add --force to replace it" if not force else "remove the symbolic link"
            raise SkillError("is there already", where=leaf / file, fix=fix)
    return leaf


def value_text(value: Mapping[str, Any]) -> str:
    """A grader for people."""
    return grader_text(value)


def rows_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """JSONL."""
    return "".join(row_text(row) + "\n" for row in rows)


def qna_text(description: str, seeds: Sequence[Seed], created_by: str) -> str:
    """A ``qna.yaml`` of version 3. Raises SkillError if it would be larger than what is read."""
    examples = [
        {"question": seed.question, "answer": seed.answer} | ({"context": seed.context} if seed.context else {})
        for seed in seeds
    ]
    content = {"version": 3, "created_by": created_by, "task_description": description, "seed_examples": examples}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    if len(text.encode()) > MAX_YAML_BYTES:
        raise SkillError(f"qna.yaml would be larger than {MAX_YAML_BYTES >> 10} kB", fix="shorten the description")
    return text


# What YAML 1.1 takes for the end of a line, besides the line feed.
BREAKS = ("\r", "\x85", "\u2028", "\u2029")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, where yamllint likes them; no aliases, which are refused when read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = None
    if "\n" in value:
        blank = "\n" * (MAX_BLANK_LINES + 2)
        plain = "\t" not in value and blank not in value and not value.startswith((" ", "\n")) and value[-2:] != "\n\n"
        style = "|" if plain else '"'
    if any(mark in value for mark in BREAKS):
        style = '"'  # the only style that names them; in the others they are folded into spaces
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


@contextlib.contextmanager
def _parents(directory: Path) -> Iterator[None]:
    """Make ``directory``; if what is done inside fails, those that were made for it and are empty go again."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    make_directory(directory)
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
