"""One row of a check: a mark, what was found, why it matters and what to do about it.

It ends at the row; what is looked at belongs to `checks`, `mesh_checks` and `member_checks`. Rules:
1. Whatever is not ok says all three: what is wrong, why that matters, what to do.
2. `ok` follows from the mark and is false for FAIL alone: a warn is to be looked at, nothing is broken yet.
3. `evidence` holds the numbers that the mark was judged by.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

_CLOCK_WARN_S: Final = 10  # far beyond what NTP leaves, and logs of two nodes cannot be laid side by side
_CLOCK_FAIL_S: Final = 60
_NAMES_MAX: Final = 10

Row = dict[str, Any]


class Mark(StrEnum):
    """How a thing stands, the worst last."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


def make_row(name: str, mark: Mark, detail: str, why: str = "", hint: str = "", **evidence: Any) -> Row:
    """Return a row; one that is ok says neither why it matters nor how to mend it."""
    spoken = mark is not Mark.OK
    return {
        "name": name,
        "mark": str(mark),
        "ok": mark is not Mark.FAIL,
        "detail": detail,
        "why": why if spoken else "",
        "hint": hint if spoken else "",
        "evidence": evidence,
    }


def fail_unless(well: bool) -> Mark:
    """Return FAIL for what is not well."""
    return Mark.OK if well else Mark.FAIL


def warn_unless(well: bool) -> Mark:
    """Return warn for what is not well."""
    return Mark.OK if well else Mark.WARN


def clock_mark(skew_s: int) -> Mark:
    """Judge how far a clock is off the group's median, either way."""
    if abs(skew_s) >= _CLOCK_FAIL_S:
        return Mark.FAIL
    return warn_unless(abs(skew_s) < _CLOCK_WARN_S)


def some_of(names: Iterable[str]) -> str:
    """Return the first names, and how many others there are."""
    listed = list(names)
    more = len(listed) - _NAMES_MAX
    return ", ".join(listed[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
