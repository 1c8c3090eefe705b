"""Files of a leaf whose style differs from the house's, and their repair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rft_ilab.errors import SkillError
from rft_ilab.skills.reading import MAX_YAML_BYTES, read_text
from rft_ilab.skills.style import restyled, style_problem
from rft_ilab.skills.tasks import MAX_BYTES as MAX_TASKS_BYTES
from rft_ilab.skills.tree import MAX_GRADER_BYTES, ROOT
from rft_ilab.store import write_atomic

#: what of a leaf has a style -> how much of it is read
FILES = {
    "qna.yaml": MAX_YAML_BYTES,
    "grader.json": MAX_GRADER_BYTES,
    "grader.waivers.json": MAX_GRADER_BYTES,
    "tasks.jsonl": MAX_TASKS_BYTES,
    "attribution.txt": MAX_GRADER_BYTES,
}


@dataclass(frozen=True, slots=True)
class Untidy:
    """A file that could be laid out better: the first line concerned (1-based), what is wrong, the repaired text."""

    file: Path
    line: int
    problem: str
    text: str


def untidy(file: Path, limit: int) -> Untidy | None:
    """None for a file in style, and for one that cannot be read, which lint says anyway."""
    try:
        before = read_text(file, limit)
    except SkillError:
        return None
    after = restyled(file.name, before)
    return None if after == before else Untidy(file, *style_problem(before, after), after)


def untidy_files(taxonomy: Path, names: Sequence[str], shared: Sequence[Path] = ()) -> Iterator[Untidy]:
    """Of the leaves ``names``, and of the ``shared`` graders with their golden cases."""
    for name in names:
        for file, limit in FILES.items():
            if found := untidy(taxonomy / ROOT / name / file, limit):
                yield found
    for grader in shared:
        for path in (grader, grader.with_name(f"{grader.stem}.cases.jsonl")):
            if found := untidy(path, MAX_TASKS_BYTES):
                yield found


def repair(taxonomy: Path, found: Untidy) -> None:
    """Write the repaired text. Raises SkillError if a symbolic link leads to the file: it may lie elsewhere."""
    for path in (found.file, *found.file.parents):
        if path == taxonomy or path == taxonomy.parent:
            break
        if path.is_symlink():
            raise SkillError("is a symbolic link", where=path, fix="put the file itself there")
    write_atomic(found.file, found.text)
