"""Canonical bytes: msgpack with hard limits first, types second.

Nothing is re-encoded to be verified: whoever signs calls `encode`, whoever verifies keeps the bytes.
"""

from typing import Any, Final, TypeVar

import msgpack
import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput

T = TypeVar("T")
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """Return the one encoding of `value`: structs as arrays, mappings in insertion order."""
    return _ENCODER.encode(value)


def unpack_untrusted(data: bytes, *, bytes_max: int) -> Any:
    """Read one msgpack value of at most `bytes_max` bytes with no trailing bytes.

    Raises:
        MalformedInput: too long, truncated, trailing bytes, too deep or not msgpack. State unchanged.
    """
    if len(data) > bytes_max:
        raise MalformedInput(f"{len(data)} bytes, {bytes_max} allowed")
    items_max = min(limits.MSGPACK_ITEMS_MAX, len(data))
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=False,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=items_max,
            max_map_len=items_max,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises six types, ValueError and RecursionError among them
        raise MalformedInput(f"not msgpack: {type(error).__name__}") from None
    _check_depth(value)
    return value


def convert_untrusted(value: Any, shape: type[T]) -> T:
    """Give a decoded value the type `shape`.

    Raises:
        MalformedInput: the value does not fit. State unchanged.
    """
    try:
        return msgspec.convert(value, shape, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise MalformedInput(f"not a {shape.__name__}: {error}"[:300]) from None


def decode_untrusted(data: bytes, shape: type[T], *, bytes_max: int) -> T:
    """Read bytes as a `shape`; the two steps above in one.

    Raises:
        MalformedInput: not such bytes. State unchanged.
    """
    return convert_untrusted(unpack_untrusted(data, bytes_max=bytes_max), shape)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(limits.MSGPACK_DEPTH_MAX):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, dict):
                deeper.extend(item.values())
        if not deeper:
            return
        level = deeper
    raise MalformedInput(f"nested deeper than {limits.MSGPACK_DEPTH_MAX}")
