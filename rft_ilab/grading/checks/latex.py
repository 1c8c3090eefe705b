r"""The string rule of the MATH data set: two LaTeX answers are the same if they are the same once tidied.

Dan Hendrycks et al., https://arxiv.org/abs/2103.03874, ``modeling/math_equivalence.py`` (MIT); open-instruct uses the
same rule. Rewritten, with the same results. No mathematics is done: ``1+x`` is not ``x+1``.
"""

from __future__ import annotations

import re

DROPPED = ("\n", "\\!", "\\left", "\\right", "^{\\circ}", "^\\circ", "\\$", "\\%", "%")
BARE_ROOT = re.compile(r"\\sqrt(?!\{)(.)")
SLASH = re.compile(r"(-?[0-9]{1,400})/(-?[0-9]{1,400})")
UNITS = "\\text{ "


def normalise(text: str) -> str:
    r"""
    >>> normalise("\\tfrac34 "), normalise("x = 0.5"), normalise("10\\text{ units}"), normalise("1/2")
    ('\\frac{3}{4}', '\\frac{1}{2}', '10', '\\frac{1}{2}')
    """
    for old in DROPPED[:2]:
        text = text.replace(old, "")
    text = text.replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac")
    for old in DROPPED[2:]:
        text = text.replace(old, "")
    if text.count(UNITS) == 1:
        text = text.partition(UNITS)[0]
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        text = value
    text = BARE_ROOT.sub(r"\\sqrt{\1}", text).replace(" ", "")
    text = _fractions(text)
    if text == "0.5":
        return "\\frac{1}{2}"
    slash = SLASH.fullmatch(text)
    # The rule compares str(int()) with what was written: 01/2 stays.
    if slash and all(str(int(number)) == number for number in slash.groups()):
        return f"\\frac{{{slash[1]}}}{{{slash[2]}}}"
    return text


def _fractions(text: str) -> str:
    r"""``\frac12`` -> ``\frac{1}{2}``; a fraction without two parts leaves the whole text as it is."""
    first, *rest = text.split("\\frac")
    parts = [first]
    for part in rest:
        if not part.startswith("{"):
            if len(part) < 2:
                return text
            below = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            part = f"{{{part[0]}}}{below}"
        parts.append(part)
    return "\\frac".join(parts)


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` holds, or None.

    >>> last_boxed("so \\boxed{\\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for position in range(begin := start + len("\\boxed{"), len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            if depth == 0:
                return text[begin:position]
            depth -= 1
    return None
