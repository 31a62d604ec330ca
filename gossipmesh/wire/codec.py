"""Canonical bytes: msgpack with hard limits first, types second.

Nothing is re-encoded to be verified: whoever signs calls `encode`, whoever verifies keeps the bytes.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgpack
import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput

T = TypeVar("T")
_ENCODER: Final = msgspec.msgpack.Encoder()
_SCALARS: Final = (
    msgspec.inspect.IntType,
    msgspec.inspect.BoolType,
    msgspec.inspect.BytesType,
    msgspec.inspect.StrType,
)


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
            ext_hook=refuse_extension,
        )
    except Exception as error:  # msgpack raises six types, ValueError and RecursionError among them
        raise MalformedInput(f"not msgpack: {type(error).__name__}") from None
    _check_depth(value)
    return value


def refuse_extension(code: int, _: bytes) -> Any:
    """Refuse an extension value of any length: msgpack's own limit of no bytes lets the empty ones in."""
    raise ValueError(f"the extension type {code}")


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
    flat: Flat[T] | None = _flat_of(shape)
    if flat is not None and len(data) <= bytes_max:
        try:
            return flat.decode(data)
        except Exception:  # what is not just this shape is judged by the two steps
            return convert_untrusted(unpack_untrusted(data, bytes_max=bytes_max), shape)
    return convert_untrusted(unpack_untrusted(data, bytes_max=bytes_max), shape)


def decode_json_untrusted(data: bytes, shape: type[T], what: str) -> T:
    """Read JSON as a `shape`; `what` is that in words, such as "a join token".

    Fields that the shape does not name are passed over or refused, as it says; either way only so deep.

    Raises:
        MalformedInput: not such JSON. State unchanged.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedInput(f"not {what}: {error}"[:300]) from None


class Flat(Generic[T]):
    """Reads a struct whose fields are all scalars in one pass, if it has each of them and no more.

    Such bytes cannot nest, so neither depth nor items have to be measured first: a fifth of the cost.
    """

    __slots__ = ("_decode", "_first_byte")

    def __init__(self, shape: Any) -> None:
        self._decode: Callable[[bytes | msgspec.Raw], T] = msgspec.msgpack.Decoder(shape).decode
        self._first_byte = 0x90 | len(msgspec.structs.fields(shape))

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """Return the struct; raises whatever msgspec may, or ValueError, when the bytes are not just that."""
        if memoryview(data)[0] != self._first_byte:
            raise ValueError("fewer or more fields than this build knows")
        return self._decode(data)


def _flat_of(shape: Any) -> Flat[Any] | None:
    """Return the reader of a struct of at most 15 scalars, None for any other type."""
    if shape not in _flats:
        _flats[shape] = Flat(shape) if _is_flat(shape) else None
    return _flats[shape]


def _is_flat(shape: Any) -> bool:
    kind = msgspec.inspect.type_info(shape)
    if not isinstance(kind, msgspec.inspect.StructType) or not kind.array_like or len(kind.fields) > 15:
        return False
    return all(isinstance(field.type, _SCALARS) for field in kind.fields)


_flats: Final[dict[Any, Flat[Any] | None]] = {}


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(limits.MSGPACK_DEPTH_MAX):
        deeper: list[Any] = []
        for item in level:
            if type(item) is list:
                deeper.extend(item)
            elif type(item) is dict:
                deeper.extend(item.values())
        if not deeper:
            return
        level = deeper
    raise MalformedInput(f"nested deeper than {limits.MSGPACK_DEPTH_MAX}")
