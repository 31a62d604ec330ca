"""The words that docs/GLOSSARY.md keeps out of the code."""

import re

_HEADER = "never in code"
_WORD = re.compile(r"`(?:([a-z]+): )?([a-z_]+)`")


def banned_words(page: str) -> tuple[tuple[str, str], ...]:
    """Return (folder, word) of every table's last column, in the page's order; folder is "" for everywhere.

    Raises:
        ValueError: a table has no such column: the page is not what this reads.
    """
    found: list[tuple[str, str]] = []
    for number, line in enumerate(page.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or set(cells[0]) <= set("-"):
            continue
        if len(cells) != 3 or (cells[0] == "word" and cells[2] != _HEADER):
            raise ValueError(f"docs/GLOSSARY.md:{number}: a row is word, meaning, {_HEADER}")
        found += _WORD.findall(cells[2])
    return tuple(found)
