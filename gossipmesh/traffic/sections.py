"""Snapshots as bytes: sections named by their hash, and the root that lists them.

Ends where bytes leave the process; the engine protocol carries what is made here. Rules:

1. A section's bytes are the one msgpack encoding of its struct; its name says which struct it is.
2. A section is named by the first 16 bytes of SHA-256 over its bytes; `version` is SHA-256 over the
   encoding of the root (section name -> hash, sorted by name). Equal content, equal version.
3. A snapshot is whole or it is not made: every hash is checked before anything is swapped.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.engine_features import PINS
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import SHORT_ID_BYTES
from gossipmesh.model.snapshot import (
    CREDENTIAL_ENTRY_BYTES,
    PIN_ENTRY_BYTES,
    CallersSection,
    CredentialsSection,
    InboundSection,
    LimitsSection,
    ListenersSection,
    PinsSection,
    RoutesSection,
    Section,
    TrustSection,
    UpstreamSection,
)
from gossipmesh.traffic.millionths import SHARE_MAX
from gossipmesh.wire import codec

SECTION_HASH_BYTES: Final = 16
SNAPSHOT_FORMAT: Final = 1

_SHAPES: Final[dict[str, type[Section]]] = {
    "routes": RoutesSection,
    "upstream": UpstreamSection,
    "inbound": InboundSection,
    "listeners": ListenersSection,
    "callers": CallersSection,
    "limits": LimitsSection,
    "pins": PinsSection,
    "credentials": CredentialsSection,
    "trust": TrustSection,
}
_SINGLE: Final = ("listeners", "callers", "limits", "trust")
_PEERS: Final = ("pins/", "credentials/", "trust")
_REQUIRES: Final = b"requires"
SHARD_NAMES: Final = tuple(f"{number:02x}" for number in range(256))
"""What `pins/` and `credentials/` are followed by: the first byte of what their entries begin with."""
# The same bytes as the codec's (a test says so) in a fraction of the time: a section may hold thousands of
# endpoints, is encoded again after each change, and is read by a loop that moves traffic. Lengths are
# checked against what is there before anything is made, and depth is that of the struct.
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[type[Section], msgspec.msgpack.Decoder[Section]]] = {
    shape: msgspec.msgpack.Decoder(shape) for shape in _SHAPES.values()
}


class Snapshot(msgspec.Struct, frozen=True):
    """An immutable traffic state.

    `version`: hex SHA-256 of the encoded root. `root`: section name -> 16-byte hash, sorted by name.
    `sections`: hash -> bytes; exactly the hashes the root lists.
    """

    version: str
    root: dict[str, bytes]
    sections: dict[bytes, bytes]

    def section(self, name: str) -> Section | None:
        """Return the decoded section called `name`, None when the snapshot has none."""
        digest = self.root.get(name)
        return None if digest is None else decode_section_untrusted(name, self.sections[digest])


class _Stored(msgspec.Struct, frozen=True):
    format: int
    root: dict[str, bytes]
    sections: list[bytes]


def encode_section(section: Section) -> bytes:
    """Return the one encoding of `section`."""
    return _ENCODER.encode(section)


def section_hash(data: bytes) -> bytes:
    """Return the name the root knows these bytes by, 16 bytes."""
    return hashlib.sha256(data).digest()[:SECTION_HASH_BYTES]


def section_shape(name: str) -> type[Section] | None:
    """Return the struct a section of this name holds, None for a kind this version does not know."""
    kind, slash, rest = name.partition("/")
    if kind in _SINGLE:
        return None if slash else _SHAPES[kind]
    return _SHAPES.get(kind) if rest else None


def decode_section_untrusted(name: str, data: bytes) -> Section:
    """Read a section's bytes as the struct its name promises.

    Raises:
        MalformedInput: an unknown kind of section or other bytes. Remote's fault. State unchanged.
    """
    shape = section_shape(name)
    if shape is None:
        raise MalformedInput(f"{name[:200]!r} is no section this version knows")
    if len(data) > limits.SECTION_BYTES_MAX:
        raise MalformedInput(f"{len(data)} bytes, {limits.SECTION_BYTES_MAX} allowed")
    try:
        section = _DECODERS[shape].decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise MalformedInput(f"not a {shape.__name__}: {error}"[:300]) from None
    if isinstance(section, PinsSection):
        _check_entries(name, section.entries, PIN_ENTRY_BYTES, key_bytes=PIN_ENTRY_BYTES)
    elif isinstance(section, CredentialsSection):
        _check_entries(name, section.entries, CREDENTIAL_ENTRY_BYTES, key_bytes=SHORT_ID_BYTES)
    elif isinstance(section, LimitsSection):
        _check_shares(section)
    return section


def _check_shares(section: LimitsSection) -> None:
    """Check what is counted in millionths: no share is less than nothing, endless or no number.

    Raises:
        MalformedInput: one is. Remote's fault. State unchanged.
    """
    for share in (section.retry_budget_ratio, section.ejection_share, section.panic_share):
        if not 0 <= share <= SHARE_MAX:
            raise MalformedInput(f"a share or ratio of {share}, 0 to {SHARE_MAX} allowed")


def require_known(name: str, section: Section, features: Collection[str]) -> None:
    """Check that an engine that names these words can execute a section.

    Raises:
        MalformedInput: the section requires another one. Remote's fault. State unchanged.
    """
    required = (
        section.requires if isinstance(section, RoutesSection | InboundSection | CallersSection) else ()
    )
    unknown = [word for word in required if word not in features]
    if unknown:
        raise MalformedInput(f"{name[:200]} requires {', '.join(unknown)[:200]}, which is not known here")


def required_by(snapshot: Snapshot) -> frozenset[str]:
    """Return the words an engine must name to execute a snapshot, as far as its sections say so.

    Cost: reads the bytes of each section, and decodes those that require something.
    """
    words = {PINS} if any(name.startswith(_PEERS) for name in snapshot.root) else set[str]()
    for name, digest in snapshot.root.items():
        if _REQUIRES in snapshot.sections[digest]:
            words.update(
                getattr(decode_section_untrusted(name, snapshot.sections[digest]), _REQUIRES.decode(), ())
            )
    return frozenset(words)


def _check_entries(name: str, entries: bytes, entry_bytes: int, *, key_bytes: int) -> None:
    """Check what a search by halves relies on: whole entries of this shard, keys ascending and unique.

    Raises:
        MalformedInput: they are not. Remote's fault. State unchanged.
    """
    shard = name.partition("/")[2]
    if shard not in SHARD_NAMES:
        raise MalformedInput(f"{name[:200]!r} is no section this version knows")
    if len(entries) % entry_bytes:
        raise MalformedInput(f"{name}: {len(entries)} bytes are no whole number of {entry_bytes}")
    keys = [entries[at : at + key_bytes] for at in range(0, len(entries), entry_bytes)]
    if any(key[0] != int(shard, 16) for key in keys):
        raise MalformedInput(f"{name} holds an entry of another section")
    if keys != sorted(set(keys)):
        raise MalformedInput(f"{name} is not in order")


def root_version(root: Mapping[str, bytes]) -> str:
    """Return the version of a root: hex SHA-256 of its encoding in name order."""
    return hashlib.sha256(codec.encode({name: root[name] for name in sorted(root)})).hexdigest()


def make_snapshot(encoded: Mapping[str, bytes]) -> Snapshot:
    """Build a snapshot from section name -> bytes."""
    hashes = {name: section_hash(encoded[name]) for name in sorted(encoded)}
    return Snapshot(root_version(hashes), hashes, {hashes[name]: encoded[name] for name in hashes})


def missing_sections(root: Mapping[str, bytes], known: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the hashes `root` lists and `known` lacks, in root order, no duplicates."""
    return list(dict.fromkeys(digest for digest in root.values() if digest not in known))


