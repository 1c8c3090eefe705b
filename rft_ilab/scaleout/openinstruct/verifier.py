"""Open-Instruct's verifier ``rft_ilab``: every reward is asked of the grader server.

Open-Instruct calls a verifier once for every completion, for all completions of a prompt at the same time. The calls
of a few milliseconds go out as one request (:mod:`.grader_client`). The label says which skill grades, with which
item.

An error is never a number. If the server gives no scores, the call raises, and so do all later ones; since a raised
error alone leaves ``grpo_fast.py`` waiting for results that never come, the line is also left in a Ray actor named
``ALARM``, where the launcher finds it and ends the run. An error of a single grade is treated likewise, because
Open-Instruct cannot leave one completion out of a group. ``RFT_GRADER_TOLERATED_ERRORS`` (a share of the last 1,000
grades) permits some: such a completion gets the mean score of the others of its prompt, which is an advantage of
zero, so it neither rewards nor punishes. A prompt whose completions all failed has no such mean and raises all the
same.

Runs in Open-Instruct's environment, where rft_ilab is not installed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from open_instruct.ground_truth_utils import VerificationResult, VerifierFunction
from rft_grader_client import GraderUnavailable, Settings, grade

NAME = "rft_ilab"  # the value of the column `dataset`
ALARM = "rft_ilab_alarm"
WAIT_S = 0.005  # how long the first call of a batch waits for others
REQUESTS = 8  # at a time, of one engine
WINDOW = 1000


@dataclass(slots=True)
class Call:
    """One completion that waits for its score."""

    prompt: tuple[str, str]  # label and query: what the completions of one prompt share
    skill: str
    digest: str
    item: dict[str, Any]
    completion: str
    score: asyncio.Future[float]


class Batches:
    """Collects the calls of one event loop and answers them together."""

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self._settings = settings
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="rft-grader")
        self._waiting: list[Call] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._recent: deque[bool] = deque(maxlen=WINDOW)  # which of the last grades were errors
        self._failure: str | None = None
        self._alarm: Any = None

    async def score(self, completion: str, label: Any, query: Any) -> float:
        """The score of one completion. Raises GraderUnavailable."""
        if self._failure is not None:
            raise GraderUnavailable(self._failure)
        skill, digest, item = read_label(label)
        call = Call((str(label), str(query)), skill, digest, item, completion, self.loop.create_future())
        if not self._waiting:
            self.loop.call_later(WAIT_S, self._send)
        self._waiting.append(call)
        return await call.score

    def _send(self) -> None:
        calls, self._waiting = self._waiting, []
        task = self.loop.create_task(self._answer(calls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, calls: Sequence[Call]) -> None:
        try:
            scores = await self._scores(calls)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would hear of it
            line = str(error) if isinstance(error, GraderUnavailable) else f"{type(error).__name__}: {error}"
            if self._failure is None:
                self._failure = line
                self._alarm = await self.loop.run_in_executor(self._threads, sound_alarm, line)
            for call in calls:
                if not call.score.done():
                    call.score.set_exception(GraderUnavailable(line))
        else:
            for call, score in zip(calls, scores, strict=True):
                if not call.score.done():
                    call.score.set_result(score)

    async def _scores(self, calls: Sequence[Call]) -> list[float]:
        by_skill: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, call in enumerate(calls):
            by_skill[call.skill, call.digest].append(index)
        answers = await asyncio.gather(
            *(
                self.loop.run_in_executor(self._threads, grade, self._settings, skill, digest, _samples(calls, indices))
                for (skill, digest), indices in by_skill.items()
            )
        )
        results: list[dict[str, Any]] = [{}] * len(calls)
        for indices, answer in zip(by_skill.values(), answers, strict=True):
            for index, result in zip(indices, answer, strict=True):
                results[index] = result
        return [
            float(result["score"]) if result["error"] is None else self._stand_in(calls, results, index)
            for index, result in enumerate(self._counted(calls, results))
        ]

    def _counted(self, calls: Sequence[Call], results: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The results. Raises GraderUnavailable if more of them are errors than is tolerated."""
        for call, result in zip(calls, results, strict=True):
            self._recent.append(result["error"] is not None)
            if result["error"] is not None and sum(self._recent) > self._settings.tolerated * WINDOW:
                allowed = f"RFT_GRADER_TOLERATED_ERRORS is {self._settings.tolerated:g}"
                raise GraderUnavailable(_about(call.skill, result, allowed))
        return results

    def _stand_in(self, calls: Sequence[Call], results: Sequence[dict[str, Any]], index: int) -> float:
        """The mean score of the other completions of the same prompt. Raises GraderUnavailable if there is none."""
        call = calls[index]
        others = [
            result["score"]
            for other, result in zip(calls, results, strict=True)
            if other.prompt == call.prompt and result["error"] is None
        ]
        if not others:
            raise GraderUnavailable(_about(call.skill, results[index], "so do all completions of this prompt"))
        logging.getLogger(NAME).warning("%s", _about(call.skill, results[index], "tolerated: advantage 0"))
        return sum(others) / len(others)


