"""The sentences of the pages that specify an engine, their ids, and what holds each: the table of coverage.

`python -m gossipmesh.testing.sentences` writes `spec/engine/v1-draft/coverage.md`; `--number` gives ids to
sentences without one first. Rules:

1. Each sentence of a numbered section ends with an id, `[E-7.12]`; those that only explain stand in
   `explanations.json` by their first words instead.
2. An id is never used for another sentence: new ones get the next number of their section.
3. `holds.json` says for each id which vectors hold it, by patterns; a broken engine, in
   `tests/conformance/broken`, names the id it breaks.
"""

import argparse
import fnmatch
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gossipmesh.testing.conformance import files

ROOT: Final = files.SPEC.parents[2]
TABLE: Final = files.SPEC / "coverage.md"
COLUMNS: Final = 119
SECTIONS: Final[dict[str, dict[str, int]]] = {
    "docs/ENGINE.md": {
        "1. The process": 1, "2. Attaching": 2, "3. Frames": 3, "4. Snapshots": 4, "5. Listeners": 5,
        "6. Between engines": 6, "7. HTTP/1.1": 7, "8. Statistics": 8, "9. Access log": 9,
    },
    "docs/TRAFFIC.md": {
        "Routing": 2, "Balancing": 3, "Ejection": 4, "Isolation": 5, "Retries": 6, "Who may call": 7,
        "Exchanges": 8,
    },
}  # fmt: skip
_LETTERS: Final = {"docs/ENGINE.md": "E", "docs/TRAFFIC.md": "T"}
_ID: Final = re.compile(r"\s*\[([ET]-[0-9]+\.[0-9]+)\]")
# A stop that ends a sentence, with whatever closes behind it; not the one in `section 9.2.2 says`.
_END: Final = re.compile(r"(?<![.\s])[.!?](?!\*\*)[)\"]*(?=\s|$)(?!\s+[a-z(])")
_CODE: Final = re.compile(r"`[^`]*`")
_ROW: Final = re.compile(r"^\|.*\|$")
_ITEM: Final = re.compile(r"^(\s*)([*-]|[0-9]+\.)\s+")
_WORDS: Final = 60
_SHORT: Final = 8  # a beginning of no more letters is the whole sentence


@dataclass(frozen=True)
class Sentence:
    """One sentence: its page and section, its id or nothing, its text without the id."""

    page: str
    section: int
    id: str
    text: str


@dataclass
class Block:
    """A paragraph, an item of a list or a row of a table: its lines, as they stand."""

    section: int
    lines: list[str]

    @property
    def is_row(self) -> bool:
        """Tell whether it is one row of a table."""
        return bool(_ROW.match(self.lines[0]))

    def text(self) -> str:
        """Return it as one line; of a row what is in its cells."""
        if self.is_row:
            return self.lines[0].strip("|").strip()
        return " ".join(line.strip() for line in self.lines)


def blocks(page: str, text: str) -> Iterator[Block | str]:
    """Yield a page's blocks that may hold rules, and every line between as it is."""
    section, block, is_code = 0, None, False
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("```"):
            is_code = not is_code
        if line.startswith("## "):
            section = SECTIONS[page].get(line[3:].strip(), 0)
        heads = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        is_rule = (
            section and line.strip() and not is_code and not line.startswith(("#", "    ", "|---", "```"))
        )
        starts = not is_rule or bool(_ROW.match(line)) or bool(_ITEM.match(line))
        if block is not None and (starts or block.is_row):
            yield block
            block = None
        if not is_rule or heads:
            yield line
        elif block is None:
            block = Block(section, [line])
        else:
            block.lines.append(line)
    if block is not None:
        yield block


def _cut(block: Block) -> list[tuple[str, str]]:
    """Return a block's sentences with their ids."""
    text, found = block.text(), []
    start = 0
    plain = _CODE.sub(lambda code: "X" * len(code.group()), text)
    item = _ITEM.match(plain)
    first = item.end() if item else 0
    ends = [] if block.is_row else [match.end() for match in _END.finditer(plain, first)]
    for end in [*ends, len(text)]:
        if end < start or not text[start:end].strip():
            continue
        behind = _ID.match(text, end)
        inside = _ID.search(text, start, end) if end == len(text) else None
        sentence = text[start : inside.start() if inside else end].strip()
        found.append((sentence, behind[1] if behind else inside[1] if inside else ""))
        start = behind.end() if behind else end
    return found


def sentences(page: str, text: str) -> list[Sentence]:
    """Return all sentences of a page that may hold rules, in order."""
    return [
        Sentence(page, block.section, name, sentence)
        for block in blocks(page, text)
        if isinstance(block, Block)
        for sentence, name in _cut(block)
    ]


