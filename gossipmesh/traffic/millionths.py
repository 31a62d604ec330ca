"""Shares and ratios as whole millionths: engines compare them in whole numbers and agree to the last bit.

A share of 0.29 is 290,000 millionths, whatever its nearest binary fraction is: 29 of a hundred, not 28.
"""

from typing import Final

WHOLE: Final = 1_000_000
SHARE_MAX: Final = 1_000_000
"""No policy means more: a million retries a request."""


def millionths(share: float) -> int:
    """Return a share or ratio, 0 or more, as millionths: the nearest whole number, the even one of two."""
    return round(share * WHOLE)
