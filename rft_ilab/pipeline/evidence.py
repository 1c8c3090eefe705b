"""Do the figures of a verdict follow from the answers that it says it rests on? Counts and means, by hand.

Intervals and outcomes are not computed again: they also need the settings of the gate. ``ilab rft regrade`` does that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rft_ilab.errors import RftError, RunError
from rft_ilab.pipeline.explain import prompt_label
from rft_ilab.report.gate_data import GateResult, TargetResult, WatchedResult
from rft_ilab.results import Result, read_results

MOST_BYTES = 1 << 30
ROUNDING = 1e-9
Rows = Mapping[tuple[str, str], Sequence[Result]]


def contradictions(path: Path, gate: GateResult) -> list[str]:
    """What in the answers (``gate/results.jsonl``) does not fit the verdict; empty if all does.

    Raises RunError for a file that is too large to be one of ours.
    """
    if not path.is_file():
        return [f"{path.name}: missing, the verdict rests on it"]
    if path.stat().st_size > MOST_BYTES:
        raise RunError(f"more than {MOST_BYTES >> 30} GiB of answers", where=path, fix="is this a bundle?")
    rows: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    ids = {"baseline": gate.baseline_id, "candidate": gate.candidate_id}
    try:
        for result in read_results(path):
            if result.model != ids[result.side]:
                where = f"{path.name}: {result.suite}, task {result.task_id[:12]}"
                return [f"{where}: an answer of {result.model}, which was not judged"]
            rows[result.suite, result.side].append(result)
    except RftError as error:
        return [str(error)]
    suites: Sequence[TargetResult | WatchedResult] = [*gate.targets, *gate.watched]
    judged = {suite.skill for suite in suites}
    found = [f"answers to {name}, which the verdict does not judge" for name in sorted({s for s, _ in rows} - judged)]
    found += [line for suite in suites for line in _suite(suite, rows)]
    return [f"{path.name}: {line}" for line in found]


def _suite(suite: TargetResult | WatchedResult, rows: Rows) -> Iterator[str]:
    after = rows.get((suite.skill, "candidate"), [])
    if len(after) != suite.n + suite.ungraded:
        yield f"{len(after)} answers to {suite.skill}, the verdict has {suite.n + suite.ungraded}"
        return
    prompt = suite.greedy.before_prompt if isinstance(suite, TargetResult) else suite.prompt
    before = [r for r in rows.get((suite.skill, "baseline"), []) if prompt_label(r) == prompt]
    # Where a grader failed on one side, its task is in neither mean: which ones these are needs both.
    if suite.ungraded or len(before) != len(after):
        return
    for side, answers, said in (("before", before, suite.greedy.before), ("after", after, suite.greedy.after)):
        scores = [r.greedy.score for r in answers]
        if said is None or not scores or None in scores:
            continue
        mean = sum(score for score in scores if score is not None) / len(scores)
        if abs(mean - said) > ROUNDING:
            yield f"{suite.skill} comes to {mean:.4f} {side}, the verdict says {said:.4f}"
