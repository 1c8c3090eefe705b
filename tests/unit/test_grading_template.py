"""Templates: OpenAI's paths, errors that name the template, and a missing field of the item is never a wrong answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.errors import GraderError
from rft_ilab.grading.sample import Sample, Unanswered
from rft_ilab.grading.template import Template, parse_path

ITEM = {
    "a": {"b": [{"c": "deep"}, 2]},
    "text": "t",
    "n": 1.5,
    "yes": True,
    "none": None,
    "obj": {"b": 1, "a": "é"},
    "k-1": "dash",
}
OUTPUT = '{"tool": [{"name": "f"}], "n": 3}'


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{item.text}}", "t"), ("{{ item.text }}", "t"), ("plain", "plain"), ("", ""),
        ("a{{item.text}}b{{item.n}}", "atb1.5"),
        ("{{item.a.b[0].c}}", "deep"), ("{{item.a.b[1]}}", "2"), ("{{item.yes}}", "true"), ("{{item.none}}", "null"),
        ("{{item.obj}}", '{"a": "é", "b": 1}'), ("{{item.k-1}}", "dash"), ('{"x":{"y":1}}', '{"x":{"y":1}}'),
        ("{{sample.output_text}}", OUTPUT), ("{{sample.output_json.n}}", "3"),
        ("{{sample.output_json.tool[0].name}}", "f"),
        ("{{sample.output_json}}", '{"n": 3, "tool": [{"name": "f"}]}'), ("{{sample.output_tools}}", "[]"),
    ],
)  # fmt: skip
def test_render(template: str, text: str) -> None:
    assert Template(template).render(Sample(OUTPUT, ITEM)) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{", "{{item.a", "{{}}", "{{item}}", "{{sample}}", "{{other.a}}", "{{sample.text}}",
        "{{sample.output_text.a}}",
        "{{item..a}}", "{{item.a[x]}}", "{{item.a[-1]}}", "{{item.a[0}}", "{{.item.a}}", "{{item.a.}}", "{{item[0]a}}",
        "{{item.a b}}", "{{{item.a}}}", "{{item.a.[0]}}", "{{[0].item}}", "{{item.a|upper}}{{x}}",
        "{{item.__class__()}}{{y.z}}",
    ],
)  # fmt: skip
def test_bad_templates_do_not_compile(template: str) -> None:
    with pytest.raises(GraderError) as caught:
        Template(template)
    assert repr(template) in str(caught.value)


@pytest.mark.parametrize(
    "path", ["missing", "a.x", "a.b[2]", "a.b.c", "text.x", "text[0]", "a[0]", "n.real", "__class__"]
)
def test_missing_item_field_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(GraderError, match="the task has no field") as caught:
        Template("{{item." + path + "}}").render(Sample(OUTPUT, ITEM))
    assert f"item.{path}" in str(caught.value)


@pytest.mark.parametrize("output", ["not json", "[]", '{"n": 1}', '{"tool": {}}', '{"tool": []}', '{"tool": [[]]}'])
def test_missing_output_field_is_a_wrong_answer(output: str) -> None:
    with pytest.raises(Unanswered):
        Template("{{sample.output_json.tool[0].name}}").render(Sample(output, ITEM))
    with pytest.raises(Unanswered):
        Template("{{sample.output_tools[0]}}").render(Sample(output, ITEM))


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True)


@settings(deadline=None)
@given(st.lists(NAMES | st.integers(0, 3), min_size=1, max_size=6), st.text(), st.text())
def test_a_path_finds_what_was_put_there(path: list[str | int], before: str, value: str) -> None:
    before = before.replace("{", "")
    item: Any = value
    for step in reversed(path):
        item = {step: item} if isinstance(step, str) else [None] * step + [item]
    item = {"root": item}
    expression = "item.root" + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)
    assert parse_path(expression, "") == ("item", "root", *path)
    assert Template(before + "{{" + expression + "}}").render(Sample("", item)) == before + value


@settings(deadline=None)
@given(st.text(alphabet="{}item.sample_output[0]x \n", max_size=60))
def test_any_template_compiles_or_is_refused(text: str) -> None:
    try:
        template = Template(text)
        template.render(Sample("{}", {"x": "y"}))
    except (GraderError, Unanswered):
        pass


@settings(deadline=None)
@given(st.text())
def test_text_is_inserted_as_it_is(text: str) -> None:
    assert Template("{{item.x}}{{sample.output_text}}").render(Sample(text, {"x": text})) == text + text
