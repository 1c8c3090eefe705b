"""Is a target better than the base model under every prompt, and than the best constant answer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rft_ilab.config import GateSettings
from rft_ilab.errors import RunError
from rft_ilab.regress import anytime
from rft_ilab.regress import classes as by_class
from rft_ilab.regress.anytime import Stage
from rft_ilab.regress.pairing import (
    Side,
    advice,
    aligned,
    class_rows,
    classes_of,
    compare,
    graded_everywhere,
    greedy_score,
    metric,
    points,
    sampled_metric,
    sampled_score,
    too_few_groups,
    undecidable,
    worst_group_of,
)
from rft_ilab.regress.passk import passes
from rft_ilab.regress.statistics import Difference
from rft_ilab.regress.verdict import Macro, TargetInput, TargetRow, TaskResult
from rft_ilab.types import Outcome

MIN_CLASS_N = 15  # tasks that a class needs to count in the macro mean

Comparisons = Mapping[str, Difference | None]


def judge_target(target: TargetInput, settings: GateSettings, targets: int = 1) -> tuple[TargetRow, list[TaskResult]]:
    """The row of one target, and the base results (under the better prompt) that it was compared with.

    ``targets``: how many there are; the more, the more it takes to say FAIL of one. Raises RunError if there is no base
    result or the sides hold different tasks.
    """
    if not target.before:
        raise RunError(f"{target.skill}: there are no results of the base model", fix="run the gate again")
    after, alpha, look = target.after, settings.alpha, target.look
    bases = {label: aligned(target.skill, side, after) for label, side in target.before.items()}
    graded = graded_everywhere([*bases.values(), after], greedy_score)
    drawn = graded_everywhere([*bases.values(), after], sampled_score)
    greedy = {label: compare(side, after, greedy_score, graded, alpha, look) for label, side in bases.items()}
    sampled = {label: compare(side, after, sampled_score, drawn, alpha, look) for label, side in bases.items()}
    label, sampled_label = _better(greedy), _better(sampled)
    best, best_sampled = greedy[label], sampled[sampled_label]

    kept = [result for result, keep in zip(after, graded, strict=True) if keep]
    kept_base = [result for result, keep in zip(bases[label], graded, strict=True) if keep]
    classes = classes_of(kept)
    majority, share = by_class.majority(classes) if classes else (None, None)
    if classes and look and look.constant:
        majority, share = look.constant, classes.count(look.constant) / len(classes)
    versus = _against_constant(after, graded, majority, alpha, look) if classes else None

    blocked = undecidable(graded, "greedy", target.note) or undecidable(drawn, "sampled", target.note)
    outcome: Outcome
    if blocked or best is None:
        outcome, reason = "INCONCLUSIVE", blocked or "nothing was graded"
    elif few := too_few_groups(best, alpha):
        outcome, reason = "INCONCLUSIVE", few
    elif (look is None or look.last) and (constant := _constant_answer(kept, classes)):
        outcome, reason = "FAIL", constant
    else:
        outcome, reason = decide_target(greedy, sampled, versus, f"always answering {majority}", settings, targets)
    row = TargetRow(
        skill=target.skill,
        n=len(kept),
        ungraded=len(after) - len(kept),
        available=look.available if look else len(after),
        clusters=best.clusters if best else 0,
        outcome=outcome,
        reason=reason,
        greedy={**metric(best), "before_prompt": label, "p": best.p_superior() if best else 1.0},
        sampled={
            **sampled_metric(best_sampled, after),
            "before_prompt": sampled_label,
            "p": best_sampled.p_superior() if best_sampled else 1.0,
        },
        pass_at_k=passes(bases[sampled_label], after, alpha, look),
        macro=_macro(kept_base, kept, classes),
        classes=class_rows(kept_base, kept, classes),
        majority=share,
        majority_class=majority,
        after_vs_majority={"delta": versus.delta, "ci": [versus.low, versus.high]} if versus else None,
        worst_group=worst_group_of(bases[label], after, graded),
    )
    return row, bases[label]


def decide_target(
    greedy: Comparisons,
    sampled: Comparisons,
    versus: Difference | None,
    constant: str,
    settings: GateSettings,
    targets: int = 1,
) -> tuple[Outcome, str]:
    """The rule itself, once every comparison exists and nothing forbids a decision.

    PASS must be shown by every comparison and needs no adjustment; one of them suffices for FAIL, so that its level is
    divided by their number (Bonferroni).
    """
    comparisons = {f"the base model ({label})": d for label, d in greedy.items() if d}
    if versus:
        comparisons[constant] = versus
    asked = f"shown to be below the {100 * settings.min_gain:.1f} asked"
    level = settings.alpha / (2 * targets * max(len(comparisons), 1))
    if failed := [
        f"{points(d)} over {name}" for name, d in comparisons.items() if d.p_inferior(settings.min_gain) <= level
    ]:
        return "FAIL", f"{'; '.join(failed)}: {asked}"
    drawn = {f"the base model ({label}), sampled": d for label, d in sampled.items() if d}
    open_greedy = [(name, d) for name, d in comparisons.items() if d.p_superior() > settings.alpha / 2.0]
    open_drawn = [(name, d) for name, d in drawn.items() if d.p_superior() > settings.alpha / 2.0]
    if open_greedy:
        name, d = min(open_greedy, key=lambda pair: pair[1].delta)
        needed = d.tasks_needed(max(d.delta, settings.min_gain - d.delta), settings.alpha)
        return "INCONCLUSIVE", f"{points(d)} over {name}; {advice(needed)}"
    if open_drawn:
        name, d = min(open_drawn, key=lambda pair: pair[1].delta)
        return "INCONCLUSIVE", f"{points(d)} over {name}; {advice(d.tasks_needed(d.delta, settings.alpha))}"
    name, d = min(comparisons.items(), key=lambda pair: pair[1].delta)
    return "PASS", f"{points(d)} over {name}, the hardest to beat"


def _better(comparisons: Comparisons) -> str:
    """The prompt under which the base model did better (the first of equals)."""
    return max(comparisons, key=lambda label: d.before if (d := comparisons[label]) else 0.0)


def _against_constant(
    after: Side, graded: Sequence[bool], constant: str | None, alpha: float, look: Stage | None
) -> Difference:
    constant_N = [float(result.cls == constant) for result in after]
    after_N, groups_N = [greedy_score(result) for result in after], [result.group for result in after]
    return anytime.difference(constant_N, after_N, groups_N, alpha, graded, look)


def _constant_answer(after: Side, classes: Sequence[str]) -> str | None:
    """Says so if the model does not look at the prompt; needs no interval, since it is no matter of chance."""
    names = sorted(set(classes))
    if len(names) < 2:
        return None
    if len({result.greedy.text.strip().casefold() for result in after}) == 1:
        return f"it gives the same answer to all {len(after)} tasks"
    right = [greedy_score(result) for result in after]
    for name in names:
        if right == [float(label == name) for label in classes]:
            return f"it is right on every {name} task and on no other, exactly as always answering {name} would be"
    return None


def _macro(base: Side, after: Side, classes: Sequence[str]) -> Macro | None:
    if not classes:
        return None
    before_N, after_N = [greedy_score(r) for r in base], [greedy_score(r) for r in after]
    return {
        "before": by_class.macro_mean(before_N, classes, MIN_CLASS_N),
        "after": by_class.macro_mean(after_N, classes, MIN_CLASS_N),
        "min_class_n": MIN_CLASS_N,
    }
