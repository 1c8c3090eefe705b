"""A new skill from what its author answered: examples become tasks and seed examples, written only if they lint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.config import Settings
from rft_ilab.errors import SkillError
from rft_ilab.grading.propose import KINDS, grader_of_kind, propose
from rft_ilab.pipeline.importing import Imported, bring_in
from rft_ilab.pipeline.plan import SkillPlan, Wish, plan_skill
from rft_ilab.skills.importing.csv_file import read_table
from rft_ilab.skills.importing.draft import MAX_SEEDS, MIN_SEEDS, Draft, ImportRefused, Problems, SourceRow
from rft_ilab.skills.importing.openai_job import read_job_rows
from rft_ilab.skills.tasks import REFERENCES
from rft_ilab.skills.tree import NAME, graders_directory, leaf_names, load_skill
from rft_ilab.store import write_atomic
from rft_ilab.types import Seed, Split

#: kind of grader -> what it takes for right, in the order in which they are offered
MENU: Mapping[str, str] = {
    "number": "the last number of the answer is the right number",
    "label": "the whole answer is the right one of a few words",
    "date": "the whole answer is the right day, however it is written",
    "json": "the answer is a JSON object with the right value in every field",
    "text": "the same words; case, punctuation and articles do not count",
    "exact": "the same text, character by character",
    "python": "what a program of yours says: graders/NAME.py, which compares the texts until you change it",
}
FEW = 60  # examples below which splits are dealt in turn: drawn by chance, one might stay empty
ROTATION: tuple[Split, ...] = ("train", "train", "train", "val", "test")
PROGRAM = '''"""Is the answer right? `sample` is what the model said, `item` the row of tasks.jsonl without messages."""


def grade(sample, item):
    # From 0.0 (wrong) to 1.0 (right). A malformed answer is wrong, not an error.
    answer = " ".join(sample["output_text"].split())
    return float(answer == " ".join(str(item["reference"]).split()))
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What an author said. ``kind`` is a key of :data:`MENU`; ``labels`` may be empty: then those that occur."""

    description: str
    rows: Sequence[SourceRow]
    kind: str
    labels: Sequence[str] = ()
    created_by: str
    source: str
    licence: str


def typed_rows(pairs: Sequence[Sequence[str]]) -> list[SourceRow]:
    """Prompts and answers that were typed; an error about the third names ``example:3``."""
    rows = [{"messages": [{"role": "user", "content": p.strip()}], "reference": a.strip()} for p, a in pairs]
    return [SourceRow(row=row, file=Path("example"), line=number) for number, row in enumerate(rows, 1)]


def read_examples(path: Path) -> list[SourceRow]:
    """Rows as in ``tasks.jsonl``, or a table (``.csv``) with the columns prompt and answer; group, split and id if they
    are there. Raises SkillError, ImportRefused."""
    problems = Problems()
    if path.suffix == ".csv":
        with contextlib.suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8-sig") as file:
            header = {cell.strip().strip('"') for cell in file.readline(1 << 16).replace(";", ",").split(",")}
        more: dict[str, str] = {use: use for use in ("group", "split", "id") if use in header}
        rows = list(read_table(path, {"prompt": "prompt", "reference": "answer", **more}, problems, None))
    else:
        rows = [_with_reference(one) for one in read_job_rows(path, problems, None)]
    problems.stop()
    if not rows:
        raise SkillError("no examples", where=path, fix="add one a line")
    return rows


def _with_reference(one: SourceRow) -> SourceRow:
    """Rows of the data sets that tasks come from call it by several names."""
    found = next((one.row[key] for key in REFERENCES if one.row.get(key) is not None), None)
    return one.having(reference=found) if "reference" not in one.row and found is not None else one


def fitting_kind(rows: Sequence[SourceRow]) -> str:
    """The kind of grader to offer first."""
    found = propose([str(one.row.get("reference", "")) for one in rows], "any")
    return found.kind if found else "python"