def assemble(root: Mapping[str, bytes], known: Mapping[bytes, bytes], new: Mapping[bytes, bytes]) -> Snapshot:
    """Build the snapshot `root` describes from sections held and sections that just came.

    Args:
        root: section name -> hash, untrusted, at most limits.SNAPSHOT_SECTIONS_MAX entries.
        known: hash -> bytes of sections checked earlier (the previous snapshot's).
        new: hash -> bytes, untrusted; each is hashed here. Ones the root does not list are refused.

    Raises:
        MalformedInput: a section is missing, one's hash is wrong, one is not in the root, or there
            are too many. Remote's fault. State unchanged.
    """
    if len(root) > limits.SNAPSHOT_SECTIONS_MAX:
        raise MalformedInput(f"{len(root)} sections, {limits.SNAPSHOT_SECTIONS_MAX} allowed")
    ordered = {name: root[name] for name in sorted(root)}
    listed = dict.fromkeys(ordered.values())
    for digest, data in new.items():
        if section_hash(data) != digest:
            raise MalformedInput(f"section {digest.hex()[:32]} does not have the hash it is named by")
        if digest not in listed:
            raise MalformedInput(f"section {digest.hex()[:32]} is not in the root")
    sections: dict[bytes, bytes] = {}
    for name, digest in ordered.items():
        data_or_none = new.get(digest, known.get(digest))
        if data_or_none is None:
            raise MalformedInput(f"section {name[:200]!r} is missing")
        sections[digest] = data_or_none
    return Snapshot(root_version(ordered), ordered, sections)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as one file's bytes."""
    return codec.encode(_Stored(SNAPSHOT_FORMAT, snapshot.root, list(snapshot.sections.values())))


def decode_snapshot_untrusted(data: bytes) -> Snapshot:
    """Read what `encode_snapshot` wrote; every hash is checked.

    Raises:
        MalformedInput: another format, damaged or incomplete. Remote's fault. State unchanged.
    """
    stored = codec.decode_untrusted(data, _Stored, bytes_max=limits.SNAPSHOT_BYTES_MAX)
    if stored.format != SNAPSHOT_FORMAT:
        raise MalformedInput(f"snapshot format {stored.format}, {SNAPSHOT_FORMAT} expected")
    return assemble(stored.root, {}, {section_hash(section): section for section in stored.sections})
