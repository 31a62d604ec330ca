"""GEP-2257's own examples, and what it excludes."""

import pytest

from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.errors import MalformedInput

MS = 1_000_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0s", 0),
        ("10s", 10_000),
        ("250ms", 250),
        ("1h", 3_600_000),
        ("1h30m10s", 5_410_000),
        ("500ms1s", 1_500),
        ("1m1m", 120_000),
        ("99999h", 99_999 * 3_600_000),
    ],
)
def test_durations_are_read(text: str, milliseconds: int) -> None:
    assert parse_duration_untrusted(text) == milliseconds * MS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        "1.5s",
        "-1s",
        "+1s",
        "1 s",
        "100000s",
        "1d",
        "1us",
        "1s1s1s1s1s",
        "\u0661s",
        "1s\n",
        "1S",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_duration_untrusted(text)
