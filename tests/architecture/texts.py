"""What code and documents refer to must be in the repository: whoever reads it has nothing else."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from tests.architecture.source import FOLDERS, ROOT

# `GOSSIP 1.5`, `POLICY rule 5`: numbers that only make sense to whoever has that text.
NUMBERED: Final = re.compile(
    r"\b(?:ARCHITECTURE|CASES|DESIGN|ENGINE|FAULTS|GOSSIP|IDENTITY|POLICY|PRODUCT|STYLE|TRAFFIC|TRUST)"
    r",? (?:rules? |section )?\d+(?:\.\d+)*"
)
PAGE: Final = re.compile(r"(?<![\w/.-])(?:[\w.-]+/)*[A-Z][A-Z_]*\.md\b")
_KINDS: Final = (".py", ".md", ".toml", ".yaml")
_PATTERNS: Final = ("changes/README.md",)  # says how a note is named, by a name that stands for all
# Files that still name such rules. Mend them and take them out; none may be added.
STILL: Final = ()


@dataclass(frozen=True)
class Text:
    """One file as text: `path` relative to the project's root, with slashes."""

    path: str
    text: str


def texts() -> list[Text]:
    """Return every text that is read by people, in order of their paths; evidence is data."""
    folders = [ROOT / folder for folder in (*FOLDERS, "docs", "configs", "changes")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in _KINDS]
    paths += [path for path in ROOT.iterdir() if path.suffix in _KINDS or path.name == "Makefile"]
    ours = (path for path in sorted(paths) if "architecture" not in path.parts)
    return [Text(path.relative_to(ROOT).as_posix(), path.read_text()) for path in ours]


def foreign_references(files: Iterable[Text]) -> list[str]:
    """Return where a text is named that nobody finds here, as `path:line: what`."""
    return [
        f"{file.path}:{line}: {what}"
        for file in files
        if file.path not in _PATTERNS
        for line, what in sorted(_found(file))
    ]


def _found(file: Text) -> Iterator[tuple[int, str]]:
    for match in NUMBERED.finditer(file.text):
        yield file.text.count("\n", 0, match.start()) + 1, match.group()
    for match in PAGE.finditer(file.text):
        if not _exists(match.group(), PurePosixPath(file.path).parent):
            yield file.text.count("\n", 0, match.start()) + 1, match.group()


def _exists(name: str, beside: PurePosixPath) -> bool:
    return any((ROOT / folder / name).is_file() for folder in ("", "docs", beside))
