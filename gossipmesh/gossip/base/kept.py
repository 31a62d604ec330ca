"""Which classes a checkpoint may hold, each under a name that outlives a rename or a move of the class.

Parts are made once a core, by its composition; a checkpoint gives them back what they held. Values are made
in any number; a checkpoint makes them anew. What a field of a value was before there was such a field stands
beside the name: that is how a checkpoint of the last build is read.
Paper: none. Deviation: none.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar

Kind = TypeVar("Kind", bound=type)


class KeptValue(NamedTuple):
    """A class of values, and what its later fields are in a checkpoint that has none of them.

    `is_alone`: of each only one holder knows, so that it is written where it is held.
    """

    kind: type
    defaults: dict[str, Any]
    is_alone: bool


PARTS: Final[dict[str, type]] = {}
VALUES: Final[dict[str, KeptValue]] = {}
NAMES: Final[dict[type, str]] = {}


def part(name: str) -> Callable[[Kind], Kind]:
    """Name a class of which every core has at most one instance."""

    def named(kind: Kind) -> Kind:
        assert name not in PARTS, name
        PARTS[name] = kind
        NAMES[kind] = name
        return kind

    return named


def value(name: str, *, is_alone: bool = False, **defaults: Any) -> Callable[[Kind], Kind]:
    """Name a class of values, which have slots; `defaults` are those of fields that were added since."""

    def named(kind: Kind) -> Kind:
        assert name not in VALUES, name
        assert "__slots__" in vars(kind) or issubclass(kind, Enum), name
        VALUES[name] = KeptValue(kind, defaults, is_alone)
        NAMES[kind] = name
        return kind

    return named