def every() -> list[Sentence]:
    """Return the sentences of all pages."""
    return [one for page in SECTIONS for one in sentences(page, (ROOT / page).read_text())]


def is_explanation(sentence: Sentence, beginnings: Sequence[str]) -> bool:
    """Tell whether a sentence only explains."""
    return any(
        sentence.text == beginning or (len(beginning) > _SHORT and sentence.text.startswith(beginning))
        for beginning in beginnings
    )


def numbered(page: str, text: str, beginnings: Sequence[str], retired: Sequence[str] = ()) -> str:
    """Return a page with an id behind each sentence that had none and does not only explain."""
    last: dict[int, int] = {}
    for name in [*(one.id for one in sentences(page, text)), *retired]:
        if name.startswith(_LETTERS[page]):
            section, number = map(int, name[2:].split("."))
            last[section] = max(last.get(section, 0), number)
    made: list[str] = []
    for block in blocks(page, text):
        made += [block] if isinstance(block, str) else _with_ids(page, block, beginnings, last)
    return "\n".join(made)


def _with_ids(page: str, block: Block, beginnings: Sequence[str], last: dict[int, int]) -> list[str]:
    parts, is_new = [], False
    for sentence, name in _cut(block):
        if not name and not is_explanation(Sentence(page, block.section, "", sentence), beginnings):
            last[block.section] = last.get(block.section, 0) + 1
            name, is_new = f"{_LETTERS[page]}-{block.section}.{last[block.section]}", True
        parts.append(f"{sentence} [{name}]" if name else sentence)
    if not is_new:
        return block.lines
    if block.is_row:
        return [f"| {parts[0]} |"]
    item = _ITEM.match(block.lines[0])
    last_line = block.lines[-1]
    width = len(last_line) - len(last_line.lstrip()) if len(block.lines) > 1 else (item.end() if item else 0)
    first, indent = item[1] if item else "", " " * width
    return textwrap.wrap(
        " ".join(parts), COLUMNS, initial_indent=first, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def matching(patterns: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return which vectors patterns name; `*` stands for any text, everything else for itself."""
    plain = [pattern.replace("[", "[[]") for pattern in patterns]
    return [key for key in keys if any(fnmatch.fnmatchcase(key, pattern) for pattern in plain)]


def table(found: Sequence[Sentence], holds: Mapping[str, Sequence[str]], broken: Mapping[str, str]) -> str:
    """Return the page of coverage."""
    named = [one for one in found if one.id]
    empty = [one.id for one in named if not holds.get(one.id)]
    lines = [
        "# What holds each sentence",
        "",
        "Made by `python -m gossipmesh.testing.sentences` from the pages, `holds.json` and broken engines",
        "(`tests/conformance/broken`). A vector is named KIND/NAME, `*` stands for any text.",
        "",
        f"{len(named)} sentences, {len(named) - len(empty)} held by vectors, {len(empty)} by none yet.",
        "",
        "| id | sentence | vectors | broken engine |",
        "|---|---|---|---|",
    ]
    for one in named:
        vectors = ", ".join(f"`{pattern}`" for pattern in holds.get(one.id, ()))
        engine = ", ".join(sorted(name for name, rule in broken.items() if rule == one.id))
        lines.append(f"| {one.id} | {_short(one.text)} | {vectors} | {engine} |")
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    plain = re.sub(r"\s+", " ", text.replace("|", "/")).lstrip("*-0123456789. ")
    return plain if len(plain) <= _WORDS else plain[:_WORDS].rsplit(" ", 1)[0].replace("`", "") + " ..."


def broken_engines(folder: Path | None = None) -> dict[str, str]:
    """Return each broken engine's name and the id it breaks."""
    found = {}
    for path in sorted((folder or ROOT / "tests" / "conformance" / "broken").glob("*.py")):
        rule = re.search(r'^RULE = "([^"]+)"', path.read_text(), re.MULTILINE)
        if rule:
            found[path.stem] = rule[1]
    return found


def main() -> int:
    """Write the table, after new ids where that is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.testing.sentences")
    parser.add_argument("--number", action="store_true", help="give ids to sentences without one first")
    if parser.parse_args().number:
        beginnings, retired = files.read("explanations.json"), list(files.read("holds.json"))
        for page in SECTIONS:
            text = (ROOT / page).read_text()
            (ROOT / page).write_text(numbered(page, text, beginnings, retired))
    TABLE.write_text(table(every(), files.read("holds.json"), broken_engines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
