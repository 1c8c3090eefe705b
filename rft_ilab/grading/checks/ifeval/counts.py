"""How much: ``length_constraints``, and the words, letters and capitals that an answer should or should not use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from rft_ilab.grading.checks.ifeval.sentences import sentences

WORD = re.compile(r"\w+")
PAUSE = re.compile(r"[.,?!'\"]")
# The tokens of NLTK as far as their number matters: these characters stand alone, a clitic is a token of its own.
TOKEN = re.compile(r"""[^\s,;:@#$%&?!*()\[\]{}<>"“”«»\u2018’„`\u2012-\u2015]+""")
CLITIC = re.compile(r"[^' ](?:N'T|'(?:S|M|D|LL|RE|VE))\.?$")
TWO_WORDS = frozenset(("CANNOT", "GIMME", "GONNA", "GOTTA", "LEMME", "WANNA"))


def compared(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def number_words(text: str, num_words: int, relation: str) -> bool:
    return compared(len(WORD.findall(text)), relation, num_words)


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return compared(len(sentences(text)), relation, num_sentences)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Paragraphs stand between ``***``; only the first and the last piece may be blank, and do not count then."""
    pieces = [bool(piece.strip()) for piece in text.split("***")]
    return all(pieces[1:-1]) and sum(pieces) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs stand between blank lines.

    >>> nth_paragraph_first_word("One.\\n\\n'Well, two", num_paragraphs=2, nth_paragraph=2, first_word="well")
    True
    """
    pieces = text.split("\n\n")
    count = sum(1 for piece in pieces if piece.strip())
    if not count == num_paragraphs >= nth_paragraph:
        return False
    words = pieces[nth_paragraph - 1].split(maxsplit=1)
    return bool(words) and PAUSE.split(words[0].lstrip("'").lstrip('"'), maxsplit=1)[0].lower() == first_word.lower()


def existence(text: str, keywords: Sequence[str]) -> bool:
    return all(next(_occurrences(keyword, text), None) for keyword in keywords)


def forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return compared(sum(1 for _ in _occurrences(keyword.strip(), text)), relation, frequency)


def _occurrences(keyword: str, text: str) -> Iterator[re.Match[str]]:
    """Also inside longer words, as in the original."""
    return re.finditer(re.escape(keyword), text, re.IGNORECASE)


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """
    >>> capital_word_frequency("NASA and A-B DON'T", capital_frequency=4, capital_relation="at least")
    True
    """
    capitals = [token for token in TOKEN.findall(text.replace("--", " ").replace("..", " ")) if token.isupper()]
    clitics = sum(1 for token in capitals if token in TWO_WORDS or CLITIC.search(token))
    return compared(len(capitals) + clitics, capital_relation, capital_frequency)


def key_sentences(text: str, key_sentences: Sequence[str], num_sentences: int) -> bool:
    """Exactly ``num_sentences`` of the key sentences are sentences of the answer; line breaks are spaces."""
    found = {" ".join(sentence.split()) for sentence in sentences(text)}
    return sum(1 for sentence in key_sentences if " ".join(sentence.split()) in found) == num_sentences


def rephrase_paragraph(text: str, original_paragraph: str, low: int, high: int) -> bool:
    """Between ``low`` and ``high`` words in common, repeated words counted as often as they are."""
    common = Counter(WORD.findall(text.lower())) & Counter(WORD.findall(original_paragraph.lower()))
    return low <= common.total() <= high
