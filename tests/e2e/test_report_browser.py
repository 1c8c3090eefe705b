"""The HTML report in a real browser, headless and offline. Skipped where no Chromium is installed."""

from __future__ import annotations

import html as html_module
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.report.html import render_html, write_html
from rft_ilab.report.load import load_run

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip

# Acts like a reader: filters, toggles, and measures; leaves what it saw in the title.
READER = """
const seen = {}, form = document.getElementById("flip-controls"), more = document.querySelector(".more");
const shown = () => [...document.querySelectorAll(".flip")].filter((card) => !card.hidden).length;
const after = (direction, query) => {
  form.elements.direction.value = direction;
  form.elements.query.value = query;
  form.dispatchEvent(new Event("input", {bubbles: true}));
  return shown();
};
seen.controls = !form.hidden; seen.all = shown(); seen.moreBefore = more.open;
seen.broken = after("broken", ""); seen.moreAfter = more.open;
seen.both = after("broken", "DESK lamps");
seen.query = after("all", "DESK lamps"); seen.status = document.getElementById("flip-status").textContent;
const root = document.documentElement;
seen.width = root.clientWidth; seen.overflow = root.scrollWidth - root.clientWidth;
seen.background = getComputedStyle(document.body).backgroundColor;
const pictures = [...document.querySelectorAll("svg[role=img]")].filter((picture) => picture.checkVisibility());
seen.flat = pictures.filter((picture) => picture.getBoundingClientRect().width < 60).length;
document.title = JSON.stringify(seen);
"""


def browse(profile: Path, page: Path, *flags: str) -> str:
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def title_of(dom: str) -> str:
    found = re.search(r"<title>(.*?)</title>", dom, re.S)
    assert found
    return html_module.unescape(found[1])


def read_as_reader(tmp_path: Path, width: int, *flags: str) -> dict[str, Any]:
    """Open the page, with the reader's script, in a frame of that width: a window cannot be as narrow as a phone."""
    text = render_html(load_run(RUN))
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    text = text.replace("</body>", f"<script>{READER}parent.postMessage(document.title, '*')</script></body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<title></title><script>onmessage = (e) => { document.title = e.data; }</script>"
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>',
        encoding="utf-8",
    )
    size = ("--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom")
    dom = browse(tmp_path / "profile", frame, *size, *flags)
    return dict(json.loads(title_of(dom)))


def test_filter_and_toggle_on_a_phone(tmp_path: Path) -> None:
    seen = read_as_reader(tmp_path, 390)
    assert seen["width"] == 390 and seen["overflow"] <= 0
    assert seen["flat"] == 0
    assert seen["controls"] and (seen["all"], seen["broken"]) == (100, 4)
    assert (seen["moreBefore"], seen["moreAfter"]) == (False, True)
    assert (seen["both"], seen["query"]) == (1, 2) and seen["status"] == "2 of 100 examples shown"
    assert seen["background"] == "rgb(255, 255, 255)"


def test_dark_scheme_is_followed(tmp_path: Path) -> None:
    seen = read_as_reader(tmp_path, 1100, "--blink-settings=preferredColorScheme=0")
    assert seen["background"] == "rgb(18, 22, 27)" and seen["overflow"] <= 0


def test_own_script_passes_the_policy_and_hostile_script_never_runs(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    attack = "</pre></script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    for flip in verdict["flips"]:
        flip |= {"before": attack, "after": attack, "prompt": attack}
    verdict["reasons"] = [attack]
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    write_html(load_run(run), tmp_path / "report.html")
    dom = browse(tmp_path / "profile", tmp_path / "report.html", "--virtual-time-budget=3000", "--dump-dom")
    assert title_of(dom) == "PASS: tuning report of run run"
    assert re.search(r'id="flip-status"[^>]*>100 of 100 examples shown<', dom)  # our own script ran
    assert "<img" not in dom


def test_is_drawn_without_javascript(tmp_path: Path) -> None:
    text = render_html(load_run(RUN))
    (tmp_path / "report.html").write_text(re.sub(r"<script>.*?</script>", "", text, flags=re.S), encoding="utf-8")
    flags = ("--window-size=900,900", f"--screenshot={tmp_path / 'shot.png'}")
    browse(tmp_path / "profile", tmp_path / "report.html", *flags)
    picture = (tmp_path / "shot.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 30_000  # a blank page of this size has a tenth of it
