"""Settings of a taxonomy, read from ``taxonomy/rft.toml``. Small, frozen, unknown keys rejected.

Everything has a default, so the file is optional; command-line options override single values
with :func:`dataclasses.replace`. See ``docs/reference.md`` for the file with all its keys.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rft_ilab.errors import SkillError
from rft_ilab.types import Tier

FILE_NAME = "rft.toml"
MAX_FILE_BYTES = 1 << 20
TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillSettings:
    """One ``[skills."area/name"]`` table. ``margin`` None means the gate's default."""

    tier: Tier = "supporting"
    margin: float | None = None
    max_tokens: int = 64
    demonstrations: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """``alpha``: two-sided error rate of the intervals. ``margin``: tolerated loss of a watched skill.
    ``min_gain``: a target whose gain is shown to be below this fails. ``samples``: per target task, at ``temperature``;
    ``watched_samples``: the same for watched skills, for information only (0: greedy alone)."""

    alpha: float = 0.05
    margin: float = 0.10
    min_gain: float = 0.05
    samples: int = 2
    watched_samples: int = 0
    temperature: float = 1.0
    seed: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """One ``[suites.NAME]`` table: a ready suite that every gate measures, too (``docs/suites.md``).

    ``limit`` tests that many of its tasks, drawn by content (None: all); ``max_tokens`` None is the suite's own;
    ``demonstrations`` are rows of the suite that are not tested. ``margin`` None means the gate's default."""

    tier: Literal["critical", "supporting", "advisory"] = "supporting"
    margin: float | None = None
    limit: int | None = None
    max_tokens: int | None = None
    demonstrations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Verified sampling: ``samples`` completions of up to ``tasks`` training tasks of the target
    (and ``watched_tasks`` of every other skill, for replay), of which ``keep_per_class`` are kept.

    For targets also ``generated`` tasks of a ``generator.py``, and of the teacher ``paraphrases`` of training
    tasks and new ``questions`` (both written at ``writing_temperature``), each kept if ``agree`` of ``agree_of``
    independent answers agree. ``band_samples``: answers of the student that decide a task's difficulty, where
    another model is the teacher."""

    tasks: int = 384
    samples: int = 2
    keep_per_class: int = 96
    watched_tasks: int = 24
    temperature: float = 1.0
    generated: int = 64
    paraphrases: int = 0
    questions: int = 0
    writing_temperature: float = 0.5
    agree: int = 3
    agree_of: int = 4
    band_samples: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Warm start (``sft_*``) and GRPO. Rates are AdamW learning rates of the LoRA weights.

    ``sft_replay`` verified answers of one watched skill join every second batch of ``sft_batch`` (every one, if few).
    ``prompts`` x ``group_size`` rollouts a step; ``balanced`` is the share of prompts drawn from
    the classes in turn; ``updates`` are made with each batch; ``truncation`` caps the importance weight between
    trainer and sampler, and beyond ``clip_low`` and ``clip_high`` an answer is pushed no further. ``kl_weight`` x KL to
    the base model joins the loss; KL is measured every ``kl_every`` steps (0: never). While entropy (nats a token) is
    below ``entropy_target``, a bonus grows (0: never). ``loss_mean`` counts every ``token`` or every ``sequence``
    alike; answers that were cut off are ``graded`` like others or ``masked``. ``guidance`` weighs the authored
    reference of a task whose group is wrong throughout (0: unused). With ``async_steps`` 1 a step's batch is sampled
    with the weights before the last update, while that is computed (0: after it). Every ``checkpoint_every`` steps, of
    either kind, and at least every two minutes, all is saved; that may differ on resuming.
    """

    seed: int = 0
    lora_rank: int = 16
    lora_alpha: int = 32
    sft_epochs: int = 3
    sft_learning_rate: float = 1e-3
    sft_batch: int = 20
    sft_replay: int = 8
    steps: int = 20
    prompts: int = 16
    group_size: int = 8
    learning_rate: float = 2e-4
    warmup_steps: int = 2
    balanced: float = 0.75
    updates: int = 1
    truncation: float = 2.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_weight: float = 0.0
    kl_every: int = 5
    entropy_target: float = 0.0
    loss_mean: Literal["token", "sequence"] = "token"
    truncated: Literal["graded", "masked"] = "graded"
    guidance: float = 1.0
    async_steps: Literal[0, 1] = 0
    max_grad_norm: float = 1.0
    val_every: int = 10
    val_tasks: int = 160
    signal_floor: float = 0.05
    max_error_share: float = 0.05
    checkpoint_every: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInstructSettings:
    """``--engine open-instruct`` (``docs/open-instruct.md``). 0 leaves a choice to the plan.

    A step samples ``group_size`` answers to each of ``prompts`` prompts, ``async_steps`` steps ahead of the learners;
    all weights are trained, at ``learning_rate``, for ``steps`` steps. ``kl_weight`` x KL to the base joins the loss.
    ``learners`` GPUs train, the others sample, ``tensor_parallel`` of them with one engine; ``zero_stage`` is
    DeepSpeed's. ``gpu`` is what the plan's arithmetic is about, ``gpu_hour_price`` what an hour of one costs (0: not
    said). All is saved every ``checkpoint_every`` steps. ``flags`` are handed to grpo_fast.py as they are, last.
    """

    prompts: int = 16
    group_size: int = 8
    steps: int = 100
    async_steps: int = 2
    learning_rate: float = 1e-6
    kl_weight: float = 0.0
    learners: int = 0
    tensor_parallel: int = 0
    zero_stage: int = 0
    gpu: Literal["a100", "h100", "h200", "b200", "l40s"] = "h100"
    gpu_hour_price: float = 0.0
    checkpoint_every: int = 50
    flags: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingSettings:
    """Where the numbers of every training step are sent; no part of a run's identity, so it may change on resume.

    ``report_to``: ``tensorboard``, ``wandb``, ``mlflow``, several of them with commas between, ``none``, or ``auto``:
    TensorBoard, and nothing where tensorboardX is not installed."""

    report_to: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file. ``skills`` and ``suites`` map names to their tables."""

    skills: Mapping[str, SkillSettings] = field(default_factory=dict)
    suites: Mapping[str, SuiteSettings] = field(default_factory=dict)
    gate: GateSettings = GateSettings()
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    open_instruct: OpenInstructSettings = OpenInstructSettings()
    tracking: TrackingSettings = TrackingSettings()

    def skill(self, name: str) -> SkillSettings:
        return self.skills.get(name, SkillSettings())


T = TypeVar("T")


def load_settings(taxonomy: Path) -> Settings:
    """Read ``rft.toml`` of a taxonomy directory; all defaults if there is none.

    Raises SkillError that names the file and the offending key.
    """
    path = taxonomy / FILE_NAME
    if not os.path.lexists(path):
        return Settings()
    # A branch that somebody checked out may have put a link there, to a device or to what is not to be read.
    if path.is_symlink() or not path.is_file():
        raise SkillError("is not a regular file", where=path, fix="put the file itself there")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SkillError(f"more than {MAX_FILE_BYTES >> 20} MiB", where=path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SkillError(f"not valid TOML: {error}", where=path) from error
    except RecursionError as error:
        raise SkillError("not valid TOML: nested too deeply", where=path) from error
    tables = dict(raw)
    skills = tables.pop("skills", {})
    if not isinstance(skills, dict):
        raise SkillError("skills must be a table of tables", where=path, fix='write [skills."area/name"]')
    parsed = {name: _table(SkillSettings, value, f'skills."{name}"', path) for name, value in skills.items()}
    for name, skill in parsed.items():
        if skill.max_tokens < 1:
            raise SkillError(f"'max_tokens' in [skills.\"{name}\"] must be at least 1", where=path)
    suites = tables.pop("suites", {})
    if not isinstance(suites, dict):
        raise SkillError("suites must be a table of tables", where=path, fix="write [suites.gsm8k]")
    asked = {name: _table(SuiteSettings, value, f"suites.{name}", path) for name, value in suites.items()}
    for name, suite in asked.items():
        for key in ("limit", "max_tokens"):
            if getattr(suite, key) == 0:
                raise SkillError(f"{key!r} in [suites.{name}] must be at least 1", where=path)
    data = _table(DataSettings, tables.get("data", {}), "data", path)
    for key in ("samples", "agree", "agree_of"):
        if getattr(data, key) < 1:
            raise SkillError(f"{key!r} in [data] must be at least 1", where=path)
    if data.agree > data.agree_of:
        raise SkillError(f"'agree' in [data] is {data.agree} of 'agree_of' {data.agree_of} answers", where=path)
    train = _table(TrainSettings, tables.get("train", {}), "train", path)
    for key in ("lora_rank", "sft_batch", "updates", "prompts", "group_size", "val_every", "val_tasks"):
        least = 2 if key == "group_size" else 1
        if getattr(train, key) < least:
            raise SkillError(f"{key!r} in [train] must be at least {least}", where=path)
    open_instruct = _table(OpenInstructSettings, tables.get("open_instruct", {}), "open_instruct", path)
    for key in ("prompts", "group_size", "steps", "async_steps", "checkpoint_every"):
        least = 2 if key == "group_size" else 1
        if getattr(open_instruct, key) < least:
            raise SkillError(f"{key!r} in [open_instruct] must be at least {least}", where=path)
    if open_instruct.zero_stage not in (0, 2, 3):
        raise SkillError("'zero_stage' in [open_instruct] must be 2 or 3, or 0 for the plan's choice", where=path)
    parts = {
        "gate": GateSettings,
        "data": DataSettings,
        "train": TrainSettings,
        "open_instruct": OpenInstructSettings,
        "tracking": TrackingSettings,
    }
    if unknown := set(tables) - set(parts):
        known = f"known: skills, suites, {', '.join(parts)}"
        raise SkillError(f"unknown table [{min(unknown)}]", where=path, fix=known)
    tracking = _table(TrackingSettings, tables.get("tracking", {}), "tracking", path)
    try:
        tracker_names(tracking.report_to)
    except ValueError as error:
        raise SkillError(f"'report_to' in [tracking]: {error}", where=path) from error
    return Settings(
        skills=parsed,
        suites=asked,
        gate=_table(GateSettings, tables.get("gate", {}), "gate", path),
        data=data,
        train=train,
        open_instruct=open_instruct,
        tracking=tracking,
    )


def tracker_names(report_to: str) -> tuple[str, ...]:
    """The trackers that a ``report_to`` names, each once. Raises ValueError if it names one that there is not.

    >>> tracker_names("wandb,tensorboard"), tracker_names("auto"), tracker_names("none")
    (('wandb', 'tensorboard'), ('tensorboard',), ())
    """
    names = [name.strip() for name in report_to.split(",")]
    if names in (["auto"], ["none"]):
        return ("tensorboard",) if names == ["auto"] else ()
    for name in names:
        if name in ("auto", "none"):
            raise ValueError(f"{name!r} goes with no other")
        if name not in TRACKERS:
            raise ValueError(f"no tracker {name!r}; there are {', '.join(TRACKERS)}, none and auto")
    return tuple(dict.fromkeys(names))


def _table(cls: type[T], value: Any, name: str, path: Path) -> T:
    """Build one settings class, checking key names, types and the tier's spelling."""
    if not isinstance(value, dict):
        raise SkillError(f"[{name}] must be a table", where=path)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key, item in value.items():
        if key not in fields:
            raise SkillError(f"unknown key {key!r} in [{name}]", where=path, fix=f"known: {', '.join(fields)}")
        choices = get_args(hints[key]) if get_origin(hints[key]) is Literal else ()
        if choices and item not in choices:
            raise SkillError(f"unknown {key} {item!r} in [{name}]", where=path, fix=f"one of {choices}")
        kinds: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float)}
        named = str(fields[key].type).removesuffix(" | None")
        wanted = (type(choices[0]),) if choices else kinds.get(named, (str,))
        if not isinstance(item, wanted) or isinstance(item, bool):
            raise SkillError(f"{key!r} in [{name}] must be {' or '.join(w.__name__ for w in wanted)}", where=path)
        if isinstance(item, int | float) and item < 0:
            raise SkillError(f"{key!r} in [{name}] must not be negative", where=path)
    return cls(**value)
