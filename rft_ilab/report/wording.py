"""Numbers and sentences, said the same way on every surface; and hostile text, made visible.

Fractions become percent with one decimal, differences become points with an interval:
``+61.2 points [54.0, 68.1]``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rft_ilab.report.data import Attribution, RunReport
from rft_ilab.report.gate_data import Change, GateResult, Interval, TargetResult, WatchedResult, WorstGroup

OUTCOME_WORDS = {
    "PASS": "The trained skill got better, and no other tested skill got worse than is tolerated.",
    "FAIL": "This model must not replace the old one.",
    "INCONCLUSIVE": "The tests do not decide; the reasons below say what is missing.",
}
NOTHING_WORSE = "No tested skill got worse than is tolerated."
NO_VERDICT = "No verdict yet: the gate has not judged this run. Finish it with: ilab model regress"


CONTROL_WORDS = {
    "random-reward": "GRPO was rewarded by chance",
    "format-only": "GRPO was rewarded for every answer that the grader could read, right or wrong",
}


def control_sentence(control: str) -> str:
    """
    >>> control_sentence("random-reward")
    'CONTROL RUN (random-reward): GRPO was rewarded by chance. Not a model to use; it shows what a real gain must beat.'
    """
    what = CONTROL_WORDS.get(control, "GRPO was rewarded by something else than the grader")
    return f"CONTROL RUN ({control}): {what}. Not a model to use; it shows what a real gain must beat."


def visible(text: str) -> str:
    r"""Name every control, format, separator and surrogate character instead of emitting it.

    Bidi overrides, zero-width characters, escape sequences and U+2028 come from models and tasks;
    raw, they would reorder or hide the text around them. Tab and line feed stay.

    >>> visible("a\u202eb\x1b[2J")
    'a⟨U+202E⟩b⟨U+001B⟩[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return f"⟨U+{ord(character):04X}⟩"


def one_line(text: str) -> str:
    """``visible`` text without line breaks, for table cells and terminals."""
    return " ".join(visible(text).split())


def _signless_zero(value: float) -> float:
    return 0.0 if abs(value) < 0.05 else value


def percent(fraction: float | None) -> str:
    """
    >>> percent(0.8936), percent(None)
    ('89.4%', 'n/a')
    """
    return "n/a" if fraction is None else f"{100 * fraction:.1f}%"


def points(fraction: float | None) -> str:
    """A signed difference in points, without its unit.

    >>> points(0.612), points(-0.0001), points(-0.04), points(None)
    ('+61.2', '+0.0', '-4.0', 'n/a')
    """
    if fraction is None:
        return "n/a"
    return f"{_signless_zero(100 * fraction):+.1f}"


def interval(ci: Interval) -> str:
    """
    >>> interval((0.54, 0.681))
    '[54.0, 68.1]'
    """
    low, high = (_signless_zero(100 * end) for end in ci)
    return f"[{low:.1f}, {high:.1f}]"


def difference(delta: float | None, ci: Interval) -> str:
    """
    >>> difference(-0.012, (-0.04, 0.016))
    '-1.2 points [-4.0, 1.6]'
    """
    return "not measured" if delta is None else f"{points(delta)} points {interval(ci)}"


def p_value(p: float | None) -> str:
    """
    >>> p_value(0.0000123), p_value(0.0423), p_value(None)
    ('< 0.001', '0.042', 'n/a')
    """
    if p is None:
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seconds(value: float) -> str:
    """
    >>> seconds(8.25), seconds(136), seconds(7384)
    ('8.2 s', '2 min 16 s', '2 h 3 min')
    """
    if round(value, 1) < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(mebibytes: int | None) -> str:
    """
    >>> memory(3174), memory(512)
    ('3.1 GiB', '512 MiB')
    """
    if mebibytes is None:
        return "n/a"
    return f"{mebibytes} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"


def count(n: int, noun: str) -> str:
    """
    >>> count(1, "task"), count(12345, "task")
    ('1 task', '12,345 tasks')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def level(gate: GateResult) -> str:
    """Confidence level of the intervals, e.g. ``95%``."""
    return f"{100 * (1 - gate.alpha):g}%"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Skill names without their area, where that stays unambiguous.

    >>> short_names(["a/x", "b/x", "a/y"])
    {'a/x': 'a/x', 'b/x': 'b/x', 'a/y': 'y'}
    """
    leaves = [name.rsplit("/", 1)[-1] for name in names]
    return {name: leaf if leaves.count(leaf) == 1 else name for name, leaf in zip(names, leaves, strict=True)}


def outcome_sentence(gate: GateResult) -> str:
    """What the outcome means; where nothing was to become better, PASS does not say that it did."""
    return NOTHING_WORSE if gate.outcome == "PASS" and not gate.targets else OUTCOME_WORDS[gate.outcome]


def baseline_words(change: Change) -> str:
    """Which prompt gave the base model its "before" accuracy."""
    return f"base model, {change.before_prompt}" if change.before_prompt else "base model"


