"""Durations as operators write them: `10s`, `1h30m`, `250ms`; and ages as they read them.

Spec: GEP-2257, whose pattern is `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
"""

import re
from typing import Final

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import DAY_S, HOUR_S, MILLISECOND_NS, MINUTE_S, SECOND_NS

_UNITS_NS: Final = {
    "h": HOUR_S * SECOND_NS,
    "m": MINUTE_S * SECOND_NS,
    "s": SECOND_NS,
    "ms": MILLISECOND_NS,
}
_PART: Final = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_DURATION: Final = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")


def parse_duration_untrusted(text: str) -> int:
    """Return the nanoseconds a GEP-2257 duration stands for; 0 for `0s`.

    Spec: GEP-2257. Up to four parts, which add up; no fractions, no signs, no spaces.

    Raises:
        MalformedInput: not such a duration. Remote's fault. State unchanged.
    """
    if not isinstance(text, str) or len(text) > 32 or _DURATION.fullmatch(text) is None:
        raise MalformedInput(f"{str(text)[:40]!r} is not a duration such as 10s, 250ms or 1h30m")
    return sum(int(count) * _UNITS_NS[unit] for count, unit in _PART.findall(text))


def age_text(seconds: float) -> str:
    """Return an age as people say it: `12s`, `5m3s`, `2h10m`, `3d4h`."""
    whole = max(0, int(seconds))
    for unit_s, letter, part_s, part_letter in ((DAY_S, "d", HOUR_S, "h"), (HOUR_S, "h", MINUTE_S, "m")):
        if whole >= unit_s:
            return f"{whole // unit_s}{letter}{whole % unit_s // part_s}{part_letter}"
    return f"{whole // MINUTE_S}m{whole % MINUTE_S}s" if whole >= MINUTE_S else f"{whole}s"
