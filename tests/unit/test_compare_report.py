"""A comparison as people see it: terminal, Markdown, page. ``UPDATE_GOLDEN=1`` rewrites the golden files."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rft_ilab.regress.compare import Comparison
from rft_ilab.report.compare_html import render_comparison, write_comparison
from rft_ilab.report.compare_text import MOST_PAIRS, markdown_comparison, print_comparison
from tests.unit.test_compare import side, table
from tests.unit.test_report_html import HOSTILE, Page
from tests.unit.test_report_text import assert_golden


def right(share: float, n: int = 200, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).permutation([1.0] * round(n * share) + [0.0] * (n - round(n * share))).tolist()


def two(first: str = "embedded", second: str = "check") -> Comparison:
    """Better, equal within the margin, open, and not gradable."""
    classes = [("A", "B")[i % 2] for i in range(200)]
    few = [None] * 20 + right(0.5, 180)
    return table(
        {first: side(right(0.3), classes=classes), second: side(right(0.9), classes=classes)},
        {first: side(right(0.6)), second: side(right(0.6))},
        {first: side(right(0.6, 40)), second: side(right(0.5, 40))},
        {first: side(right(0.5)), second: side(few)},
    )


def many(names: tuple[str, ...] = ("embedded", "s0", "s1", "s2", "s3", "s4")) -> Comparison:
    shares = (0.3, 0.7, 0.72, 0.9, 0.9, 0.2)
    suites = [
        {name: side(right(share, seed=i)) for i, (name, share) in enumerate(zip(names, order, strict=True))}
        for order in (shares, shares[::-1])
    ]
    drawn = {
        name: [dataclasses.replace(result, sampled=(result.greedy.score, 0.0)) for result in results]
        for name, results in suites[0].items()
    }
    return table(drawn, suites[1])


def printed(comparison: Comparison, width: int = 80) -> str:
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=width, no_color=True))
    return "".join(row.rstrip() + "\n" for row in stream.getvalue().splitlines())


def test_two_models_in_the_terminal() -> None:
    assert_golden("compare_two.txt", printed(two()))


def test_many_models_in_the_terminal() -> None:
    """More pairs than anybody reads: what is decided, and how many are not."""
    comparison = many()
    assert comparison["pairs"] == 45 > MOST_PAIRS
    assert_golden("compare_many.txt", printed(comparison))


def test_markdown() -> None:
    assert_golden("compare.md", markdown_comparison(two()))


@pytest.mark.parametrize("name", [HOSTILE, "[bold red]x[/bold red]", "a|b\n| c", "@all *x*"])
def test_hostile_names_are_shown_not_obeyed(name: str) -> None:
    comparison = two(second=name)
    for row in comparison["rows"]:
        row["skill"] = f"{name}/{row['skill']}"
    text = printed(comparison, width=400)
    assert "\x1b" not in text and "\u202e" not in text
    if name.startswith("[bold"):
        assert "B = [bold red]x[/bold red]" in text
    lines = markdown_comparison(comparison).splitlines()
    assert len(lines) == len(markdown_comparison(two()).splitlines()) and not any("<" in line for line in lines)
    page = Page(render_comparison(comparison))
    assert not {tag for tag, _, _ in page.tags} & {"script", "img", "iframe", "link"}
    assert not any(key.startswith("on") for _, attributes, _ in page.tags for key in attributes)


def test_the_page_is_whole_and_says_everything() -> None:
    text = render_comparison(two())
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert "Of 4 skills: A better on 0, B better on 1, equal within the margin on 1" in page.text
    for words in ("embedded", "check", "30.0%", "+60.0", "equal within 10.0 points", "20 not graded", "undecidable"):
        assert words in page.text, words
    pictures = [a for tag, a, _ in page.tags if tag == "svg" and a.get("role") == "img"]
    assert len(pictures) == 4 * 2 + 4 * 1
    hollow = [a for _, a, _ in page.tags if a.get("class") == "dot hollow"]
    assert len(hollow) == 1, "only one model on one skill is shown to be beaten"
    ids = [a["id"] for _, a, _ in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    labelled = [str(a["aria-labelledby"]).split() for _, a, _ in page.tags if "aria-labelledby" in a]
    assert {name for names in labelled for name in names} <= set(ids)


def test_the_page_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    write_comparison(many(), tmp_path / "a.html")
    write_comparison(many(), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_nothing_measured_is_said() -> None:
    comparison = table({"a": side([None] * 30), "b": side(right(0.5, 30))})
    assert "n/a" in printed(comparison) and "not measured" in printed(comparison)
    assert "30 not graded" in Page(render_comparison(comparison)).text
