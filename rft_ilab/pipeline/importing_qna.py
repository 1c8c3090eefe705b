"""The draft of an InstructLab skill that has only a ``qna.yaml``: seed examples that can be graded become tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rft_ilab.errors import SkillError
from rft_ilab.grading.propose import MAX_LABEL, propose
from rft_ilab.pipeline.importing_csv import choose_grader
from rft_ilab.skills.importing.draft import Draft, ImportRefused, SourceRow, attribution
from rft_ilab.skills.leaf import ATTRIBUTION, QNA
from rft_ilab.skills.reading import MAX_YAML_BYTES, line_of, read_text, read_yaml
from rft_ilab.skills.tasks import MAX_BYTES
from rft_ilab.skills.tree import ROOT, read_qna
from rft_ilab.types import Seed, Split

ROTATION: tuple[Split, ...] = ("train", "train", "train", "val", "test")
ENOUGH = 100  # test tasks below which a verdict takes luck; `ilab rft plan` counts them


def draft_qna(
    taxonomy: Path, name: str, qna: Path | None, *, grader: str | None, created_by: str, licence: str
) -> Draft:
    """Read a ``qna.yaml``, by default that of the skill itself, which then stays as it is.

    Raises SkillError, ImportRefused. Answers that no program can grade are left out and told with their line. Tasks are
    dealt to the splits in turn.
    """
    own = taxonomy / ROOT / name / QNA
    source = qna or own
    description, seeds = read_qna(source)
    raw, node = read_yaml(source)
    if "document" in raw:
        what = "is knowledge, not a skill: its answers are taught, not graded"
        raise SkillError(what, where=source, line=line_of(node, "document"), fix="import a skill")
    lines = [line_of(node, "seed_examples", index, "answer") for index in range(len(seeds))]
    left_out = [] if grader else _free_text(seeds)
    rows: list[SourceRow] = []
    notes: list[str] = []
    for index, (seed, line) in enumerate(zip(seeds, lines, strict=True)):
        if index in left_out:
            size = len(seed.answer.strip())
            notes.append(f"{source}:{line}: left out: an answer of {size} characters is free text")
            continue
        turn = {"role": "user", "content": seed.prompt}
        row = {"messages": [turn], "reference": seed.answer.strip(), "split": ROTATION[len(rows) % len(ROTATION)]}
        rows.append(SourceRow(row={**row, "origin": "seed"}, file=source, line=line))
    if not rows:
        what = "no seed example has an answer that a program can grade"
        fix = "give examples with short answers, or write a grader: --grader FILE; see docs/graders.md"
        raise ImportRefused([SkillError(what, where=source, line=lines[0] if lines else None, fix=fix)])
    chosen, blame, said = choose_grader(grader, [one.row["reference"] for one in rows], name, source)
    tests = sum(one.row["split"] == "test" for one in rows)
    notes += said
    notes.append(
        f"missing: tasks of your own in tasks.jsonl; {tests} to test with are too few for a verdict, "
        f"which takes {ENOUGH} and more (ilab rft plan)"
    )
    beside = source.parent / ATTRIBUTION
    files = {QNA: read_text(source, MAX_YAML_BYTES)}
    if beside.exists():
        files[ATTRIBUTION] = read_text(beside, MAX_BYTES)
    return Draft(
        description=description, rows=rows, grader=chosen, blame=blame, created_by=created_by, seeds=seeds, files=files,
        kept=frozenset() if qna else frozenset(files), notes=notes,
        attribution=attribution(f"Seed examples of {name}", [source], licence, created_by),
    )  # fmt: skip


def _free_text(seeds: Sequence[Seed]) -> list[int]:
    """Indices of the seeds with long answers, unless a grader fits all answers as they are."""
    if propose([seed.answer for seed in seeds], "any") is not None:
        return []
    return [i for i, seed in enumerate(seeds) if len(seed.answer.strip()) > MAX_LABEL or "\n" in seed.answer.strip()]
