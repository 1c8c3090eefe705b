"""The pages of ``ilab rft compare`` and ``ilab rft history`` in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rft_ilab.report.compare_html import render_comparison
from rft_ilab.report.history import load_history
from rft_ilab.report.history_html import render_history
from rft_ilab.store import append_jsonl
from tests.e2e.devtools import BROWSER, Browser
from tests.unit.test_compare_report import many, two
from tests.unit.test_history import line

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

SEEN = "[...document.querySelectorAll('svg[role=img]')].filter((picture) => picture.checkVisibility()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def history(directory: Path) -> str:
    name = "run-" + "x" * 60
    rows = [line(1 + i % 28, f"{i:08}", key=str(i), candidate={"name": name}) for i in range(40)]
    append_jsonl(directory / "history.jsonl", rows)
    return render_history(load_history(directory / "history.jsonl", {}))


PAGES: dict[str, Callable[[Path], str]] = {
    "two": lambda directory: render_comparison(two("embedded", "run-" + "x" * 60)),
    "many": lambda directory: render_comparison(many()),
    "history": history,
}


@pytest.mark.parametrize("width", [375, 1100])
@pytest.mark.parametrize("name", PAGES)
def test_fits_a_phone_and_a_desk_in_light_and_dark(browser: Browser, tmp_path: Path, name: str, width: int) -> None:
    page, dark = tmp_path / "page.html", width > 1000
    page.write_text(PAGES[name](tmp_path), encoding="utf-8")
    browser.open(page, width=width, dark=dark)
    assert browser.see("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert browser.see(f"{SEEN}).length") >= 2
    assert browser.see(f"{SEEN} && picture.getBoundingClientRect().width < 60).length") == 0
    background = browser.see("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.messages == [] and browser.requests == [page.as_uri()]
