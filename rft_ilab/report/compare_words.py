"""A comparison of models in words, said the same way in terminal, Markdown and HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rft_ilab.regress.compare import Comparison, PairRow, SkillRow
from rft_ilab.report import wording

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letters(comparison: Comparison) -> dict[str, str]:
    """A short name for each model: a letter, or a number after the twenty-sixth."""
    return {
        model["name"]: ALPHABET[i] if i < len(ALPHABET) else f"M{i + 1}" for i, model in enumerate(comparison["models"])
    }


def what(row: SkillRow) -> str:
    """What was asked for: the metric and the prompt."""
    drawn = f"sampled, {wording.count(row['samples'], 'answer')} a task" if row["metric"] == "sampled" else "greedy"
    return f"{drawn}, {row['prompt']}"


def pair_name(pair: PairRow, short: Mapping[str, str]) -> str:
    """``B - A``: what is subtracted from what."""
    return f"{short[pair['second']]} - {short[pair['first']]}"


def difference(pair: PairRow) -> str:
    """In points, without the unit."""
    low, high = pair["ci"]
    return wording.difference(pair["delta"], (low, high)).replace(" points", "")


def finding(pair: PairRow, row: SkillRow, short: Mapping[str, str]) -> str:
    """What is shown of a pair, or why nothing is."""
    within = f"{100 * row['margin']:.1f} points"
    if pair["finding"] in ("first better", "second better"):
        winner = short[pair["first"] if pair["finding"] == "first better" else pair["second"]]
        return f"{winner} better" + (f", by less than {within}" if pair["equivalent"] else "")
    if pair["equivalent"]:
        return f"equal within {within}"
    if pair["finding"] == "undecidable":
        return f"undecidable: {pair['note']}"
    return "no difference shown" + (f"; {pair['note']}" if pair["note"] else "")


def overall(comparison: Comparison, short: Mapping[str, str]) -> list[str]:
    """The sentences below the tables."""
    rows = comparison["rows"]
    sampled = any(row["metric"] == "sampled" for row in rows)
    noun = "row" if sampled else "skill"
    names = [short[model["name"]] for model in comparison["models"]]
    lines = [_two(rows, names, noun)] if len(names) == 2 else []
    best = [f"{short[s['model']]} on {_of(s['best_on'], len(rows), noun)}" for s in comparison["standings"]]
    if len(names) > 2:
        lines.append(f"Among the best: {', '.join(best)}.")
        won = [f"{short[s['model']]} {s['won']} won, {s['lost']} lost" for s in comparison["standings"]]
        lines.append(f"Pairs decided: {'; '.join(won)} (of {comparison['pairs']} in all).")
    means = [f"{short[s['model']]} {wording.percent(s['mean'])}" for s in comparison["standings"]]
    if len([row for row in rows if row["metric"] == "greedy"]) > 1:
        lines.append(f"Mean of the skills' greedy accuracies: {', '.join(means)}.")
    return lines


def fine_print(comparison: Comparison) -> str:
    level = f"{100 * (1 - comparison['alpha']):g}%"
    claims = wording.count(comparison["pairs"], "pair")
    return (
        f"* among the best: no other model is shown to beat it. Intervals ({level}) stand each for itself; p is "
        f"two-sided and adjusted over {claims}, and what is called better is right everywhere with {level} confidence."
    )


def ungraded(comparison: Comparison, short: Mapping[str, str]) -> list[str]:
    """One line a row in which a grader failed."""
    lines = []
    for row in comparison["rows"]:
        found = [f"{short[s['model']]} {s['ungraded']}" for s in row["scores"] if s["ungraded"]]
        if found:
            lines.append(f"{row['skill']}, {row['metric']}: not graded, neither right nor wrong: {', '.join(found)}")
    return lines


def _two(rows: Sequence[SkillRow], names: Sequence[str], noun: str) -> str:
    """The relation of two models over all rows, without taking sides."""
    pairs = [row["pairs"][0] for row in rows]
    counts: Counter[str] = Counter(p["finding"] for p in pairs)
    equal = sum(p["equivalent"] and p["finding"] == "not shown" for p in pairs)
    parts = [
        f"{names[0]} better on {counts['first better']}",
        f"{names[1]} better on {counts['second better']}",
        f"equal within the margin on {equal}",
        f"no difference shown on {counts['not shown'] - equal}",
    ]
    parts += [f"undecidable on {counts['undecidable']}"] if counts["undecidable"] else []
    return f"Of {wording.count(len(rows), noun)}: {', '.join(parts)}."


def _of(count: int, total: int, noun: str) -> str:
    return f"{count} of {wording.count(total, noun)}"
