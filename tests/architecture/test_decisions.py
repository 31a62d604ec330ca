"""Decisions (docs/adr) are numbered one after the other, each once, and ARCHITECTURE.md lists all of them."""

import re

from tests.architecture.source import ROOT

FOLDER = ROOT / "docs" / "adr"


def test_decisions_are_numbered_in_turn_and_begin_with_their_number() -> None:
    files = sorted(FOLDER.glob("*.md"))
    assert [int(path.name[:4]) for path in files] == list(range(1, len(files) + 1))
    titles = [path.read_text(encoding="utf-8").split(".", 1)[0] for path in files]
    assert titles == [f"# {number}" for number in range(1, len(files) + 1)]


def test_the_architecture_lists_each_decision() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\d+)\]\(adr/(\S+\.md)\)", page, flags=re.MULTILINE)
    assert listed == [(str(int(path.name[:4])), path.name) for path in sorted(FOLDER.glob("*.md"))]
