"""Shares are what they were written as, whatever binary fractions make of them."""

import pytest

from gossipmesh.traffic.millionths import WHOLE, millionths


@pytest.mark.parametrize("hundredths", range(101))
def test_a_share_in_hundredths_is_exact(hundredths: int) -> None:
    assert millionths(hundredths / 100) == hundredths * WHOLE // 100


def test_what_lies_between_two_goes_to_the_nearest() -> None:
    assert [millionths(share) for share in (0.0000004, 0.0000006, 1.0000004, 0.1 + 0.2)] == [
        0,
        1,
        1_000_000,
        300_000,
    ]
