"""The serial number of a node's leaf: which node it is of, and when in that node's life it was issued.

One octet of form, 1; short node id, 8; generation, 5; serial of the issue, 5; index of the leaf in it, 1.
Twenty octets, positive, no two leaves alike while a node's (generation, serial) rises. Builds before this
form drew nineteen random octets, which never have the first one. Ends at the number: whether a leaf is newer
than what is known of its node is its reader's to say.
Spec: RFC 5280 section 4.1.2.2 (positive, at most 20 octets, unique for its issuer).
"""

import struct
from dataclasses import dataclass
from typing import Final

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import SHORT_ID_BYTES, NodeId

_FORM: Final = 1
_BYTES: Final = 20
_PARTS: Final = struct.Struct("!B8sBIBIB")  # five octets are one and four
NUMBER_MAX: Final = 2**40 - 1
"""The largest generation or serial of an issue; wall seconds stay below it for 34,000 years."""
LEAVES_PER_ISSUE_MAX: Final = 256


@dataclass(frozen=True)
class LeafSerial:
    """What a serial number says; `node` is the short id, 8 bytes."""

    node: bytes
    generation: int
    serial: int
    index: int


def encode_leaf_serial(node_id: NodeId, generation: int, serial: int, index: int) -> int:
    """Return the serial number of leaf `index` of the issue `serial` of a node's `generation`.

    Raises:
        MalformedInput: a generation or serial no credential of ours has. Caller's fault. State unchanged.
    """
    if not (
        0 <= generation <= NUMBER_MAX and 0 <= serial <= NUMBER_MAX and 0 <= index < LEAVES_PER_ISSUE_MAX
    ):
        raise MalformedInput(f"no leaf has generation {generation}, serial {serial} and index {index}")
    parts = _PARTS.pack(
        _FORM,
        node_id[:SHORT_ID_BYTES],
        generation >> 32,
        generation & 0xFFFFFFFF,
        serial >> 32,
        serial & 0xFFFFFFFF,
        index,
    )
    return int.from_bytes(parts, "big")


def decode_leaf_serial_untrusted(number: int) -> LeafSerial | None:
    """Read a serial number; None when it has another form: of a build before, or of another issuer."""
    if number < 0 or number.bit_length() > 8 * _BYTES:
        return None
    form, node, generation_high, generation, serial_high, serial, index = _PARTS.unpack(
        number.to_bytes(_BYTES, "big")
    )
    if form != _FORM:
        return None
    return LeafSerial(node, generation_high << 32 | generation, serial_high << 32 | serial, index)
