"""The Markdown summary: what it says, and that nothing a model wrote becomes markup, a link or a mention."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rft_ilab.report.data import RunReport
from rft_ilab.report.load import load_run
from rft_ilab.report.markdown import append_step_summary, block, escape, markdown_summary

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"
HOSTILE = (
    "\n\n# x\n</pre></details><img src=x onerror=y>![i](http://e/i.png) `c` | @all #12 www.e.com GH-3 $x$ [a](b)\x00"
)
PARSER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")


@pytest.fixture(scope="module")
def report() -> RunReport:
    return replace(load_run(RUN), directory=Path("runs/demo"))


def hostile(report: RunReport) -> RunReport:
    gate = report.gate
    assert gate is not None
    texts = dict.fromkeys(
        ("prompt", "reference", "before", "after", "before_reason", "after_reason", "group", "cls", "before_answer",
         "after_answer", "skill"), HOSTILE,
    )  # fmt: skip
    flips = tuple(replace(flip, **texts) for flip in gate.flips)
    watched = tuple(replace(w, skill=HOSTILE, prompt=HOSTILE) for w in gate.watched)
    targets = tuple(replace(t, skill=HOSTILE, worst=t.worst and replace(t.worst, name=HOSTILE)) for t in gate.targets)
    gate = replace(gate, reasons=(HOSTILE, f"- {HOSTILE}"), flips=flips, watched=watched, targets=targets)
    return replace(report, gate=gate, directory=Path("runs") / HOSTILE.replace("/", ""))


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def test_the_verdict_comes_first_and_the_broken_answers_are_folded(report: RunReport) -> None:
    text = markdown_summary(report)
    assert text.startswith("## PASS: ")
    table, details = text.index("| skill |"), text.index("<details>")
    assert (
        table < text.index("Worst group of tasks") < details < text.index("</details>") < text.index("To judge again:")
    )
    assert "<summary>4 broken answers (right before, wrong now): all of them</summary>" in text
    assert "ilab rft explain 6820212c6959 --run runs&#47;demo" in text


def test_a_verdict_without_broken_answers_has_nothing_to_fold(report: RunReport) -> None:
    assert report.gate is not None
    flips = tuple(flip for flip in report.gate.flips if flip.direction == "fixed")
    assert "<details>" not in markdown_summary(replace(report, gate=replace(report.gate, flips=flips)))


def test_an_older_verdict_shows_what_it_has(report: RunReport) -> None:
    assert report.gate is not None
    flips = tuple(replace(flip, detailed=False) for flip in report.gate.flips)
    text = markdown_summary(replace(report, gate=replace(report.gate, flips=flips, flip_counts=())))
    assert "100 answers fixed, 4 broken" in text and "extracted" not in text and "rft explain" not in text


def test_more_broken_answers_than_fit_are_counted(report: RunReport) -> None:
    assert report.gate is not None
    counts = tuple(replace(count, broken=count.broken + 500) for count in report.gate.flip_counts)
    flips = report.gate.flips * 5
    text = markdown_summary(replace(report, gate=replace(report.gate, flips=flips, flip_counts=counts)))
    assert "2,004 broken answers (right before, wrong now): 10 of them, the worst group first" in text
    assert text.count("<h4>") == 10


def test_no_html_block_ends_early_and_no_markup_is_made(report: RunReport) -> None:
    text = markdown_summary(hostile(report))
    assert not {"\x00", "\x1b"} & set(text)
    (folded,) = (t for t in tokens(text) if t.type == "html_block" and t.content.startswith("<details>"))
    assert folded.content.rstrip().endswith("</details>") and folded.content.count("details>") == 2
    for token in tokens(text):
        assert token.type not in ("image", "link_open", "code_inline", "fence", "code_block", "html_inline", "hr")
        if token.type == "html_block":
            tags = set(re.findall(r"</?(\w+)", token.content))
            assert tags <= {"details", "summary", "h4", "code", "p", "pre", "table", "tr", "th", "td"}
            assert not re.search(r"<\w+ [^>]", token.content)  # no attributes, hence no handlers
            assert not re.search(r"[@`|!\[]|://", token.content)
    headings = [t for t in tokens(text) if t.type == "heading_open"]
    assert len(headings) == 1


def test_mentions_references_and_autolinks_are_broken_outside_of_html(report: RunReport) -> None:
    """GitHub looks for them in the finished text, after all escapes: only a character in between helps."""
    words = "".join(t.content for t in tokens(markdown_summary(hostile(report))) if t.type == "text")
    assert "@\u200ball" in words and "#\u200b12" in words and "GH-\u200b3" in words
    assert not re.search(r"(?<!pass)@\w|#\d|GH-\d", words)


def test_escape_by_example() -> None:
    assert escape("a\n| `b` <img> @all https://x") == r"a \| \`b\` &lt;img&gt; @&#8203;all https&#58;//x"
    assert escape("- a") == r"\- a" and escape("1. a") == r"1\. a" and escape("&#64;") == r"&amp;\#&#8203;64;"
    assert escape("www.a.b $x$") == r"www&#46;a.b \$x\$"


def rendered(text: str) -> str:
    """What a reader sees of one paragraph."""
    return "".join(t.content for t in tokens(text) if t.type in ("text", "text_special", "softbreak")).replace(
        "\u200b", ""
    )


@settings(max_examples=200)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\u200b"), max_size=40))
def test_escaped_text_is_read_as_it_was_written(text: str) -> None:
    from rft_ilab.report.wording import one_line

    wanted = one_line(text)
    if wanted:
        assert rendered(f"- {escape(text)}") == wanted
    assert "\n" not in escape(text)


@given(st.text(max_size=60))
def test_a_block_is_one_line_of_harmless_html(text: str) -> None:
    made = block(text)
    made.encode()
    assert "\n" not in made and made.startswith("<pre>") and made.endswith("</pre>")
    inside = made.removeprefix("<pre>").removesuffix("</pre>")
    assert not re.search(r"[<>@`|!\[\]*_]|&(?!#\d+;|lt;|gt;|amp;)", inside.replace("_", ""))


def test_the_step_summary_is_appended_only_in_github_actions(
    report: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert append_step_summary(report) is None
    page = tmp_path / "summary.md"
    page.write_text("earlier\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert append_step_summary(report) == page
    assert page.read_text(encoding="utf-8") == "earlier\n" + markdown_summary(report) + "\n"


def test_it_fits_into_a_comment(report: RunReport) -> None:
    gate = report.gate
    assert gate is not None
    long = "@&" * 5000
    flips = tuple(
        replace(flip, **dict.fromkeys(("prompt", "reference", "before", "after", "after_reason", "after_answer"), long))
        for flip in gate.flips
    )
    assert len(markdown_summary(replace(report, gate=replace(gate, flips=flips)))) < 65_536
