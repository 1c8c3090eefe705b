"""The code in an answer: the last fenced block of Markdown, or all of an answer without fences."""

from __future__ import annotations

import re

# Any info string after the opening fence ("```python title=x"); a fence that is never closed runs to the end.
FENCE = re.compile(r"^[ ]{0,3}(`{3,}|~{3,})", re.MULTILINE)


def fenced(text: str) -> str:
    """
    >>> fenced("First:\\n```sql\\nSELECT 1\\n```\\nor\\n```\\nSELECT 2\\n```\\n"), fenced("SELECT 3")
    ('SELECT 2\\n', 'SELECT 3')
    """
    blocks: list[str] = []
    opening = ""
    start = 0
    for match in FENCE.finditer(text):
        line_end = text.find("\n", match.end())
        line_end = len(text) if line_end < 0 else line_end
        if not opening:
            opening, start = match[1], line_end + 1
        elif match[1].startswith(opening) and not text[match.end() : line_end].strip():
            blocks.append(text[start : match.start()])
            opening = ""
    if opening:
        blocks.append(text[start:])
    return blocks[-1] if blocks else text
