"""What ``grpo_fast.py`` logs, as rows of ``rl/steps.jsonl`` and a few milestones.

After every step it prints a rich panel titled "Metrics": one line a category (the part of a metric's name before the
first slash, or "other"), its metrics as ``name: value`` between bars, two decimals each. A narrow console breaks lines;
the launch sets ``COLUMNS`` so that it does not, and lines that are broken anyway are joined here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = "100000"  # columns, for the panel
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LINE = re.compile(r" {1,3}(\S+) {2,}(\S.*)")
#: Ray puts the name of the process before a line that was not written by the driver
_PREFIX = re.compile(r"^\([^()]*pid=\d+[^()]*\) ?")
TOLERATED = "tolerated: advantage 0"
#: begins a line by which the launcher says why it ends the run
OURS = "rft-ilab: "
MILESTONES = {
    "Waiting for Ray resources": "waiting for the cluster to have what the plan needs",
    "Ray cluster resources satisfy": "the cluster has what the plan needs",
    "vLLM engines and actor_manager initialized": "the engines are up",
    "all models initialized": "the learners are up",
    "Resuming training from step": "resuming from the state that was saved last",
    "Saved checkpoint state at step": "state saved",
    "Saving final model": "saving the model",
    "finished training": "Open-Instruct has finished",
}


class Log:
    """Takes lines in order; remembers the newest validation, the last lines, what the launcher said of a failure
    (``reason``; much clean-up may follow it), and how many grader errors were tolerated (``errors``)."""

    def __init__(self, steps: int, prompts: int) -> None:
        self.steps, self.prompts = steps, prompts
        self.step = 0
        self.tolerated = self.errors = 0
        self.reason = ""
        self.val: float | None = None
        self.last: list[str] = []
        self._panel: list[tuple[str, str]] | None = None

    def add(self, line: str) -> Iterator[str | dict[str, Any]]:
        """A milestone as text, a step as a row; usually nothing."""
        text = _PREFIX.sub("", _ANSI.sub("", line.rstrip("\r\n")))
        if text.strip():
            self.last = [*self.last, text][-40:]
        if TOLERATED in text:
            self.tolerated += 1
            self.errors += 1
        if text.startswith(OURS):
            self.reason = self.reason or text.removeprefix(OURS).strip()
        if self._panel is not None:
            yield from self._inside(text)
        elif text.lstrip()[:1] in "╭+┌" and " Metrics " in text:
            self._panel = []
        else:
            yield from (said for mark, said in MILESTONES.items() if mark in text)

    def _inside(self, text: str) -> Iterator[dict[str, Any]]:
        assert self._panel is not None
        stripped = text.strip()
        if stripped[:1] in ("╰", "└") or stripped.startswith("+--"):
            metrics = parse_panel(self._panel)
            self._panel = None
            if "eval/scores" in metrics:
                self.val = metrics["eval/scores"]
            if "training_step" in metrics:
                yield self._row(metrics)
        elif stripped[:1] in ("│", "|"):
            inner = stripped.strip("│|")
            match = _LINE.match(inner)
            self._panel.append((match[1], match[2].strip()) if match else ("", inner.strip()))
        else:
            self._panel = None  # another process wrote in between; better no row than a wrong one

    def _row(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        self.step = int(metrics["training_step"])
        row: dict[str, Any] = {"stage": "grpo", "step": self.step, "steps": self.steps}
        row |= {name: metrics[key] for name, key in _ROW.items() if key in metrics}
        row |= {"groups": self.prompts, "signal_groups": round(metrics.get("val/total_reward_groups", 0.0))}
        row |= {"sample_s": metrics.get("time/group_generation_max", 0.0), "train_s": metrics.get("time/training", 0.0)}
        row |= {"errors": self.tolerated}
        if self.val is not None:
            row["val"] = {"greedy": self.val, "macro": self.val}
        self.tolerated, self.val = 0, None
        return row


#: ours -> theirs
_ROW = {
    "reward": "scores",
    "loss": "loss/total_avg",
    "entropy": "policy/entropy_avg",
    "kl": "objective/kl2_avg",
    "tokens_per_s": "learner_tokens_per_second_step",
    "actor_tokens_per_s": "val/actor_tokens_per_second",
    "answer_tokens": "val/sequence_lengths",
    "off_policy_steps": "num_steps_off_policy",
}


def parse_panel(lines: list[tuple[str, str]]) -> dict[str, float]:
    """(category, metrics) of every line as numbers by full name; a line without a category goes on from the one before.

    >>> parse_panel([("other", "scores: 0.25 | training_step: 3"), ("time", "total: 1.50 |"), ("", "training: 1.00")])
    {'scores': 0.25, 'training_step': 3.0, 'time/total': 1.5, 'time/training': 1.0}
    """
    joined: list[list[str]] = []
    for category, values in lines:
        if category or not joined:
            joined.append([category, values])
        else:
            joined[-1][1] += " " + values
    found = {}
    for category, values in joined:
        for part in values.split(" | "):
            name, _, value = part.strip(" |").rpartition(": ")
            try:
                found[name if category == "other" else f"{category}/{name}"] = float(value)
            except ValueError:
                continue
    return found
