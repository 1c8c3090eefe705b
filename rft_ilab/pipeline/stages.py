"""Verified data and training: each a stage of a run, each skipped when the run already has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.pipeline.cost import minutes, sampling_positions, training_positions
from rft_ilab.pipeline.gate import regress
from rft_ilab.pipeline.request import Request, Workspace, measure_speed
from rft_ilab.pipeline.screen import Screen
from rft_ilab.rl.lessons import Lesson
from rft_ilab.rl.signal import measure_signal, refuse_without_signal
from rft_ilab.rollouts import Environment
from rft_ilab.store import Run, read_jsonl, write_atomic
from rft_ilab.synth.verify import Verified, verify_answers
from rft_ilab.types import Message


def verify_data(request: Request, *, console: Console) -> Path:
    """Sample answers, keep what the graders accept; returns ``data/verified.jsonl`` of the run.

    Raises SignalError when no sample of a target is right: then there is nothing to learn from.
    """
    space, screen = Workspace(request), Screen(console)
    return _data_stage(space, space.start_run(), screen)


def _data_stage(space: Workspace, run: Run, screen: Screen) -> Path:
    path = run.path("data", "verified.jsonl")
    if run.done("data"):
        screen.say(f"verified data: {len(read_jsonl(path))} answers are there already")
        return path
    settings = space.settings.data
    planned = {
        e.skill.name: min(settings.tasks if e in space.targets else settings.watched_tasks, len(e.split("train")))
        for e in space.environments
    }
    rollouts = sum(planned.values()) * settings.samples
    with run.stage("data") as facts:
        policy = space.teacher()
        facts["positions_per_second"] = speed = measure_speed(policy)
        asked = [task for e in space.environments for task in e.split("train")[: planned[e.skill.name]]]
        screen.say(
            f"verified data: {rollouts} candidate answers to {sum(planned.values())} tasks will be sampled and graded"
            + (f", {minutes(sampling_positions(asked, settings.samples), speed)}" if speed else "")
        )
        found: list[Verified] = []
        with screen.bar("sampling", sum(planned.values())) as advance:
            for environment in space.environments:
                target = environment in space.targets
                verified = verify_answers(
                    environment,
                    policy,
                    settings,
                    count=planned[environment.skill.name],
                    train_demonstrations=0 if target else environment.settings.demonstrations,
                    seed=space.settings.train.seed,
                    cache=space.cache,
                    advance=advance,
                )
                found.append(verified)
                screen.say(_ledger_line(environment, verified))
                if target:
                    _check_base_signal(environment, verified, space)
        ledger = [row for verified in found for row in verified.ledger]
        examples = [example for verified in found for example in verified.examples]
        write_atomic(
            run.path("data", "ledger.jsonl"), "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ledger)
        )
        write_atomic(path, "".join(json.dumps(e.as_row(), ensure_ascii=False) + "\n" for e in examples))
        facts |= {"candidates": len(ledger), "verified": len(examples)}
    return path


def _ledger_line(environment: Environment, verified: Verified) -> str:
    counts = verified.dispositions
    parts = ", ".join(f"{counts[name]} {name}" for name in sorted(counts, key=lambda n: -counts[n]))
    return f"  {environment.skill.name}: {len(verified.examples)} verified ({parts})"


def _check_base_signal(environment: Environment, verified: Verified, space: Workspace) -> None:
    """pass@k with demonstrations, from the candidates just graded: without it training is hopeless."""
    groups: dict[str, list[bool | None]] = {}
    for row in verified.ledger:
        if row["disposition"] != "reference":
            threshold_passed = row["disposition"] in ("kept", "duplicate", "surplus")
            groups.setdefault(row["task_id"], []).append(None if row["score"] is None else threshold_passed)
    signal = measure_signal(
        environment.skill.name,
        list(groups.items()),
        classes=environment.classes,
        samples=space.settings.data.samples,
        group_size=space.settings.train.group_size,
        after="base",
    )
    refuse_without_signal(signal, space.settings.train.signal_floor)


def train(request: Request, *, console: Console) -> Path:
    """The RL stage (with its data stage, if the run lacks it); returns the tuned model's directory."""
    space, screen = Workspace(request), Screen(console)
    run = space.start_run()
    if run.done("rl"):
        screen.say("training: this run is trained already")
        return run.path("model")
    lessons = _lessons(_data_stage(space, run, screen), space.targets)
    settings = space.settings.train
    speed = run.manifest["stages"]["data"].get("positions_per_second")
    screen.say(
        f"training: {settings.sft_epochs} epochs on {len(lessons)} answers, then {settings.steps} GRPO steps of "
        f"{settings.prompts} prompts x {settings.group_size} rollouts"
        + (f", {minutes(training_positions(space.targets, len(lessons), space.settings), speed)}" if speed else "")
    )
    from rft_ilab.rl.stage import RLStage

    with run.stage("rl") as facts:
        stage = RLStage(
            run.directory, space.targets, space.watched, settings, space.cache, screen.say, screen.training_step
        )
        margins = {e.skill.name: space.margin(e) for e in space.watched}
        facts |= stage.run(space.model_directory, lessons, margins)
    return run.path("model")


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
