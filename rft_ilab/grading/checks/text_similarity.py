"""``text_similarity`` of OpenAI: how much of the reference's wording the answer has, from 0 to 1.

``fuzzy_match`` is rapidfuzz's ``ratio``. ``bleu`` is sacrebleu's sentence BLEU with effective order, by 100 (Papineni
et al. 2002; Post 2018). ``gleu`` is nltk's (Wu et al. 2016) and ``meteor`` nltk's (Lavie and Agarwal 2007), both on
sacrebleu's ``13a`` words. ``rouge_1`` to ``rouge_5`` and ``rouge_l`` are F-measures on the words of Google's
rouge-score (Lin 2004), which are ``a-z`` and ``0-9`` only. ``cosine`` compares embeddings of an OpenAI-compatible
server (see :mod:`.judge` for how it is named); a cosine below 0 is no similarity and scores 0.

METEOR here matches equal words and equal stems only: its synonyms need WordNet, which is not installed. An identical
text of n words scores 1 - 0.5/n^3, so set a ``pass_threshold`` below 1.

An answer of more than 20,000 characters scores 0; a reference that long is an error. So is a reference without
anything to compare, such as four words for ``rouge_5``.

Not covered: meaning. "not" costs one word of many, so a contradiction scores high, and a right answer in other words
scores low; OpenAI does not publish which options of these libraries it uses, so its figures may differ.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, ClassVar

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from rft_ilab.errors import GraderError
from rft_ilab.grading.registry import TEXT, Keys
from rft_ilab.grading.remote import Remote, RemoteError, check_url, mark_all, model_server, sendable
from rft_ilab.grading.sample import Mark, Sample, ascii_safe
from rft_ilab.grading.template import Template
from rft_ilab.types import digest

MAX_LENGTH = 20_000
MAX_STEMMED = 64  # nltk's stemmer recurses once a letter
EMBEDDING_MODEL = "text-embedding-3-large"  # OpenAI's

# (answer, reference) -> score; GraderError if nothing can be compared with this reference.
Metric = Callable[[str, str], float]


def bleu(answer: str, reference: str) -> float:
    from sacrebleu.metrics.bleu import BLEU

    with _forgetful():
        return float(BLEU(effective_order=True).sentence_score(answer, [reference]).score) / 100


def gleu(answer: str, reference: str) -> float:
    from nltk.translate.gleu_score import sentence_gleu  # type: ignore[import-untyped]

    return float(sentence_gleu([_words(reference)], _words(answer)))


def meteor(answer: str, reference: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]

    wordless, stemmer = _NoWordNet(), _Stemmer()
    return float(single_meteor_score(_words(reference), _words(answer), stemmer=stemmer, wordnet=wordless))


def rouge_n(n: int, answer: str, reference: str) -> float:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    if len(words := _rouge_words(reference)) < n:
        raise GraderError(f"the reference has {len(words)} words of a-z and 0-9, rouge_{n} needs {n}")
    return float(RougeScorer([f"rouge{n}"]).score(reference, answer)[f"rouge{n}"].fmeasure)


def rouge_l(answer: str, reference: str) -> float:
    """As rouge-score calculates it, but with rapidfuzz's LCS: theirs takes minutes on long texts."""
    wanted, found = _rouge_words(reference), _rouge_words(answer)
    if not wanted:
        raise GraderError("the reference has no words of a-z and 0-9")
    return 2 * LCSseq.similarity(wanted, found) / (len(wanted) + len(found))


METRICS: dict[str, Metric] = {
    "fuzzy_match": lambda answer, reference: fuzz.ratio(answer, reference) / 100,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    **{f"rouge_{n}": partial(rouge_n, n) for n in range(1, 6)},
    "rouge_l": rouge_l,
}
NAMES = (*METRICS, "cosine")


