"""Which keys members use, as an engine is told it: sorted tables in shards, kept true by deltas.

It is walked into once and then fed by what the core tells. Rules:
1. A delta costs what it touches: the entries of one member, in the shards they lie in. Other shards stay the
   very same bytes, so that a compiler makes nothing of them anew.
2. A member whose build publishes no key set has no pins (None): it is judged by its certificate. One whose
   set is not here yet has none that count (empty): it is not called before the set is.
3. Who is revoked stays in the table of credentials, with its tombstone's generation, and lists nothing.
Ends at bytes: their form is `model.snapshot`'s, who asks for them the snapshot compiler.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import Final, Protocol

from gossipmesh.model.identity import SHORT_ID_BYTES, NodeId, service_path
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.snapshot import (
    CREDENTIAL_ENTRY_BYTES,
    HAS_KEY_SETS,
    PIN_ENTRY_BYTES,
    REVOKED,
)

_MEMBERS_PER_STEP: Final = 100  # a millisecond
_NUMBER_BYTES: Final = 8

Pins = tuple[bytes, ...] | None


class KeyCatalog(Protocol):
    """What this reads of the gossip core."""

    def each_keys(self) -> Iterator[MemberKeys]:
        """Walk over what is known of members' keys, tombstones included."""

    def keys_of(self, node_id: bytes) -> MemberKeys | None:
        """Return the same of one member; None when it is none."""


class _Table:
    """Entries of one length by the shard they begin with, ascending; a shard is bytes until it changes."""

    def __init__(self, entry_bytes: int) -> None:
        self._entry_bytes = entry_bytes
        self._shards: dict[str, bytes] = {}

    @property
    def shards(self) -> Mapping[str, bytes]:
        """Return the entries by the first byte of each, in hex."""
        return self._shards

    def fill(self, entries: Collection[bytes]) -> None:
        """Hold exactly these, whatever was held. Cost: O(n log n), a microsecond each."""
        found: dict[str, list[bytes]] = {}
        for entry in sorted(set(entries)):
            found.setdefault(f"{entry[0]:02x}", []).append(entry)
        self._shards = {name: b"".join(held) for name, held in found.items()}

    def replace(self, old: Collection[bytes], new: Collection[bytes]) -> None:
        """Take some entries out and put others in."""
        gone, come = set(old) - set(new), set(new) - set(old)
        for name in sorted({f"{entry[0]:02x}" for entry in gone | come}):
            entries = _cut(self._shards.get(name, b""), self._entry_bytes)
            for entry in sorted(one for one in gone if f"{one[0]:02x}" == name):
                at = bisect_left(entries, entry)
                if at < len(entries) and entries[at] == entry:
                    del entries[at]
            for entry in sorted(one for one in come if f"{one[0]:02x}" == name):
                at = bisect_left(entries, entry)
                if at == len(entries) or entries[at] != entry:
                    entries.insert(at, entry)
            if entries:
                self._shards[name] = b"".join(entries)
            else:
                self._shards.pop(name, None)


class PinIndex:
    """The pins and credentials of all members, and the pins of those who serve what is asked for."""

    def __init__(self, catalog: KeyCatalog) -> None:
        self._catalog = catalog
        self._pins = _Table(PIN_ENTRY_BYTES)
        self._credentials = _Table(CREDENTIAL_ENTRY_BYTES)
        self._held: dict[bytes, tuple[bytes, bytes]] = {}
        self._without: dict[NodeId, None] = {}
        self._asked: dict[str, dict[NodeId, Pins]] = {}
        self._begun = self._is_whole = False

    @property
    def pins(self) -> Mapping[str, bytes]:
        """Return the entries of `pins/XX`, by XX."""
        return self._pins.shards

    @property
    def credentials(self) -> Mapping[str, bytes]:
        """Return the entries of `credentials/XX`, by XX."""
        return self._credentials.shards

    @property
    def without_key_sets(self) -> Collection[NodeId]:
        """Return the members whose build publishes no key sets."""
        return self._without.keys()

    def begin(self) -> Iterator[None]:
        """Walk over the catalog, step by step, unless that was done; the tables are made at its end."""
        if self._begun:
            return
        self._begun = True
        for count, keys in enumerate(list(self._catalog.each_keys()), 1):
            self.take(keys.node_id, self._catalog.keys_of(keys.node_id))
            if count % _MEMBERS_PER_STEP == 0:
                yield
        pins = (_cut(held, PIN_ENTRY_BYTES) for held, _ in self._held.values())
        self._pins.fill([entry for entries in pins for entry in entries])
        self._credentials.fill([credential for _, credential in self._held.values()])
        self._is_whole = True

    def take(self, node_id: NodeId, keys: MemberKeys | None) -> bool:
        """Take in what is known of a member's keys now, None: it is a member no more; tell if it is news."""
        pins, credential = (b"", b"") if keys is None else (_pin_entries(keys), credential_entry(keys))
        pins_before, credential_before = self._held.pop(node_id, (b"", b""))
        is_news = (pins, credential) != (pins_before, credential_before)
        self._without.pop(node_id, None)
        if keys is not None:
            self._held[node_id] = (pins, credential)
            if not (keys.has_key_sets or keys.is_revoked):
                self._without[node_id] = None
        if self._is_whole:
            self._pins.replace(_cut(pins_before, PIN_ENTRY_BYTES), _cut(pins, PIN_ENTRY_BYTES))
            self._credentials.replace(
                _cut(credential_before, CREDENTIAL_ENTRY_BYTES), _cut(credential, CREDENTIAL_ENTRY_BYTES)
            )
        for asked in self._asked.values():
            asked.pop(node_id, None)
        return is_news

    def pins_of(self, node_id: NodeId, service: str) -> Pins:
        """Return the pins a member lists for a service it serves: see rule 2."""
        asked = self._asked.setdefault(service, {})
        if node_id not in asked:
            asked[node_id] = listed_pins(self._catalog.keys_of(node_id), service_path(service))
        return asked[node_id]

    def read_only(self, services: Collection[str]) -> None:
        """Remember the pins of no other services than these."""
        for service in [name for name in self._asked if name not in services]:
            del self._asked[service]


def listed_pins(keys: MemberKeys | None, path: str) -> Pins:
    """Return the pins listed for the identity of a path: see rule 2."""
    if keys is None or not keys.has_key_sets:
        return None
    return next((entry.pins for entry in keys.entries or () if entry.path == path), ())


def _pin_entries(keys: MemberKeys) -> bytes:
    if keys.is_revoked:
        return b""
    short_id = keys.node_id[:SHORT_ID_BYTES]
    return b"".join(pin + short_id for entry in keys.entries or () for pin in entry.pins)


def credential_entry(keys: MemberKeys) -> bytes:
    """Return a member's entry in the table of credentials."""
    flags = (HAS_KEY_SETS if keys.has_key_sets else 0) | (REVOKED if keys.is_revoked else 0)
    numbers = (number.to_bytes(_NUMBER_BYTES, "big") for number in (keys.generation, keys.serial))
    return keys.node_id[:SHORT_ID_BYTES] + b"".join(numbers) + bytes([flags])


def _cut(data: bytes, entry_bytes: int) -> list[bytes]:
    return [data[at : at + entry_bytes] for at in range(0, len(data), entry_bytes)]
