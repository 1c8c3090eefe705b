"""TensorBoard, Weights & Biases and MLflow: the little that each of them is asked to do.

Names and environment variables are those that users of Hugging Face trainers know: ``WANDB_PROJECT``, ``WANDB_MODE``,
``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``. Numbers and settings are sent, text that a model wrote never is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

PROJECT = "rft-ilab"


class Tracker(Protocol):
    """One place that shows numbers by step. Every method may raise whatever the package raises.

    ``where`` tells a person where to look. ``remote``: calls may have to wait for a network.
    """

    where: str
    remote: bool

    def log(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        """Show ``numbers`` by their tags at ``step`` of ``stage``."""

    def close(self, finished: bool) -> None:
        """Leave nothing unsent; ``finished`` is False after an interruption or an error."""


class TensorBoard:
    """An event file in ``directory`` for every process that trained.

    Written in place by tensorboardX's record writer. Its ``SummaryWriter`` writes in a thread that dies when the disk
    is full, after which training would wait forever to put one more event into its queue.
    """

    remote = False

    def __init__(self, directory: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        directory.mkdir(parents=True, exist_ok=True)
        self.earlier = len(list(directory.glob("events.out.tfevents.*")))
        # TensorBoard reads in the order of names, which begin with seconds; two of one second must not be one file.
        self.writer = EventsWriter(str(directory.absolute() / "events"), f".{self.earlier:04d}")
        self.where = f"TensorBoard event files in {directory}"

    def rewind(self, step: int) -> bool:
        """Hide whatever earlier files show from ``step`` (1-based) on; False if there are none."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if self.earlier:
            # What SummaryWriter(purge_step=...) writes.
            start = SessionLog(status=SessionLog.START)
            self.writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        return bool(self.earlier)

    def log(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self.writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self.writer.flush()

    def close(self, finished: bool) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases; ``identifier`` is that of an earlier attempt, which goes on after ``sent`` steps."""

    remote = True

    def __init__(
        self, directory: Path, name: str, identifier: str | None, sent: int, config: Mapping[str, Any]
    ) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or name,
            id=identifier,
            resume="allow",
            dir=str(directory),
            config=dict(config),
            # The console shows grader errors, and they may quote a model.
            settings=wandb.Settings(console="off"),
        )
        for stage in ("sft", "grpo"):
            self.run.define_metric(f"{stage}/step")
        for group, stage in (("sft", "sft"), ("grpo", "grpo"), ("val", "grpo"), ("perf", "grpo")):
            self.run.define_metric(f"{group}/*", step_metric=f"{stage}/step")
        self.identifier, self.sent = str(self.run.id), sent
        self.where = f"Weights & Biases: {f'offline in {directory}/wandb' if self.run.offline else self.run.url}"

    def log(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        # W&B's own step, or it would begin anew where an offline run is resumed.
        self.sent += 1
        self.run.log({**numbers, f"{stage}/step": step}, step=self.sent)

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow; ``identifier`` is that of an earlier attempt, which goes on.

    The client, not ``mlflow.start_run``: that keeps its run in the thread that started it.
    """

    remote = True

    def __init__(self, name: str, identifier: str | None, config: Mapping[str, Any]) -> None:
        # MLflow tries for minutes to reach a server that is not there, before its first word about it.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        import mlflow

        self.client = mlflow.MlflowClient()
        if identifier is None:
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            experiment = self.client.get_experiment_by_name(title)
            number = self.client.create_experiment(title) if experiment is None else experiment.experiment_id
            identifier = self.client.create_run(number, run_name=name).info.run_id
            for key, value in _parameters(config).items():
                self.client.log_param(identifier, key, value)
        else:
            self.client.update_run(identifier, status="RUNNING")
        self.identifier = str(identifier)
        self.where = f"MLflow at {mlflow.get_tracking_uri()}, run {identifier}"

    def log(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.identifier, [Metric(_key(t), v, now, step) for t, v in numbers.items()])

    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.identifier, "FINISHED" if finished else "KILLED")


def _key(tag: str) -> str:
    """A tag as MLflow takes it: in its file store a metric is a file, so that none may be another one's directory.

    >>> _key("grpo/kl"), _key("grpo/kl/area/skill")
    ('grpo/kl', 'grpo/kl_by_skill/area/skill')
    """
    return re.sub(r"[^\w./: -]", "_", re.sub(r"^grpo/kl/", "grpo/kl_by_skill/", tag))


def _parameters(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flat names and values.

    >>> _parameters({"train": {"steps": 3}, "targets": ["a/b"]})
    {'train.steps': '3', 'targets': 'a/b'}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _parameters(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return found
