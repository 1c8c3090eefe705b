"""The pages of ``ilab rft compare`` and ``ilab rft history`` in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.report.compare_html import render_comparison
from rft_ilab.report.history import load_history
from rft_ilab.report.history_html import render_history
from rft_ilab.store import append_jsonl
from tests.e2e.test_report_browser import BROWSER, browse, title_of
from tests.unit.test_compare_report import many, two
from tests.unit.test_history import line

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

MEASURE = """
const root = document.documentElement, pictures = [...document.querySelectorAll("svg[role=img]")];
const seen = pictures.filter((picture) => picture.checkVisibility());
document.title = JSON.stringify({
  overflow: root.scrollWidth - root.clientWidth, background: getComputedStyle(document.body).backgroundColor,
  pictures: seen.length, flat: seen.filter((picture) => picture.getBoundingClientRect().width < 60).length,
});
parent.postMessage(document.title, "*");
"""


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


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("name", PAGES)
def test_fits_a_phone_and_a_desk_in_light_and_dark(tmp_path: Path, name: str, width: int) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", PAGES[name](tmp_path))
    page, frame = tmp_path / "page.html", tmp_path / "frame.html"
    page.write_text(text.replace("</body>", f"<script>{MEASURE}</script></body>"), encoding="utf-8")
    script = "<title></title><script>onmessage = (e) => { document.title = e.data; }</script>"
    frame.write_text(f'{script}<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>')
    dark = ["--blink-settings=preferredColorScheme=0"] if width > 1000 else []
    flags = ("--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom", *dark)
    seen: dict[str, Any] = json.loads(title_of(browse(tmp_path / "profile", frame, *flags)))
    assert seen["overflow"] <= 0 and seen["pictures"] >= 2 and seen["flat"] == 0
    assert seen["background"] == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
