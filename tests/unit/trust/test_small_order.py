"""Keys that are no keys: every encoding of every point of small order, computed from the curve itself."""

import pytest

from gossipmesh.testing.builders import TrustDomainBuilder
from gossipmesh.trust.keys import Verifier, is_public_key

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """Return the sum on the twisted Edwards curve (RFC 8032 section 5.1)."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def root(square: int) -> int | None:
    """Return a square root modulo P, None where there is none (RFC 8032 section 5.1.3)."""
    candidate = pow(square, (P + 3) // 8, P)
    for x in (candidate, candidate * pow(2, (P - 1) // 4, P) % P):
        if x * x % P == square % P:
            return x
    return None


def torsion() -> set[Point]:
    """Return the points of order 1, 2, 4 and 8: a point of order 8 L, L times, and its multiples."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 50):
        x = root((y * y - 1) * pow(D * y * y + 1, -1, P))
        if x is None:
            continue
        point, total, factor = (x, y), (0, 1), order
        while factor:
            total = add(total, point) if factor & 1 else total
            point, factor = add(point, point), factor >> 1
        points = {(0, 1)}
        multiple = total
        for _ in range(8):
            points.add(multiple)
            multiple = add(multiple, total)
        if len(points) == 8:
            return points
    raise AssertionError("no point of order 8 found")


def encodings() -> list[bytes]:
    """Return each way to write each of them: y, or y + p where that fits, with both sign bits."""
    ys = {y for _, y in torsion()}
    written = [y + extra for y in sorted(ys) for extra in (0, P) if y + extra < 2**255]
    return [(y | sign << 255).to_bytes(32, "little") for y in written for sign in (0, 1)]


def test_there_are_fourteen_of_them() -> None:
    assert len(torsion()) == 8
    assert len(encodings()) == 14


@pytest.mark.parametrize("key", encodings(), ids=bytes.hex)
def test_a_point_of_small_order_is_no_key(key: bytes) -> None:
    assert not is_public_key(key)


def test_keys_that_were_made_are_keys() -> None:
    builder = TrustDomainBuilder()
    assert all(is_public_key(builder.signing_key(str(n)).public) for n in range(200))
    assert not any(is_public_key(b"\x42" * length) for length in (0, 31, 33))


def test_such_a_key_takes_a_signature_nobody_made() -> None:
    """Why they are refused: with the neutral element as key, R = B and S = 1 hold for any message."""
    base_y = 4 * pow(5, -1, P) % P
    forged = base_y.to_bytes(32, "little") + (1).to_bytes(32, "little")
    neutral = (1).to_bytes(32, "little")
    assert all(Verifier().verify(neutral, message, forged) for message in (b"pay", b"open the door"))
    assert not is_public_key(neutral)
