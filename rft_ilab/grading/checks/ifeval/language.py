"""``language``, ``change_case`` and ``punctuation``. Languages are told by langdetect, with a seed of its own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory  # type: ignore[import-untyped]
from langdetect.lang_detect_exception import LangDetectException  # type: ignore[import-untyped]


@lru_cache(maxsize=1)
def _factory() -> Any:
    """langdetect's profiles and our seed; not its module-wide factory, which others may seed otherwise."""
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(0)
    return factory


def languages() -> tuple[str, ...]:
    """Codes that can be asked for: ISO 639-1, but ``zh-cn`` and ``zh-tw``."""
    return tuple(sorted(_factory().get_lang_list()))


def response_language(text: str, language: str) -> bool:
    """
    >>> response_language("Desayunamos en McDonald's hoy", "es"), response_language("1 2 3", "es")
    (True, True)
    """
    detector = _factory().create()
    detector.append(text)
    try:
        return bool(detector.detect() == language)
    except LangDetectException:  # no letters
        return True


def english_capital(text: str) -> bool:
    return text.isupper() and response_language(text, "en")


def english_lowercase(text: str) -> bool:
    return text.islower() and response_language(text, "en")


def no_comma(text: str) -> bool:
    return "," not in text
