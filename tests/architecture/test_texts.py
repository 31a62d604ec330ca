"""No reference leads out of the repository."""

import pytest

from tests.architecture.texts import STILL, Text, foreign_references, texts


def test_every_text_that_is_named_is_here() -> None:
    """Say the rule in words, or name the heading of a page in docs/."""
    found = foreign_references(text for text in texts() if text.path not in STILL)
    assert not found, "\n".join(["Say the rule in words, or name a heading of a page in docs/.", *found])


def test_what_is_mended_is_not_excused() -> None:
    """A file that names no such text any more leaves `STILL`, so that it cannot begin again."""
    read = {text.path: text for text in texts()}
    assert [path for path in STILL if path not in read or not foreign_references([read[path]])] == []


def test_there_is_something_to_read() -> None:
    paths = {text.path for text in texts()}
    assert {"README.md", "Makefile", "docs/GOSSIP.md", "gossipmesh/gossip/node.py"} <= paths
    assert len(paths) > 400


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("GOSSIP 1.5", "GOSSIP 1.5"),
        ("see GOSSIP 1.5, rule 9", "GOSSIP 1.5"),
        ("POLICY rule 5", "POLICY rule 5"),
        ("TRUST, rules 2 and 3", "TRUST, rules 2"),
        ("IDENTITY section 4", "IDENTITY section 4"),
        ("STYLE.md", "STYLE.md"),
        ("(design/STYLE.md)", "design/STYLE.md"),
        ("docs/NOWHERE.md", "docs/NOWHERE.md"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found(words: str, found: str) -> None:
    assert foreign_references([Text("docs/A.md", f"First.\n{words}.\n")]) == [f"docs/A.md:2: {found}"]


@pytest.mark.parametrize(
    "words",
    [
        'docs/GOSSIP.md, "Failure detection", 7',
        "GOSSIP.md has it",
        "RFC 9110 section 7",
        "SWIM section 4.1",
        "RecordKind.CREDENTIAL, 99",
        "YAML 1.2",
        "ENGINE_FRAME 1",
    ],
)
def test_other_references_are_left_alone(words: str) -> None:
    assert foreign_references([Text("docs/A.md", words)]) == []
