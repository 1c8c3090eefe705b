"""What crosses between a solution and its tests."""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.grading.cage.modules import ALWAYS, ON_DEMAND, named
from rft_ilab.grading.cage.values import NotPlain, TooLarge, decode, encode

NUMBERS = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
ATOMS = NUMBERS | st.none() | st.text() | st.binary()
HASHABLE = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
PLAIN = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    exact = isinstance(a, bool | int | float | complex | str | bytes)
    return type(a) is type(b) and repr(a) == repr(b) if exact else a == b


@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_a_plain_value_comes_back(value: Any) -> None:
    again = decode(encode(value))
    assert type(again) is type(value) and same(again, value)


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_plain_value_or_an_error(data: bytes) -> None:
    try:
        value = decode(data)
    except ValueError:
        return
    encode(value)


@given(PLAIN, st.data())
@settings(max_examples=200, deadline=None)
def test_no_prefix_of_a_value_is_a_value(value: Any, data: st.DataObject) -> None:
    whole = encode(value)
    with pytest.raises(ValueError, match="value"):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match="after the value"):
        decode(whole + b"N")


def test_floats_keep_their_bits() -> None:
    assert math.isnan(decode(encode(math.nan)))
    assert math.copysign(1, decode(encode(-0.0))) == -1
    assert decode(encode(math.inf)) == math.inf


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        object(), len, int, frozenset(), bytearray(), memoryview(b""), range(3), Counter(), OrderedDict(),
        Colour.RED, type("I", (int,), {})(1), type("S", (str,), {})("a"), type("L", (list,), {})(), [{"a": object()}],
        {Colour.RED: 1}, NotImplemented, Ellipsis, (x for x in ()), type("C", (), {"__class__": int})(),
    ],
)  # fmt: skip
def test_nothing_else_crosses(value: Any) -> None:
    with pytest.raises(NotPlain, match="which is not plain"):
        encode(value)


def test_depth_and_size_are_bounded() -> None:
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    shared: Any = [0]
    for _ in range(60):
        shared = [shared, shared]
    for value in (deep, endless, shared, "x" * (5 << 20), 1 << (1 << 20), list(range(10**6))):
        with pytest.raises(TooLarge):
            encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"l\xff\xff\xff\xff", b"s\0\0\0\5a", b"f1234567", b"c123456789012345", b"S\0\0\0\2NN",
        b"S\0\0\0\1l\0\0\0\0",
        b"d\0\0\0\1l\0\0\0\0N", b"d\0\0\0\2NTNF", b"s\0\0\0\1\xff", b"l\0\0\0\1" * 70 + b"N", b"d\0\0\0\1N",
    ],
)  # fmt: skip
def test_malformed_values(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"value|utf-8"):
        decode(data)


def test_modules_that_a_source_names() -> None:
    source = "import os.path as p, xml.dom\nfrom concurrent.futures import ThreadPoolExecutor\n  import numpy, wave"
    found = named(source)
    assert {"os.path", "xml", "xml.dom", "concurrent.futures", "wave"} <= set(found) and "numpy" not in found
    assert named("import asyncio.__main__, unittest.__main__, ctypes, subprocess, antigravity, idlelib") == [
        "asyncio",
        "unittest",
    ]
    assert named("import " * 100_000) == [] and len(named("".join(f"import {name}\n" for name in ON_DEMAND))) == 64
    assert named("import os." + "é" * 9 + "\nimport os." + "x" * 99) == ["os"]
    assert {name.partition(".")[0] for name in ALWAYS} <= ON_DEMAND
