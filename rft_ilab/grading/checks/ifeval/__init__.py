"""``ifeval``: verifiable instructions, such as "no commas" or "at least 300 words" (IFEval, arXiv 2311.07911).

The 25 instructions of google-research's ``instruction_following_eval``, and four that its code has but its data
does not use, written anew and held against the recorded verdicts of its tests. Where ours differ on purpose:

- Keywords, markers and phrases are plain text, never patterns.
- What the original draws at random when it is left out (a count, a letter) must be given.
- An answer without one visible character follows nothing, also when the characters are invisible rather than blank.
- Sentences and words in capitals are counted by rules of ours (:mod:`.sentences`, :mod:`.counts`), not with NLTK.
- JSON that is nested too deeply is not JSON, and an answer of more than 65,536 characters follows nothing.

As in the original, a text without letters is in any language.

Not covered: whether the answer is any good. "No commas" is followed by a single letter; pair it with another grader.
"""

from rft_ilab.grading.checks.ifeval.check import IfevalCheck

__all__ = ["IfevalCheck"]
