"""The house's style, as tests: sizes, depth, names, docstrings, what a public error must say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted(
    path
    for folder in ("gossipmesh", "tests", "bench", "chaos", "tools")
    for path in (ROOT / folder).rglob("*.py")
)
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "gossipmesh")]

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
DEPTH_MAX = 3
BANNED_WORDS = ("cluster", "awareness", "half_open", "faulty")
PROTOCOL_WORDS = {"upstream_cluster"}  # Envoy's name for a field of its access log; protocols keep their own
UNIT_FIRST = re.compile(r"\b(max|min)_[a-z_]*(_ns|_ms|_s|_bytes|_count|_ratio)\b")
PAPER_FOLDERS = ("gossip", "trust")
PAPER_MARKS = re.compile(r"\b(Paper|Spec|Deviation):")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_something_to_check() -> None:
    """A wrong root would make every test below pass on nothing."""
    assert len(PACKAGE) > 50


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES_MAX, f"{relative(path)} is longer than {FILE_LINES_MAX} lines"
    long = [
        f"{function.name} ({function.end_lineno - function.lineno + 1} lines)"
        for function in functions(ast.parse(text))
        if function.end_lineno is not None and function.end_lineno - function.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long, f"{relative(path)}: split {', '.join(long)}"


def test_folders_are_shallow() -> None:
    deep = [relative(path) for path in PACKAGE if len(path.relative_to(ROOT).parts) - 1 > DEPTH_MAX]
    assert not deep


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_names_follow_the_glossary(path: Path) -> None:
    words = {
        node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.arg | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    ours = words - PROTOCOL_WORDS
    banned = sorted(word for word in ours if any(bad in word.lower() for bad in BANNED_WORDS))
    assert not banned, f"{relative(path)}: say it in the glossary's words: {banned}"
    reversed_units = sorted(word for word in words if UNIT_FIRST.search(word.lower()))
    assert not reversed_units, f"{relative(path)}: units and qualifiers go last: {reversed_units}"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_every_module_and_public_name_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if not tree.body:
        return
    missing = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if public and not node.name.startswith("_") and not ast.get_docstring(node):
            missing.append(node.name)
    assert not missing, f"{relative(path)}: no docstring on {', '.join(missing)}"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_raises_sections_say_what_became_of_state(path: Path) -> None:
    for function in functions(ast.parse(path.read_text())):
        docstring = ast.get_docstring(function) or ""
        _, found, raises = docstring.partition("Raises:")
        if found and function.name.endswith("_untrusted"):
            assert "State" in raises, f"{relative(path)}: {function.name}: Raises: says nothing about state"


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in PACKAGE
        if p.relative_to(ROOT / "gossipmesh").parts[0] in PAPER_FOLDERS and p.stat().st_size > 0
    ],
    ids=relative,
)
def test_gossip_and_trust_cite_or_confess(path: Path) -> None:
    assert PAPER_MARKS.search(path.read_text()), f"{relative(path)}: no Paper:, Spec: or Deviation: anywhere"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_queues_are_bounded_and_python_is_never_optimised(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"open_memory_channel\S*\((float\(.inf.\)|math\.inf)", text), relative(path)
    assert '"-O"' not in text, relative(path)


def test_security_checks_are_raised_not_asserted() -> None:
    """`assert` vanishes under -O; code that meets untrusted bytes may not lean on it for input."""
    for path in PACKAGE:
        for function in functions(ast.parse(path.read_text())):
            if function.name.endswith("_untrusted"):
                asserts = [node for node in ast.walk(function) if isinstance(node, ast.Assert)]
                assert not asserts, f"{relative(path)}: {function.name} asserts on input"
