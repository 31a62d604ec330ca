"""What an engine is told of its peers' keys, made from plain values for tests and benchmarks.

Ends at sections by name; an agent makes the same from what its members have signed.
"""

from collections.abc import Mapping

from gossipmesh.model.snapshot import CredentialsSection, PinsSection, Section, TrustSection

_NUMBER_BYTES = 8


def peer_sections(
    intermediates: tuple[str, ...],
    pins: Mapping[bytes, bytes],
    credentials: Mapping[bytes, tuple[int, int, int]],
    *,
    hears: bool = True,
    revoked_leaves: tuple[str, ...] = (),
) -> dict[str, Section]:
    """Return the sections by name.

    Args:
        intermediates: PEM.
        pins: pin -> short id of the node that lists it.
        credentials: short id -> generation, serial and flags.
        hears: whether the agent hears other members.
        revoked_leaves: serial numbers in hex of certificates that count no more.
    """
    sections: dict[str, Section] = {"trust": TrustSection(intermediates, hears, revoked_leaves)}
    for shard, entries in _shards(sorted(pin + node for pin, node in pins.items())).items():
        sections[f"pins/{shard:02x}"] = PinsSection(entries)
    said = [node + _numbers(*numbers) for node, numbers in credentials.items()]
    for shard, entries in _shards(sorted(said)).items():
        sections[f"credentials/{shard:02x}"] = CredentialsSection(entries)
    return sections


def _numbers(generation: int, serial: int, flags: int) -> bytes:
    return b"".join((generation.to_bytes(_NUMBER_BYTES), serial.to_bytes(_NUMBER_BYTES), bytes([flags])))


def _shards(entries: list[bytes]) -> dict[int, bytes]:
    shards: dict[int, bytearray] = {}
    for entry in entries:
        shards.setdefault(entry[0], bytearray()).extend(entry)
    return {shard: bytes(data) for shard, data in shards.items()}
