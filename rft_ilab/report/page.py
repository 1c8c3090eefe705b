"""What all HTML pages have in common: how templates are rendered, and that nothing in them can be obeyed.

Everything that a model or a skill wrote is hostile. Three layers keep it harmless: jinja2 escapes every value,
``finalize`` names control and bidi characters instead of emitting them, and the content security policy allows nothing
but the file's own style and, where a page has one, its own script, by hash.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from rft_ilab.report import wording

LONG, SHORT = 1000, 160


def render_page(template: str, **values: Any) -> str:
    """The asset ``template`` with ``values``, without a script; the same bytes for the same values."""
    style = Markup(asset("report.css") + asset("pages.css"))
    return environment().get_template(template).render(style=style, policy=content_policy(style), **values)


def environment() -> Environment:
    """Templates are assets by name, and may include others; their filters are the wording of the reports."""
    made = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "percent": wording.percent,
        "seconds": wording.seconds,
        "memory": wording.memory,
        "p": wording.p_value,
        "clip": clip,
        "points": lambda value: _minus(wording.points(value)),
        "interval": lambda value: _minus(wording.interval(value)).replace(" ", "\N{NO-BREAK SPACE}"),
    }
    made.globals |= {"wording": wording, "LONG": LONG, "SHORT": SHORT}
    return made


def content_policy(style: str, script: str | None = None) -> str:
    """The content security policy of a page with this style and this script, and nothing else."""
    scripts = "" if script is None else f" script-src '{_hash(script)}';"
    return f"default-src 'none'; style-src '{_hash(style)}';{scripts} base-uri 'none'; form-action 'none'"


def asset(name: str) -> str:
    return resources.files("rft_ilab.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def clip(text: str, limit: int) -> Markup:
    """Escaped, visible text of at most ``limit`` bytes, with a note of how much is missing.

    >>> clip("<script>", 9)
    Markup('&lt;scrip<span class="cut"> … 2 more characters</span>')
    """
    if len(text) <= limit and len((whole := escape(wording.visible(text))).encode()) <= limit:
        return whole  # as most texts do: one by one, characters took a fifth of a gate's time
    kept: list[str] = []
    used = 0
    for position, character in enumerate(text):
        piece = str(escape(wording.visible(character)))
        used += len(piece.encode())
        if used > limit:
            rest = wording.count(len(text) - position, "more character")
            return Markup(f'{"".join(kept)}<span class="cut"> … {rest}</span>')
        kept.append(piece)
    return Markup("".join(kept))


def _finalize(value: Any) -> Any:
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
