"""A self-contained page of its own beside a run's report: same style, same defences, no script at all.

jinja2 escapes every value, ``finalize`` names control and bidi characters instead of emitting them, and the content
security policy allows nothing but this file's own style, by hash.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rft_ilab.report import wording
from rft_ilab.report.html import clip

SHORT, LONG = 160, 1000


def render_page(template: str, **values: Any) -> str:
    """The asset ``template`` with ``values``; the same bytes for the same values."""
    style = Markup(asset("report.css") + asset("pages.css"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": wording.percent,
        "p": wording.p_value,
        "clip": clip,
        "points": lambda value: _minus(wording.points(value)),
        "interval": lambda value: _minus(wording.interval(value)).replace(" ", "\N{NO-BREAK SPACE}"),
    }
    environment.globals |= {"wording": wording, "LONG": LONG, "SHORT": SHORT}
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.from_string(asset(template)).render(style=style, policy=policy, **values)


def asset(name: str) -> str:
    return resources.files("rft_ilab.report").joinpath("assets", name).read_text(encoding="utf-8")


def _finalize(value: Any) -> Any:
    return wording.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _minus(text: str) -> str:
    return text.replace("-", "−")
