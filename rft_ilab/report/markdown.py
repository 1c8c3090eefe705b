"""The verdict as GitHub-flavoured Markdown, for a pull request or a job summary."""

from __future__ import annotations

import html
import re

from rft_ilab.report import wording
from rft_ilab.report.data import RunReport


def markdown_summary(report: RunReport) -> str:
    """A heading, the reasons, one table and the cost; ends with a line feed.

    Texts that come from skills or models are escaped: no markup, no HTML, no mentions.
    """
    gate = report.gate
    control = f"**{escape(wording.control_sentence(report.control))}**\n\n" if report.control else ""
    if gate is None:
        cost = f"Cost so far: {wording.cost_sentence(report)}."
        return f"{control}## No verdict yet\n\n{escape(wording.NO_VERDICT)}\n\n{cost}\n"
    lines = [f"{control}## {gate.outcome}: {wording.OUTCOME_WORDS[gate.outcome]}", ""]
    lines += [f"- {escape(wording.target_sentence(target))}" for target in gate.targets]
    lines.append(f"- {escape(wording.watched_sentence(gate))}")
    lines += [f"- {wording.drawn_sentence(gate)}"] if gate.drawn else []
    lines += [f"- {escape(reason)}" for reason in gate.reasons]
    lines += ["", f"| skill | tier | tasks | before | after | difference ({wording.level(gate)} interval) | outcome |"]
    lines.append("|---|---|--:|--:|--:|--:|---|")
    judged = [(t.skill, "target", t.n, t.greedy, t.outcome) for t in gate.targets]
    judged += [(w.skill, w.tier, w.n, w.greedy, w.outcome) for w in gate.watched]
    for skill, tier, n, change, outcome in judged:
        cells = [escape(skill), tier, str(n), wording.percent(change.before), wording.percent(change.after)]
        cells += [wording.difference(change.delta, change.ci), f"**{outcome}**"]
        lines.append(f"| {' | '.join(cells)} |")
    fixed, broken = wording.flip_counts(gate.flips)
    lines += ["", f"{fixed} answers fixed, {broken} broken. Cost: {wording.cost_sentence(report)}.", ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """One line of text that Markdown renders as it is written.

    >>> escape("<b>|@all *x*")
    '&lt;b&gt;\\\\|&#64;all \\\\*x\\\\*'
    """
    safe = html.escape(wording.one_line(text), quote=False)
    # a backslash keeps punctuation literal; @ and :// have no such escape, so entities break mentions and autolinks
    safe = re.sub(r"([\\`*_{}\[\]()#|~])", r"\\\1", safe)
    return safe.replace("@", "&#64;").replace("://", "&#58;//")
