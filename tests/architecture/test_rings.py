"""Imports go down the rings only, never in a circle, and nobody reaches into another's inside.

The contracts of the rings stand in pyproject.toml.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.imports import circle_in, foreign_insides, graph_of
from tests.architecture.source import ROOT, Source, sources


def test_import_contracts_hold() -> None:
    """The same check as `make lint`, so that a test run alone cannot miss a broken ring."""
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Not for types either, nor inside a function: what one must know of the other belongs below both."""
    circle = circle_in(graph_of(sources()))
    assert not circle, "Take what they share into a module below: " + " -> ".join([*circle, *circle[:1]])


def test_nobody_reaches_into_anothers_inside() -> None:
    """The simulator reads what the core shows (`inspection`), and does to it what `rehearsal` offers."""
    found = foreign_insides(sources())
    assert not found, "\n".join(["Have whoever gave the name show a value instead.", *found])


@pytest.mark.parametrize(
    "importing",
    [
        "from gossipmesh.net.b import x\n",
        "import gossipmesh.net.b\n",
        "from gossipmesh.net import b\n",
        "if TYPE_CHECKING:\n    from gossipmesh.net.b import x\n",
        "def f():\n    from gossipmesh.net.b import x\n",
    ],
)
def test_a_circle_is_found(importing: str) -> None:
    """However a module is imported, and though a third stands between."""
    files = [
        Source.of("gossipmesh/net/__init__.py", ""),
        Source.of("gossipmesh/net/a.py", importing),
        Source.of("gossipmesh/net/b.py", "from gossipmesh.net.c import x\n"),
        Source.of("gossipmesh/net/c.py", "from gossipmesh.net.a import x\n"),
    ]
    assert sorted(circle_in(graph_of(files))) == ["gossipmesh.net.a", "gossipmesh.net.b", "gossipmesh.net.c"]
    assert circle_in(graph_of(files[:3])) == []


CORE = Source.of(
    "gossipmesh/gossip/node.py", "class Node:\n    def __init__(self):\n        self._parts = 1\n"
)


@pytest.mark.parametrize(
    ("path", "text", "lines"),
    [
        ("gossipmesh/testing/simulator/world.py", "x = core._parts\n\ncore._parts._more = 1\n", [1, 3, 3]),
        ("gossipmesh/testing/simulator/world.py", "from gossipmesh.gossip.node import _part\n", [1]),
        ("gossipmesh/testing/simulator/world.py", "x = getattr(core, '_parts', None)\n", [1]),
        ("bench/made_up.py", "core._parts.append(1)\n", [1]),
        ("chaos/made_up.py", "core._parts = 1\n", [1]),
        ("gossipmesh/gossip/room/made_up.py", "x = core._parts\ny = core._other\n", [2]),
        ("gossipmesh/net/made_up.py", "class A:\n    def f(self, other):\n        self._x = other._x\n", []),
        ("gossipmesh/net/made_up.py", "x = pair._replace(a=1)._fields\ny = x.__dict__\n", []),
        ("tests/unit/made_up.py", "x = core._parts\n", []),
    ],
)
def test_reaching_inside_is_found(path: str, text: str, lines: list[int]) -> None:
    found = foreign_insides([CORE, Source.of(path, text)])
    assert [entry.split(" ", 1)[0] for entry in found] == [f"{path}:{line}:" for line in lines]