class TextSimilarityCheck:
    """``model`` and ``endpoint`` belong to ``cosine``."""

    REQUIRED: ClassVar[Keys] = {"input": TEXT, "reference": TEXT, "evaluation_metric": TEXT}
    OPTIONAL: ClassVar[Keys] = {"model": TEXT, "endpoint": TEXT}

    def __init__(
        self, input: str, reference: str, evaluation_metric: str, model: str | None = None, endpoint: str | None = None
    ) -> None:
        self._input, self._reference = Template(input), Template(reference)
        self._name = evaluation_metric
        if evaluation_metric == "cosine":
            self._model = model or EMBEDDING_MODEL
            self._endpoint = None if endpoint is None else check_url(endpoint, "endpoint")
            # The engine asks for a batch where a check has ``mark``: embeddings are fetched side by side.
            self.mark = partial(mark_all, mark_one=self._mark_by_meaning)
        elif evaluation_metric not in METRICS:
            raise GraderError(f"unknown evaluation_metric {evaluation_metric!r}", fix=f"one of {', '.join(NAMES)}")
        elif model is not None or endpoint is not None:
            raise GraderError(f"model and endpoint mean nothing to {evaluation_metric}", fix="they belong to cosine")

    def mark_one(self, sample: Sample) -> Mark:
        answer, reference = self._texts(sample)
        if problem := _not_compared(answer):
            return problem
        # 1.0000000000000004 is what floats make of a perfect BLEU.
        return self._scored(round(METRICS[self._name](answer, reference), 12))

    async def _mark_by_meaning(self, remote: Remote, sample: Sample) -> Mark:
        answer, reference = self._texts(sendable(sample))
        if problem := _not_compared(answer):
            return problem
        url, headers = model_server(self._endpoint)
        wanted = await self._embedding(remote, url, headers, reference)
        try:
            found = await self._embedding(remote, url, headers, answer)
        except RemoteError as error:
            if error.too_long:
                return Mark(0.0, None, "the answer is longer than the embedding model can read")
            raise
        return self._scored(max(0.0, round(cosine(found, wanted), 12)))

    def _texts(self, sample: Sample) -> tuple[str, str]:
        reference = ascii_safe(self._reference.render(sample))
        if not reference.strip():
            raise GraderError("the reference is empty")
        if len(reference) > MAX_LENGTH:
            raise GraderError(f"the reference has more than {MAX_LENGTH} characters")
        return ascii_safe(self._input.render(sample)), reference

    def _scored(self, score: float) -> Mark:
        return Mark(float(score), None, f"{self._name} {score:.3f}")

    async def _embedding(self, remote: Remote, url: str, headers: Mapping[str, str], text: str) -> list[float]:
        key = digest(["embedding", url, self._model, text])
        if (kept := remote.kept(key)) is not None:
            return list(kept)
        vector = await remote.once(key, partial(self._embed, remote, url, headers, text))
        remote.keep(key, vector)
        return vector

    async def _embed(self, remote: Remote, url: str, headers: Mapping[str, str], text: str) -> list[float]:
        answer = await remote.post(f"{url}/embeddings", {"model": self._model, "input": text}, headers)
        try:
            vector = [float(number) for number in answer["data"][0]["embedding"]]
        except (LookupError, TypeError, ValueError) as error:
            raise RemoteError("the answer has no embedding") from error
        if not any(vector):
            raise RemoteError("the embedding is empty")
        return vector


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """
    >>> cosine([1.0, 0.0], [1.0, 1.0])
    0.7071067811865475
    """
    if len(a) != len(b):
        raise RemoteError(f"embeddings of {len(a)} and {len(b)} numbers")
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def _not_compared(answer: str) -> Mark | None:
    if not answer.strip():
        return Mark(0.0, None, "no answer")
    if len(answer) > MAX_LENGTH:
        return Mark(0.0, None, f"the answer has more than {MAX_LENGTH} characters")
    return None


def _words(text: str) -> list[str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    with _forgetful():
        words: list[str] = Tokenizer13a()(text).split()
    return words


def _rouge_words(text: str) -> list[str]:
    from rouge_score.tokenize import tokenize  # type: ignore[import-untyped]

    words: list[str] = tokenize(text, None)
    return words


@contextlib.contextmanager
def _forgetful() -> Iterator[None]:
    """sacrebleu keeps the last 65,536 texts of a process: gigabytes, if they are long."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    yield
    Tokenizer13a.__call__.cache_clear()
    TokenizerRegexp.__call__.cache_clear()


class _NoWordNet:
    """Stands in for WordNet, whose data would have to be downloaded: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Stemmer:
    """Porter's, but only for words that could be words."""

    def stem(self, word: str) -> str:
        stemmed: str = _porter().stem(word) if len(word) <= MAX_STEMMED else word
        return stemmed


@cache
def _porter() -> Any:
    from nltk.stem import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer()
