"""Near-duplicates and contamination: what counts as the same text, worked out by hand and by property."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.synth.contamination import HeldOut
from rft_ilab.synth.duplicates import NearDuplicates, alike

LONG = "the parcel that I ordered on monday has still not arrived at my door and nobody can tell me where it is"


def test_jaccard_by_hand() -> None:
    # a b c d | e: words 5, pairs 4; without the last word 4 and 3: 7 shared of 9.
    assert alike("a b c d e", "a b c d", 7 / 9) and not alike("a b c d e", "a b c d", 7 / 9 + 0.001)
    assert alike("Where is it?", "where  is it") and not alike("Where is it?", "Where was it?")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (LONG.upper() + "!", True), (LONG.replace("door", "house"), True), (LONG + " at 5", False),
        (LONG.replace("monday", "monday the 3rd"), False), (" ".join(reversed(LONG.split())), False),
    ],
)  # fmt: skip
def test_the_index_says_what_the_texts_say(other: str, same: bool) -> None:
    known = NearDuplicates()
    known.add("first", LONG)
    assert alike(LONG, other) is same and known.find(other) == ("first" if same else None)


def test_numbers_make_another_question() -> None:
    known = NearDuplicates()
    for n in range(50):
        text = f"A farmer who has {n} apples and gives away half of all apples that he has keeps how many apples?"
        assert known.find(text) is None
        known.add(str(n), text)
    assert known.find("A farmer who has 7 apples and gives away half of all apples that he has keeps how many?") == "7"


def test_the_first_that_was_added_is_named() -> None:
    known = NearDuplicates()
    for key in ("a", "b", "c"):
        known.add(key, LONG)
    assert known.find(LONG) == "a"


@given(st.lists(st.text(max_size=40), max_size=12))
def test_every_text_finds_itself(texts: list[str]) -> None:
    known = NearDuplicates()
    for i, text in enumerate(texts):
        known.add(str(i), text)
    assert all(known.find(text) is not None for text in texts)


def test_most_of_what_is_alike_is_found() -> None:
    """Banding may miss a pair close to the threshold, not one well above it."""
    rng = random.Random(0)
    vocabulary = [f"w{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26)]
    known, found = NearDuplicates(), 0
    texts = [rng.choices(vocabulary, k=40) for _ in range(200)]
    for i, text in enumerate(texts):
        known.add(str(i), " ".join(text))
    for i, text in enumerate(texts):
        changed = list(text)
        changed[rng.randrange(40)] = "other"  # 76 of 82 shingles shared: 0.93
        found += known.find(" ".join(changed)) == str(i)
    assert found >= 196


def test_contamination_by_hand() -> None:
    held_out = HeldOut([("t1", "a/b", "one two three four five six seven eight nine ten")])
    # Words 3 to 10 of 12 stand in one run of eight: two thirds.
    found = held_out.find("x y three four five six seven eight nine ten p q")
    assert found is not None and found.key == "t1" and found.overlap == pytest.approx(8 / 12)
    assert "67%" in found.reason
    # Eight of 17 are below one half; seven in a row are no run.
    assert held_out.find("a b c d e f g h i three four five six seven eight nine ten") is None
    assert held_out.find("x four five six seven eight nine ten p q") is None


def test_short_texts_are_contaminated_only_by_themselves() -> None:
    held_out = HeldOut([("t1", "a/b", "Where is my card?")])
    assert held_out.find("where is my CARD") is not None
    assert held_out.find("Where is my new card?") is None and held_out.find("Where") is None


def test_the_skill_s_own_templates_may_be_alike_but_not_the_same() -> None:
    text = "Can I take my prescription for aspirin if I am going to travel far?"
    held_out = HeldOut([("own", "a/b", text)])
    other = text.replace("far", "soon")
    assert held_out.find(other) is not None and held_out.find(other, own="a/b") is None
    assert held_out.find(other, own="c/d") is not None
    same = held_out.find(text.lower(), own="a/b")
    assert same is not None and same.overlap == 1.0


def test_the_same_words_are_found_among_very_many_that_are_nearly_alike() -> None:
    rng = random.Random(1)
    slots = [[f"{letter}{chr(97 + i)}x" for i in range(20)] for letter in "pqrs"]
    known, seen, missed = NearDuplicates(), set(), 0
    for _ in range(3000):
        a, b, c, d = (rng.choice(slot) for slot in slots)
        text = f"please tell me what to do now that my {a} arrived {b} on a {c} morning in {d}"
        missed += text in seen and known.find(text) is None
        if text not in seen:
            known.add(text, text)
        seen.add(text)
    assert len(seen) < 3000 and missed == 0


def test_operators_make_another_calculation() -> None:
    assert not alike("What is 3 + 4?", "What is 3 * 4?") and alike("What is 3 + 4?", "what is 3 + 4")
    assert alike("Pick-up, please?", "pick up please")
