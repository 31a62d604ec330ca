"""An engine that imports nothing of this project, written from the pages, passes what it claims to do."""

import ast
import sys
from pathlib import Path
from typing import Final

from gossipmesh.testing.conformance.__main__ import is_claimed, played
from gossipmesh.testing.conformance.keys import keys

PROBE: Final = Path(__file__).parent / "probe"
KINDS: Final = ("decisions", "frames", "transcripts")


def claims() -> list[str]:
    """Return the patterns of the vectors the probe says it passes."""
    tree = ast.parse((PROBE / "engine.py").read_text())
    (found,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "CLAIMS"
    ]
    return list(ast.literal_eval(found))


async def test_the_probe_passes_what_it_claims() -> None:
    outcomes = await played([sys.executable, str(PROBE / "engine.py")], KINDS, claims())
    assert [f"{one.key}: {one.fault}" for one in outcomes if one.fault] == []
    assert len(outcomes) >= 280


def test_each_claim_is_of_a_vector() -> None:
    known = keys()
    assert [claim for claim in claims() if not any(is_claimed(key, [claim]) for key in known)] == []


def test_the_probe_imports_the_standard_library_and_itself_alone() -> None:
    own = {path.stem for path in PROBE.glob("*.py")}
    imported = {
        name.partition(".")[0]
        for path in PROBE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert imported <= {*sys.stdlib_module_names, *own}
