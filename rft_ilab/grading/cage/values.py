"""Plain values as bytes: what crosses between a model's code and the tests that judge it.

None, bool, int, float, complex, str, bytes, list, tuple, dict and set, of exactly these types: a subclass may bring
its own ``__eq__``, so none crosses. Depth and size are bounded. Reading builds nothing else, whatever the bytes say.

>>> decode(encode([1, (True, None), {"a": 0.5}, b"x"]))
[1, (True, None), {'a': 0.5}, b'x']
"""

from __future__ import annotations

import struct
from typing import Any

from rft_ilab.grading.cage.frames import MAX_VALUE

MAX_DEPTH = 64
MAX_INT_BYTES = 1 << 16
_LENGTH = struct.Struct("!I")
_FLOAT, _COMPLEX = struct.Struct("!d"), struct.Struct("!dd")
_type, _len, _int, _repr = type, len, int, repr  # a hostile program may patch the builtins it shares with encode()


class NotPlain(TypeError):
    """A value of a type that does not cross."""

    def __init__(self, value: Any) -> None:
        TypeError.__init__(self, f"a value of type {type_name(value)}, which is not plain")
        self.value = value


class TooLarge(ValueError):
    """A plain value that is too deep or too long to cross."""


def encode(value: Any, limit: int = MAX_VALUE) -> bytes:
    """Raises NotPlain or TooLarge."""
    out = bytearray()
    _encode(value, out, 0, limit)
    return bytes(out)


def _encode(value: Any, out: bytearray, depth: int, limit: int) -> None:
    if depth > MAX_DEPTH:
        raise TooLarge(f"a value nested more than {MAX_DEPTH} deep")
    kind = _type(value)
    if value is None or kind is bool:
        out += b"N" if value is None else b"T" if value is True else b"F"
    elif kind is _int:
        size = value.bit_length() // 8 + 1
        if size > MAX_INT_BYTES:
            raise TooLarge(f"an integer of more than {MAX_INT_BYTES * 8} bits")
        _sized(b"i", value.to_bytes(size, "big", signed=True), out, limit)
    elif kind is float:
        out += b"f" + _FLOAT.pack(value)
    elif kind is complex:
        out += b"c" + _COMPLEX.pack(value.real, value.imag)
    elif kind is str:
        _sized(b"s", value.encode("utf-8", "surrogatepass"), out, limit)
    elif kind is bytes:
        _sized(b"b", value, out, limit)
    elif kind is list or kind is tuple or kind is set:
        out += (b"l" if kind is list else b"t" if kind is tuple else b"S") + _LENGTH.pack(_len(value))
        for part in value:
            _encode(part, out, depth + 1, limit)
    elif kind is dict:
        out += b"d" + _LENGTH.pack(_len(value))
        for key, part in value.items():
            _encode(key, out, depth + 1, limit)
            _encode(part, out, depth + 1, limit)
    else:
        raise NotPlain(value)
    if _len(out) > limit:
        raise TooLarge(f"a value of more than {limit >> 10} kB")


def _sized(tag: bytes, data: bytes, out: bytearray, limit: int) -> None:
    if _len(out) + _len(data) > limit:
        raise TooLarge(f"a value of more than {limit >> 10} kB")
    out += tag + _LENGTH.pack(_len(data)) + data


def type_name(value: Any) -> str:
    """Name of a value's type; a metaclass may lie about it or raise."""
    try:
        name = _type.__dict__["__name__"].__get__(_type(value))
        return name if _type(name) is str and _len(name) < 80 else "?"
    except Exception:  # noqa: BLE001 - hostile
        return "?"


def decode(data: bytes) -> Any:
    """Raises ValueError if these are not exactly the bytes of one value."""
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise ValueError("bytes after the value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH or at >= len(data):
        raise ValueError("malformed value")
    tag, at = data[at : at + 1], at + 1
    if tag in b"NTF":
        return (None if tag == b"N" else tag == b"T"), at
    if tag == b"f":
        _need(data, at, 8)
        return _FLOAT.unpack_from(data, at)[0], at + 8
    if tag == b"c":
        _need(data, at, 16)
        return complex(*_COMPLEX.unpack_from(data, at)), at + 16
    if tag not in b"isbltSd":
        raise ValueError("malformed value")
    _need(data, at, 4)
    length, at = _LENGTH.unpack_from(data, at)[0], at + 4
    _need(data, at, length)  # every part of a list has a byte at least
    if tag in b"isb":
        raw, at = data[at : at + length], at + length
        if tag == b"s":
            return raw.decode("utf-8", "surrogatepass"), at
        return (int.from_bytes(raw, "big", signed=True) if tag == b"i" else raw), at
    parts = []
    for _ in range(length * (2 if tag == b"d" else 1)):
        part, at = _decode(data, at, depth + 1)
        parts.append(part)
    if tag in b"lt":
        return (parts if tag == b"l" else tuple(parts)), at
    try:
        made: Any = set(parts) if tag == b"S" else dict(zip(parts[::2], parts[1::2], strict=True))
    except TypeError:
        raise ValueError("malformed value") from None
    if len(made) != length:
        raise ValueError("malformed value")
    return made, at


def _need(data: bytes, at: int, size: int) -> None:
    if size > len(data) - at:
        raise ValueError("malformed value")
