"""Each promise of docs/THREATS.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "docs" / "THREATS.md").read_text(encoding="utf-8")
_TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _TEXT)))
_ROWS = [
    line
    for part in ("## With a stolen key", "## Without a key")
    for line in _TEXT.split(part)[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| stolen |", "| who |"))
]


def test_there_are_promises() -> None:
    assert len(_ROWS) >= 17


@pytest.mark.parametrize("row", _ROWS, ids=[row.split("|")[1].strip() for row in _ROWS])
def test_a_promise_names_a_test(row: str) -> None:
    assert "::test_" in row.rsplit("|", 2)[1]


@pytest.mark.parametrize(("path", "name"), _TESTS, ids=[f"{path}-{name}" for path, name in _TESTS])
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    tree = ast.parse((_ROOT / path).read_text(encoding="utf-8"))
    assert name in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
