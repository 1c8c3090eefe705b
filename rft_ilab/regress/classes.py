"""Per-class means, their unweighted mean (rare classes count as much as common ones), and the majority baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def class_means(scores_N: npt.ArrayLike, classes_N: Sequence[str]) -> dict[str, tuple[int, float]]:
    """Per class, in alphabetical order: how many tasks, and their mean score."""
    scores = np.asarray(scores_N, dtype=float)
    labels = np.asarray(classes_N, dtype=object)
    if scores.shape != labels.shape:
        raise ValueError("scores and classes must be equally long")
    names = sorted(set(classes_N))
    return {name: (int((labels == name).sum()), float(scores[labels == name].mean())) for name in names}


def macro_mean(scores_N: npt.ArrayLike, classes_N: Sequence[str], min_class_n: int = 1) -> float | None:
    """Unweighted mean over the classes that have ``min_class_n`` tasks or more; None if there is none."""
    means = [mean for count, mean in class_means(scores_N, classes_N).values() if count >= min_class_n]
    return sum(means) / len(means) if means else None


def majority(classes_N: Sequence[str]) -> tuple[str, float]:
    """The most frequent class (the first in the alphabet on a tie) and its share.

    >>> majority(["b", "a", "b"])
    ('b', 0.6666666666666666)
    """
    counts = Counter(classes_N)
    name = min(counts, key=lambda label: (-counts[label], label))
    return name, counts[name] / len(classes_N)