def start_skill(taxonomy: Path, name: str, answers: Answers) -> Imported:
    """Write the skill. Raises ImportRefused with all that is to be repaired, SkillError; then nothing is written."""
    short = name.rsplit("/", 1)[-1]
    rows = _dealt(_numbered(answers.rows, short))
    seeds = _seeds(rows)
    references = [str(one.row.get("reference", "")) for one in rows]
    blame = rows[0].file if rows else Path(name)
    if answers.kind not in MENU:
        raise SkillError(f"no kind of grader {answers.kind!r}", fix=f"one of {', '.join(MENU)}")
    grader: dict[str, Any] = {"type": "ref", "name": short}
    if answers.kind in KINDS:
        grader = grader_of_kind(answers.kind, references, short)
    if answers.kind == "label" and answers.labels:
        grader["labels"] = list(answers.labels)
    draft = Draft(
        description=answers.description.strip(), rows=rows, grader=grader, blame=blame, seeds=seeds,
        created_by=answers.created_by, attribution=_attribution(name, answers),
    )  # fmt: skip
    with _program(taxonomy, short) if answers.kind == "python" else contextlib.nullcontext():
        return bring_in(taxonomy, name, draft)


def planned(taxonomy: Path, name: str, settings: Settings) -> tuple[SkillPlan, SkillPlan]:
    """What the gate could show with the test tasks of a skill: as a target, and watched."""
    skill = load_skill(taxonomy, name, settings)
    wish = Wish(power=0.8, discordance=0.1, icc=0.5)
    watched = sum(settings.skill(each).tier in ("critical", "supporting") for each in leaf_names(taxonomy))
    target = plan_skill(dataclasses.replace(skill, tier="target"), settings, wish)
    return target, plan_skill(dataclasses.replace(skill, tier="supporting"), settings, wish, suites=max(watched, 1))


def _numbered(rows: Sequence[SourceRow], short: str) -> list[SourceRow]:
    """Rows with ids, and the keys in the order in which people read them."""
    width = max(4, len(str(len(rows))))
    made = (f"{short}-{number:0{width}}" for number in range(1, len(rows) + 1))
    return [
        SourceRow(row={"id": id, **one.row}, file=one.file, line=one.line) for id, one in zip(made, rows, strict=True)
    ]


def _dealt(rows: list[SourceRow]) -> list[SourceRow]:
    if len(rows) >= FEW or any("split" in one.row or "group" in one.row for one in rows):
        return rows
    return [one.having(split=ROTATION[i % len(ROTATION)]) for i, one in enumerate(rows)]


def _seeds(rows: Sequence[SourceRow]) -> tuple[Seed, ...]:
    """The first examples, where there are too few to choose from. Raises ImportRefused below five."""
    asked: dict[str, Seed] = {}
    for one in rows:
        turns = one.row.get("messages")
        if isinstance(turns, list) and len(turns) == 1 and isinstance(one.row.get("reference"), str):
            prompt = str(turns[0].get("content", ""))
            asked.setdefault(prompt.strip(), Seed(question=prompt, answer=one.row["reference"]))
    if len(asked) < MIN_SEEDS:
        what = f"{len(asked)} different examples; InstructLab asks for {MIN_SEEDS}"
        where, line = (rows[-1].file, rows[-1].line) if rows else (None, None)
        raise ImportRefused([SkillError(what, where=where, line=line, fix="add prompts with their right answers")])
    return tuple(asked.values())[:MAX_SEEDS] if len(rows) < FEW else ()


def _attribution(name: str, answers: Answers) -> str:
    source = " ".join(answers.source.split())
    link = source if "://" in source else "-"
    return (
        f"Title of work: Tasks and seed examples of {name}" + ("" if link == source else f" ({source})") + "\n"
        f"Link to work: {link}\nRevision: -\nLicense of the work: {answers.licence}\n"
        f"Creator names: {answers.created_by}\n"
    )


@contextlib.contextmanager
def _program(taxonomy: Path, short: str) -> Iterator[None]:
    """A first Python grader, which goes again if the skill is refused. Raises SkillError if there is one."""
    graders = graders_directory(taxonomy)
    program, cases = graders / f"{short}.py", graders / f"{short}.cases.jsonl"
    if not NAME.fullmatch(short):
        raise SkillError(f"bad name {short!r}", fix="use lower-case letters, digits and underscores")
    for path in (program, cases, graders / f"{short}.json"):
        if path.exists() or path.is_symlink():
            raise SkillError("is there already", where=path, fix="choose another name, or another kind of grader")
    new = not graders.exists()
    right = '{"sample": "an answer", "item": {"reference": "an answer"}, "score": 1.0}\n'
    wrong = '{"sample": "another one", "item": {"reference": "an answer"}, "score": 0.0}\n'
    try:
        write_atomic(program, PROGRAM)
        write_atomic(cases, right + wrong)
        yield
    except BaseException:
        program.unlink(missing_ok=True)
        cases.unlink(missing_ok=True)
        if new:
            with contextlib.suppress(OSError):
                graders.rmdir()
        raise
