"""The HTML report in a real browser, headless and offline, by pictures, keys and clicks. Skipped without Chromium."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from rft_ilab.report.html import write_html
from rft_ilab.report.load import load_run
from tests.e2e.devtools import BROWSER, Browser

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"
PHONE, DESK = 375, 1280
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
SHOWN = "[...document.querySelectorAll('.flip')].filter((card) => !card.hidden).length"
STATUS = "document.getElementById('flip-status').textContent"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
INSIDE = """(selector) => { const r = document.querySelector(selector).getBoundingClientRect();
  return r.top >= 0 && r.left >= 0 && r.right <= innerWidth && r.bottom <= innerHeight && r.width > 0; }"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(load_run(RUN), path)
    return path


def colours(png: bytes) -> tuple[int, float]:
    """How many colours a picture has, and its mean brightness, 0 to 1."""
    picture = Image.open(io.BytesIO(png)).convert("L")
    histogram = picture.histogram()
    return sum(n > 0 for n in histogram), sum(i * n for i, n in enumerate(histogram)) / (255 * sum(histogram))


@pytest.mark.parametrize(("width", "height"), [(DESK, 900), (768, 1024), (PHONE, 812)])
@pytest.mark.parametrize("dark", [False, True])
def test_is_drawn_whole_at_every_width_and_in_both_schemes(
    browser: Browser, page: Path, width: int, height: int, dark: bool
) -> None:
    browser.open(page, width=width, height=height, dark=dark)
    seen, brightness = colours(browser.picture())
    assert seen > 50 and (brightness < 0.3 if dark else brightness > 0.7)
    assert browser.see(OVERFLOW) <= 0
    assert browser.see(f"({INSIDE})('h1')") and browser.see(f"({INSIDE})('#verdict')")
    for answer in range(1, 3 if width == PHONE else 6):
        assert browser.see(f"({INSIDE})('.brief div:nth-child({answer})')"), answer
    flat = "[...document.querySelectorAll('svg[role=img]')].filter((s) => s.checkVisibility()"
    assert browser.see(f"{flat}).length") > 15
    assert browser.see(f"{flat} && s.getBoundingClientRect().width < 60).length") == 0
    assert browser.messages == [] and browser.requests == [page.as_uri()]


def test_everything_unfolded_still_fits_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=PHONE, height=812)
    browser.see("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.see(OVERFLOW) <= 0


def test_the_whole_forest_plot_is_on_a_desk_screen_after_one_click(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click("nav a[href='#watched']")
    assert browser.see("location.hash") == "#watched" and browser.see(f"({INSIDE})('#watched')")


def test_answers_are_found_by_typing_and_clicking(browser: Browser, page: Path) -> None:
    browser.open(page)
    everything = browser.see(SHOWN)
    assert everything == 105 and browser.see(STATUS) == "105 of 105 answers shown"
    browser.click("input[value=broken]")
    assert browser.see(SHOWN) == 4 and browser.see("document.querySelector('.more').open")
    browser.click("input[type=search]")
    browser.type("lamps DESK")
    assert browser.see(SHOWN) == 1 and browser.see(STATUS) == "1 of 105 answers shown"
    browser.type(" nowhere")
    assert browser.see(STATUS) == "0 of 105 answers shown"
    browser.click("button[type=reset]")
    assert browser.see(f"new Promise((done) => setTimeout(() => done({SHOWN}), 50))") == everything
    browser.see("document.querySelector('select').focus()")
    browser.press("ArrowDown")
    chosen = browser.see("document.querySelector('select').selectedOptions[0].textContent")
    skills = "[...new Set([...document.querySelectorAll('.flip')].filter((c) => !c.hidden).map("
    found = browser.see(f"{skills}(c) => c.querySelector('.said').textContent.split(',')[0]))]")
    assert found == [chosen] and 0 < browser.see(SHOWN) < everything


def test_the_keyboard_alone_reaches_all_of_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("Tab")
    assert browser.see("document.activeElement.textContent") == "Skip to the verdict"
    assert browser.see(f"({INSIDE})('.skip')")
    browser.press("Enter")
    assert browser.see("location.hash") == "#main"
    reached = set()
    for _ in range(60):
        browser.press("Tab")
        what = "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
        what += " return [e.tagName + (e.name ? '.' + e.name : ''), s.outlineStyle]; })()"
        name, outline = browser.see(what)
        reached.add(name)
        assert outline != "none" or name == "BODY", name  # past the end is the beginning
    assert {"A", "INPUT.direction", "SELECT.skill", "INPUT.query", "BUTTON", "SUMMARY"} <= reached
    browser.see("document.querySelectorAll('.flip summary')[1].focus()")
    browser.press("Enter")
    assert browser.see("document.querySelectorAll('.flip')[1].open")


def test_a_screen_reader_gets_a_name_for_everything(browser: Browser, page: Path) -> None:
    browser.open(page)
    nodes = [node for node in browser.accessibility() if not node.get("ignored")]
    roles = {node["role"]["value"] for node in nodes}
    assert {"main", "navigation", "heading", "table", "columnheader", "rowheader", "search", "status"} <= roles
    for node in nodes:
        if node["role"]["value"] in ("link", "button", "radio", "searchbox", "combobox", "table", "image", "region"):
            assert node["name"]["value"].strip(), node


def test_without_javascript_all_answers_are_there(browser: Browser, page: Path) -> None:
    browser.open(page, script=False)
    assert colours(browser.picture())[0] > 50
    browser.open(page)  # the page cannot be asked anything while its scripts are off
    text = page.read_text(encoding="utf-8")
    assert text.count('class="flip"') == 105 and '<form id="flip-controls"' in text and " hidden>" in text


def test_prints(browser: Browser, page: Path) -> None:
    browser.open(page, width=718, height=1047, media="print")  # A4 between margins of 1 cm, at 96 dpi
    assert browser.see("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.pdf().startswith(b"%PDF") and browser.see(OVERFLOW) <= 0


def test_own_script_passes_the_policy_and_hostile_script_never_runs(browser: Browser, tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    attack = "</pre></script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    for flip in verdict["flips"]:
        flip |= {"before": attack, "after": attack, "prompt": attack, "skill": attack, "class": attack}
    verdict["reasons"] = [attack]
    verdict["targets"][0]["skill"] = attack
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    write_html(load_run(run), tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert browser.see("document.title") == "PASS: tuning report of run run"
    assert browser.see(STATUS) == "105 of 105 answers shown"  # our own script ran
    assert browser.see("document.querySelectorAll('img').length") == 0
    assert browser.requests == [(tmp_path / "report.html").as_uri()] and browser.messages == []
