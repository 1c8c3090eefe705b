"""The RL stage as a whole: warm start, signal check, GRPO with checkpoints, selection, export.

Starts from files (verified examples, a model directory) and leaves files in the run directory; killed at
any point it resumes from its newest checkpoint.
"""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.disk import remove_leftovers
from rft_ilab.policy.local.gguf_file import uncovered
from rft_ilab.policy.local.memory import give_back
from rft_ilab.policy.local.model import LoadedModel, load_model
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.rl import parallel
from rft_ilab.rl.attribution import State, attribute, attribution_line
from rft_ilab.rl.checkpoint import load_adapter, load_checkpoint, save_adapter, save_checkpoint
from rft_ilab.rl.controls import control_environment, refuse_without_format
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.evaluate import accuracy_of, greedy_answers
from rft_ilab.rl.export import save_gguf, save_merged, save_peft_adapter
from rft_ilab.rl.grpo import train_grpo
from rft_ilab.rl.guard import UpdateGuard
from rft_ilab.rl.lessons import Lesson
from rft_ilab.rl.progress import Progress
from rft_ilab.rl.readiness import check_signal, compare_with_prediction
from rft_ilab.rl.selection import Candidate, evaluations, select, use
from rft_ilab.rl.space import require_space
from rft_ilab.rl.validation import Answer, answers_path, load_answers, save_answers
from rft_ilab.rl.warmstart import warm_start
from rft_ilab.rollouts import Environment, Graded
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache, append_jsonl, keep_jsonl, read_json, write_json
from rft_ilab.types import Policy

GGUF_PROMPTS = 16
WATCHED_VAL_TASKS = 60
# A checkpoint is due after ``checkpoint_every`` steps or so many seconds, whichever comes first.
CHECKPOINT_S = 120.0


