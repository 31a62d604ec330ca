"""Turns what a core holds into plain data and back: the inner half of a checkpoint.

A scalar is itself; everything else is a list that begins with a letter for what it is. What is held in
several places, members and mutable values, is written once and named by its number.
Rules:
1. Classes are named as `kept` names them, fields by their own names: never by where code stands.
2. What is not known is refused, in both ways: nothing is guessed, nothing executed.
3. A field that the reader's class has not is left out; one that the file has not is what `kept` says.
Paper: none. Deviation: none.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.history import HistoryEntry
from gossipmesh.gossip.base.settings import NodeProfile
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import Address, MemberStatus, NodePhase, Order
from gossipmesh.model.records import (
    NodeCredential,
    NodeState,
    PolicyStatus,
    RecordKind,
    ServiceSet,
    SignedRecord,
    Verdict,
    Vote,
)
from gossipmesh.wire.datagram import Ping, PolicyAnnouncement, VerdictId

_SCALARS: Final = frozenset({type(None), bool, float, str, bytes})
_INT_MAX: Final = 2**63
_DEPTH_MAX: Final = 32
_STRUCTS: Final[dict[str, type[msgspec.Struct]]] = {
    "address": Address,
    "verdict": Verdict,
    "verdict id": VerdictId,
    "credential": NodeCredential,
    "history": HistoryEntry,
    "order": Order,
    "ping": Ping,
    "policy announcement": PolicyAnnouncement,
    "policy status": PolicyStatus,
    "profile": NodeProfile,
    "record": SignedRecord,
    "services": ServiceSet,
    "state": NodeState,
    "vote": Vote,
}
_STRUCT_NAMES: Final = {kind: name for name, kind in _STRUCTS.items()}
_ENUMS: Final[dict[str, type[Enum]]] = {
    "member status": MemberStatus,
    "node phase": NodePhase,
    "record kind": RecordKind,
}
_ENUM_NAMES: Final = {kind: name for name, kind in _ENUMS.items()}

Packed = Any
"""A scalar, or a list as the module's header says."""


class Unwritable(Exception):
    """Something in the core cannot be put into a checkpoint just now. Nobody's fault. State unchanged."""


class Packer:
    """Packs values; `members` are numbered by their place, those that are members no more come after them."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.objects: list[Packed] = []
        self.layouts: dict[str, tuple[str, ...]] = {}
        self._member_numbers = {id(member): number for number, member in enumerate(members)}
        self._numbers: dict[int, int] = {}
        self._held: list[Any] = []  # so that no id is used twice

    def pack(self, value: Any) -> Packed:
        """Return a value as plain data.

        Raises:
            Unwritable: it holds what no checkpoint may hold. State unchanged.
        """
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is int:
            return value if -_INT_MAX <= value < _INT_MAX else ["i", str(value)]
        if kind is Member:
            return ["m", self._member_number(value)]
        if kind in _PACKERS:
            return _PACKERS[kind](self, value)
        if isinstance(value, Enum):
            return self._enum(value)
        if isinstance(value, msgspec.Struct):
            name = _STRUCT_NAMES.get(kind)
            if name is None:
                raise Unwritable(f"a struct {kind.__qualname__}")
            return ["s", name, msgspec.msgpack.encode(value)]
        name = kept.NAMES.get(kind)
        if name is None or name not in kept.VALUES:
            raise Unwritable(f"a value {kind.__module__}.{kind.__qualname__}")
        if isinstance(value, tuple):
            self.layouts[name] = value._fields  # type: ignore[attr-defined]
            return ["n", name, *self.all_of(value)]
        if kept.VALUES[name].is_alone:
            return ["a", *self._contents(name, value)]
        return ["o", self._object_number(name, value)]

    def all_of(self, values: Any) -> list[Packed]:
        """Return values one by one."""
        pack = self.pack
        return [value if type(value) in _SCALARS else pack(value) for value in values]

    def pairs_of(self, mapping: Any) -> list[Packed]:
        """Return the keys and values of a mapping, in its order, in turns."""
        return [self.pack(one) for pair in mapping.items() for one in pair]

    def _enum(self, value: Enum) -> Packed:
        kind: Any = type(value)
        name = _ENUM_NAMES.get(kind) or kept.NAMES.get(kind)
        if name is None:
            raise Unwritable(f"an enum {kind.__qualname__}")
        return ["e", name, value.value]

    def _member_number(self, member: Member) -> int:
        number = self._member_numbers.get(id(member))
        if number is None:
            number = self._member_numbers[id(member)] = len(self.members)
            self.members.append(member)
        return number

    def _object_number(self, name: str, value: Any) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.objects)
            self._held.append(value)
            self.objects.append(None)
            self.objects[number] = self._contents(name, value)
        return number

    def _contents(self, name: str, value: Any) -> Packed:
        kind: Any = type(value)
        fields, contents = _layout_of(kind)
        self.layouts[name] = fields
        return [name, *self.all_of(contents(value))]


_PACKERS: Final[dict[type, Callable[[Packer, Any], Packed]]] = {
    tuple: lambda packer, value: ["t", *packer.all_of(value)],
    list: lambda packer, value: ["l", *packer.all_of(value)],
    dict: lambda packer, value: ["d", *packer.pairs_of(value)],
    OrderedDict: lambda packer, value: ["D", *packer.pairs_of(value)],
    deque: lambda packer, value: ["q", value.maxlen, *packer.all_of(value)],
    set: lambda packer, value: ["u", *packer.all_of(sorted(value))],
    frozenset: lambda packer, value: ["f", *packer.all_of(sorted(value))],
}


def plain(field: str) -> str:
    """Return a field's name whether it is private or not: that may change."""
    return field.lstrip("_")


def fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of an object's attributes, those of its slots first."""
    kind: Any = type(value)
    for name in _slots_of(kind):
        if hasattr(value, name):
            yield name, getattr(value, name)
    yield from getattr(value, "__dict__", {}).items()


@cache
def _slots_of(kind: Any) -> tuple[str, ...]:
    return tuple(name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))


@cache
def _layout_of(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Return the names of a value's fields, and what takes them all."""
    slots = _slots_of(kind)
    if len(slots) > 1:
        return tuple(map(plain, slots)), attrgetter(*slots)
    return tuple(map(plain, slots)), lambda value: tuple(getattr(value, slot) for slot in slots)


class Unpacker:
    """Makes values again; `members` as they were numbered. What is wrong raises, as what, does not matter."""

    def __init__(
        self, members: list[Member], objects: list[Packed], layouts: dict[str, tuple[str, ...]]
    ) -> None:
        self._members = members
        self._layouts = layouts
        self._made: list[Any] = [_blank(name) for name, *_ in objects]
        for made, (name, *contents) in zip(self._made, objects, strict=True):
            self._fill(made, name, contents)

    def unpack(self, packed: Packed, depth: int = 0) -> Any:
        """Return the value.

        Raises:
            MalformedInput: it names what this build does not know, or is too deep. State unchanged.
        """
        if type(packed) is not list:
            return packed
        if depth > _DEPTH_MAX:
            raise MalformedInput("a checkpoint that is too deep")
        letter, *content = packed
        if letter in _UNPACKERS:
            return _UNPACKERS[letter](self.all_of(content, depth))
        match letter:
            case "q":
                return deque(self.all_of(content[1:], depth), maxlen=content[0])
            case "i":
                return int(content[0])
            case "m":
                return self._members[content[0]]
            case "o":
                return self._made[content[0]]
            case "e":
                return _enum_of(content[0])(content[1])
            case "s":
                return msgspec.msgpack.decode(content[1], type=_STRUCTS[content[0]])
            case "n":
                return self._named(content[0], content[1:], depth)
            case "a":
                made = _blank(content[0])
                self._fill(made, content[0], content[1:])
                return made
            case _:
                raise MalformedInput(f"a checkpoint with a {letter[:40]!r}")

    def all_of(self, packed: list[Packed], depth: int) -> list[Any]:
        """Return values one by one."""
        return [self.unpack(one, depth + 1) for one in packed]

    def _named(self, name: str, contents: list[Packed], depth: int) -> Any:
        kind, defaults, _ = _value_of(name)
        fields = dict(zip(self._layouts[name], self.all_of(contents, depth), strict=True))
        known = {field: fields[field] for field in kind._fields if field in fields}  # type: ignore[attr-defined]
        return kind(**(defaults | known))

    def _fill(self, made: Any, name: str, contents: list[Packed]) -> None:
        kind, defaults, _ = _value_of(name)
        fields = dict(zip(self._layouts[name], contents, strict=True))
        slots = {plain(slot): slot for slot in _slots_of(kind)}
        for field, held in defaults.items():
            object.__setattr__(made, slots[field], held)
        for field, held in fields.items():
            if field in slots:
                object.__setattr__(made, slots[field], self.unpack(held))


def _pairs(content: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(content[::2], content[1::2], strict=True)


_UNPACKERS: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "t": tuple,
    "l": list,
    "d": lambda content: dict(_pairs(content)),
    "D": lambda content: OrderedDict(_pairs(content)),
    "u": set,
    "f": frozenset,
}


def _blank(name: str) -> Any:
    kind: Any = _value_of(name).kind
    if kind.__new__ is not object.__new__:
        raise MalformedInput(f"a checkpoint with an object of {name}"[:200])
    return object.__new__(kind)


def _value_of(name: str) -> kept.KeptValue:
    found = kept.VALUES.get(name)
    if found is None:
        raise MalformedInput(f"a checkpoint with a value {name[:40]!r}, which this build does not know")
    return found


def _enum_of(name: str) -> type[Enum]:
    found = _ENUMS.get(name)
    if found is None:
        found = _value_of(name).kind
    if not issubclass(found, Enum):
        raise MalformedInput(f"a checkpoint with an enum {name[:40]!r}")
    return found
