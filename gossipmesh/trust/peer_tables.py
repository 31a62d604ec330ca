"""What is known of members' keys and credentials, as an engine is told it: sorted entries in one string each.

Ends at lookups. Ten thousand nodes' keys are 2.4 MB so, and several times as much as Python's dictionaries;
a search by halves is a few microseconds. The entries' form and order are checked where sections are read
(`traffic.sections`), their shape is in `model.snapshot`.
Spec: none; ours (docs/ENGINE.md, section 4).
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gossipmesh.model.snapshot import CREDENTIAL_ENTRY_BYTES, HAS_KEY_SETS, PIN_ENTRY_BYTES, REVOKED
from gossipmesh.trust.pins import PIN_BYTES

_NUMBER_BYTES: Final = 8


class _Entries:
    """One table's entries as a sequence of their keys, for `bisect`."""

    __slots__ = ("_data", "_entry_bytes", "_key_bytes")

    def __init__(self, data: bytes, entry_bytes: int, key_bytes: int) -> None:
        self._data = data
        self._entry_bytes = entry_bytes
        self._key_bytes = key_bytes

    def __len__(self) -> int:
        return len(self._data) // self._entry_bytes

    def __getitem__(self, index: int) -> bytes:
        at = index * self._entry_bytes
        return self._data[at : at + self._key_bytes]


def _find(data: bytes | None, key: bytes, entry_bytes: int) -> bytes | None:
    """Return what follows `key` in the first entry that begins with it, None when none does."""
    if not data:
        return None
    entries = _Entries(data, entry_bytes, len(key))
    index = bisect_left(entries, key)
    if index == len(entries) or entries[index] != key:
        return None
    at = index * entry_bytes
    return data[at + len(key) : at + entry_bytes]


@dataclass(frozen=True)
class Known:
    """The newest credential of a node, or its tombstone (`revoked`)."""

    generation: int
    serial: int
    has_key_sets: bool
    revoked: bool


@dataclass(frozen=True)
class PinTable:
    """Which keys members use. `shards`: the first byte of pins -> entries that begin with it."""

    shards: Mapping[int, bytes] = field(default_factory=dict)

    def node_of(self, pin: bytes) -> bytes | None:
        """Return the short id of the node that lists `pin`, None when none does."""
        return _find(self.shards.get(pin[0]), pin[:PIN_BYTES], PIN_ENTRY_BYTES)


@dataclass(frozen=True)
class CredentialTable:
    """What members' credentials say. `shards`: the first byte of short ids -> entries that begin with it."""

    shards: Mapping[int, bytes] = field(default_factory=dict)
    any_without_key_sets: bool = field(init=False)
    """Whether some member signs no key sets, so that not every key can be listed."""

    def __post_init__(self) -> None:
        flags: set[int] = set()
        for data in self.shards.values():
            flags.update(data[CREDENTIAL_ENTRY_BYTES - 1 :: CREDENTIAL_ENTRY_BYTES])
        lacking = any(not one & (HAS_KEY_SETS | REVOKED) for one in flags)
        object.__setattr__(self, "any_without_key_sets", lacking)

    def known(self, node: bytes) -> Known | None:
        """Return what is known of the node with this short id, None for nothing."""
        entry = _find(self.shards.get(node[0]), node, CREDENTIAL_ENTRY_BYTES) if node else None
        return None if entry is None else _known(entry)


def _known(entry: bytes) -> Known:
    flags = entry[2 * _NUMBER_BYTES]
    return Known(
        int.from_bytes(entry[:_NUMBER_BYTES], "big"),
        int.from_bytes(entry[_NUMBER_BYTES : 2 * _NUMBER_BYTES], "big"),
        bool(flags & HAS_KEY_SETS),
        bool(flags & REVOKED),
    )
