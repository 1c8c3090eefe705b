"""The RL stage on the tiny model as a command that can be killed anywhere.

``python -m tests.durable_stage HOME LIVES``: HOME gets ``taxonomy/`` and ``run/``; the variable MODEL names the model's
directory, RUN another place for the run, ASYNC_STEPS the setting of that name. LIVES is a JSON list; each life is one
process that does the stage, resuming what the one before left. ``[function, text, n, moment]``: SIGKILL at the n-th
call of a function whose arguments contain the text, ``before`` it, ``after`` it, or before it with the file (of rows:
the last one) it was given cut in half, ``torn``. ``[seconds]``: SIGKILL after that time. ``[errno, function, text,
n]``: that error instead of the call. ``["room", bytes]``: so much room on the file system of RUN, a file takes the
rest. ``[]``: nothing happens.
Prints the exit status of each life: -9, or what a command exits with.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import click
import torch

import rft_ilab.rl.export as export
import rft_ilab.rl.stage as stage_module
from rft_ilab import disk
from rft_ilab.cli.failures import handled
from rft_ilab.config import Settings, SkillSettings, TrainSettings
from rft_ilab.grading.engine import build_grader
from rft_ilab.rl.lessons import Lesson
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import load_tasks
from rft_ilab.skills.tree import load_skill
from rft_ilab.store import Cache
from tests.unit.taxonomies import row, write_skill

# A byte model says letters at random, so 'contains an e' is sometimes right: all that RL needs.
CONTAINS = {
    "type": "string_check",
    "name": "contains",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "like",
}
TRAIN = TrainSettings(
    lora_rank=4,
    lora_alpha=8,
    sft_epochs=2,
    sft_batch=4,
    steps=5,
    prompts=4,
    group_size=8,
    learning_rate=1e-3,
    val_every=2,
    val_tasks=10,
    checkpoint_every=3,
)


def environment(root: Path, name: str) -> Environment:
    splits = ["train"] * 7 + ["val"] + ["test"] * 2
    rows = [row(f"say {i}", "e" if i % 2 else "o", split=splits[i % 10]) for i in range(60)]
    write_skill(root, name, grader=CONTAINS, rows=rows)
    skill = load_skill(root, name, Settings())
    return Environment.of(skill, load_tasks(skill), build_grader(skill), SkillSettings(max_tokens=12, demonstrations=1))


def told(argument: Any) -> str:
    """An argument as text; of a file descriptor, its path."""
    return os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else str(argument)


def replace(name: str, text: str, n: int, act: Any) -> None:
    """Call ``act(function, arguments)`` instead of the n-th call whose arguments contain ``text``."""
    owner, attribute = name.rsplit(".", 1)
    try:
        holder: Any = importlib.import_module(owner)
    except ModuleNotFoundError:
        module, cls = owner.rsplit(".", 1)
        holder = getattr(importlib.import_module(module), cls)
    function, calls = getattr(holder, attribute), 0

    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        if text in " ".join(told(a) for a in arguments):
            calls += 1
            if calls == n:
                return act(lambda: function(*arguments, **keywords), arguments)
        return function(*arguments, **keywords)

    setattr(holder, attribute, wrapper)


def die(moment: str) -> Any:
    def act(call: Any, arguments: Any) -> None:
        if moment == "after":
            call()
        if moment == "torn":
            path = Path(told(arguments[0]))
            content = path.read_bytes()
            # Of rows only the last is in danger: the others were on disk before.
            new = content.rstrip(b"\n").rfind(b"\n") + 1 if path.suffix == ".jsonl" else 0
            os.truncate(path, (new + len(content)) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    return act


def fail(number: int) -> Any:
    def act(call: Any, arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return act


@click.command()
@click.argument("home", type=Path)
@click.pass_context
@handled
def train(ctx: click.Context, home: Path) -> None:
    torch.set_num_threads(1)
    # A random model's logits lie close together, so F16 may flip some of its answers.
    export.GGUF_AGREEMENT = 0.5
    if "UNCHECKED" in os.environ:
        stage_module.require_space = lambda *arguments: None  # type: ignore[assignment]
    target, watched = (environment(home / "taxonomy", name) for name in ("area/target", "area/other"))
    lessons = [
        Lesson(skill="area/target", prompt=t.messages, completion="eoe", replay=False)
        for t in target.split("train")[:16]
    ]
    say = lambda line: click.echo(line, err=True)  # noqa: E731
    run = Path(os.environ.get("RUN", home / "run"))
    cache = Cache(run / "cache.sqlite")
    settings = replace_fields(TRAIN, async_steps=int(os.environ.get("ASYNC_STEPS", "0")))
    stage = stage_module.RLStage(run, [target], [watched], settings, cache, say, lambda row: None)
    stage.run(Path(os.environ["MODEL"]), lessons, {"area/other": 1.0})


def leave_room(wanted: int) -> None:
    """Let a file of another take all but ``wanted`` bytes of the disk."""
    other = Path(os.environ["RUN"]).parent / "other"
    other.write_bytes(b"")
    other.write_bytes(bytes(max(0, disk.free_bytes(other) - wanted)))


def live(home: str, life: list[Any]) -> int:
    """One process; returns its exit status (negative: the signal that ended it)."""
    if life[:1] == ["room"]:
        leave_room(life[1])
    child = os.fork()
    if not child:
        if len(life) == 4 and isinstance(life[0], int):
            replace(*life[1:], fail(life[0]))
        elif len(life) == 4:
            replace(*life[:3], die(life[3]))
        train.main([home])
    if len(life) == 1:
        time.sleep(life[0])
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for life in json.loads(sys.argv[2]):
        print(live(sys.argv[1], life), flush=True)
