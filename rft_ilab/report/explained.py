"""One test task in a terminal: what was asked, both answers side by side, what the grader made of them.

From :data:`WIDE` columns on the two models stand beside each other, below that one after the other. Every text from a
model or a skill is shown as it is written, never as markup or as an escape sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rft_ilab.report import wording
from rft_ilab.types import Message

WIDE = 100
INDENT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One answer. ``text`` None: no longer at hand; ``score`` None: the grader failed, ``reason`` says how."""

    text: str | None
    score: float | None
    answer: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The same answer generated afresh; ``same`` if it is the same bytes."""

    graded: Graded
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one model did on the task under one prompt. ``turns`` are the demonstrations, which stand between the
    system turn and the task's own; ``again`` has the greedy answer and then the draws, if they were generated afresh.
    """

    title: str
    prompt: str
    turns: tuple[Message, ...]
    greedy: Graded
    draws: tuple[Graded, ...]
    temperature: float
    again: tuple[Again, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """``before`` is the side that the verdict compares with; ``others`` are the baseline's other prompts.
    ``messages`` is the system turn and the task's own turns."""

    skill: str
    tier: str
    task_id: str
    group: str
    cls: str | None
    messages: tuple[Message, ...]
    reference: str
    before: Seen
    after: Seen
    others: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = ()


def print_explanation(explanation: Explanation, console: Console, *, unfold: bool = False) -> None:
    """Print all of it; ``unfold`` shows the demonstrations, too."""
    e = explanation
    console.print(Text(f"{_clean(e.skill)}, task {_clean(e.task_id[:12])}: {change_words(e)}", style="bold"))
    facts = [f"group {e.group}", *([f"class {e.cls}"] if e.cls is not None else []), f"tier {e.tier}"]
    console.print(Text(_clean(", ".join(facts)), style="dim"))
    for note in e.notes:
        console.print(Text(f"Note: {_clean(note)}", style="yellow"))
    _section(console, "What was asked")
    console.print(_messages(e, unfold))
    _section(console, "Right answer")
    console.print(_body(e.reference))
    if console.width >= WIDE:
        pair = Table.grid(expand=True, padding=(0, 2, 0, 0))
        pair.add_column(ratio=1, overflow="fold")
        pair.add_column(ratio=1, overflow="fold")
        pair.add_row(_side(e.before), _side(e.after))
        console.print(pair)
    else:
        console.print(_side(e.before), _side(e.after))
    for other in e.others:
        console.print(_side(other))


def change_words(e: Explanation) -> str:
    """
    >>> right, wrong = Graded(text="", score=1.0), Graded(text="", score=0.0)
    >>> _change(right, wrong), _change(wrong, wrong), _change(right, Graded(text="", score=None))
    ('broken (right before, wrong now)', 'wrong before and now', 'right before, not graded now')
    """
    return _change(e.before.greedy, e.after.greedy)


def _change(before: Graded, after: Graded) -> str:
    then, now = score_word(before.score), score_word(after.score)
    if before.score is None or after.score is None or before.score == after.score:
        return f"{then} before and now" if then == now else f"{then} before, {now} now"
    return f"{'broken' if after.score < before.score else 'fixed'} ({then} before, {now} now)"


def score_word(score: float | None) -> str:
    """
    >>> score_word(1.0), score_word(0.0), score_word(0.25), score_word(None)
    ('right', 'wrong', 'scored 0.25', 'not graded')
    """
    if score is None:
        return "not graded"
    return {1.0: "right", 0.0: "wrong"}.get(score, f"scored {score:.2f}")


def _section(console: Console, title: str) -> None:
    console.print(Rule(Text(title), align="left", style="dim"))


def _body(text: str) -> RenderableType:
    return Padding(Text(wording.visible(text), overflow="fold"), (0, 0, 0, INDENT))


def _messages(e: Explanation, unfold: bool) -> RenderableType:
    """The system turn, the demonstrations (or how many there were), the task's own turns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    most = max(e.before.turns, e.after.turns, key=len)
    folded = ""
    if most:
        before, after = (len(seen.turns) // 2 for seen in (e.before, e.after))
        folded = f"({before} demonstrations before, {after} now{'' if unfold else '; --messages shows them'})"
    own = [(message.role, message.content) for message in e.messages]
    system = [own.pop(0)] if own and own[0][0] == "system" else []
    turns = [(message.role, message.content) for message in most] if unfold else []
    for role, content in [*system, *([("", folded)] if folded else []), *turns, *own]:
        table.add_row(role, Text(wording.visible(content)))
    return Padding(table, (0, 0, 0, INDENT))


def _side(seen: Seen) -> RenderableType:
    parts: list[RenderableType] = [
        Rule(Text(_clean(f"{seen.title}, {seen.prompt}")), align="left", style="dim"),
        Text(score_word(seen.greedy.score), style=_style(seen.greedy.score)),
        _body(seen.greedy.text if seen.greedy.text is not None else "(no longer at hand)"),
        _grader(seen.greedy),
    ]
    if seen.draws:
        parts.append(Text(f"at temperature {seen.temperature:g}, {draws_words(seen.draws)}"))
    if any(draw.text is not None for draw in seen.draws):
        parts.append(_draws(seen.draws))
    if seen.again:
        parts += list(_again(seen.again))
    return Group(*parts)


def draws_words(draws: Sequence[Graded]) -> str:
    """
    >>> draws_words([Graded(text="", score=1.0), Graded(text="", score=0.0), Graded(text="", score=None)])
    '3 draws: 1 right, 1 wrong, 1 not graded'
    """
    words = [score_word(draw.score) for draw in draws]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return f"{wording.count(len(draws), 'draw')}: {counts}"


def _draws(draws: Sequence[Graded]) -> RenderableType:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, draw in enumerate(draws, start=1):
        said = "(text no longer in the cache)" if draw.text is None else _clean(draw.text) or "(empty)"
        cell = Text(said)
        if draw.score is None and draw.reason:
            cell.append(f"\n{_clean(draw.reason)}", style="dim")
        table.add_row(str(number), Text(score_word(draw.score), style=_style(draw.score)), cell)
    return Padding(table, (0, 0, 0, INDENT))


def _grader(graded: Graded) -> RenderableType:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row("extracted", Text(_clean(wording.extracted(graded.answer))))
    table.add_row("grader", Text(_clean(graded.reason) or "gave no reason"))
    return table


def _again(again: Sequence[Again]) -> Iterator[RenderableType]:
    first, *draws = again
    yield Text("generated again: the same bytes" if first.same else "generated again: another answer")
    if not first.same:
        yield _body(first.graded.text or "")
        yield Text(score_word(first.graded.score), style=_style(first.graded.score))
        yield _grader(first.graded)
    if draws:
        same = sum(draw.same for draw in draws)
        yield Text(f"draws again: {same} of {len(draws)} are the same bytes")


def _style(score: float | None) -> str:
    return {None: "yellow", 1.0: "green"}.get(score, "red")


def _clean(text: str) -> str:
    return wording.one_line(text)
