"""The rows of a generation as prompt sets for RL, beside what ``ilab model train`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from rft_ilab.host.sdg import ledger
from rft_ilab.host.sdg.running import Generation, log
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import task_from_row
from rft_ilab.synth.exports import ExportTask, export_rlvr, export_task

DIRECTORY = "rlvr"


def write(generation: Generation, environments: Iterable[Sequence[Environment]]) -> None:
    """Into ``rlvr/`` of the generation's output directory; nothing if it kept no row."""
    lines = ledger.kept_lines(generation)
    if generation.output is None or not lines:
        return
    skills = {e.skill.name: e for e in chain.from_iterable(environments)}
    tasks: list[ExportTask] = []
    for line in lines:
        environment = skills[line["skill"]]
        asked = [{"role": "user", "content": line["prompt"]}]
        row = {"messages": asked, "reference": line["completion"], "origin": "synthetic", "split": "train"}
        task = task_from_row(environment.skill, row)
        tasks.append(export_task(environment, task, source=line["source"], evidence=line["evidence"]))
    for name in dict.fromkeys(line["skill"] for line in lines):
        e = skills[name]
        tasks += [export_task(e, task, source="authored", evidence="authored") for task in e.split("val")]
    written = export_rlvr(generation.output / DIRECTORY, tasks)
    log.info("prompt sets for RL in %s: %s", generation.output / DIRECTORY, ", ".join(written))
