"""Sentences of English text, by rules; every rule reads a bounded number of characters, so long texts stay cheap.

A sentence ends at ``.``, ``?`` or ``!`` before white space, a bracket or a quote; closing ones go with it.
A period after an abbreviation, a single letter or in an ellipsis ends one only before a word that often starts
sentences (``The``), and one after a number (``1.``) does not before a lower-case word. A line break alone ends nothing.

These are the habits of the Punkt model (Kiss & Strunk 2006) with which NLTK, hence the original IFEval, counts;
``etc.``, ``e.g.`` and ``i.e.`` do end a sentence there. Its trained data come with no Python package of NLTK's.
Where the two differ: Punkt knows more abbreviations and learnt from newspapers which words start sentences; it
counts the last mark of a text that ends in ``!!``, and asterisks after the last period, as one more sentence.
"""

from __future__ import annotations

import re

# Of the abbreviations only those that rarely end a sentence.
ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "gen", "col", "lt", "maj", "sen", "rep", "reps", "messrs",
    "ft", "vs", "ave", "bros", "inc", "ltd", "co", "corp", "cos", "ct", "ok", "mg", "yr", "jan", "feb", "aug",
    "sep", "sept", "oct", "nov", "dec", "tues", "wed", "fri", "a.m", "p.m", "a.d", "d.c", "u.s", "u.k", "u.n",
    "u.s.a", "l.a", "n.y", "n.j", "n.c", "s.a", "ph.d", "ariz", "calif", "colo", "conn", "fla", "ga", "ill", "kan",
    "ky", "mich", "minn", "nev", "okla", "ore", "pa", "tenn", "va", "vt", "wash", "wis",
))  # fmt: skip
STARTERS = frozenset((
    "a", "although", "among", "an", "and", "as", "at", "both", "but", "by", "despite", "even", "for", "he", "her",
    "his", "how", "however", "i", "if", "in", "indeed", "instead", "it", "its", "many", "meanwhile", "moreover",
    "most", "my", "nevertheless", "nor", "of", "on", "our", "she", "since", "so", "some", "that", "the", "their",
    "there", "these", "they", "this", "those", "though", "thus", "to", "under", "we", "what", "when", "where",
    "while", "who", "why", "with", "yet", "you", "your",
))  # fmt: skip
CLOSING = "\"')]}*_”’»"
END = re.compile(rf"(?<![.?!…])[.?!…]++(?<!…)(?:[{re.escape(CLOSING)}]*+(?=\s|$|--)|(?=[\"')\]}}(\[{{;:*@]))")
REACH = 40  # no word that matters is longer
OPENING = "\"'([{“\u2018«*_#-"
WORD = re.compile(r"[^\W\d_]+")


def sentences(text: str) -> list[str]:
    """
    >>> sentences('Dr. No left at 5 p.m. on foot. "Why?" he asked... nobody knew! 1. a line')
    ['Dr. No left at 5 p.m. on foot.', '"Why?"', 'he asked... nobody knew!', '1. a line']
    """
    found: list[str] = []
    start = 0
    for match in END.finditer(text):
        if _ends(text, match, start):
            found.append(text[start : match.end()].strip())
            start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends(text: str, match: re.Match[str], start: int) -> bool:
    marks = match[0].rstrip(CLOSING)
    if not marks.endswith("."):
        return True
    following = text[match.end() : match.end() + REACH].lstrip().lstrip(OPENING)
    words = text[max(start, match.start() - REACH) : match.start()].split()
    word = words[-1].lstrip(OPENING).lower() if words else ""
    if word.isdigit():
        return not following[:1].islower()
    if len(marks) > 1 or word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
        first = WORD.match(following)
        return following[:1].isupper() and first is not None and first[0].lower() in STARTERS
    return True
