"""The RL stage as a whole: warm start, signal check, GRPO with checkpoints, selection, export.

Starts from files (verified examples, a model directory) and leaves files in the run directory; killed at
any point it resumes from its newest checkpoint.
"""

from __future__ import annotations

import random
import signal as signals
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.disk import remove_leftovers
from rft_ilab.policy.local.model import LoadedModel, load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.rl.checkpoint import load_adapter, load_checkpoint, save_adapter, save_checkpoint
from rft_ilab.rl.curriculum import draw_tasks
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.evaluate import Accuracy, greedy_accuracy, refuse_errors, sample_and_grade
from rft_ilab.rl.export import save_gguf, save_merged, save_peft_adapter
from rft_ilab.rl.grpo import train_grpo
from rft_ilab.rl.guard import UpdateGuard
from rft_ilab.rl.lessons import Lesson
from rft_ilab.rl.objective import group_advantages, has_signal
from rft_ilab.rl.progress import Progress
from rft_ilab.rl.selection import Candidate, select
from rft_ilab.rl.signal import Signal, measure_signal, refuse_without_signal, surprise
from rft_ilab.rl.space import require_space
from rft_ilab.rl.warmstart import warm_start
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache, append_jsonl, keep_jsonl, read_json, write_json
from rft_ilab.types import Policy, Sampling

SIGNAL_TASKS = 48
GGUF_PROMPTS = 16
WATCHED_VAL_TASKS = 60
# A checkpoint is due after ``checkpoint_every`` steps or so many seconds, whichever comes first.
CHECKPOINT_S = 120.0
# After so many steps in a row with next to nothing to learn from, all is solved.
IDLE_STEPS = 3


