"""Tables that fit a width: which columns stay, how wide each is, and where prose may be broken.

Rules:
1. Nothing is left out or broken where everything has room.
2. Columns go by rank, the highest first, of equals the last; rank 0 stays.
3. A word is never broken. One that is wider than everything that could be left out is cut, and `…` says so.
Pure: the width comes in, lines go out.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Protocol

GAP: Final = 2
_PROSE_MIN: Final = 16  # narrower columns of prose read like ladders
_CELL_MIN: Final = 4
_LINES_MAX: Final = 8  # of one cell
_MORE: Final = "…"
_WORDS: Final = re.compile(r"[^, ]*,* *")

Cells = Sequence[Sequence[str]]


class Fitted(Protocol):
    """What fitting asks of a column."""

    @property
    def title(self) -> str:
        """Return the header's word."""

    @property
    def right(self) -> bool:
        """Tell whether cells are set flush right."""

    @property
    def rank(self) -> int:
        """Return how early it is left out; 0: never."""

    @property
    def prose(self) -> bool:
        """Tell whether cells may be broken between words."""


def fit(columns: Sequence[Fitted], cells: Cells, width: int) -> tuple[list[str], list[str]]:
    """Return the table's lines, each of at most `width` cells, and the titles that were left out."""
    kept = list(range(len(columns)))
    while _least(columns, cells, kept) > width:
        spare = [index for index in kept if columns[index].rank]
        if not spare:
            break
        kept.remove(max(spare, key=lambda index: (columns[index].rank, index)))
    shown = [columns[index] for index in kept]
    rows = [[row[index] for index in kept] for row in cells]
    widths = _shrink(shown, _widths(shown, rows), rows, width)
    lines = [
        _joined(shown, [_cut(column.title, size) for column, size in zip(shown, widths, strict=True)], widths)
    ]
    for row in rows:
        lines += _row_lines(shown, row, widths)
    return lines, [column.title for index, column in enumerate(columns) if index not in kept]


def plain_lines(columns: Sequence[Fitted], cells: Cells) -> list[str]:
    """Return the table's lines, however wide, each row on one."""
    widths = _widths(columns, cells)
    return [_joined(columns, row, widths) for row in [[column.title for column in columns], *cells]]


def cells_of(text: str) -> int:
    """Return how many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _widths(columns: Sequence[Fitted], cells: Cells) -> list[int]:
    return [
        max(cells_of(column.title), *(cells_of(row[index]) for row in cells), 0)
        for index, column in enumerate(columns)
    ]


def _least(columns: Sequence[Fitted], cells: Cells, kept: Sequence[int]) -> int:
    """Return the width without which a word would be broken."""
    rows = [[row[index] for index in kept] for row in cells]
    shown = [columns[index] for index in kept]
    return sum(_narrowest(shown, rows)) + GAP * (len(kept) - 1)


def _narrowest(columns: Sequence[Fitted], rows: Cells) -> list[int]:
    wanted = _widths(columns, rows)
    for index, column in enumerate(columns):
        if column.prose:
            words = [word.rstrip() for row in rows for word in _WORDS.findall(row[index])]
            longest = max((cells_of(word) for word in words), default=0)
            wanted[index] = min(wanted[index], max(longest, cells_of(column.title), _PROSE_MIN))
    return wanted


def _shrink(columns: Sequence[Fitted], widths: list[int], rows: Cells, width: int) -> list[int]:
    """Take what is missing from prose first, down to its longest word, then from the widest."""
    widths = list(widths)
    missing = sum(widths) + GAP * (len(widths) - 1) - width
    for index, least in enumerate(_narrowest(columns, rows)):
        given = max(0, min(missing, widths[index] - least))
        widths[index] -= given
        missing -= given
    while missing > 0 and max(widths) > _CELL_MIN:
        widths[widths.index(max(widths))] -= 1
        missing -= 1
    return widths


def _row_lines(columns: Sequence[Fitted], row: Sequence[str], widths: Sequence[int]) -> list[str]:
    parts = [
        _broken(cell, size) if column.prose else [_cut(cell, size)]
        for column, cell, size in zip(columns, row, widths, strict=True)
    ]
    height = max(len(part) for part in parts)
    padded = [part + [""] * (height - len(part)) for part in parts]
    return [_joined(columns, [part[number] for part in padded], widths) for number in range(height)]


def _broken(text: str, size: int) -> list[str]:
    """Break prose after spaces and commas."""
    lines: list[str] = [""]
    for word in _WORDS.findall(text):
        if lines[-1] and cells_of(lines[-1] + word.rstrip()) > size:
            lines.append("")
        lines[-1] += word
    if len(lines) > _LINES_MAX:
        lines[_LINES_MAX - 1 :] = [_cut(lines[_LINES_MAX - 1].rstrip() + " " * size, size)]
    return [_cut(line.rstrip(), size) for line in lines]


def _cut(text: str, size: int) -> str:
    if cells_of(text) <= size:
        return text
    while text and cells_of(text) >= size:
        text = text[:-1]
    return text + _MORE


def _joined(columns: Sequence[Fitted], row: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, size in zip(columns, row, widths, strict=True):
        room = " " * (size - cells_of(cell))
        parts.append(room + cell if column.right else cell + room)
    return (" " * GAP).join(parts).rstrip()
