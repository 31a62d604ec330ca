"""Serial numbers of leaves: the vectors another engine reads by, and what is no such number."""

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.trust.leaf_serial import (
    NUMBER_MAX,
    LeafSerial,
    decode_leaf_serial_untrusted,
    encode_leaf_serial,
)

NODE = NodeId(bytes(range(0xF0, 0x100)))
SHORT = NODE[:8].hex()
VECTORS = [
    ((1, 1, 0), f"01{SHORT}0000000001000000000100"),
    ((1_800_000_000, 1_800_086_400, 3), f"01{SHORT}006b49d200006b4b238003"),
    ((2**32, 2**32 + 5, 255), f"01{SHORT}01000000000100000005ff"),
    ((NUMBER_MAX, NUMBER_MAX, 0), f"01{SHORT}ffffffffffffffffffff00"),
]


@pytest.mark.parametrize(("parts", "octets"), VECTORS)
def test_the_layout_stays_as_it_is(parts: tuple[int, int, int], octets: str) -> None:
    number = encode_leaf_serial(NODE, *parts)
    assert number == int(octets, 16)
    assert decode_leaf_serial_untrusted(number) == LeafSerial(NODE[:8], *parts)


def test_every_number_has_twenty_octets_and_is_positive() -> None:
    """DER puts a zero before a number whose first bit is set: it would have 21 octets then."""
    for node in (bytes(16), b"\xff" * 16):
        number = encode_leaf_serial(NodeId(node), NUMBER_MAX, NUMBER_MAX, 255)
        assert number.bit_length() == 19 * 8 + 1


@pytest.mark.parametrize(
    "number", [0, -1, 2**152 - 1, int("02" + 38 * "0", 16), 2**160, int.from_bytes(b"\x7f" * 19, "big") | 1]
)
def test_a_number_of_another_form_is_nobodys(number: int) -> None:
    assert decode_leaf_serial_untrusted(number) is None


@pytest.mark.parametrize(
    "parts", [(-1, 1, 0), (1, -1, 0), (1, 1, -1), (NUMBER_MAX + 1, 1, 0), (1, NUMBER_MAX + 1, 0), (1, 1, 256)]
)
def test_what_does_not_fit_is_refused(parts: tuple[int, int, int]) -> None:
    with pytest.raises(MalformedInput):
        encode_leaf_serial(NODE, *parts)