def target_sentence(target: TargetResult, interval_level: str) -> str:
    """The main result of one target in one sentence; ``interval_level`` is :func:`level`."""
    greedy = target.greedy
    if greedy.delta is None:
        return f"{target.skill}: no answer could be compared with the base model's."
    return (
        f"{target.skill} now answers {percent(greedy.after)} of {count(target.n, 'held-out task')} right; "
        f"before, {percent(greedy.before)} ({baseline_words(greedy)}): {points(greedy.delta)} points, "
        f"{interval_level} interval {interval(greedy.ci)}."
    )


def watched_sentence(gate: GateResult) -> str:
    """What happened to the skills that were not trained."""
    if not gate.watched:
        return "No other skill was watched, so this run says nothing about what else changed."
    lost = [w.skill for w in gate.watched if w.outcome == "FAIL"]
    unclear = [w.skill for w in gate.watched if w.outcome == "INCONCLUSIVE"]
    kept = len(gate.watched) - len(lost) - len(unclear)
    noun = "other skill" if gate.targets else "tested skill"
    parts = [f"{kept} of {count(len(gate.watched), noun)} stayed within what is tolerated"]
    parts += [f"got worse: {', '.join(lost)}"] if lost else []
    parts += [f"undecided: {', '.join(unclear)}"] if unclear else []
    return "; ".join(parts) + "."


def drawn_sentence(gate: GateResult) -> str:
    """How much of the suites the verdict rests on; empty if on all."""
    if gate.drawn is None:
        return ""
    used, available = gate.drawn
    return (
        f"Tasks were drawn until each skill was decided: {used:,} of {available:,}. "
        "Intervals and p-values allow for a look after every batch."
    )


def judged(gate: GateResult) -> list[TargetResult | WatchedResult]:
    """All suites in the order of the verdict."""
    return [*gate.targets, *gate.watched]


def change_sentence(name: str, change: Change) -> str:
    """
    >>> change_sentence("x, pass@4", Change(before=0.5, after=0.75, delta=0.25, ci=(0.1, 0.4)))
    'x, pass@4: 50.0% -> 75.0%, +25.0 points [10.0, 40.0]'
    """
    return f"{name}: {percent(change.before)} -> {percent(change.after)}, {difference(change.delta, change.ci)}"


def ungraded_sentence(gate: GateResult) -> str:
    """Answers that no grader could judge; they count neither as right nor as wrong."""
    found = [(each.skill, each.ungraded) for each in judged(gate) if each.ungraded]
    return "Not graded (grader errors, counted neither right nor wrong): " + (
        ", ".join(f"{skill} {n}" for skill, n in found) + "." if found else "none."
    )


def stages_sentence(entry: Attribution) -> str:
    """Accuracy after each stage on validation, and what the last stage did to single answers."""
    parts = [f"{state.name} {percent(state.accuracy)}" for state in entry.states if state.weights]
    last = next((t for t in entry.transitions if t.after == "chosen"), None)
    changed = f"; since the {last.before} {last.fixed} answers fixed, {last.broken} broken" if last else ""
    return f"{' -> '.join(parts)} of {count(entry.tasks, 'validation task')}{changed}"


def cost_sentence(report: RunReport) -> str:
    wall, cpu, peak = seconds(report.wall_s), seconds(report.cpu_s), memory(report.peak_rss_mb)
    return f"{wall} wall time, {cpu} CPU time, peak memory {peak}"


STAGE_NAMES = {"data": "verified data", "rl": "training", "gate": "gate", "regate": "gate, again"}


def stage_name(stage: str) -> str:
    """
    >>> stage_name("rl"), stage_name("custom")
    ('training', 'custom')
    """
    return STAGE_NAMES.get(stage, stage)


def worst_sentence(skill: str, worst: WorstGroup) -> str:
    """
    >>> worst_sentence("retail/x", WorstGroup(name="t7", n=6, before=1.0, after=0.5))
    'retail/x: t7, 6 tasks, 100.0% before, 50.0% after'
    """
    before, after = percent(worst.before), percent(worst.after)
    return f"{skill}: {worst.name}, {count(worst.n, 'task')}, {before} before, {after} after"


def worst_groups(gate: GateResult) -> list[tuple[str, WorstGroup]]:
    """The worst group of each suite that has a telling one, the largest loss of score first."""
    found = [(each.skill, each.worst) for each in judged(gate) if each.worst and each.worst.telling]
    return sorted(found, key=lambda pair: -pair[1].n * (pair[1].before - pair[1].after))


def group_name(group: str) -> str:
    """The name of a group for people; empty where a task had none and got a digest instead.

    >>> group_name("template-3"), group_name("5f" * 32)
    ('template-3', '')
    """
    return "" if re.fullmatch("[0-9a-f]{64}", group) else group


def extracted(answer: str | None) -> str:
    """What a grader read out of an answer.

    >>> extracted("REFILL"), extracted(None), extracted("")
    ('REFILL', 'nothing', 'an empty answer')
    """
    return "nothing" if answer is None else answer or "an empty answer"
