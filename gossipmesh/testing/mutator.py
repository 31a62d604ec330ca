"""A seeded mutator: valid inputs in, broken ones out, the same for a seed every time.

Levels, because each finds what the others cannot: bytes (flips, cuts, lies about length), trees of msgpack or
JSON (wrong types, nesting, huge numbers, fields too many), and text with structure.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

INTEGERS: Final = (
    -(2**63),
    -(2**31),
    -1,
    0,
    1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    2**31,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
LENGTH_LIES: Final = (  # msgpack headers that promise far more than follows
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xd9\xff",
)
TEXT_BITS: Final = (
    "{", "}", "[", "]", ":", ",", '"', "\\u0000", "null", "1e999", "-0", "9" * 40, "\u202e", "\ud7ff", "\x00",
    "&a ", "*a", "<<: ", "!!python/object:os.system ", "---\n", "? ", "- " * 40, "yes", "0x1g", "1:20", "\t",
)  # fmt: skip
NESTING_DEPTHS: Final = (13, 40, 200, 1_000)
BYTE_OPERATIONS_MAX: Final = 3


class Mutator:
    """Draws from `rng` only."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def mutate_bytes(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """Return `data` after one to three mutations of its bytes; `corpus` gives material to splice."""
        operations: tuple[Callable[[bytearray, Sequence[bytes]], bytearray], ...] = (
            self._flip,
            self._flip,
            self._overwrite,
            self._cut,
            self._drop,
            self._repeat,
            self._splice,
            self._insert,
            self._lie,
            self._bomb,
        )
        mutated = bytearray(data)
        for _ in range(self._rng.randint(1, BYTE_OPERATIONS_MAX)):
            mutated = self._rng.choice(operations)(mutated, corpus)
        return bytes(mutated)

    def mutate_msgpack(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """Return `data` with some values of its tree replaced; what is no msgpack is mutated as bytes."""
        try:
            tree = msgpack.unpackb(data, raw=False, strict_map_key=False)
            for _ in range(self._rng.randint(1, 3)):
                tree = self._replace_in(tree)
            packed: bytes = msgpack.packb(tree, use_bin_type=True)
        except Exception:
            return self.mutate_bytes(data, corpus)
        return packed

    def mutate_mixed(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """Return a mutation of the tree or of the bytes, as like as not."""
        if self._rng.random() < 0.5:
            return self.mutate_msgpack(data, corpus)
        return self.mutate_bytes(data, corpus)

    def mutate_json(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """Return a mutation of a JSON document: of its tree mostly, else of its text or its bytes.

        A tree may get a field nobody knows whose value is nested deeper than any reader goes.
        """
        kind = self._rng.randrange(8)
        if kind == 0:
            return self.mutate_bytes(data, corpus)
        if kind == 1:
            texts = [one.decode(errors="replace") for one in (data, self._rng.choice(corpus))]
            return self.mutate_text(texts[0], texts).encode(errors="replace")
        try:
            tree = json.loads(data)
            for _ in range(self._rng.randint(1, 3)):
                tree = self._replace_in(tree)
            mutated = json.dumps(tree).encode()
        except (ValueError, TypeError, RecursionError):
            return self.mutate_bytes(data, corpus)
        if kind == 2 and mutated.startswith(b'{"'):
            depth = self._rng.choice(NESTING_DEPTHS)
            return b'{"deep":' + b"[" * depth + b"]" * depth + b"," + mutated[1:]
        return mutated

    def mutate_text(self, text: str, corpus: Sequence[str]) -> str:
        """Return `text` after one to three mutations of its characters and lines."""
        for _ in range(self._rng.randint(1, BYTE_OPERATIONS_MAX)):
            at = self._rng.randint(0, len(text))
            choice = self._rng.randrange(7)
            if choice == 0:
                text = text[:at] + self._rng.choice(TEXT_BITS) + text[at:]
            elif choice == 1:
                text = text[:at]
            elif choice == 2:
                text = text[:at] + text[at + self._rng.randint(1, 12) :]
            elif choice == 3:
                other = self._rng.choice(corpus)
                text = text[:at] + other[self._rng.randint(0, len(other)) :]
            elif choice == 4:
                text = text[:at] + "[" * self._rng.choice(NESTING_DEPTHS) + text[at:]
            elif choice == 5:
                lines = text.split("\n")
                position = self._rng.randrange(len(lines))
                text = "\n".join([*lines[: position + 1], *lines[position:]])
            else:
                text = text[:at] + chr(self._rng.randrange(1, 0x2FF)) + text[at + 1 :]
        return text

    # -- bytes ------------------------------------------------------------------------------

    def _at(self, data: bytearray) -> int:
        return self._rng.randrange(len(data)) if data else 0

    def _flip(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        if data:
            data[self._at(data)] ^= 1 << self._rng.randrange(8)
        return data

    def _overwrite(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        at = self._at(data)
        data[at : at + 4] = self._rng.randbytes(self._rng.randint(1, 4))
        return data

    def _cut(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        return data[: self._at(data)]

    def _drop(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        at = self._at(data)
        del data[at : at + self._rng.randint(1, 16)]
        return data

    def _repeat(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        at = self._at(data)
        piece = data[at : at + self._rng.randint(1, 64)]
        return data[:at] + piece * self._rng.randint(1, 4) + data[at:]

    def _splice(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        other = self._rng.choice(corpus)
        return data[: self._at(data)] + other[self._rng.randint(0, len(other)) :]

    def _insert(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        at = self._at(data)
        data[at:at] = self._rng.randbytes(self._rng.randint(1, 8))
        return data

    def _lie(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        at = self._at(data)
        lie = self._rng.choice(LENGTH_LIES)
        data[at : at + len(lie)] = lie
        return data

    def _bomb(self, data: bytearray, corpus: Sequence[bytes]) -> bytearray:
        at = self._at(data)
        opener = self._rng.choice((b"\x91", b"\x81\xa1a", b"\x92\xc0"))
        return data[:at] + opener * self._rng.choice(NESTING_DEPTHS) + b"\xc0" + data[at:]

    # -- trees ------------------------------------------------------------------------------

    def _replace_in(self, value: Any) -> Any:
        """Walk down at random and replace what is found there."""
        if isinstance(value, list) and value and self._rng.random() < 0.85:
            at = self._rng.randrange(len(value))
            return [*value[:at], self._replace_in(value[at]), *value[at + 1 :]]
        if isinstance(value, dict) and value and self._rng.random() < 0.85:
            key = self._rng.choice(list(value))
            return {**value, key: self._replace_in(value[key])}
        return self._other(value)

    def _other(self, value: Any) -> Any:
        choice = self._rng.randrange(9)
        if choice == 0:
            return self._rng.choice(INTEGERS)
        if choice == 1:
            return self._rng.choice(
                (None, True, False, 0.5, float("nan"), "", b"", [], {}, "\u0000", "x" * 300)
            )
        if choice == 2:
            return self._nested()
        if choice == 3 and isinstance(value, list):
            return value * self._rng.choice((0, 2, 3, 40))
        if choice == 4 and isinstance(value, list):
            return [*value, *value[:1], None]
        if choice == 5 and isinstance(value, dict):
            return {**value, "unknown": 1, "": value}
        if isinstance(value, bytes):
            return (
                bytes(self._flip(bytearray(value), ())) if choice < 7 else value[: self._at(bytearray(value))]
            )
        if isinstance(value, int):
            return value + self._rng.choice((-1, 1, 2**32)) if choice < 7 else -value
        if isinstance(value, str):
            return self.mutate_text(value, ("spliced",)) if choice < 7 else value.encode()
        return [value, value]

    def _nested(self) -> Any:
        value: Any = None
        for _ in range(self._rng.choice((13, 40, 200))):
            value = [value]
        return value
