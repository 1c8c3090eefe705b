"""What a manager asks, and the answers: the first screen of the report, and the first lines of a model card.

An answer begins with one word or figure and goes on in plain sentences. It never says more than the verdict: "not
shown" is not "no", and what no test asks is said to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rft_ilab.report import wording
from rft_ilab.report.data import RunReport
from rft_ilab.report.gate_data import GateResult, TargetResult, WatchedResult

MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """``word`` is the answer at its shortest; ``text`` says on what it rests. Both are plain text, not escaped."""

    question: str
    word: str
    text: str


def brief(report: RunReport) -> list[Answer]:
    """Trained for what, better, anything worse, may it be released, at what cost; fewer where nobody has judged."""
    gate = report.gate
    learnt = bool(report.steps or report.ledger)
    found = [Answer("What was trained?", *_trained(report)) if learnt or gate is None else _tested(gate)]
    if gate is not None:
        if gate.targets:
            found.append(Answer("Did it get better?", *_better(gate, learnt)))
        found.append(Answer("Did anything else get worse?", *_worse(gate)))
    found.append(Answer("May it replace the old model?", *_release(report)))
    if report.stages:
        found.append(Answer("What did it cost?", *_cost(report)))
    return found


def model_name(path: str) -> str:
    """What people call a model that is named by its directory.

    >>> model_name("baseline embedded: embedded")
    'the stored baseline embedded'
    >>> model_name("/cache/models/SmolLM2-135M-Instruct-b179c9523d0e"), model_name("runs/s0/model"), model_name("")
    ('SmolLM2-135M-Instruct', 's0/model', 'a model')
    """
    if stored := re.match(r"baseline ([\w.-]+): ", path):
        return f"the stored baseline {stored[1]}"
    parts = [part for part in re.split(r"[/\\]", path) if part]
    if not parts:
        return "a model"
    name = "/".join(parts[-2:]) if parts[-1] == "model" else parts[-1]
    return re.sub(r"-[0-9a-f]{12}$", "", name)


def _trained(report: RunReport) -> tuple[str, str]:
    gate, grpo = report.gate, [step for step in report.steps if step.stage == "grpo"]
    skills = [target.skill for target in gate.targets] if gate else []
    base = report.manifest.get("model") or (gate.baseline_name if gate else "")
    goal = f" for {_listed(skills)}" if skills else ""
    parts = []
    if report.ledger is not None:
        used = sum(counts.get("kept", 0) + counts.get("reference", 0) for counts in report.ledger.counts.values())
        parts.append(f"{wording.count(used, 'checked example')} to learn from")
    if grpo:
        sampled = f" on {wording.count(report.rollouts.total, 'answer')} of its own" if report.rollouts else ""
        parts.append(f"then {wording.count(len(grpo), 'step')} of reinforcement learning{sampled}")
    how = ", ".join(parts) + (", each judged by the skill's grader" if grpo else "")
    return f"{model_name(str(base))}{goal}.", f"{how[:1].upper()}{how[1:]}." if how else ""


def _tested(gate: GateResult) -> Answer:
    """Of a run that trains nothing."""
    text = f"Compared with {model_name(gate.baseline_name)}; this run trained nothing."
    return Answer("What was tested?", f"{model_name(gate.candidate_name)}.", text)


def _better(gate: GateResult, learnt: bool) -> tuple[str, str]:
    words = {"PASS": "Yes.", "FAIL": "No.", "INCONCLUSIVE": "Not shown."}
    outcomes = {target.outcome for target in gate.targets}
    worst = next(outcome for outcome in ("FAIL", "INCONCLUSIVE", "PASS") if outcome in outcomes)
    named = len(gate.targets) > 1
    texts = [_gain(target, wording.level(gate), named, learnt) for target in gate.targets[:MOST_NAMED]]
    return words[worst], " ".join([*texts, *_more(len(gate.targets))])


def _gain(target: TargetResult, level: str, named: bool, learnt: bool) -> str:
    """``learnt``: the run knows what the model was trained on, and that the test tasks were kept out of it."""
    change = target.greedy
    name = f"{target.skill}: " if named else ""
    if change.delta is None:
        return f"{name}no answer could be compared with the old model's."
    unseen = " that it had never seen" if learnt else ""
    shown = re.fullmatch(r"(\d+) demonstrations?", change.before_prompt)
    start = f", helped by {wording.count(int(shown[1]), 'worked example')} in its prompt" if shown else ""
    return (
        f"{name}{wording.percent(change.after)} of {wording.count(target.n, 'test question')}{unseen} "
        f"are answered right; the old model{start}: {wording.percent(change.before)}. "
        f"Difference {_points(change.delta)} points, {level} interval {_between(change.ci)}."
    )


def _worse(gate: GateResult) -> tuple[str, str]:
    level = wording.level(gate)
    if not gate.watched:
        return "Unknown.", "No other skill was tested."
    lost = [w for w in gate.watched if w.outcome == "FAIL"]
    unclear = [w for w in gate.watched if w.outcome == "INCONCLUSIVE"]
    kept = [w for w in gate.watched if w.outcome == "PASS"]
    if not lost and not unclear:
        return "No.", f"{_kept(kept)} {_least(kept)}".strip()
    told = [f"{_moved(w, level)}." for w in (*lost, *unclear)[:MOST_NAMED]]
    rest = [_kept(kept)] if kept else []
    return "Yes." if lost else "It cannot be ruled out.", " ".join([*told, *_more(len(lost) + len(unclear)), *rest])


def _kept(kept: Sequence[WatchedResult]) -> str:
    margins = sorted({w.margin for w in kept})
    most = " to ".join(f"{100 * margin:g}" for margin in dict.fromkeys((margins[0], margins[-1])))
    others = "1 other tested skill" if len(kept) == 1 else f"{len(kept)} other tested skills"
    return f"{others} stayed within the tolerated loss of {most} points."


def _least(kept: Sequence[WatchedResult]) -> str:
    moves = [(w.greedy.delta, w.skill) for w in kept if w.greedy.delta is not None]
    if not moves:
        return ""
    delta, skill = min(moves)
    which = "Its change" if len(kept) == 1 else "The least favourable change"
    return f"{which}: {_points(delta)} points ({skill})."


def _moved(w: WatchedResult, level: str) -> str:
    if w.greedy.delta is None:
        return f"{w.skill}: no answer could be compared"
    return (
        f"{w.skill}: {_points(w.greedy.delta)} points, {level} interval {_between(w.greedy.ci)}; "
        f"a loss of {100 * w.margin:g} is tolerated"
    )


def _release(report: RunReport) -> tuple[str, str]:
    gate = report.gate
    if report.control:
        return "No.", wording.control_sentence(report.control)
    if gate is None:
        return "Not yet.", wording.NO_VERDICT + "."
    if gate.outcome == "PASS":
        return "Yes, by these tests.", "They say nothing about what no test asks."
    if gate.outcome == "FAIL":
        return "No.", "The tests show a loss, or no gain."
    return "Not yet.", "The tests do not decide; the gate's reasons say what is missing."


def _cost(report: RunReport) -> tuple[str, str]:
    peak = f", {wording.memory(report.peak_rss_mb)} of memory at most" if report.peak_rss_mb is not None else ""
    identity = report.manifest.get("identity")
    helped = isinstance(identity, dict) and identity.get("endpoint")
    server = " A server answered, too; what it cost is not known here." if helped else ""
    spent = f"{wording.seconds(report.cpu_s)} of processor time"
    return f"{wording.seconds(report.wall_s)}.", f"On the machine that ran it; {spent}{peak}.{server}"


def _points(fraction: float | None) -> str:
    return wording.points(fraction).replace("-", "\N{MINUS SIGN}")


def _between(ci: tuple[float, float]) -> str:
    low, high = ci
    return f"{_points(low)} to {_points(high)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _more(count: int) -> list[str]:
    return [f"{count - MOST_NAMED} more below."] if count > MOST_NAMED else []
