"""Tasks of a skill: ``tasks.jsonl`` -> checked, split tasks; tasks -> prompts.

A row has ``messages`` (the last one from the user) and a ``reference``, a completion that the grader
must accept; ``id``, ``group``, ``split`` and ``origin`` are optional, further fields are free and
reach the grader as ``item``. A group (template, seed) never crosses a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from rft_ilab.errors import SkillError
from rft_ilab.skills.reading import canonical_json, has_lone_surrogate, parse_json, read_text
from rft_ilab.types import Message, Origin, Prompt, Seed, Skill, Split, Task

FILE = "tasks.jsonl"
MAX_BYTES = 64 * 1024 * 1024
MAX_CLASSES = 20
ROLES = ("system", "user", "assistant")
REFERENCES = ("reference", "reference_answer", "answer", "expected")


def load_tasks(skill: Skill) -> tuple[Task, ...]:
    """All tasks of a skill in file order. Raises SkillError (file:line and the repair) at the first bad line."""
    tasks, errors = scan_tasks(skill)
    if errors:
        raise min(errors, key=lambda e: e.line or 0)
    return tuple(task for _, task in tasks)


def scan_tasks(skill: Skill) -> tuple[list[tuple[int, Task]], list[SkillError]]:
    """All good tasks with their lines (1-based), and every error of the file. Raises only if it cannot be read."""
    path = skill.directory / FILE
    tasks: list[tuple[int, Task]] = []
    errors: list[SkillError] = []
    for line, text in _lines(path):
        try:
            tasks.append((line, _task(skill, parse_row(text, path, line), path, line)))
        except SkillError as error:
            errors.append(error)
    if not tasks and not errors:
        errors.append(SkillError("no tasks", where=path, fix='add one {"messages": [...], "reference": "..."} a line'))
    return tasks, errors + list(_conflicts(tasks, path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, text in enumerate(read_text(path, MAX_BYTES).split("\n"), start=1):
        if text.strip():
            yield number, text


def parse_row(text: str, path: Path, line: int) -> dict[str, Any]:
    """One line of a JSONL file as an object. Raises SkillError with file and line."""
    try:
        row = parse_json(text)
    except ValueError as error:
        what = f"not valid JSON: {error}"
        raise SkillError(what, where=path, line=line, fix="write one JSON object a line") from error
    if not isinstance(row, dict):
        raise SkillError("not a JSON object", where=path, line=line, fix="write one JSON object a line")
    if "\\u" in text and has_lone_surrogate(row):  # in UTF-8 only an escape makes one
        what = "a string holds half a character (lone surrogate)"
        raise SkillError(what, where=path, line=line, fix=r"remove the \ud8xx escape or add its other half")
    return row


def task_from_row(skill: Skill, row: dict[str, Any], where: Path | None = None, line: int = 0) -> Task:
    """A task from a row that is not in ``tasks.jsonl``: a generated, an imported one.

    Raises SkillError about ``where`` and ``line`` (1-based) if it makes none.
    """
    return _task(skill, row, where or skill.directory / "generated row", line)


def _task(skill: Skill, row: dict[str, Any], path: Path, line: int) -> Task:
    def bad(what: str, fix: str) -> SkillError:
        return SkillError(what, where=path, line=line, fix=fix)

    written = _messages(row, bad)
    value = next((row[key] for key in REFERENCES if row.get(key) is not None), None)
    if value is None:
        raise bad("no reference", 'add a completion that the grader must accept as "reference"')
    reference = value if isinstance(value, str) else canonical_json(value)
    if not reference.strip():
        raise bad("the reference is empty", 'add a completion that the grader must accept as "reference"')
    for key in ("id", "group"):
        if key in row and not (isinstance(row[key], str | int) and not isinstance(row[key], bool) and row[key] != ""):
            raise bad(f"{key} must be a text", f"give {key} a text, or leave it out")
    origin = row.get("origin", "authored")
    if origin not in get_args(Origin):
        raise bad(f"bad origin {origin!r}", f"one of {', '.join(get_args(Origin))}")
    # Not the task's id: that changes with the skill's description, and a split must never be re-drawn.
    named = next((row[key] for key in ("group", "id") if key in row), None)
    group = Task.make_id(skill.name, written, reference) if named is None else str(named)
    split = row.get("split") or draw_split(group, origin)
    if split not in get_args(Split):
        raise bad(f"bad split {split!r}", f"one of {', '.join(get_args(Split))}, or leave it out")
    if origin == "synthetic" and split != "train":
        raise bad(f"a synthetic task cannot be in the {split} split", 'set "split": "train"')
    messages = written if written[0].role == "system" else (Message("system", skill.description), *written)
    return Task(
        id=Task.make_id(skill.name, messages, reference),
        skill=skill.name,
        messages=messages,
        reference=reference,
        item={"reference": value} | {key: field for key, field in row.items() if key != "messages"},
        group=group,
        split=split,
        origin=origin,
    )


def _messages(row: dict[str, Any], bad: Any) -> tuple[Message, ...]:
    raw = row.get("messages")
    if not isinstance(raw, list) or not raw:
        raise bad("no messages", 'add "messages": [{"role": "user", "content": "..."}]')
    messages = []
    for index, turn in enumerate(raw):
        if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
            raise bad(f"message {index + 1} must have exactly role and content", "remove or add the key")
        role, content = turn["role"], turn["content"]
        if role not in ROLES or (role == "system" and index):
            known = "the first may be system, the others user and assistant"
            raise bad(f"message {index + 1} has the role {role!r}", known)
        if not isinstance(content, str) or not content.strip():
            raise bad(f"message {index + 1} has no text", "content must be a text that is not empty")
        messages.append(Message(role, content))
    if messages[-1].role != "user":
        raise bad("the last message is not from the user", 'the answer belongs into "reference"')
    return tuple(messages)


def draw_split(group: str, origin: str = "authored") -> Split:
    """The split of a group: 70 % train, 10 % val, 20 % test by sha256, the same for ever.

    Synthetic tasks only train, whatever their group.

    >>> draw_split("template-1") == draw_split("template-1")
    True
    """
    share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    if share < 0.7 or origin == "synthetic":
        return "train"
    return "val" if share < 0.8 else "test"


def _conflicts(tasks: Sequence[tuple[int, Task]], path: Path) -> Iterator[SkillError]:
    """What is wrong between rows: an id twice, the same task twice, a group in two splits."""
    ids: dict[str, int] = {}
    same: dict[str, int] = {}
    groups: dict[str, tuple[int, str]] = {}
    for line, task in tasks:
        if "id" in task.item and (first := ids.setdefault(str(task.item["id"]), line)) != line:
            what = f"id {task.item['id']!r} is also that of line {first}"
            yield SkillError(what, where=path, line=line, fix="give every task its own id")
        if (first := same.setdefault(task.id, line)) != line:
            what = f"the same messages and reference as line {first}"
            yield SkillError(what, where=path, line=line, fix="remove one of the two")
        first, split = groups.setdefault(task.group, (line, task.split))
        if split != task.split:
            what = f"group {task.group!r} is in {task.split} here and in {split} on line {first}"
            yield SkillError(what, where=path, line=line, fix='give both lines the same "split"')


def build_prompt(skill: Skill, task: Task, demonstrations: int) -> Prompt:
    """The messages to send: the system turn, up to ``demonstrations`` seed examples, the task's own turns.

    Seeds are taken so that every distinct answer comes once before any comes twice, and shown in the
    order of ``qna.yaml``. A seed that asks the task's own question is left out: it would give the answer away.
    """
    return build_prompts(skill, [task], demonstrations)[0]


def build_prompts(skill: Skill, tasks: Sequence[Task], demonstrations: int) -> list[Prompt]:
    """:func:`build_prompt` for many tasks, most of which share their demonstrations."""
    asked = {text.strip() for seed in skill.seeds for text in (seed.prompt, seed.question)}
    usual = _turns(skill.seeds, demonstrations)
    prompts = []
    for task in tasks:
        own, turns = task.messages[-1].content.strip(), usual
        if own in asked:
            others = [seed for seed in skill.seeds if own not in (seed.prompt.strip(), seed.question.strip())]
            turns = _turns(others, demonstrations)
        prompts.append(Prompt(task_id=task.id, messages=(task.messages[0], *turns, *task.messages[1:])))
    return prompts


def _turns(seeds: Sequence[Seed], demonstrations: int) -> list[Message]:
    seen: dict[str, int] = {}
    ranks = []
    for index, seed in enumerate(seeds):
        ranks.append((seen.setdefault(seed.answer, 0), index))
        seen[seed.answer] += 1
    chosen = sorted(index for _, index in sorted(ranks)[: max(demonstrations, 0)])
    return [
        turn
        for index in chosen
        for turn in (Message("user", seeds[index].prompt), Message("assistant", seeds[index].answer))
    ]


def class_of(tasks: Sequence[Task]) -> dict[str, str] | None:
    """Task id -> class, where the references are classes: at most 20 distinct ones; else None."""
    classes = {task.id: task.reference.strip() for task in tasks}
    return classes if classes and len(set(classes.values())) <= MAX_CLASSES else None
