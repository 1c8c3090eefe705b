"""The taxonomy in git: which leaves are skills of ours, and what each of them says.

A leaf below ``compositional_skills`` is ours when it has a ``grader.json`` or a ``tasks.jsonl``
(then it needs both, and a ``qna.yaml``); leaves with only a ``qna.yaml`` are plain InstructLab
skills and are left alone. Everything is read strictly (:mod:`rft_ilab.skills.reading`), symlinks are
refused, and ``{"type": "ref"}`` is replaced by the grader that it names in ``graders/``.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_ilab.config import FILE_NAME, Settings
from rft_ilab.errors import SkillError
from rft_ilab.skills.gitobjects import asking
from rft_ilab.skills.reading import has_lone_surrogate, line_of, parse_json, read_text, read_yaml
from rft_ilab.types import Seed, Skill, digest

ROOT = "compositional_skills"
MAX_GRADER_BYTES = 256 * 1024
NAME = re.compile(r"[a-z0-9_]{1,200}")  # file systems take 255 bytes
MAX_NAME = 1000  # of all parts together, far below the longest path
# Part of every grader digest: raise it when the meaning of a grader type changes, so that no
# cached grade of the older meaning survives.
GRADING_VERSION = 2


def find_skills(taxonomy: Path, settings: Settings) -> tuple[Skill, ...]:
    """All skills of a taxonomy, by name. Raises SkillError; a taxonomy without any is an error."""
    names = leaf_names(taxonomy)
    check_settings(taxonomy, settings, names)
    return tuple(load_skill(taxonomy, name, settings) for name in names)


def leaf_names(taxonomy: Path) -> tuple[str, ...]:
    """Names of the leaves that have a grader or tasks. Raises SkillError if there are none."""
    root = taxonomy / ROOT
    if not root.is_dir():
        raise SkillError(f"no {ROOT} directory", where=taxonomy, fix="is this a taxonomy?")
    names = []
    for directory, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if {"grader.json", "tasks.jsonl"} & set(files):
            names.append(Path(directory).relative_to(root).as_posix())
    if not names:
        fix = "add grader.json and tasks.jsonl beside a qna.yaml"
        raise SkillError("no skill with a grader.json and tasks.jsonl", where=root, fix=fix)
    return tuple(sorted(names))


def check_settings(taxonomy: Path, settings: Settings, names: tuple[str, ...]) -> None:
    """Raises SkillError if ``rft.toml`` has a table for a skill that is not there."""
    for name in settings.skills:
        if name not in names:
            where = taxonomy / FILE_NAME
            raise SkillError(f'[skills."{name}"] names no skill', where=where, fix=f"known: {', '.join(names)}")


def load_skill(taxonomy: Path, name: str, settings: Settings) -> Skill:
    """One skill by name, e.g. ``healthcare/patient_triage``. Raises SkillError (file, line, repair)."""
    leaf = check_leaf(taxonomy, name)
    description, seeds = read_qna(leaf / "qna.yaml")
    grader = read_grader(leaf / "grader.json", graders_directory(taxonomy))
    return Skill(
        name=name,
        directory=leaf,
        description=description,
        seeds=seeds,
        grader=grader,
        grader_digest=digest([GRADING_VERSION, grader]),
        tier=settings.skill(name).tier,
        commit=_commit(leaf),
    )


def check_leaf(taxonomy: Path, name: str) -> Path:
    """The directory of a skill, with all its files there and none of them a symlink. Raises SkillError."""
    leaf = taxonomy / ROOT / name
    check_name(name, leaf)
    if not leaf.is_dir():
        raise SkillError(f"no skill {name!r}", where=taxonomy, fix=f"a skill is a directory below {ROOT}/")
    for path in (*leaf.iterdir(), *(leaf, *leaf.parents)[: name.count("/") + 1]):
        if path.is_symlink():
            raise SkillError("is a symbolic link", where=path, fix="put the file itself there")
    needs = {
        "qna.yaml": "write it as for any InstructLab skill",
        "grader.json": "say how an answer is graded; see docs/graders.md",
        "tasks.jsonl": 'add one {"messages": [...], "reference": "..."} a line',
    }
    for file, fix in needs.items():
        if not (leaf / file).is_file():
            raise SkillError("missing file", where=leaf / file, fix=fix)
    return leaf


def check_name(name: str, where: Path) -> None:
    """Raises SkillError unless ``name`` is one of a skill, so neither ``..`` nor an absolute path."""
    if len(name) > MAX_NAME:
        raise SkillError(f"bad skill name {name[:40]!r}...", fix=f"use at most {MAX_NAME} characters")
    for part in name.split("/"):
        if not NAME.fullmatch(part):
            fix = "use at most 200 lower-case letters, digits and underscores"
            raise SkillError(f"bad skill name {name!r}", where=where, fix=fix)


def graders_directory(taxonomy: Path) -> Path:
    """The shared graders: beside the taxonomy, else inside it (which may not exist either)."""
    beside = taxonomy.resolve().parent / "graders"
    return beside if beside.is_dir() else taxonomy / "graders"


def read_qna(path: Path) -> tuple[str, tuple[Seed, ...]]:
    """Description and seed examples of a ``qna.yaml``; only what we use is checked, InstructLab checks the rest."""
    raw, node = read_yaml(path)
    if not isinstance(raw, dict):
        raise SkillError("must be a mapping", where=path, line=line_of(node), fix="see InstructLab's taxonomy format")
    description = raw.get("task_description")
    if not isinstance(description, str) or not description.strip():
        line = line_of(node, "task_description")
        raise SkillError("task_description must be a text", where=path, line=line, fix="say what the skill does")
    examples = raw.get("seed_examples")
    if not isinstance(examples, list):
        raise SkillError("seed_examples must be a list", where=path, line=line_of(node, "seed_examples"))
    seeds = []
    for index, example in enumerate(examples):
        if not isinstance(example, dict):
            line = line_of(node, "seed_examples", index)
            raise SkillError(f"seed example {index + 1} must be a mapping", where=path, line=line)
        for key in ("question", "answer", "context"):
            value = example.get(key)
            if not (isinstance(value, str) and value.strip()) and not (key == "context" and value is None):
                line = line_of(node, "seed_examples", index, key)
                what = f"{key} of seed example {index + 1} must be a text, not {value!r}"
                raise SkillError(what, where=path, line=line, fix="quote it")
        seeds.append(Seed(question=example["question"], answer=example["answer"], context=example.get("context")))
    if has_lone_surrogate([description, [[seed.question, seed.answer, seed.context] for seed in seeds]]):
        raise SkillError(
            "a text holds half a character (lone surrogate)", where=path, fix="write it without \\u escapes"
        )
    return description.strip(), tuple(seeds)


def read_grader(path: Path, graders: Path) -> Mapping[str, Any]:
    """The grader object of a ``grader.json`` with every ``ref`` replaced by what it names. Raises SkillError."""
    return expand(_json_object(path), path, graders)


def expand(raw: dict[str, Any], path: Path, graders: Path) -> dict[str, Any]:
    """Replace ``ref`` objects, also inside a ``multi``. ``path`` is the file to blame in a SkillError."""
    grader = _resolve(raw, path, graders)
    parts = grader.get("graders")
    if grader.get("type") == "multi" and isinstance(parts, dict | list):
        if isinstance(parts, dict):
            grader["graders"] = {name: _part(part, path, graders) for name, part in parts.items()}
        else:
            grader["graders"] = [_part(part, path, graders) for part in parts]
    return grader


def _part(raw: Any, path: Path, graders: Path) -> Any:
    """A grader inside a multi; the threshold of a shared grader means nothing there."""
    if not isinstance(raw, dict) or raw.get("type") != "ref":
        return raw
    return {key: value for key, value in _resolve(raw, path, graders).items() if key != "pass_threshold"}


def _resolve(raw: dict[str, Any], path: Path, graders: Path) -> dict[str, Any]:
    if raw.get("type") != "ref":
        return dict(raw)
    name = raw.get("name")
    if unknown := set(raw) - {"type", "name", "pass_threshold"}:
        raise SkillError(f"unknown key {min(unknown)!r} in a ref", where=path, line=1, fix="a ref has only a name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fix = "name a file in graders/, without its suffix"
        raise SkillError(f"bad name {name!r} of a ref", where=path, line=1, fix=fix)
    found = [file for file in (graders / f"{name}.json", graders / f"{name}.py") if os.path.lexists(file)]
    if len(found) != 1:
        what = f"two graders named {name!r}" if found else f"no grader named {name!r}"
        fix = f"there must be exactly one of {name}.json and {name}.py in {graders.name}/"
        raise SkillError(what, where=path, line=1, fix=fix)
    shared = shared_grader(found[0])
    return shared | ({"pass_threshold": raw["pass_threshold"]} if "pass_threshold" in raw else {})


def shared_grader(path: Path) -> dict[str, Any]:
    """A grader of ``graders/``: a JSON object, or Python source with ``grade(sample, item)``."""
    if path.suffix == ".py":
        return {"type": "python", "name": path.stem, "source": read_text(path, MAX_GRADER_BYTES)}
    raw = _json_object(path)
    if raw.get("type") == "ref":
        raise SkillError("a shared grader cannot itself be a ref", where=path, fix="write the grader out here")
    return raw


def shared_names(path: Path) -> set[str]:
    """Names of the shared graders that a ``grader.json`` refers to; none if it cannot be read."""
    try:
        raw = _json_object(path)
    except SkillError:
        return set()
    parts = raw.get("graders")
    nested = parts.values() if isinstance(parts, dict) else parts if isinstance(parts, list) else ()
    refs = [part for part in (raw, *nested) if isinstance(part, dict) and part.get("type") == "ref"]
    return {str(ref.get("name")) for ref in refs}


def _json_object(path: Path) -> dict[str, Any]:
    text = read_text(path, MAX_GRADER_BYTES)
    try:
        raw = parse_json(text)
    except ValueError as error:
        fix = "write one JSON object; see docs/graders.md"
        raise SkillError(f"not valid JSON: {error}", where=path, line=getattr(error, "lineno", 1), fix=fix) from error
    if not isinstance(raw, dict):
        raise SkillError("must be exactly one JSON object", where=path, line=1, fix="see docs/graders.md")
    if has_lone_surrogate(raw):
        raise SkillError("a string holds half a character (lone surrogate)", where=path, line=1)
    return raw


def _commit(leaf: Path) -> str:
    """Last commit that touched the leaf, ``+dirty`` if it differs; ``unversioned`` without git."""
    commit = git(leaf, "log", "-1", "--format=%H", "--", ".")
    if not commit:
        return "unversioned"
    return commit + ("+dirty" if git(leaf, "status", "--porcelain", "--", ".") else "")


def git(directory: Path, *arguments: str) -> str:
    """What git prints there; empty if there is no git, no repository or no answer within 30 seconds."""
    try:
        done = subprocess.run(
            [*asking(directory), *arguments],
            capture_output=True,
            check=False,
            timeout=30,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, SkillError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