def _samples(calls: Sequence[Call], indices: Sequence[int]) -> list[dict[str, Any]]:
    return [{"completion": calls[i].completion, "item": calls[i].item} for i in indices]


def _about(skill: str, result: dict[str, Any], why: str) -> str:
    return f"the grader of {skill} fails on an answer: {str(result['error'])[:300]} ({why})"


def read_label(label: Any) -> tuple[str, str, dict[str, Any]]:
    """Skill, digest of its grader, item. Raises GraderUnavailable for a label that we did not write."""
    try:
        read = json.loads(label)
        skill, digest, item = read["skill"], read["grader_digest"], read["item"]
    except (ValueError, LookupError, TypeError) as error:
        raise GraderUnavailable(f"not a label of rft-ilab: {str(label)[:80]!r}") from error
    if not (isinstance(skill, str) and isinstance(digest, str) and isinstance(item, dict)):
        raise GraderUnavailable(f"not a label of rft-ilab: {str(label)[:80]!r}")
    return skill, digest, item


class Alarm:
    """What is left for the launcher to find, as a Ray actor: the first line that was reported."""

    def __init__(self) -> None:
        self._line = ""

    def sound(self, line: str) -> None:
        self._line = self._line or line

    def line(self) -> str:
        return self._line


def sound_alarm(line: str) -> Any:
    """Leave ``line`` for the launcher, in this job's namespace; without Ray, log it and no more.

    Returns the actor, which ends when nobody holds it.
    """
    logging.getLogger(NAME).error("%s", line)
    try:
        import ray

        if ray.is_initialized():
            alarm = ray.remote(num_cpus=0)(Alarm).options(name=ALARM, get_if_exists=True).remote()
            ray.get(alarm.sound.remote(line), timeout=60)
            return alarm
    except Exception:  # the error itself is raised in any case
        logging.getLogger(NAME).exception("the launcher could not be told")
    return None


class RftIlab(VerifierFunction):
    """Settings are read where it is built, in the driver, and travel with it: workers need no environment of ours."""

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__(NAME, verifier_config=verifier_config, weight=1.0)
        self._settings = Settings.from_environment()
        self._batches: Batches | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None}

    async def async_call(
        self, tokenized_prediction: Any, prediction: str, label: Any, query: Any = None, rollout_state: Any = None
    ) -> VerificationResult:
        if self._batches is None or self._batches.loop is not asyncio.get_running_loop():
            self._batches = Batches(self._settings)
        return VerificationResult(score=await self._batches.score(prediction, label, query))

    def __call__(
        self, tokenized_prediction: Any, prediction: str, label: Any, query: Any = None, rollout_state: Any = None
    ) -> VerificationResult:
        skill, digest, item = read_label(label)
        (result,) = grade(self._settings, skill, digest, [{"completion": prediction, "item": item}])
        if result["error"] is not None:
            raise GraderUnavailable(_about(skill, result, "asked alone"))
        return VerificationResult(score=float(result["score"]))