class RLStage:
    """One run of the stage. ``say`` gets one line a milestone, ``tick`` one row an optimiser step.

    ``control`` names a control arm (:mod:`rft_ilab.rl.controls`), whose GRPO is rewarded by something else.
    """

    def __init__(
        self,
        directory: Path,
        targets: Sequence[Environment],
        watched: Sequence[Environment],
        settings: TrainSettings,
        cache: Cache,
        say: Callable[[str], None],
        tick: Callable[[dict[str, Any]], None],
        control: str = "",
    ) -> None:
        self.directory = directory
        self.targets, self.watched, self.control = targets, watched, control
        # References are right answers, which a control arm must not learn from during GRPO.
        self.settings = replace(settings, guidance=0.0) if control else settings
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
        if self.control == "format-only":
            for e in self.targets:
                refuse_without_format(e)
        remove_leftovers(self.log)
        loaded = load_model(model)
        engine = Engine(loaded, self.settings)
        require_space(engine, self.settings, self.directory)
        progress = self._resume(engine)
        engine.refresh_sampler(0.0)
        base_watched = self._watched_accuracy(LocalPolicy(engine.sampler), self.cache)
        to_beat = self._with_demonstrations(LocalPolicy(engine.sampler))
        if not progress.begun:
            self._begin(engine, lessons, progress)
        with stop_after_step() as stopped:
            self._train(engine, progress, stopped)
        if all(c.name != f"step-{progress.step}" for c in self.candidates):
            self._score_candidate(engine, progress)
            self._save(engine, progress)
        chosen = self._select(engine, base_watched, margins, to_beat)
        if parallel.rank():
            return {}
        give_back()
        with parallel.alone():
            facts = self._export(engine, chosen)
            self._attribute(engine, chosen)
        return {"steps": progress.step, "ended_early": progress.ended, "chosen": chosen.as_dict(), **facts}

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
        check_signal(engine, self.targets, self.settings, self.log, self.say)
        progress.begun, progress.guard = True, UpdateGuard()
        progress.stop.best = max(candidate.score for candidate in self.candidates)
        self._save(engine, progress)

    def _train(self, engine: Engine, progress: Progress, stopped: Callable[[], bool]) -> None:
        """GRPO to the end or to where it makes no sense any longer, saving candidates."""

        def after_step(row: dict[str, Any]) -> bool:
            if progress.step == 1 and not self.control:
                row["expected_signal"] = compare_with_prediction(self.log, row, self.say)
            if progress.step % self.settings.val_every == 0 and progress.step < self.settings.steps:
                row["val"] = self._score_candidate(engine, progress)
                progress.ended = progress.stop.after_validation(self.candidates[-1].score)
            why = progress.stop.after_step(row["signal_groups"], row["groups"], row.get("reward"))
            progress.ended = why or progress.ended
            append_jsonl(self.log / "steps.jsonl", [row])
            self.tick(row)
            self._save_if_due(engine, progress, stopped(), "val" in row)
            return bool(progress.ended)

        if not progress.ended:
            train_grpo(engine, self._rewarded(), self.settings, progress, self.log, after_step=after_step)
        if progress.ended:
            self.say(f"ended after GRPO step {progress.step}: {progress.ended}")

    def _save_if_due(self, engine: Engine, progress: Progress, stopped: bool, milestone: bool) -> None:
        """After a step: save at a milestone, now and then, and when the user stops (raises KeyboardInterrupt)."""
        self.unsaved += 1
        waited = time.monotonic() - self.saved_at
        stopped = parallel.anyone(stopped)
        if stopped or milestone or self.unsaved >= self.settings.checkpoint_every or waited >= CHECKPOINT_S:
            self._save(engine, progress)
        if stopped:
            raise KeyboardInterrupt

    def _rewarded(self) -> Sequence[Environment]:
        """The targets as GRPO sees them: with another reward in a control arm."""
        if not self.control:
            return self.targets
        means = {row["skill"]: row["mean_reward"] for row in read_json(self.log / "signal.json")}
        seed = self.settings.seed
        return [control_environment(e, self.control, means[e.skill.name], seed) for e in self.targets]

    def _save(self, engine: Engine, progress: Progress) -> None:
        # In full precision: selection compares them.
        facts = {"progress": progress.as_dict(), "candidates": [asdict(c) for c in self.candidates]}
        save_checkpoint(engine, self.log / "checkpoint", progress.name, facts, progress.guard.before)
        self.unsaved, self.saved_at = 0, time.monotonic()

    # -- measuring on validation --------------------------------------------------------------------

    def _target_accuracy(
        self, policy: Policy, label: str = "", cache: Cache | None = None
    ) -> tuple[float, float, float]:
        """Score, accuracy and macro accuracy; the answers are kept under ``label`` (else the policy's id)."""
        answers = [self._answers(policy, e, self.settings.val_tasks, 0, cache) for e in self.targets]
        save_answers(self.log, label or policy.id, [graded for found in answers for graded in found])
        found = [accuracy_of(e, own) for e, own in zip(self.targets, answers, strict=True)]
        n = len(found)
        return sum(a.score for a in found) / n, sum(a.mean for a in found) / n, sum(a.macro for a in found) / n

    def _watched_accuracy(self, policy: Policy, cache: Cache | None = None) -> dict[str, float]:
        return {
            e.skill.name: accuracy_of(
                e, self._answers(policy, e, WATCHED_VAL_TASKS, e.settings.demonstrations, cache)
            ).mean
            for e in self.watched
        }

    def _with_demonstrations(self, base: Policy) -> float:
        """Score of the base with each target's demonstrations: what a user has without any training."""
        answers = [
            (e, self._answers(base, e, self.settings.val_tasks, e.settings.demonstrations, self.cache))
            for e in self.targets
        ]
        return sum(accuracy_of(e, own).score for e, own in answers) / len(answers)

    def _answers(
        self, policy: Policy, e: Environment, count: int, demonstrations: int, cache: Cache | None
    ) -> list[Graded]:
        tasks, most = e.validation(count), self.settings.max_error_share
        return greedy_answers(policy, e, tasks, demonstrations, cache, max_error_share=most)

    def _add_candidate(self, engine: Engine, name: str, file: str | None) -> Candidate:
        candidate = Candidate(name, file, 0.0, 0.0, 0.0, 1.0 if file else 0.0)
        if file:
            save_adapter(engine.adapter(), self.log / file)
            figures = self._target_accuracy(engine.policy(candidate.label))
        else:
            figures = self._target_accuracy(LocalPolicy(engine.sampler), candidate.label, self.cache)
        candidate.score, candidate.val, candidate.macro = figures
        self.candidates.append(candidate)
        self.say(f"validation after {name}: {candidate.val:.1%} greedy, {candidate.macro:.1%} per class")
        return candidate

    def _score_candidate(self, engine: Engine, progress: Progress) -> dict[str, float]:
        name = f"step-{progress.step}"
        known = next((c for c in self.candidates if c.name == name), None)
        if known is None:
            engine.refresh_sampler()
            known = self._add_candidate(engine, name, f"candidates/{name}.safetensors")
        return {"greedy": known.val, "macro": known.macro}

    # -- the result ---------------------------------------------------------------------------------

    def _select(
        self, engine: Engine, base_watched: dict[str, float], margins: dict[str, float], to_beat: float
    ) -> Candidate:
        # Half the margin: what is chosen here must still pass the gate on other tasks.
        allowed = {name: margin / 2 for name, margin in margins.items()}
        self._announce_selection()
        found = select(
            engine,
            self.candidates,
            self.log,
            self._target_accuracy,
            self._watched_accuracy,
            base_watched,
            allowed,
            to_beat,
        )
        measured = {c.name: c for c in (*found.tried, *found.frontier) if c.scale in (0.0, 1.0)}
        write_json(
            self.log / "selection.json",
            {
                "candidates": [measured.get(c.name, c).as_dict() for c in self.candidates],
                "base_watched": base_watched,
                "allowed_loss": allowed,
                "to_beat": round(to_beat, 4),
                "frontier": [c.as_dict() for c in found.frontier],
                "chosen": found.chosen.name,
                "scale": found.chosen.scale,
            },
        )
        chosen = found.chosen
        self.say(f"chosen: {chosen.name} at adapter scale {chosen.scale:g} (validation {chosen.val:.1%})")
        return chosen

    def _announce_selection(self) -> None:
        """Say what selection will cost at most, before it starts."""
        on_target, on_watched = evaluations(self.candidates)
        target = sum(len(e.validation(self.settings.val_tasks)) for e in self.targets)
        watched = sum(len(e.validation(WATCHED_VAL_TASKS)) for e in self.watched)
        self.say(
            f"selection: adapters at scales 1 to 0, at most {on_target * target + on_watched * watched:,} answers "
            f"({on_target} x {target} to validation tasks of the target, {on_watched} x {watched} of watched skills)"
        )

    def _attribute(self, engine: Engine, chosen: Candidate) -> None:
        """Write what base, warm start and GRPO each did to the targets' validation answers; say it in a line each."""
        engine.refresh_sampler(0.0)
        policy = LocalPolicy(engine.sampler)
        base, start = (next(c for c in self.candidates if c.name == name) for name in ("base", "sft"))
        found = []
        for e in self.targets:
            shown = e.settings.demonstrations
            with_shown = self._answers(policy, e, self.settings.val_tasks, shown, self.cache)
            states = [
                State("base", base, self._kept(engine, base)),
                State(
                    f"base with {shown} demonstration{'s' * (shown != 1)}",
                    None,
                    {g.task.id: Answer.of(g) for g in with_shown},
                ),
                State("warm start", start, self._kept(engine, start)),
                State("chosen", chosen, self._kept(engine, chosen)),
            ]
            if not shown:
                del states[1]
            found.append(attribute(engine, self.log, e, states, self.settings.val_tasks, self.settings.seed))
            self.say(attribution_line(found[-1]))
        write_json(self.log / "attribution.json", found)

    def _kept(self, engine: Engine, candidate: Candidate) -> Mapping[str, Answer]:
        """A candidate's validation answers; asked again if their file is gone."""
        if not answers_path(self.log, candidate.label).exists():
            use(engine, candidate, candidate.scale, self.log)
            self._target_accuracy(engine.policy(candidate.label))
        return load_answers(self.log, candidate.label)

    def _export(self, engine: Engine, chosen: Candidate) -> dict[str, Any]:
        if chosen.file:
            engine.load_adapter(load_adapter(self.log / chosen.file))
        save_peft_adapter(engine, chosen.scale, self.directory / "adapter")
        save_merged(engine, self.directory / "model")
        merged: LoadedModel = load_model(self.directory / "model")
        facts: dict[str, Any] = {"model_digest": merged.digest}
        if self.control:
            # Not a model to use; and answers as undecided as chance leaves them seldom survive F16.
            self.say("no GGUF of a control run")
        elif why := uncovered(merged.directory):
            self.say(f"no GGUF: {why}")
        else:
            target = self.targets[0]
            prompts = [build_prompt(target.skill, t, 0) for t in target.validation(GGUF_PROMPTS)]
            facts["gguf"] = save_gguf(merged, prompts, target.settings.max_tokens, self.directory / "model.gguf")
            same = f"with the merged model on {facts['gguf']['agree']} of {len(prompts)} answers"
            self.say(f"GGUF agrees {same}" if facts["gguf"]["kept"] else f"no GGUF: it agrees {same} only")
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
