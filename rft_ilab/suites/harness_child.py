"""Child of :mod:`.harness`: ``python -I -B harness_child.py``. Imports lm_eval and nothing of the project.

lm_eval, the package, is trusted to run; what it prints is not wanted here, and its metrics may hang on a strange
answer, so it works in a process that can be ended. One JSON line in, one out: first ``{"task", "include", "fewshot"}``,
which is answered with the task's rows, then ``{"doc", "answer"}`` for each answer, which is answered with its score.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from typing import Any

SEED = 1234  # lm_eval's own default for the choice of demonstrations
TYPES = ("generate_until", "multiple_choice", "loglikelihood")
MAX_TOKENS = 256  # lm_eval's default for its own models


class Refusal(Exception):
    """The task cannot be asked here; the text says why, in one line."""


class Harness:
    """One task of lm_eval, its requests as our rows, and its own scoring."""

    def __init__(self, name: str, include: str | None, fewshot: int) -> None:
        from lm_eval.tasks import TaskManager

        # Reading the package's own thousands of tasks takes many seconds.
        manager = TaskManager(include_path=include, include_defaults=False) if include else None
        if manager is None or name not in manager.all_subtasks:
            manager = TaskManager(include_path=include)
        # Only registered names: a path in its place would run whatever code the file there names.
        if name not in manager.all_subtasks:
            if name in manager.all_tasks:
                raise Refusal("is a group of tasks; name one of them")
            raise Refusal("there is no such task; lm_eval ls tasks lists them")
        (task,) = manager.load([name])["tasks"].values()
        self.task = task
        self._refuse()
        if fewshot:
            task.set_config(key="num_fewshot", value=fewshot)
        task.set_fewshot_seed(seed=SEED)
        self.metric = self._metric()
        task.build_all_requests(apply_chat_template=True, fewshot_as_multiturn=True, chat_template=_as_json)
        self.by_doc: dict[int, list[Any]] = {}
        for instance in task.instances:
            self.by_doc.setdefault(instance.doc_id, []).append(instance)
        self.filter = next(iter(task._filters)).name

    def _refuse(self) -> None:
        task = self.task
        if task.OUTPUT_TYPE not in TYPES:
            raise Refusal(f"is of type {task.OUTPUT_TYPE}; supported are {', '.join(TYPES)}")
        if getattr(task, "UNSAFE_CODE", False):
            raise Refusal("runs code that the model wrote, outside any sandbox")
        if getattr(task, "MULTIMODAL", False):
            raise Refusal("has images or sound; supported is text")
        if getattr(task, "multiple_input", 0):
            raise Refusal("has a prompt for each choice; supported is one prompt with several choices")
        if (task.get_config("repeats") or 1) > 1:
            raise Refusal("asks everything several times; supported is one answer a task")

    def _metric(self) -> str:
        """The first metric that is a mean over tasks, more being better; others say nothing of a single answer."""
        aggregation, better = self.task.aggregation(), self.task.higher_is_better()
        for name, how in aggregation.items():
            if getattr(how, "__name__", how) in ("mean", "nanmean") and better.get(name, True):
                return str(name)
        raise Refusal(f"has no metric that is a mean over its tasks (but {', '.join(map(str, aggregation)) or 'none'})")

    def describe(self) -> dict[str, Any]:
        from importlib.metadata import version

        task = self.task
        config = json.loads(json.dumps(task.config.to_dict(), default=str, sort_keys=True))
        generation = task.get_config("generation_kwargs") or {}
        return {
            "version": version("lm_eval"),
            "config": config,
            "metric": self.metric,
            "filter": self.filter,
            "fewshot": task.get_config("num_fewshot") or 0,
            "max_tokens": int(generation.get("max_gen_toks") or MAX_TOKENS),
            "rows": [self._row(doc) for doc in self.by_doc],
        }

    def _row(self, doc: int) -> dict[str, Any]:
        instances = self.by_doc[doc]
        contexts = {instance.args[0] for instance in instances}
        if len(contexts) > 1:
            raise Refusal("has several prompts for one task")
        try:
            messages = json.loads(contexts.pop())
        except ValueError:
            raise Refusal("makes prompts of its own, without a chat template") from None
        if messages[-1]["role"] != "user":
            raise Refusal("begins the answer itself (gen_prefix), which no chat can")
        whole = json.dumps(instances[0].doc, default=str, sort_keys=True)
        row = {
            "doc": doc,
            "content": hashlib.sha256(whole.encode()).hexdigest(),
            "messages": messages,
            "reference": self._reference(instances[0].doc),
        }
        if self.task.OUTPUT_TYPE != "generate_until":
            row["choices"] = [instance.args[1] for instance in instances]
        return row

    def _reference(self, doc: Any) -> str:
        target = self.task.doc_to_target(doc)
        if isinstance(target, list):
            target = target[0] if target else ""
        if isinstance(target, int) and self.task.get_config("doc_to_choice") is not None:
            choices = self.task.doc_to_choice(doc)
            target = choices[target] if 0 <= target < len(choices) else ""
        return str(target)

    def score(self, doc: int, answer: str) -> dict[str, Any]:
        """The metric's value for one answer (for choices: the JSON of their likelihoods), and what was extracted."""
        instances = self.by_doc[doc]
        if self.task.OUTPUT_TYPE == "generate_until":
            for stop in _stops(instances[0].args[1]):
                answer = answer.split(stop)[0]
            responses: list[Any] = [answer]
        else:
            told = json.loads(answer)
            responses = list(zip(told["log_likelihoods"], told["greedy"], strict=True))
        for instance, response in zip(instances, responses, strict=True):
            instance.resps = [response]
            instance.filtered_resps = {}
        ensemble = next(one for one in self.task._filters if one.name == self.filter)
        ensemble.apply(instances)
        filtered = [instance.filtered_resps[self.filter] for instance in instances]
        value = self.task.process_results(instances[0].doc, filtered)[self.metric]
        extracted = filtered[0] if self.task.OUTPUT_TYPE == "generate_until" else told["likeliest"]
        return {"score": float(value), "answer": str(extracted)}


def _as_json(messages: list[dict[str, str]], **_: Any) -> str:
    return json.dumps(messages)


def _stops(generation: dict[str, Any]) -> list[str]:
    until = generation.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop]


def described(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def main() -> None:
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # what a library prints goes nowhere
        os.dup2(null, fd)
    logging.disable(logging.CRITICAL)
    harness: Harness | None = None
    with os.fdopen(requests, "r", encoding="utf-8") as lines, os.fdopen(replies, "w", encoding="utf-8") as out:
        for line in lines:
            job = json.loads(line)
            try:
                if harness is None:
                    harness = Harness(job["task"], job["include"], job["fewshot"])
                    told = harness.describe()
                else:
                    told = harness.score(job["doc"], job["answer"])
            except Refusal as refusal:
                told = {"refused": str(refusal)}
            except Exception as error:  # noqa: BLE001 - whatever lm_eval raises is told, not lost
                told = {"error": described(error)}
            out.write(json.dumps(told) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
