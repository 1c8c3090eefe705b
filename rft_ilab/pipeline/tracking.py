"""Every optimiser step, to the trackers that ``report_to`` names; training never waits for one and never fails by one.

How a resumed run shows no step twice: it repeats the steps after its last checkpoint. TensorBoard is told to forget
them. Weights & Biases and MLflow forget nothing, so they are not sent them again; how far each one is stands in
``rl/trackers/NAME.json``, and whatever ``rl/steps.jsonl`` has beyond that is sent, also to a tracker that was asked for
on resuming only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from rft_ilab.config import tracker_names
from rft_ilab.errors import TrackerError
from rft_ilab.pipeline.trackers import MLflow, TensorBoard, Tracker, WandB
from rft_ilab.store import read_json, read_jsonl, write_json

Row = Mapping[str, Any]

PACKAGE = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
# How long the end of training waits for what a tracker has still to send.
PATIENCE_S = 60.0

_NOT_SHOWN = {"stage", "step", "steps"}
_SPEED = {"sample_s", "train_s", "tokens_per_s"}


def numbers(row: Row) -> dict[str, float]:
    """The finite numbers of a row by tag; an absent number, None and a truth value are none.

    >>> numbers({"stage": "grpo", "step": 2, "reward": 0.5, "kl": None, "kl_by_skill": {"a/b": 0.1}, "sample_s": 3})
    {'grpo/reward': 0.5, 'grpo/kl/a/b': 0.1, 'perf/sample_s': 3.0}
    """
    found: dict[str, float] = {}
    for key, value in row.items():
        if key == "val":
            tag = "val"
        elif row["stage"] == "grpo" and key in _SPEED:
            tag = f"perf/{key}"
        else:
            tag = f"{row['stage']}/{'kl' if key == 'kl_by_skill' else key}"
        if key not in _NOT_SHOWN:
            found |= _flat(tag, value)
    if row.get("groups") and "signal_groups" in row:
        found["grpo/signal_share"] = row["signal_groups"] / row["groups"]
    return found


def _flat(tag: str, value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {name: number for key, part in value.items() for name, number in _flat(f"{tag}/{key}", part).items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return {tag: float(value)} if is_number else {}


def check_trackers(report_to: str) -> None:
    """Raises TrackerError if a tracker that was asked for by name is not installed."""
    for name in tracker_names(report_to):
        if report_to.strip() != "auto" and not _installed(name):
            raise TrackerError(
                f"--report-to {name}: {PACKAGE[name]} is not installed", fix=f"pip install {PACKAGE[name]}"
            )


def _installed(name: str) -> bool:
    spec = importlib.util.find_spec(PACKAGE[name])
    # A directory that happens to be called wandb (W&B makes one) would be found too; it has no origin.
    return spec is not None and spec.origin is not None


@contextlib.contextmanager
def tracking(
    report_to: str, directory: Path, config: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[Callable[[Row], None]]:
    """Trackers for the run in ``directory``; yields what takes each row of ``rl/steps.jsonl`` once it is written there.

    ``config`` is shown beside the numbers. Raises TrackerError if a tracker that was asked for by name cannot start;
    after that none raises.
    """
    feeds: list[Feed] = []
    finished = False

    def put(row: Row) -> None:
        for feed in feeds:
            feed.put(row)

    try:
        for name in tracker_names(report_to):
            try:
                feeds.append(_start(name, directory, config, say))
            except Exception as error:  # whatever a foreign package raises
                if report_to.strip() != "auto":
                    raise TrackerError(f"--report-to {name}: {_line(error)}") from error
                say(f"no TensorBoard event files: {_line(error)}")
        yield put
        finished = True
    finally:
        for feed in feeds:
            feed.close(finished)


def _start(name: str, directory: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> Feed:
    """Raises whatever the tracker's package raises."""
    path = directory / "rl" / "trackers" / f"{name}.json"
    state: dict[str, Any] = read_json(path) if path.exists() else {"sft": 0, "grpo": 0}
    tracker: Tracker
    if name == "tensorboard":
        tracker = TensorBoard(directory / "rl" / "tensorboard")
    elif name == "wandb":
        sent = state["sft"] + state["grpo"]
        tracker = wandb = WandB(directory.absolute() / "rl", directory.absolute().name, state.get("id"), sent, config)
        state["id"] = wandb.identifier
    else:
        tracker = mlflow = MLflow(directory.absolute().name, state.get("id"), config)
        state["id"] = mlflow.identifier
    write_json(path, state)
    say(f"metrics: {tracker.where}")
    return Feed(tracker, state, path, say)


class Feed:
    """One tracker with what it has been sent (``state``, kept in ``path``); the first failure switches it off."""

    def __init__(self, tracker: Tracker, state: dict[str, Any], path: Path, say: Callable[[str], None]) -> None:
        self.tracker, self.state, self.path, self.say = tracker, state, path, say
        self.begun = self.off = self.finished = False
        self.queue: SimpleQueue[Row | None] = SimpleQueue()
        self.thread = Thread(target=self._work, daemon=True) if tracker.remote else None
        if self.thread:
            self.thread.start()

    def put(self, row: Row) -> None:
        if self.thread:
            self.queue.put(dict(row))
        else:
            self._send(row)

    def close(self, finished: bool) -> None:
        self.finished = finished
        if self.thread is None:
            self._end()
            return
        self.queue.put(None)
        self.thread.join(PATIENCE_S)
        if self.thread.is_alive():
            self.say(f"{self.path.stem}: not all metrics could be sent within {PATIENCE_S:.0f} s")

    def _work(self) -> None:
        for row in iter(self.queue.get, None):
            self._send(row)
        self._end()

    def _send(self, row: Row) -> None:
        if not self.off:
            try:
                self._send_all(row)
            except Exception as error:  # noqa: BLE001 - no network, no disk: training goes on
                self._switch_off(error)

    def _send_all(self, row: Row) -> None:
        """Send ``row``, and before the first one what the run's log has and the tracker has not."""
        rows = [row]
        if not self.begun:
            self.begun = True
            self._rewind(row["step"])
            rows = [*read_jsonl(self.path.parent.parent / "steps.jsonl"), row]
        for each in rows:
            if each["step"] > self.state[each["stage"]]:
                # First noted, then sent: what a kill comes between is missing, not doubled.
                self.state[each["stage"]] = each["step"]
                write_json(self.path, self.state)
                self.tracker.log(each["stage"], each["step"], numbers(each))

    def _rewind(self, step: int) -> None:
        if isinstance(self.tracker, TensorBoard):
            # Steps of both stages are hidden from there on; those of the warm start are in the log and shown again.
            kept = step - 1 if self.tracker.rewind(step) else 0
            self.state |= {stage: min(self.state[stage], kept) for stage in ("sft", "grpo")}

    def _end(self) -> None:
        try:
            self.tracker.close(self.finished)
        except Exception as error:  # noqa: BLE001 - as above
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        if not self.off:
            self.off = True
            self.say(f"{self.path.stem}: switched off, training goes on: {_line(error)}")


def _line(error: Exception) -> str:
    """What went wrong, in one line of bearable length."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
