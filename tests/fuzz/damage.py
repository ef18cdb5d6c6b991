"""Damage that any format can take: bytes changed, cut or repeated; values of JSON replaced by odd ones."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

HEADER = 400  # bytes at the beginning, where damage tells most
EDGES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WIDE = (*EDGES, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF)
DEEP = "@deep@"  # stands for lists in lists, more than a parser's stack holds
NUMBERS = (
    *(0, 1, -1, 2, 255, 256, 65_535, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63, 2**64, 10**30, 10**400, -0.0, 0.5),
    *(1e-320, 1e15, 1e300, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", " ", "0", "nan", "null", "\0", "a\0b", "\n", "\x1b[2J", "\ud800", "\u202e", "é" * 300, "x" * 100_000),
    *("../neighbour/kept.txt", "/", ".", "..", "%s%n{0}", "a|b", "a!b", "C:\\x", "*", "[", "\\"),
)


def odd_value(rng: Random) -> Any:
    """A value that a reader may not expect."""
    others = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [0] * 1000, DEEP)
    return rng.choice((rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(others)))


def edge(rng: Random, size: int) -> bytes:
    """An integer of ``size`` bytes at the edge of something, in either byte order."""
    value = rng.choice(WIDE) + rng.choice((0, 0, -1, 1))
    return (value % 256**size).to_bytes(size, rng.choice(("little", "big")))


def bytes_changed(rng: Random, content: bytes) -> bytes:
    """The bytes with one kind of damage."""
    return rng.choice((_flipped, _flipped, _cut, _repeated, _edged, _edged, _zeroed, _inserted, _removed))(rng, content)


def _place(rng: Random, content: bytes, size: int = 1) -> int:
    """A place, in half of all cases near the beginning."""
    end = max(1, len(content) - size + 1)
    return rng.randrange(min(end, HEADER) if rng.random() < 0.5 else end)


def _flipped(rng: Random, content: bytes) -> bytes:
    spoiled = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if spoiled:
            spoiled[_place(rng, content)] = rng.randrange(256)
    return bytes(spoiled)


def _cut(rng: Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _repeated(rng: Random, content: bytes) -> bytes:
    begin = _place(rng, content)
    return content[:begin] + content[max(0, begin - rng.randint(1, 200)) :]


def _edged(rng: Random, content: bytes) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    begin = _place(rng, content, size)
    return content[:begin] + edge(rng, size) + content[begin + size :]


def _zeroed(rng: Random, content: bytes) -> bytes:
    begin, length = _place(rng, content), rng.randint(1, 100)
    return content[:begin] + rng.choice((b"\0", b"\xff")) * length + content[begin + length :]


def _inserted(rng: Random, content: bytes) -> bytes:
    begin = _place(rng, content)
    return content[:begin] + rng.randbytes(rng.randint(1, 50)) + content[begin:]


def _removed(rng: Random, content: bytes) -> bytes:
    begin = _place(rng, content)
    return content[:begin] + content[begin + rng.randint(1, 50) :]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in a value of JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places_in(item, (*path, key)))]


def json_changed(rng: Random, value: Any, odd: Callable[[Random], Any] = odd_value) -> Any:
    """A value of JSON with one to three of its parts replaced, left out, repeated or renamed; it is changed itself."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(places_in(value))
        if not path:
            if rng.random() < 0.1:
                return odd(rng)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        _change(rng, parent, path[-1], odd)
    return value


def _change(rng: Random, parent: Any, key: Any, odd: Callable[[Random], Any]) -> None:
    kind = rng.choice(("replace", "replace", "replace", "wrap", "remove", "repeat", "rename"))
    if kind == "replace":
        parent[key] = odd(rng)
    elif kind == "wrap":
        parent[key] = [parent[key]]
    elif kind == "remove":
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        parent[rng.choice(TEXTS) if kind == "rename" else f"{key}2"] = (
            parent.pop(key) if kind == "rename" else parent[key]
        )


def as_json(value: Any) -> bytes:
    """The text of a value, with what JSON cannot say written as other programs write it; ``DEEP`` unfolded."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def json_text_changed(rng: Random, value: Any) -> bytes:
    """The bytes of a changed value, now and then damaged as text as well."""
    content = as_json(json_changed(rng, value))
    if rng.random() < 0.25:
        content = rng.choice(
            (bytes_changed(rng, content), b"\xef\xbb\xbf" + content, content.decode().encode("utf-16"))
        )
    return content


def number_edges(rng: Random, text: str) -> str:
    """A text with one of its numbers replaced by an odd one."""
    numbers = list(re.finditer(r"-?\d+(\.\d+)?", text))
    if not numbers:
        return text
    found = rng.choice(numbers)
    return f"{text[: found.start()]}{rng.choice(NUMBERS)}{text[found.end() :]}"


def packed(rng: Random, form: str, value: int) -> bytes:
    """An integer, or one at the edge of what the form holds."""
    size = struct.calcsize(form)
    return struct.pack(form, value % 256**size) if rng.random() < 0.5 else edge(rng, size)