class RLStage:
    """One run of the stage. ``say`` gets one line a milestone, ``tick`` one row an optimiser step."""

    def __init__(
        self,
        directory: Path,
        targets: Sequence[Environment],
        watched: Sequence[Environment],
        settings: TrainSettings,
        cache: Cache,
        say: Callable[[str], None],
        tick: Callable[[dict[str, Any]], None],
    ) -> None:
        self.directory = directory
        self.targets, self.watched, self.settings = targets, watched, settings
        self.cache, self.say, self.tick = cache, say, tick
        self.log = directory / "rl"
        self.candidates: list[Candidate] = []
        self.unsaved, self.saved_at = 0, time.monotonic()

    # -- the whole --------------------------------------------------------------------------------

    def run(self, model: Path, lessons: Sequence[Lesson], margins: dict[str, float]) -> dict[str, Any]:
        """Train from ``model`` on verified ``lessons`` and the targets' graders; returns facts for the manifest.

        ``margins`` says how much validation accuracy each watched skill may lose. Raises SignalError when
        there is nothing to learn from, GraderError when too many grades are errors, TrainingError when updates keep
        going wrong, DiskError when there is no room, KeyboardInterrupt after saving when the user stops it.
        """
        remove_leftovers(self.log)
        loaded = load_model(model)
        engine = Engine(loaded, self.settings)
        require_space(engine, self.settings, self.directory)
        progress = self._resume(engine)
        engine.refresh_sampler(0.0)
        base_watched = self._watched_accuracy(LocalPolicy(engine.sampler), self.cache)
        if not progress.begun:
            self._begin(engine, lessons, progress)
        with stop_after_step() as stopped:
            solved = self._train(engine, progress, stopped)
        if all(c.name != f"step-{progress.step}" for c in self.candidates):
            self._score_candidate(engine, progress)
            self._save(engine, progress)
        chosen = self._select(engine, base_watched, margins)
        facts = self._export(engine, chosen)
        return {"steps": progress.step, "solved_early": solved, "chosen": chosen.as_dict(), **facts}

    def _resume(self, engine: Engine) -> Progress:
        """The state to go on from; rows of steps that will be done again are dropped, or they would be there twice."""
        found = load_checkpoint(engine, self.log / "checkpoint", self.say)
        progress = Progress()
        if found is not None:
            progress = Progress.of(found.facts["progress"])
            progress.guard.before = found.before
            self.candidates = [Candidate(**row) for row in found.facts["candidates"]]
            self.say(f"resuming after {progress}")
        for name in ("steps.jsonl", "rollouts.jsonl"):
            keep_jsonl(self.log / name, progress.covers)
        return progress

    def _begin(self, engine: Engine, lessons: Sequence[Lesson], progress: Progress) -> None:
        """Score the base, warm-start, check for signal; the first two candidates."""
        if not self.candidates:
            self._add_candidate(engine, "base", None)
        if lessons:
            if not progress.warm:
                self.say(f"warm start on {len(lessons)} verified answers, {self.settings.sft_epochs} epochs")
            with stop_after_step() as stopped:

                def after_batch(row: dict[str, Any]) -> None:
                    self.tick(row)
                    self._save_if_due(engine, progress, stopped(), row["step"] == row["steps"])

                warm_start(engine, lessons, self.settings, progress, self.log, after_batch)
        engine.refresh_sampler()
        self._add_candidate(engine, "sft", "candidates/sft.safetensors")
        self._check_signal(engine)
        progress.begun, progress.guard = True, UpdateGuard()
        self._save(engine, progress)

    def _train(self, engine: Engine, progress: Progress, stopped: Callable[[], bool]) -> bool:
        """GRPO to the end, saving candidates; returns True when it ended early because all is solved."""

        def after_step(row: dict[str, Any]) -> bool:
            progress.idle = progress.idle + 1 if row["signal_groups"] <= 1 else 0
            if progress.step == 1:
                row["expected_signal"] = self._compare_with_prediction(row)
            if progress.step % self.settings.val_every == 0 and progress.step < self.settings.steps:
                row["val"] = self._score_candidate(engine, progress)
            append_jsonl(self.log / "steps.jsonl", [row])
            self.tick(row)
            self._save_if_due(engine, progress, stopped(), "val" in row)
            return progress.idle >= IDLE_STEPS

        if progress.idle < IDLE_STEPS:
            train_grpo(engine, self.targets, self.settings, progress, self.log, after_step=after_step)
        return progress.idle >= IDLE_STEPS

    def _save_if_due(self, engine: Engine, progress: Progress, stopped: bool, milestone: bool) -> None:
        """After a step: save at a milestone, now and then, and when the user stops (raises KeyboardInterrupt)."""
        self.unsaved += 1
        waited = time.monotonic() - self.saved_at
        if stopped or milestone or self.unsaved >= self.settings.checkpoint_every or waited >= CHECKPOINT_S:
            self._save(engine, progress)
        if stopped:
            raise KeyboardInterrupt

    def _save(self, engine: Engine, progress: Progress) -> None:
        # In full precision: selection compares them.
        facts = {"progress": progress.as_dict(), "candidates": [asdict(c) for c in self.candidates]}
        save_checkpoint(engine, self.log / "checkpoint", progress.name, facts, progress.guard.before)
        self.unsaved, self.saved_at = 0, time.monotonic()

    # -- measuring on validation --------------------------------------------------------------------

    def _target_accuracy(self, policy: Policy, cache: Cache | None = None) -> tuple[float, float, float]:
        found = [self._accuracy(policy, e, self.settings.val_tasks, 0, cache) for e in self.targets]
        n = len(found)
        return sum(a.score for a in found) / n, sum(a.mean for a in found) / n, sum(a.macro for a in found) / n

    def _watched_accuracy(self, policy: Policy, cache: Cache | None = None) -> dict[str, float]:
        return {
            e.skill.name: self._accuracy(policy, e, WATCHED_VAL_TASKS, e.settings.demonstrations, cache).mean
            for e in self.watched
        }

    def _accuracy(
        self, policy: Policy, e: Environment, count: int, demonstrations: int, cache: Cache | None
    ) -> Accuracy:
        tasks, most = e.validation(count), self.settings.max_error_share
        return greedy_accuracy(policy, e, tasks, demonstrations, cache, max_error_share=most)

    def _add_candidate(self, engine: Engine, name: str, file: str | None) -> Candidate:
        if file:
            save_adapter(engine.adapter(), self.log / file)
            score, val, macro = self._target_accuracy(engine.policy(name))
        else:
            score, val, macro = self._target_accuracy(LocalPolicy(engine.sampler), self.cache)
        candidate = Candidate(name, file, score, val, macro)
        self.candidates.append(candidate)
        self.say(f"validation after {name}: {val:.1%} greedy, {macro:.1%} per class")
        return candidate

    def _score_candidate(self, engine: Engine, progress: Progress) -> dict[str, float]:
        name = f"step-{progress.step}"
        known = next((c for c in self.candidates if c.name == name), None)
        if known is None:
            engine.refresh_sampler()
            known = self._add_candidate(engine, name, f"candidates/{name}.safetensors")
        return {"greedy": known.val, "macro": known.macro}

    def _check_signal(self, engine: Engine) -> list[Signal]:
        found = []
        for environment in self.targets:
            rng = random.Random(f"signal/{self.settings.seed}")
            # Drawn as the first step will draw its own, or there would be nothing to compare.
            tasks = draw_tasks(
                environment.split("train"), environment.classes, {}, SIGNAL_TASKS, self.settings.balanced, rng
            )
            sampling = Sampling(max_tokens=environment.settings.max_tokens, seed=rng.randrange(2**31))
            groups = sample_and_grade(
                engine.policy("signal"), environment, tasks, self.settings.group_size, sampling, 0
            )
            refuse_errors(environment, groups, self.settings.max_error_share)
            measured = measure_signal(
                environment.skill.name,
                [(g[0].task.id, [r.grade.passed for r in g]) for g in groups],
                classes=environment.classes,
                samples=self.settings.group_size,
                group_size=self.settings.group_size,
                after="sft",
            )
            # These groups are as large as training's: what carries signal can be counted, partial credit and all.
            rewards_NG = [[None if r.grade.error else r.grade.reward for r in g] for g in groups]
            carry = sum(has_signal(group_advantages(rewards_G)) for rewards_G in rewards_NG)
            found.append(replace(measured, expected_mixed=carry / max(1, measured.tasks)))
        write_json(self.log / "signal.json", [s.as_dict() for s in found])
        for s in found:
            self.say(
                f"signal for {s.skill}: pass@1 {s.pass_at_1:.1%}, pass@{s.samples} {s.pass_at_k:.1%}, "
                f"{s.expected_mixed:.0%} of groups expected mixed"
            )
            refuse_without_signal(s, self.settings.signal_floor)
        return found

    def _compare_with_prediction(self, row: dict[str, Any]) -> float:
        """Say how many groups of the first step carry signal, and what share was expected to; returns that share."""
        predicted = read_json(self.log / "signal.json")
        share = sum(p["expected_mixed"] for p in predicted) / len(predicted)
        chance = surprise(predicted, row["signal_groups"], row["groups"])
        self.say(
            f"first step: {row['signal_groups']} of {row['groups']} groups are mixed, {share:.0%} were expected"
            + (f"; more than chance explains (p = {chance:.2g})" if chance < 0.01 else "")
        )
        return round(share, 4)

    # -- the result ---------------------------------------------------------------------------------

    def _select(self, engine: Engine, base_watched: dict[str, float], margins: dict[str, float]) -> Candidate:
        chosen, tried = select(
            engine,
            self.candidates,
            self.log,
            self._target_accuracy,
            self._watched_accuracy,
            base_watched,
            # Half the margin: what is chosen here must still pass the gate on other tasks.
            {name: margin / 2 for name, margin in margins.items()},
        )
        rows = [c.as_dict() for c in self.candidates if c.name not in {t.name for t in tried}]
        write_json(
            self.log / "selection.json",
            {
                "candidates": sorted(rows + [t.as_dict() for t in tried], key=lambda r: r["name"]),
                "base_watched": base_watched,
                "chosen": chosen.name,
                "scale": chosen.scale,
            },
        )
        self.say(f"chosen: {chosen.name} at adapter scale {chosen.scale:g} (validation {chosen.val:.1%})")
        return chosen

    def _export(self, engine: Engine, chosen: Candidate) -> dict[str, Any]:
        if chosen.file:
            engine.load_adapter(load_adapter(self.log / chosen.file))
        save_peft_adapter(engine, chosen.scale, self.directory / "adapter")
        save_merged(engine, self.directory / "model")
        merged: LoadedModel = load_model(self.directory / "model")
        facts: dict[str, Any] = {"model_digest": merged.digest}
        if merged.model.config.model_type == "llama":
            target = self.targets[0]
            prompts = [build_prompt(target.skill, t, 0) for t in target.validation(GGUF_PROMPTS)]
            facts["gguf"] = save_gguf(merged, prompts, target.settings.max_tokens, self.directory / "model.gguf")
            self.say(f"GGUF agrees with the merged model on {facts['gguf']['agree']} of {len(prompts)} answers")
        else:
            self.say(f"no GGUF: export covers Llama models, not {merged.model.config.model_type}")
        return facts


@contextmanager
def stop_after_step() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT into a request that the loop honours after its step; a second one interrupts."""
    asked = False

    def handler(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        previous = signals.signal(signals.SIGINT, handler)
    except ValueError:  # not the main thread: the caller handles signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signals.signal(signals.SIGINT, previous)
