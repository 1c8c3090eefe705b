"""Verified data and training: each a stage of a run, each skipped when the run already has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.pipeline import workers
from rft_ilab.pipeline.cost import minutes, training_positions
from rft_ilab.pipeline.data import data_stage, training_targets
from rft_ilab.pipeline.engine import refuse_other_engine
from rft_ilab.pipeline.gate import regress
from rft_ilab.pipeline.request import Request, Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.pipeline.tracking import check_trackers, tracking
from rft_ilab.rl.lessons import Lesson
from rft_ilab.rollouts import Environment
from rft_ilab.store import Run, read_jsonl
from rft_ilab.types import Message


def verify_data(request: Request, *, console: Console) -> Path:
    """Sample answers, keep what the graders accept; returns ``data/verified.jsonl`` of the run.

    Raises SignalError when no sample of a target is right: then there is nothing to learn from.
    """
    space, screen = Workspace(request), Screen(console)
    return data_stage(space, space.start_run(), screen)


def train(request: Request, *, console: Console) -> Path:
    """The RL stage (with its data stage, if the run lacks it); returns the tuned model's directory.

    Under ``torchrun`` all processes train together; all but the first end here. Raises TrackerError before anything
    else if a tracker that was asked for is not installed.
    """
    if request.site is not None:
        from rft_ilab.pipeline.openinstruct import train_open_instruct

        return train_open_instruct(request, console=console)
    with workers.group() as rank:
        if rank == 0:
            return _train(request, Screen(console))
        workers.follow(request.run, lambda directory: _follow(request, directory))
    raise SystemExit(0)


def _train(request: Request, screen: Screen) -> Path:
    space = Workspace(request)
    run = space.start_run()
    if run.done("rl"):
        screen.say("training: this run is trained already")
        # Followers wait twice (:func:`workers.follow`) before they see that nothing is left to do.
        workers.meet()
        workers.meet()
        return run.path("model")
    refuse_other_engine(run, None)
    report_to = space.settings.tracking.report_to
    check_trackers(report_to)
    if request.control:
        screen.say(
            f"CONTROL RUN ({request.control}): GRPO's reward is replaced and says nothing of right and wrong; "
            "no guidance by references. All else is as in the real run."
        )
    lessons = _lessons(data_stage(space, run, screen), space.targets)
    workers.meet()
    targets = training_targets(space, run)
    settings = space.settings.train
    speed = run.manifest["stages"]["data"].get("positions_per_second")
    screen.say(
        f"training: {settings.sft_epochs} epochs on {len(lessons)} answers, then {settings.steps} GRPO steps of "
        f"{settings.prompts} prompts x {settings.group_size} rollouts"
        + (f", {minutes(training_positions(targets, len(lessons), space.settings), speed)}" if speed else "")
    )
    from rft_ilab.rl.stage import RLStage

    shown = {
        "train": dataclasses.asdict(settings),
        "targets": [e.skill.name for e in targets],
        **{key: run.manifest[key] for key in ("versions", "skills")},
    }
    workers.meet()
    with (
        tracking(report_to, run.directory, shown, screen.say) as track,
        screen.training(settings.val_every) as show,
        run.stage("rl") as facts,
    ):

        def tick(row: dict[str, Any]) -> None:
            show(row)
            track(row)

        stage = RLStage(run.directory, targets, space.watched, settings, space.cache, screen.say, tick, request.control)
        facts |= stage.run(space.model_directory, lessons, _margins(space))
    return run.path("model")


def _follow(request: Request, directory: Path) -> None:
    """The same stage as the first process's, in ``directory``, in silence."""
    space, run = Workspace(request), Run.open(request.run)
    if run.done("rl"):
        return
    from rft_ilab.rl.stage import RLStage

    lessons = _lessons(run.path("data", "verified.jsonl"), space.targets)
    stage = RLStage(
        directory,
        training_targets(space, run),
        space.watched,
        space.settings.train,
        space.cache,
        lambda line: None,
        lambda row: None,
        request.control,
    )
    stage.run(space.model_directory, lessons, _margins(space))


def _margins(space: Workspace) -> dict[str, float]:
    return {e.skill.name: space.margin(e) for e in space.watched}


def _lessons(path: Path, targets: Sequence[Environment]) -> list[Lesson]:
    """The verified answers of a ``verified.jsonl``; those of skills that are no target are replay."""
    names = {e.skill.name for e in targets}
    lessons = []
    for row in read_jsonl(path):
        *prompt, answer = (Message(m["role"], m["content"]) for m in row["messages"])
        skill = row["metadata"]["skill"]
        lessons.append(Lesson(skill=skill, prompt=tuple(prompt), completion=answer.content, replay=skill not in names))
    return lessons


def run_all(request: Request, *, console: Console) -> dict[str, Any]:
    """Verified data, training, gate; returns the verdict."""
    train(request, console=console)
    return regress(request, console=console)
