"""Skills as the files of another trainer: its rows, its reward function, and what starts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from rft_ilab.config import Settings
from rft_ilab.disk import put_in_place, staged
from rft_ilab.errors import GraderError, SkillError
from rft_ilab.grading.engine import build_grader
from rft_ilab.rollouts import Environment
from rft_ilab.scaleout.openai_job import job_body
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import write_atomic, write_json
from rft_ilab.synth.exports import (
    ExportTask,
    export_open_instruct,
    export_openai,
    export_task,
    export_trl,
    export_verl,
)

Trainer = Literal["trl", "verl", "openai", "open-instruct"]
TRAINERS: tuple[Trainer, ...] = get_args(Trainer)
KIT = {
    "trl": ("rft_rewards.py", "train_trl.py"),
    "verl": ("rft_rewards.py", "train_verl.sh"),
    "openai": ("start_openai_job.py",),
    "open-instruct": (),
}
LEAST_OPENAI = 10  # rows of a training file


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written below ``directory``: names of files, counts of rows, what is different there."""

    directory: Path
    files: tuple[str, ...]
    train: int
    val: int
    notes: tuple[str, ...]


def export(
    taxonomy: Path, settings: Settings, trainer: Trainer, names: Sequence[str], output: Path, *,
    openai_model: str, force: bool = False,
) -> Exported:  # fmt: skip
    """Write the training and validation tasks of skills for a trainer; tasks of the test split stay here.

    Without ``force`` the directory must be new or empty; with it files of the same names are replaced. Nothing is
    written on an error. Raises SkillError, GraderError.
    """
    if output.exists() and not output.is_dir():
        raise SkillError("is a file", where=output, fix="name a directory")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise SkillError("is there and not empty", where=output, fix="name another directory, or add --force")
    tasks = [one for name in dict.fromkeys(names) for one in _tasks(taxonomy, settings, name)]
    with staged(output) as fresh:
        notes = _write(fresh, trainer, tasks, openai_model)
        files = sorted(path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file())
        if output.is_dir() and any(output.iterdir()):
            for name in files:
                write_atomic(output / name, (fresh / name).read_bytes())
        else:
            put_in_place(fresh, output)
    train, val = (sum(one.split == split for one in tasks) for split in ("train", "val"))
    return Exported(directory=output, files=tuple(files), train=train, val=val, notes=tuple(notes))


def _tasks(taxonomy: Path, settings: Settings, name: str) -> list[ExportTask]:
    skill = load_skill(taxonomy, name, settings)
    environment = Environment.of(skill, load_tasks(skill), build_grader(skill), settings.skill(name))
    chosen = [*environment.split("train"), *environment.split("val")]
    if not any(task.split == "train" for task in chosen):
        raise SkillError("no task in the train split", where=skill.directory / "tasks.jsonl", fix="add some")
    return [export_task(environment, task, source="authored", evidence="authored") for task in chosen]


def _write(directory: Path, trainer: Trainer, tasks: Sequence[ExportTask], openai_model: str) -> list[str]:
    train, val = ([one for one in tasks if one.split == split] for split in ("train", "val"))
    notes = [] if val else ["there are no validation tasks"]
    if trainer == "openai":
        return notes + _write_openai(directory, train, val, openai_model)
    {"trl": export_trl, "verl": export_verl, "open-instruct": export_open_instruct}[trainer](directory, train, val)
    _kit(directory, trainer)
    if trainer != "open-instruct":
        first: dict[str, Any] = {}
        for one in train:
            first.setdefault(one.task.skill, {"label": one.label, "reference": one.task.reference})
        write_json(directory / "preflight.json", list(first.values()))
    return notes


def _write_openai(directory: Path, train: Sequence[ExportTask], val: Sequence[ExportTask], model: str) -> list[str]:
    skills, notes = sorted({one.task.skill for one in train}), []
    for skill in skills:
        place = directory if len(skills) == 1 else directory / skill
        own = [[one for one in part if one.task.skill == skill] for part in (train, val)]
        export_openai(place, *own)
        try:
            body, said = job_body(own[0][0].grader, skill=skill, model=model, validation=bool(own[1]))
        except GraderError as error:
            raise GraderError(error.what, where=skill, fix=error.fix) from error
        write_json(place / "job.json", body)
        write_json(place / "grader.json", body["method"]["reinforcement"]["grader"])
        notes += [f"{skill}: {note}" for note in said]
        if len(own[0]) < LEAST_OPENAI:
            notes.append(f"{skill}: {len(own[0])} training rows; OpenAI asks for {LEAST_OPENAI}")
        _kit(place, "openai")
    return notes


def _kit(directory: Path, trainer: Trainer) -> None:
    for name in KIT[trainer]:
        text = resources.files("rft_ilab.scaleout").joinpath("kit", name).read_text(encoding="utf-8")
        write_atomic(directory / name, text)
